"""What a run reads; apart from the stream, so that a release opens without its library."""

from dataclasses import dataclass, field

from pretrain.data.captions import CaptionsConfig
from pretrain.data.transforms import ImageConfig
from recaption.common.config import ConfigError, check_at_least


@dataclass
class DataConfig:
    # folder of MDS training shards, as `recaption pack` writes it
    train: str = "???"
    # train on the first so many of its samples, over and over (they are packed shuffled); 0: on all
    num_samples: int = 0
    batch_size: int = 64  # images a rank and step
    num_workers: int = 1  # loader processes a rank; one prepares some 300 to 500 images a second
    num_canonical_nodes: int = 8  # fixes the order of samples whatever the number of nodes
    # bad samples among the last 1,000 of a rank, above which training ends; others stand in for
    # those below
    max_bad_share: float = 0.01
    image: ImageConfig = field(default_factory=ImageConfig)
    captions: CaptionsConfig = field(default_factory=CaptionsConfig)

    def __post_init__(self) -> None:
        check_at_least(1, {"data.batch_size": self.batch_size})
        check_at_least(1, {"data.num_canonical_nodes": self.num_canonical_nodes})
        check_at_least(0, {"data.num_workers": self.num_workers})
        check_at_least(0, {"data.num_samples": self.num_samples})
        if not 0 <= self.max_bad_share <= 1:
            raise ConfigError(f"data.max_bad_share={self.max_bad_share}: a share, 0 to 1")
