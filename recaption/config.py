"""The configuration of ``python -m recaption run`` and ``retry``."""

from dataclasses import dataclass, field

from recaption.common.config import ConfigError, check_at_least
from recaption.engine import EngineConfig
from recaption.filters import FilterConfig
from recaption.images import ImageConfig
from recaption.metrics import MetricsConfig
from recaption.prompts import PromptConfig
from recaption.work.claims import ClaimConfig


@dataclass
class RunConfig:
    #: A folder of tars, one tar, or a glob in quotes.
    input: str
    #: The folder of the caption tables; workers that share it share the work.
    output: str
    engine: EngineConfig = field(default_factory=EngineConfig)
    #: What every image is asked, under the ids that name the captions; none: one long caption.
    prompts: dict[str, PromptConfig] = field(default_factory=dict)
    #: A folder of caption tables of the same tars, for prompts with {caption}.
    captions: str = ""
    #: The prompt id of those captions.
    captions_prompt: str = "long"
    images: ImageConfig = field(default_factory=ImageConfig)
    filters: FilterConfig = field(default_factory=FilterConfig)
    claims: ClaimConfig = field(default_factory=ClaimConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    #: Processes that read and decode ahead of the engine.
    num_decode_processes: int = 2
    #: Decoded images that may wait for the engine.
    num_decoded_ahead: int = 32
    #: Whether to stay until all is done, to take over what other workers do not finish; false:
    #: until every worker that has a shard was seen alive.
    wait_for_others: bool = True

    def __post_init__(self) -> None:
        for name in ("num_decode_processes", "num_decoded_ahead"):
            check_at_least(1, {name: getattr(self, name)})
        if not self.prompts:
            self.prompts = {"long": PromptConfig()}
        for name, prompt in self.prompts.items():
            if prompt.needs("caption") and not self.captions:
                raise ConfigError(
                    f"prompts.{name}.text has {{caption}}: give captions=FOLDER, the tables of it"
                )

    @property
    def asked(self) -> dict[str, PromptConfig]:
        """The prompts of the rows: what is taken from the shards is asked for under one id."""
        if self.engine.name == "existing":
            return {self.engine.existing.prompt_id: PromptConfig()}
        return self.prompts


@dataclass
class RetryConfig(RunConfig):
    #: Codes of the failures to try again, such as [engine-died]; none: all of them.
    reasons: list[str] = field(default_factory=list)
