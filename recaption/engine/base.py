"""What every caption engine takes and gives."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image

from recaption.engine.encoding import EncodedImage, ImageEncoding


@dataclass(frozen=True)
class CaptionRequest:
    """One question about one image, and what its shard says about it."""

    key: str
    prompt_id: str
    #: The instruction, with everything filled in.
    prompt: str
    #: None where the prompt shows none; encoded for an engine that names an encoding.
    image: Image.Image | EncodedImage | None
    alt_text: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CaptionAnswer:
    """The caption of one request; ``failure`` (``code: detail``) instead where there is none."""

    caption: str = ""
    #: Given where the source has its own sentences; else the caption is split.
    sentences: list[str] | None = None
    #: Tokens generated; None where nothing was generated.
    num_tokens: int | None = None
    #: ``stop``, or ``length`` where the caption hit the token limit; None where nothing was.
    finish_reason: str | None = None
    failure: str | None = None


@dataclass(frozen=True)
class CaptionOrigin:
    """Where captions come from: equal origins mean that the same captions would be made again."""

    prompt_id: str
    model: str
    model_revision: str
    sampling_hash: str


class CaptionEngine(Protocol):
    """Answers requests, many at a time."""

    #: Requests that it should be given at one time.
    max_in_flight: int
    #: Whether it looks at the pictures.
    sees_images: bool

    @property
    def encoding(self) -> ImageEncoding | None:
        """How the pictures are encoded for it; None: they come as they are decoded."""

    async def start(self) -> None:
        """Raises: UserError: it is not installed, or cannot load its model."""

    async def answer(self, request: CaptionRequest) -> CaptionAnswer:
        """The answer to one request, or why there is none.

        Raises:
            UserError: what no request can mend: no model for images, a server that is gone.
        """

    async def close(self) -> None: ...


def hash_settings(**settings: Any) -> str:
    """16 hex digits that stand for everything that decides how a caption is worded."""
    canonical = json.dumps(settings, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
