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
        ("It opens at 9 a. m. daily. Come in.", ["It opens at 9 a. m. daily.", "Come in."]),
        ("Open until 5 p.m. The door is red.", ["Open until 5 p.m.", "The door is red."]),
        (
            "The U.S. Army truck is in the U.S. The flag waves.",
            ["The U.S. Army truck is in the U.S.", "The flag waves."],
        ),
        (
            "St. John's church stands on Main St. The door is red.",
            ["St. John's church stands on Main St.", "The door is red."],
        ),
        (
            "Dr. Smith lives on Ocean Dr. The sea is near.",
            ["Dr. Smith lives on Ocean Dr.", "The sea is near."],
        ),
        (
            "Track No. 5 is free. The sign says no. A man waits.",
            ["Track No. 5 is free.", "The sign says no.", "A man waits."],
        ),
        ("Colors: 1. Red 2. Blue 3. Green", ["Colors: 1. Red", "2. Blue", "3. Green"]),
        ("1. A dog. 2. A cat.", ["1. A dog.", "2. A cat."]),
        (
            "It is route 1. The bus is number 2. A man waits.",
            ["It is route 1.", "The bus is number 2.", "A man waits."],
        ),
        (
            "A truck of Ford Motor Co. Trucks. It waits.",
            ["A truck of Ford Motor Co. Trucks.", "It waits."],
        ),
        (
            "Bags cost $3.95. A car costs $19. 95 more.",
            ["Bags cost $3.95.", "A car costs $19. 95 more."],
        ),
        ("A man sits in. the sun. Clouds pass.", ["A man sits in.", "the sun.", "Clouds pass."]),
        (
            "He waits\u2026 The dog sits\u2026 still.",
            ["He waits\u2026", "The dog sits\u2026 still."],
        ),
        ("  \n ", []),
        ("", []),
    ],
)
def test_split(text: str, expected: list[str]) -> None:
    assert split_sentences(text) == expected


@pytest.mark.parametrize(
    ("text", "num_sentences"),
    [
        # Of `long_captions`, shortened.
        (
            "a large yellow rectangular sign with \"23RD ST.\" in small white tiles, 'RD' is less",
            1,
        ),
        ("green street signs pointing to 'West 35 St.' with an arrow. It is day.", 2),
        ('a jacket labeled "PARKING METER REPAIR City of S.F." is standing there.', 1),
        ('Adjacent is a yellow "No Stopping Any Time 4-6 P.M." traffic sign.', 1),
        ("times delta x_k (i. e., an area of a rectangle) from 1 to n. Below it is a line.", 2),
        ('with thin blue writing on it that reads "1. NO buLLying". The next paper', 2),
        ('dark blue writing on it that reads,"2. NO RUNNING / INSIDE! ", and underneath', 1),
        ("a mural of John W. Thomas is made of stone.", 1),
        ("by a large tree and glass Darrell K. Royal Texas Memorial Stadium", 1),
        ("light green St. Augustine grass. It glistens.", 2),
        ("the location is Washington, D.C. Overcast skies loom above.", 2),
        ("signs indicate F.D.R. Drive with an arrow", 1),
        ('a sign for "Downtown LV Casino Ctr Blvd." Trucks and cars are', 2),
        ("a Partas Transportation Co., Inc. air-conditioned bus", 1),
        ('the sign reads "FIRE DEPT. / ACCESS / ONLY".', 1),
        ('a street name sign that reads "AVE. 66" and below it a sign', 1),
        ('a text on the wall that reads "M. Vintage Asian Brass".', 1),
        ("is parked at the bottom of the U. White walls are there.", 2),
        ("the front of the Renaissance Tower. 3 small metal posts", 2),
        ('a truck with the number "1143." Amidst the traffic', 2),
    ],
)
def test_real_sentences(text: str, num_sentences: int) -> None:
    assert len(split_sentences(text)) == num_sentences, split_sentences(text)


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
