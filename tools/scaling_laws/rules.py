"""Stated rules for what a run of a given size is trained with.

Batch and learning rate are powers of the number of parameters N (without the token embedding), as
in the ladder of OLMo-core (batch ~ N^(2/3), rate ~ N^(-1/3)) and in Porian et al. 2024 (arXiv
2406.19146): ``value x (N / params)^exponent``. An exponent of 0 keeps a value; with depth fixed, a
rate that falls with the width is -0.5.
"""

from dataclasses import dataclass

from recaption.common.config import ConfigError, check_at_least


@dataclass
class RulesConfig:
    """What stands in a size or in `overrides` wins over these."""

    params: float = 1e7  # N at which batch and learning_rate hold as they stand here
    batch: int = 1024  # images a step, of all ranks
    batch_exponent: float = 0.0
    learning_rate: float = 1e-3
    learning_rate_exponent: float = 0.0
    batch_to_rate_exponent: float = 0.5  # of the rate in (the size's batch / batch); 0.5 for Adam
    warmup_share: float = 0.1  # of the shortest length of a trunk; of each length without trunks
    warmup_samples: int = 0  # instead of the share, where a shorter length may be added later
    cooldown_share: float = 0.2  # of each length, at its end (arXiv 2405.18392); with trunks

    def __post_init__(self) -> None:
        check_at_least(1, {"rules.params": self.params, "rules.batch": self.batch})
        check_at_least(0, {"rules.warmup_samples": self.warmup_samples})
        for name in ("warmup_share", "cooldown_share"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ConfigError(f"rules.{name}={value}: a share, from 0 up to below 1")
        if self.learning_rate <= 0:
            raise ConfigError(f"rules.learning_rate={self.learning_rate}: it must be above 0")

    def batch_of(self, params: float, multiple: int) -> int:
        """Images a step of a model with so many parameters, to the nearest ``multiple``."""
        exact = self.batch * (params / self.params) ** self.batch_exponent
        return max(1, round(exact / multiple)) * multiple

    def learning_rate_of(self, params: float, batch: int) -> float:
        """The peak, to three digits."""
        by_size = (params / self.params) ** self.learning_rate_exponent
        by_batch = (batch / self.batch) ** self.batch_to_rate_exponent
        return float(f"{self.learning_rate * by_size * by_batch:.3g}")

    def warmup_steps_of(self, num_steps: int, batch: int) -> int:
        """Steps of linear warm-up, where ``num_steps`` is the length that the share is of."""
        if self.warmup_samples:
            return round(self.warmup_samples / batch)
        return round(self.warmup_share * num_steps)

    def cooldown_steps_of(self, num_steps: int) -> int:
        """Steps in which the rate falls to its end."""
        return max(1, round(self.cooldown_share * num_steps))
