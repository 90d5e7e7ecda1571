"""What the model is asked, and how its answer is sampled.

Prompts live in ``configs/recaption/prompts/*.yaml``. A prompt that has captioned anything is not
edited any more: a change gets a new ``id``, because the id names its captions for good.
"""

from dataclasses import dataclass, field


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


@dataclass
class PromptConfig:
    #: Names the captions of this prompt in tables and training shards.
    id: str = "long"
    #: The instruction, beside the image; the model's own chat template goes around it.
    text: str = (
        "Describe the image in several sentences: each thing in it with its color, its parts and "
        "its surface, where it is, and how it stands to the other things."
    )
    #: A system message; empty for none.
    system: str = ""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
