"""What to do when the gradient is not finite, and how far a loss is out of the ordinary."""

import math
from dataclasses import dataclass

from recaption.common.config import UserError, check_at_least


@dataclass
class StabilityConfig:
    """A step whose gradient is not finite leaves the weights as they are."""

    # so many such steps in a row, and training goes back to its last complete checkpoint, and past
    # the data that it has seen since
    max_skipped_in_a_row: int = 10
    max_rollbacks: int = 3  # then training gives up
    spike_window: int = 100  # steps that the mean and deviation of the spike score look back on

    def __post_init__(self) -> None:
        check_at_least(1, {"stability.max_skipped_in_a_row": self.max_skipped_in_a_row})
        check_at_least(0, {"stability.max_rollbacks": self.max_rollbacks})
        check_at_least(2, {"stability.spike_window": self.spike_window})


class StepWatch:
    """Counts skipped steps in a row, and scores losses.

    Args:
        config: when to go back.
    """

    def __init__(self, config: StabilityConfig) -> None:
        self._config = config
        self.num_skipped_in_a_row = 0
        self._mean, self._square, self._num_scored = 0.0, 0.0, 0

    def must_roll_back(self, accepted: bool, num_rollbacks: int) -> bool:
        """Whether, with this step, too many in a row were skipped.

        Args:
            accepted: the step's gradient was taken.
            num_rollbacks: how often training has gone back already, in all attempts.

        Raises:
            UserError: training has gone back as often as it may.
        """
        self.num_skipped_in_a_row = 0 if accepted else self.num_skipped_in_a_row + 1
        if self.num_skipped_in_a_row < self._config.max_skipped_in_a_row:
            return False
        if num_rollbacks >= self._config.max_rollbacks:
            raise UserError(
                f"the gradient was not finite in {self.num_skipped_in_a_row} steps in a row, and "
                f"training has gone back to a checkpoint {num_rollbacks} times already "
                "(stability.max_rollbacks): try a lower optim.learning_rate or an "
                "engine.max_grad_norm"
            )
        self.num_skipped_in_a_row = 0
        return True

    def spike_score(self, loss: float) -> float:
        """How many deviations of late losses this one lies above their mean; 0 at the start.

        A loss that is not finite has an infinite score and does not count towards the mean.
        """
        if not math.isfinite(loss):
            return math.inf
        deviation = math.sqrt(max(self._square - self._mean**2, 0.0))
        is_settled = self._num_scored >= 10 and deviation > 0
        score = (loss - self._mean) / deviation if is_settled else 0.0
        self._num_scored += 1
        weight = 1 / min(self._num_scored, self._config.spike_window)
        self._mean += weight * (loss - self._mean)
        self._square += weight * (loss * loss - self._square)
        return score
