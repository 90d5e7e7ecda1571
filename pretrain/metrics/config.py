"""Where metrics go; apart from the exporter, so that a release opens without its library."""

from dataclasses import dataclass

from recaption.common.config import ConfigError, check_at_least


@dataclass
class MetricsConfig:
    # Prometheus asks here, on each node's first rank; 0: nobody serves
    port: int = 0
    host: str = "127.0.0.1"  # address that is served; 0.0.0.0: every one of the node
    # a .prom file for node_exporter's textfile collector, for batch jobs that cannot be asked;
    # {node} and {rank} in it are filled in
    textfile: str = ""
    tensorboard: bool = False  # write to RUN/tensorboard, if the package is installed
    console_every: int = 0  # steps between two lines on the console; 0: one with every row
    # what one device reaches in products of matrices, in FLOP/s, measured; 0: MFU is not told
    peak_flops: float = 0.0

    def __post_init__(self) -> None:
        check_at_least(
            0,
            {
                "metrics.port": self.port,
                "metrics.console_every": self.console_every,
                "metrics.peak_flops": self.peak_flops,
            },
        )
        if self.port > 65535:
            raise ConfigError(f"metrics.port={self.port}: it must be at most 65535")
        if self.textfile and not self.textfile.endswith(".prom"):
            raise ConfigError(
                f"metrics.textfile={self.textfile}: node_exporter reads only files whose name ends "
                "in .prom"
            )
