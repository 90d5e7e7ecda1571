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

    def check(self) -> None:
        """Raises: ConfigError: a number with which nothing could work, before anything starts."""
        self.images.check()
        check_at_least(
            1,
            {
                "num_decode_threads": self.num_decode_threads,
                "num_decoded_ahead": self.num_decoded_ahead,
                "filters.ngram": self.filters.ngram,
                "engine.vllm.max_in_flight": self.engine.vllm.max_in_flight,
            },
        )
