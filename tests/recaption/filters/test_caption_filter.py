import json
from collections import Counter
from pathlib import Path

import pytest
import yaml

from recaption.common.config import ConfigError, from_dict
from recaption.filters import (
    CaptionFilter,
    FilterConfig,
    LanguageConfig,
    LeakConfig,
    RepetitionConfig,
    near_duplicates,
)
from tests.places import SHARED

CAPTIONS = yaml.safe_load((Path(__file__).parent / "captions.yaml").read_text())
GOOD = "A red ball lies left of a blue box. The box stands on green grass under a grey sky."
PROMPTS = [
    "You are a careful annotator of photographs.",
    "Describe the image in several sentences: each thing in it with its color, its parts and its "
    "surface, where it is, and how it stands to the other things. Alt text: {alt_text}",
]


def code_of(
    caption: str, config: FilterConfig | None = None, finish_reason: str | None = "stop"
) -> str | None:
    reason = CaptionFilter(config or FilterConfig(), PROMPTS).judge(caption, finish_reason).reason
    return reason.split(":")[0] if reason else None


@pytest.fixture(scope="module")
def default_filter() -> CaptionFilter:
    return CaptionFilter(FilterConfig(), PROMPTS)


@pytest.mark.parametrize(
    ("code", "caption"), [(code, text) for code, texts in CAPTIONS["bad"].items() for text in texts]
)
def test_bad_captions(default_filter: CaptionFilter, code: str, caption: str) -> None:
    reason = default_filter.judge(caption, "stop").reason
    assert reason is not None
    assert reason.split(": ")[0] == code


@pytest.mark.parametrize("caption", CAPTIONS["good"])
def test_good_captions_that_look_bad(default_filter: CaptionFilter, caption: str) -> None:
    verdict = default_filter.judge(caption, "stop")
    assert (verdict.reason, verdict.raw_caption, verdict.notes) == (None, None, ())
    assert verdict.caption == caption


def test_a_cut_off_caption() -> None:
    assert code_of(GOOD) is None
    assert code_of(GOOD, finish_reason="length") == "cut-off"
    assert code_of(GOOD, FilterConfig(keep_cut_off=True), "length") is None
    # A loop is why the limit was hit.
    assert code_of("a red ball and " * 20, finish_reason="length") == "repetition"


def test_thresholds_come_from_the_config() -> None:
    assert code_of("A ball.", FilterConfig(min_words=2)) is None
    assert code_of(GOOD, FilterConfig(min_words=100)) == "too-short"
    assert code_of(f"{GOOD}\x00") == "control-characters"
    assert code_of(f"{GOOD}\x00", FilterConfig(max_control_characters=1)) is None
    refusal = "I'm sorry, but I can't describe this picture for you."
    assert code_of(refusal) == "refusal"
    assert code_of(refusal, FilterConfig(keep_refusals=True)) is None
    loop = "The ball is red red red red and lies on the grass."
    assert code_of(loop) == "repetition"
    assert code_of(loop, FilterConfig(repetition=RepetitionConfig(max_loops=4))) is None
    token = f"{GOOD} [end of caption]"
    assert code_of(token) is None
    config = FilterConfig(leaks=LeakConfig(tokens=["[end of caption]"]))
    assert code_of(token, config) == "template-token"
    tags = "<p>A dog lies on a <b>green</b> sofa.</p>"
    assert code_of(tags, FilterConfig(max_html_tags=9, max_non_words=1)) is None
    assert code_of("A dog ~~ ** ## lies || on a >> sofa", FilterConfig(max_non_words=0.9)) is None
    assert code_of("A dog ~~ || lies || on a >> sofa") == "non-words"


def test_expected_languages() -> None:
    german = "Das Bild zeigt einen braunen Hund, der auf einem grünen Sofa liegt."
    russian = "На фотографии изображена коричневая собака на большом диване."  # noqa: RUF001
    assert code_of(german) == "wrong-language"
    assert code_of(german, FilterConfig(language=LanguageConfig(expected=["en", "de"]))) is None
    assert code_of(german, FilterConfig(language=LanguageConfig(expected=[]))) is None
    only_russian = FilterConfig(language=LanguageConfig(expected=["ru"]))
    assert code_of(russian, only_russian) is None
    assert code_of(GOOD, only_russian) == "wrong-script"
    chinese = FilterConfig(language=LanguageConfig(expected=["zh"]))
    assert code_of("图片中有一只棕色的狗躺在绿色的沙发上。", chinese) is None
    with pytest.raises(ConfigError, match="'xx' is no language"):
        CaptionFilter(FilterConfig(language=LanguageConfig(expected=["en", "xx"])))


def test_what_was_taken_off_is_kept(default_filter: CaptionFilter) -> None:
    raw = "Sure! The image shows a dog that lies on a sofa. Let me know if you need more!"
    verdict = default_filter.judge(raw, "stop")
    assert verdict.caption == "A dog that lies on a sofa."
    assert verdict.raw_caption == raw
    assert verdict.notes == ("stripped-opening", "stripped-offer")
    kept = CaptionFilter(FilterConfig(strip_boilerplate=False)).judge(raw, "stop")
    assert (kept.caption, kept.raw_caption) == (raw, None)


def test_the_alt_text_is_not_the_prompt(default_filter: CaptionFilter) -> None:
    finder = CaptionFilter(FilterConfig(), ["Use these names: {alt_text} where they fit the image"])
    assert finder.judge("The names Rex and Fido stand on two bowls.", "stop").reason is None
    assert code_of("A sofa. Where it is, and how it stands to the other things.") == "prompt-leak"


@pytest.mark.parametrize(
    "values",
    [
        {"min_words": -1},
        {"max_non_words": 2.0},
        {"repetition": {"max_loops": 0}},
        {"leaks": {"ngram": 2}},
        {"language": {"min_probability": -0.1}},
        {"near_duplicates": {"similarity": 0.1}},
        {"image_text": {"model": "ViT-B-32"}},
        {"image_text": {"min_score": 3.0}},
    ],
)
def test_unfit_thresholds_are_errors_that_name_the_key(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"filters\."):
        from_dict(FilterConfig, values, "test")


def test_long_captions_of_people_and_models_pass(default_filter: CaptionFilter) -> None:
    folder = SHARED / "data" / "long_captions"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    captions = [
        json.loads(line)["caption"]
        for path in sorted(folder.glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    assert len(captions) == 2500
    verdicts = [default_filter.judge(caption, "stop") for caption in captions]
    reasons = Counter(verdict.reason.split(":")[0] for verdict in verdicts if verdict.reason)
    fit = [verdict.caption if verdict.reason is None else None for verdict in verdicts]
    near = near_duplicates(fit, FilterConfig().near_duplicates)
    reasons["near-duplicate"] = sum(reason is not None for reason in near)
    assert reasons.total() <= 0.01 * len(captions), reasons
    # A model wrote the openings of a third of them.
    stripped = [verdict for verdict in verdicts if "stripped-opening" in verdict.notes]
    assert len(stripped) > 700
    assert not [v.caption for v in stripped if not v.caption[0].isupper()]
