"""Captions that are already in the shards: people's descriptions, published recaption sets."""

from dataclasses import asdict, dataclass
from typing import Any

from recaption.common.config import check_choice
from recaption.engine.base import CaptionAnswer, CaptionOrigin, CaptionRequest, hash_settings
from recaption.images import ImageConfig
from recaption.sentences import END_MARKS, split_sentences
from recaption.shards import valid_text


@dataclass
class ExistingConfig:
    #: Stands in the tables as prompt_id, and names these captions in the training shards.
    prompt_id: str = "existing"
    #: json: a field of KEY.json; txt: the text of KEY.txt.
    source: str = "json"
    #: The field of KEY.json: a list of sentences, or one text to split.
    field: str = "sentences"

    def __post_init__(self) -> None:
        check_choice("engine.existing.source", self.source, ("json", "txt"))


def existing_origin(config: ExistingConfig, images: ImageConfig) -> CaptionOrigin:
    settings = hash_settings(**asdict(config), images=asdict(images))
    return CaptionOrigin(config.prompt_id, "existing", "", settings)


class ExistingEngine:
    """Takes what ``config`` points at; generates nothing."""

    max_in_flight = 64
    sees_images = False
    encoding = None

    def __init__(self, config: ExistingConfig) -> None:
        self.config = config

    async def start(self) -> None:
        pass

    async def answer(self, request: CaptionRequest) -> CaptionAnswer:
        sentences = self._sentences(request)
        if not sentences:
            return CaptionAnswer(failure=f"no-caption: {self._where()} is empty")
        return CaptionAnswer(join_sentences(sentences), sentences, finish_reason="stop")

    async def close(self) -> None:
        pass

    def _sentences(self, request: CaptionRequest) -> list[str]:
        if self.config.source == "txt":
            return split_sentences(request.alt_text or "")
        value = request.metadata.get(self.config.field)
        if isinstance(value, str):
            return split_sentences(valid_text(value))
        return clean_sentences(value)

    def _where(self) -> str:
        return "txt" if self.config.source == "txt" else f"json.{self.config.field}"


def clean_sentences(value: Any) -> list[str]:
    """The texts of a list that came from someone's JSON, without those that are blank."""
    if not isinstance(value, list):
        return []
    texts = [" ".join(valid_text(item).split()) for item in value if isinstance(item, str)]
    return [text for text in texts if text]


def join_sentences(sentences: list[str]) -> str:
    """One text; a sentence without an end mark gets a full stop, so that it can be split again."""
    return " ".join(
        sentence if sentence[-1] in END_MARKS else f"{sentence}." for sentence in sentences
    )
