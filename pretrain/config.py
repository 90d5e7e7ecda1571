"""A run as nested dataclasses; each part is declared beside the code it configures."""

from dataclasses import dataclass, field

from pretrain.data.config import DataConfig
from pretrain.distributed.engine import EngineConfig
from pretrain.models.registry import ModelConfig
from pretrain.objectives.registry import ObjectiveConfig
from pretrain.optim import OptimConfig


@dataclass
class TrainConfig:
    num_steps: int = 1000
    log_every: int = 10  # steps
    checkpoint_every: int = 1000  # steps; the last step is always saved
    num_kept_checkpoints: int = 2  # older ones are removed


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
