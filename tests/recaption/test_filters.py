import pytest

from recaption.filters import FilterConfig, reject_reason, repeated_share

GOOD = "A red ball lies left of a blue box. The box stands on green grass under a grey sky."


@pytest.mark.parametrize(
    ("caption", "finish_reason", "code"),
    [
        (GOOD, "stop", None),
        ("", "stop", "empty"),
        (" \n ", "stop", "empty"),
        ("A ball.", "stop", "too-short"),
        (GOOD, "length", "cut-off"),
        ("a red ball " * 20, "stop", "repetition"),
        (f"{GOOD}\x00", "stop", "control-characters"),
        (f"{GOOD} caf\ufffd", "stop", "control-characters"),
        (GOOD.replace(". ", ".\n"), "stop", None),
    ],
)
def test_verdicts(caption: str, finish_reason: str, code: str | None) -> None:
    reason = reject_reason(caption, finish_reason, FilterConfig())
    assert (reason.split(":")[0] if reason else None) == code


def test_thresholds_come_from_the_config() -> None:
    assert reject_reason("A ball.", "stop", FilterConfig(min_words=2)) is None
    assert reject_reason(GOOD, "length", FilterConfig(keep_cut_off=True)) is None
    assert reject_reason(GOOD, "stop", FilterConfig(min_words=100)) is not None


def test_repeated_share() -> None:
    assert repeated_share(list("abcdef"), 4) == 0
    assert repeated_share(list("abcdABCD"), 4) == pytest.approx(1 / 5)
    assert repeated_share(["a", "b"], 4) == 0
