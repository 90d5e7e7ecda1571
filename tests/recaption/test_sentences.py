import json

import pytest

from recaption.sentences import split_sentences
from tests.places import SHARED

LONG_CAPTIONS = SHARED / "data/long_captions"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A dog. A cat.", ["A dog.", "A cat."]),
        ("a dog sits. the cat runs away", ["a dog sits.", "the cat runs away"]),
        ("Is it a dog? Yes! It is.", ["Is it a dog?", "Yes!", "It is."]),
        ("The bar is 3.5 m long. It is red.", ["The bar is 3.5 m long.", "It is red."]),
        (
            "Mr. Smith and Dr. Jones wave. Both smile.",
            ["Mr. Smith and Dr. Jones wave.", "Both smile."],
        ),
        (
            "Fruits, e.g. apples, lie there. All red.",
            ["Fruits, e.g. apples, lie there.", "All red."],
        ),
        ("Balls, cubes, etc. are there. A dog.", ["Balls, cubes, etc. are there.", "A dog."]),
        ("It is 12 in. wide. Red.", ["It is 12 in. wide.", "Red."]),
        ("The dog walks in. The cat stays.", ["The dog walks in.", "The cat stays."]),
        ("A book by J. K. Rowling. It is new.", ["A book by J. K. Rowling.", "It is new."]),
        (
            "It shows the letter A. The rest is blank.",
            ["It shows the letter A.", "The rest is blank."],
        ),
        ('A sign says "Stop." A car waits.', ['A sign says "Stop."', "A car waits."]),
        ("Well... a dog. Hm... A cat.", ["Well... a dog.", "Hm...", "A cat."]),
        ("1. A dog\n2. A cat", ["1. A dog", "2. A cat"]),
        ("A blue sky.The grass is green.", ["A blue sky.", "The grass is green."]),
        ("One</s>Two\n\nThree", ["One", "Two", "Three"]),
        ("A dog . . A cat .", ["A dog . .", "A cat ."]),
        ("一只狗。一只猫。", ["一只狗。", "一只猫。"]),
        ("  \n ", []),
        ("", []),
    ],
)
def test_split(text: str, expected: list[str]) -> None:
    assert split_sentences(text) == expected


def test_no_word_of_real_captions_is_lost() -> None:
    if not LONG_CAPTIONS.is_dir():
        pytest.skip(f"no real captions at {LONG_CAPTIONS}; set CANOPY_SHARED")
    num_sentences = num_captions = 0
    for path in sorted(LONG_CAPTIONS.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            caption = json.loads(line)["caption"]
            sentences = split_sentences(caption)
            assert "".join("".join(sentences).split()) == "".join(caption.split())
            num_sentences += len(sentences)
            num_captions += 1
    assert num_captions == 2500
    assert 4 < num_sentences / num_captions < 9


@pytest.mark.parametrize("unit", [".", " ", "x", "Mr. ", '!"', "A. "])
@pytest.mark.timeout(30)
def test_a_hostile_text_does_not_stall(unit: str) -> None:
    """Time that grows with the square of the length would be minutes here."""
    text = unit * (2**16 // len(unit)) + " An end. And more."
    assert "".join("".join(split_sentences(text)).split()) == "".join(text.split())
