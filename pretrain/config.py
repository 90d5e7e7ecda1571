"""A run as nested dataclasses; each part is declared beside the code it configures."""

from dataclasses import dataclass, field

from pretrain.data.config import DataConfig
from pretrain.distributed.engine import EngineConfig
from pretrain.distributed.ranks import RanksConfig
from pretrain.metrics.config import MetricsConfig
from pretrain.models.registry import ModelConfig
from pretrain.objectives.registry import ObjectiveConfig
from pretrain.optim import OptimConfig
from pretrain.preflight import PreflightConfig
from pretrain.stability import StabilityConfig
from pretrain.validation import ValidationConfig
from recaption.common.config import ConfigError, check_at_least


@dataclass
class TrainConfig:
    num_steps: int = 10000
    log_every: int = 10  # steps
    stop_at_step: int = 0  # ends this attempt there, as a signal would; 0: at the last step
    write_keys: bool = False  # the keys of the samples of each step, in keys/RANK.txt
    checkpoint_every: int = 1000  # steps; the last step is always saved
    num_kept_checkpoints: int = 2  # older ones are removed
    keep_every: int = 0  # but for those of steps that are multiples of this; 0: for none
    keep_steps: list[int] = field(default_factory=list)  # and for those of these, which are saved
    # a checkpoint of another run that this one begins from, with a schedule of its own: cool-downs
    # of several lengths from one run at a constant rate (optim.schedule=wsd)
    begin_from: str = ""
    save_in_background: bool = True  # while training goes on; takes memory for a copy on rank 0
    # seconds; a checkpoint that takes longer is told once: half of what the jobs of slurm/ leave
    # ahead of their time limit
    slow_save: float = 150.0
    # The backward computes blocks and graph poolings again instead of keeping what is in them: a
    # third more time for the least memory.
    recompute_blocks: bool = False

    def __post_init__(self) -> None:
        for name in ("num_steps", "log_every", "checkpoint_every", "num_kept_checkpoints"):
            check_at_least(1, {f"train.{name}": getattr(self, name)})
        check_at_least(0, {"train.keep_every": self.keep_every})
        check_at_least(0, {"train.slow_save": self.slow_save})


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
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    stability: StabilityConfig = field(default_factory=StabilityConfig)
    ranks: RanksConfig = field(default_factory=RanksConfig)
    preflight: PreflightConfig = field(default_factory=PreflightConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)

    def __post_init__(self) -> None:
        check_at_least(0, {"seed": self.seed})
        if self.optim.num_warmup_steps >= self.train.num_steps:
            raise ConfigError(
                f"optim.num_warmup_steps={self.optim.num_warmup_steps} leaves nothing of "
                f"train.num_steps={self.train.num_steps}"
            )
        if self.data.batch_size % self.engine.num_micro_batches:
            raise ConfigError(
                f"data.batch_size={self.data.batch_size} is not a multiple of "
                f"engine.num_micro_batches={self.engine.num_micro_batches}"
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
