import json
import random
import subprocess
import sys

from recaption.filters import NearDuplicateConfig, near_duplicates
from recaption.filters.words import plain_words

WORDS = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in "nrstl"]
SAME = (
    "A group of people stands in front of a large building on a sunny day, with trees on both "
    "sides of the street and several cars parked along the pavement behind them."
)


def other(seed: int, num_words: int = 60) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=num_words)).capitalize() + "."


def varied(caption: str, seed: int, num_changes: int) -> str:
    """The caption with some of its words replaced, each time others."""
    generator = random.Random(seed)
    words = caption.split()
    for place in generator.sample(range(len(words)), num_changes):
        words[place] = generator.choice(WORDS)
    return " ".join(words)


def test_the_same_text_for_many_images() -> None:
    config = NearDuplicateConfig(min_others=20)
    captions = [other(seed) for seed in range(50)]
    assert near_duplicates(captions + [SAME] * 20, config) == [None] * 70
    reasons = near_duplicates(captions + [SAME] * 21, config)
    assert reasons[:50] == [None] * 50
    assert {reason.split(":")[0] for reason in reasons[50:] if reason} == {"near-duplicate"}
    assert None not in reasons[50:]


def test_case_punctuation_and_form_make_no_difference() -> None:
    forms = [SAME, SAME.upper(), SAME.replace(",", ";"), SAME.replace(" ", "  ")]
    reasons = near_duplicates([*forms, other(1)], NearDuplicateConfig(min_others=3))
    assert [reason is not None for reason in reasons] == [True] * 4 + [False]


def test_a_few_other_words_make_no_difference() -> None:
    config = NearDuplicateConfig(min_others=20)
    long = other(7, 120)
    near = near_duplicates([varied(long, seed, 2) for seed in range(100)], config)
    assert None not in near
    far = near_duplicates([varied(long, seed, 30) for seed in range(100)], config)
    assert far == [None] * 100


def test_short_captions_missing_ones_and_none_at_all() -> None:
    config = NearDuplicateConfig(min_others=2)
    short = "A dog runs on the grass."
    assert near_duplicates([short] * 9 + [None] * 9, config) == [None] * 18
    assert near_duplicates([], config) == []
    assert near_duplicates([SAME] * 9, NearDuplicateConfig(min_others=0)) == [None] * 9


def test_every_near_pair_is_found_and_no_other() -> None:
    """Against the Jaccard similarity of all pairs, computed exactly."""
    config = NearDuplicateConfig(min_others=1)
    captions = [
        varied(other(family, 80), 100 * family + member, change)
        for family, change in enumerate([1, 2, 3, 12, 20, 40] * 5)
        for member in range(2)
    ]
    shingles = [_shingles(caption) for caption in captions]
    for index, reason in enumerate(near_duplicates(captions, config)):
        similarity = max(
            len(shingles[index] & shingles[j]) / len(shingles[index] | shingles[j])
            for j in range(len(captions))
            if j != index
        )
        if abs(similarity - config.similarity) > 0.12:  # three times MinHash's deviation
            assert (reason is not None) == (similarity > config.similarity), similarity


def test_the_order_and_the_process_make_no_difference() -> None:
    config = NearDuplicateConfig(min_others=20)
    long = other(3, 100)
    captions = [varied(long, seed, seed % 14) for seed in range(400)]
    captions += [other(seed) for seed in range(400)]
    reasons = near_duplicates(captions, config)
    assert 20 < sum(reason is not None for reason in reasons) < 400
    order = list(range(len(captions)))
    random.Random(0).shuffle(order)
    again = near_duplicates([captions[place] for place in order], config)
    assert again == [reasons[place] for place in order]

    script = (
        "import sys, json; from recaption.filters import NearDuplicateConfig, near_duplicates;"
        "print(json.dumps(near_duplicates(json.load(sys.stdin), NearDuplicateConfig())))"
    )
    process = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(captions),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(process.stdout) == reasons


def _shingles(caption: str) -> set[tuple[str, ...]]:
    words = plain_words(caption)
    return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}
