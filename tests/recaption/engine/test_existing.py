import asyncio

import pytest
from PIL import Image

from recaption.common.config import ConfigError
from recaption.engine import CaptionAnswer, CaptionRequest
from recaption.engine.existing import ExistingConfig, ExistingEngine, existing_origin
from recaption.images import ImageConfig

IMAGE = Image.new("RGB", (4, 4))


def answer(
    config: ExistingConfig, alt_text: str | None = None, **metadata: object
) -> CaptionAnswer:
    request = CaptionRequest("k", "existing", "", IMAGE, alt_text, metadata)
    return asyncio.run(ExistingEngine(config).answer(request))


def test_takes_the_list_of_sentences() -> None:
    taken = answer(ExistingConfig(), sentences=["A dog", " ", "A  cat.", 5, "An \ud800 owl"])
    assert taken.sentences == ["A dog", "A cat.", "An ��� owl"]
    assert taken.caption == "A dog. A cat. An ��� owl."
    assert taken.failure is None


def test_splits_a_text() -> None:
    config = ExistingConfig(field="long_caption")
    assert answer(config, long_caption="A dog. A cat.").sentences == ["A dog.", "A cat."]
    assert answer(ExistingConfig(source="txt"), "A dog. A cat.").sentences == ["A dog.", "A cat."]


@pytest.mark.parametrize("value", [None, [], ["", " "], "", 7, {"a": "b"}])
def test_a_missing_caption_is_a_failure_that_names_the_field(value: object) -> None:
    assert (
        answer(ExistingConfig(), sentences=value).failure == "no-caption: json.sentences is empty"
    )
    assert answer(ExistingConfig(source="txt")).failure == "no-caption: txt is empty"


def test_an_unknown_source() -> None:
    with pytest.raises(ConfigError, match="choose json or txt"):
        ExistingConfig(source="xml")


def test_the_origin_changes_with_the_settings() -> None:
    assert existing_origin(ExistingConfig(), ImageConfig()) == existing_origin(
        ExistingConfig(), ImageConfig()
    )
    other = existing_origin(ExistingConfig(field="other"), ImageConfig())
    larger = existing_origin(ExistingConfig(), ImageConfig(max_pixels=10))
    assert larger.sampling_hash != other.sampling_hash
    assert other.sampling_hash != existing_origin(ExistingConfig(), ImageConfig()).sampling_hash
