"""What a run reads; apart from the stream, so that a release opens without its library."""

from dataclasses import dataclass, field

from pretrain.data.captions import CaptionsConfig
from pretrain.data.transforms import ImageConfig
from recaption.common.config import check_at_least


@dataclass
class DataConfig:
    # folder of MDS training shards, as `recaption pack` writes it
    train: str = "???"
    batch_size: int = 64  # images a rank and step
    num_workers: int = 1  # loader processes a rank
    num_canonical_nodes: int = 8  # fixes the order of samples whatever the number of nodes
    image: ImageConfig = field(default_factory=ImageConfig)
    captions: CaptionsConfig = field(default_factory=CaptionsConfig)

    def __post_init__(self) -> None:
        for name, minimum in (("batch_size", 1), ("num_canonical_nodes", 1), ("num_workers", 0)):
            check_at_least(minimum, {f"data.{name}": getattr(self, name)})
