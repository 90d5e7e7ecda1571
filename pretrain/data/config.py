"""What a run reads; apart from the stream, so that a release opens without its library."""

from dataclasses import dataclass, field

from pretrain.data.captions import CaptionsConfig
from pretrain.data.transforms import ImageConfig
from recaption.common.config import ConfigError, check_at_least


@dataclass
class DataConfig:
    # folder of MDS training shards, as `recaption pack` writes it
    train: str = "???"
    batch_size: int = 64  # images a rank and step
    num_workers: int = 1  # loader processes a rank; one prepares some 300 to 500 images a second
    num_canonical_nodes: int = 8  # fixes the order of samples whatever the number of nodes
    # bad samples among the last 1,000 of a rank, above which training ends; others stand in for
    # those below
    max_bad_share: float = 0.01
    image: ImageConfig = field(default_factory=ImageConfig)
    captions: CaptionsConfig = field(default_factory=CaptionsConfig)

    def __post_init__(self) -> None:
        for name, minimum in (("batch_size", 1), ("num_canonical_nodes", 1), ("num_workers", 0)):
            check_at_least(minimum, {f"data.{name}": getattr(self, name)})
        if not 0 <= self.max_bad_share <= 1:
            raise ConfigError(f"data.max_bad_share={self.max_bad_share}: a share, 0 to 1")
