"""The configuration of ``python -m recaption run``."""

from dataclasses import dataclass, field

from recaption.common.config import check_at_least
from recaption.engine import EngineConfig
from recaption.filters import FilterConfig
from recaption.images import ImageConfig
from recaption.prompts import PromptConfig


@dataclass
class RunConfig:
    #: A folder of tars, one tar, or a glob in quotes.
    input: str
    #: The folder of the caption tables; one for each prompt and model.
    output: str
    engine: EngineConfig = field(default_factory=EngineConfig)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    images: ImageConfig = field(default_factory=ImageConfig)
    filters: FilterConfig = field(default_factory=FilterConfig)
    #: Threads that read and decode ahead of the engine.
    num_decode_threads: int = 4
    #: Decoded images that may wait for the engine.
    num_decoded_ahead: int = 32

    def __post_init__(self) -> None:
        for name in ("num_decode_threads", "num_decoded_ahead"):
            check_at_least(1, {name: getattr(self, name)})
