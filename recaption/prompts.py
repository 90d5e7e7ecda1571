"""What the model is asked, and how its answer is sampled.

Prompts live in ``configs/recaption/prompts/*.yaml`` under the id that names their captions in
tables and training shards. A prompt that has captioned anything is not edited any more: a change
gets another ``version``, or another id if both are wanted side by side.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from recaption.common.config import ConfigError, check_at_least

#: What a prompt may have filled in for each image.
PLACEHOLDERS = ("alt_text", "caption")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass
class SamplingConfig:
    #: 0 takes the most likely token each time.
    temperature: float = 0.0
    top_p: float = 1.0
    #: 0 keeps all tokens.
    top_k: int = 0
    repetition_penalty: float = 1.0
    #: A caption that reaches this length is cut off, and rejected by the filters.
    max_tokens: int = 256
    #: Texts that end a caption.
    stop: list[str] = field(default_factory=list)
    #: With temperature > 0 each key draws from its own stream, seeded by this and the key.
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(0, {"prompts.<name>.sampling.temperature": self.temperature})
        check_at_least(1, {"prompts.<name>.sampling.max_tokens": self.max_tokens})


@dataclass
class PromptConfig:
    #: Of the wording: tables of two versions are not mixed.
    version: int = 1
    #: The instruction, beside the image; the model's own chat template goes around it. {alt_text}
    #: and {caption} are filled in.
    text: str = (
        "Describe the image in several sentences: each thing in it with its color, its parts and "
        "its surface, where it is, and how it stands to the other things."
    )
    #: Asked instead where an image has no alt text; empty: `text` with nothing filled in.
    text_without_alt_text: str = ""
    #: A system message; empty for none.
    system: str = ""
    #: Whether the image itself is shown; not so where a text model joins alt text and caption.
    shows_image: bool = True
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        for text in (self.text, self.text_without_alt_text, self.system):
            for name in _PLACEHOLDER.findall(text):
                if name not in PLACEHOLDERS:
                    known = " and ".join(f"{{{placeholder}}}" for placeholder in PLACEHOLDERS)
                    raise ConfigError(f"prompts: {{{name}}} cannot be filled in; {known} can")
        if not self.text.strip():
            raise ConfigError("prompts: a prompt without text asks nothing")
        if not self.shows_image and not self.needs("caption"):
            raise ConfigError("prompts: shows_image=false needs {caption} in the text")

    def needs(self, placeholder: str) -> bool:
        return f"{{{placeholder}}}" in self.text

    def fill_in(self, values: Mapping[str, str]) -> str:
        """The instruction for one image; what is not in ``values`` is left empty."""
        text = self.text
        if self.text_without_alt_text and not values.get("alt_text"):
            text = self.text_without_alt_text
        return _PLACEHOLDER.sub(lambda match: values.get(match[1], ""), text)


def seed_of(prompt_id: str, key: str, seed: int) -> int:
    """A seed for each caption, which then does not depend on what else is in flight."""
    digest = hashlib.sha256(f"{seed}/{prompt_id}/{key}".encode()).digest()
    return int.from_bytes(digest[:4])
