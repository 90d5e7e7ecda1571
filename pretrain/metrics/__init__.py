"""What a run tells about itself.

Imports nothing that a release does not need: `pretrain.metrics.run` is the trainer's.
"""

from pretrain.metrics.config import MetricsConfig
from pretrain.metrics.log import METRICS, MetricsLog, read_metrics, read_validations
from pretrain.metrics.stopwatch import Stopwatch

__all__ = [
    "METRICS",
    "MetricsConfig",
    "MetricsLog",
    "Stopwatch",
    "read_metrics",
    "read_validations",
]
