"""A run as nested dataclasses; each part is declared beside the code it configures."""

from dataclasses import dataclass, field

from pretrain.data.config import DataConfig
from pretrain.distributed.engine import EngineConfig
from pretrain.metrics.config import MetricsConfig
from pretrain.models.registry import ModelConfig
from pretrain.objectives.registry import ObjectiveConfig
from pretrain.optim import OptimConfig
from recaption.common.config import ConfigError, check_at_least


@dataclass
class TrainConfig:
    num_steps: int = 10000
    log_every: int = 10  # steps
    checkpoint_every: int = 1000  # steps; the last step is always saved
    num_kept_checkpoints: int = 2  # older ones are removed
    # The backward computes blocks again instead of keeping what is in them: a third more time for
    # the least memory.
    recompute_blocks: bool = False

    def __post_init__(self) -> None:
        numbers = {name: value for name, value in vars(self).items() if name != "recompute_blocks"}
        check_at_least(1, {f"train.{name}": value for name, value in numbers.items()})


@dataclass
class PretrainConfig:
    """Everything that decides what a run does."""

    run: str = "???"  # the run's folder; a run found there is resumed
    seed: int = 0
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)

    def __post_init__(self) -> None:
        check_at_least(0, {"seed": self.seed})
        if self.optim.num_warmup_steps >= self.train.num_steps:
            raise ConfigError(
                f"optim.num_warmup_steps={self.optim.num_warmup_steps} leaves nothing of "
                f"train.num_steps={self.train.num_steps}"
            )
        self._check_parts()

    def _check_parts(self) -> None:
        """The whole text is made of an image's first texts, which must be the caption's parts."""
        if self.model.text.name != "part_whole":
            return
        captions, num_parts = self.data.captions, self.model.text.whole.num_parts
        if captions.name != "parts":
            raise ConfigError(
                f"model.text.name=part_whole reads parts and data.captions.name={captions.name} "
                "gives none: set it to parts, or choose model.text.name=plain"
            )
        if captions.parts.num_parts != num_parts:
            raise ConfigError(
                f"data.captions.parts.num_parts={captions.parts.num_parts}, but "
                f"model.text.whole.num_parts={num_parts}: give both the same number"
            )
