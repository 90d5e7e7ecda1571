import pytest

from recaption.filters.repetition import (
    RepetitionConfig,
    find_repetition,
    most_frequent_sentence,
    repeated_share,
)
from recaption.filters.words import outside_quotes


def test_repeated_share() -> None:
    assert repeated_share(list("abcdef"), 4) == 0
    assert repeated_share(list("abcdABCD"), 4) == pytest.approx(1 / 5)
    assert repeated_share(["a", "b"], 4) == 0


@pytest.mark.parametrize("size", [1, 2, 5, 12])
@pytest.mark.parametrize("place", ["start", "middle", "end"])
def test_loops_of_every_size_are_found_at_their_limit(size: int, place: str) -> None:
    before = "" if place == "start" else "Before it stands something else that is long enough. "
    after = "" if place == "end" else " and then comes yet another thing behind it"
    unit = " ".join(f"word{number}" for number in range(size))
    config = RepetitionConfig(max_share=1.0)
    assert find_repetition(before + " ".join([unit] * 3) + after, config) is None
    found = find_repetition(before + " ".join([unit] * 4) + after, config)
    assert found is not None
    assert "more than 3 times" in found


def test_runs_of_signs() -> None:
    config = RepetitionConfig()
    assert find_repetition("A road sign and then ...", config) is None
    assert find_repetition("A wall with " + "-" * 15, config) is None
    assert find_repetition("A wall with " + "-" * 16, config) == "'-' 16 times in a row"
    assert find_repetition("A wall with " + "ab" * 8, config) == "'ab' 8 times in a row"


def test_sentences() -> None:
    text = "A man walks his dog. The sky is blue. A man walks his dog! No. No. No. No."
    assert most_frequent_sentence(text) == ("a man walks his dog", 2)
    assert most_frequent_sentence("No. No. No.") == ("", 0)


def test_what_a_sign_says_may_repeat() -> None:
    assert outside_quotes('A sign: "Go go go go", and the boys\' dogs.') == (
        'A sign: "", and the boys\' dogs.'
    )
    assert outside_quotes("A sign says 'I'm sorry, we're closed'.") == 'A sign says "".'
    assert outside_quotes("It\u2019s 5 o'clock \u201cnow\u201d") == 'It\u2019s 5 o\'clock ""'
