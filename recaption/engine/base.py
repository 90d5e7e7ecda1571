"""What every caption engine takes and gives."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image


@dataclass(frozen=True)
class CaptionRequest:
    """One decoded image and what its shard says about it."""

    key: str
    image: Image.Image
    alt_text: str | None
    metadata: dict[str, Any]


@dataclass(frozen=True)
class CaptionAnswer:
    """The caption of one key; ``failure`` (``code: detail``) instead where there is none."""

    key: str
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
    """Answers each request once, in any order, reading only as far ahead as it needs."""

    def caption(self, requests: Iterable[CaptionRequest]) -> Iterator[CaptionAnswer]: ...

    def close(self) -> None: ...


def hash_settings(**settings: Any) -> str:
    """16 hex digits that stand for everything that decides how a caption is worded."""
    canonical = json.dumps(settings, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
