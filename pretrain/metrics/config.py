"""Where the trainer's metrics go."""

from dataclasses import dataclass

from recaption.common.config import check_at_least
from recaption.common.exporter_config import ExporterConfig


@dataclass
class MetricsConfig(ExporterConfig):
    tensorboard: bool = False  # write to RUN/tensorboard, if the package is installed
    console_every: int = 0  # steps between two lines on the console; 0: one with every row
    # what one device reaches in products of matrices, in FLOP/s, measured; 0: MFU is not told
    peak_flops: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(
            0,
            {
                "metrics.console_every": self.console_every,
                "metrics.peak_flops": self.peak_flops,
            },
        )
