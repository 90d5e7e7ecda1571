"""Where metrics go; apart from the exporter, so that a release opens without its library."""

from dataclasses import dataclass

from recaption.common.config import ConfigError, check_at_least


@dataclass
class ExporterConfig:
    port: int = 0  # Prometheus asks here; 0: nobody serves
    host: str = "127.0.0.1"  # address that is served; 0.0.0.0: every one of the node
    # a .prom file for node_exporter's textfile collector, for batch jobs that cannot be asked;
    # {node}, and {rank} (pretrain) or {worker} (recaption), in it are filled in
    textfile: str = ""

    def __post_init__(self) -> None:
        check_at_least(0, {"metrics.port": self.port})
        if self.port > 65535:
            raise ConfigError(f"metrics.port={self.port}: it must be at most 65535")
        if self.textfile and not self.textfile.endswith(".prom"):
            raise ConfigError(
                f"metrics.textfile={self.textfile}: node_exporter reads only files whose name ends "
                "in .prom"
            )
