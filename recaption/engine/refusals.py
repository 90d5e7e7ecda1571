"""When the first requests are all refused, none of them is at fault."""

from recaption.common.config import UserError
from recaption.engine.base import CaptionAnswer

#: So many refusals before the first answer end the run.
NUM_REFUSALS = 16


class Refusals:
    """Makes rows of refused requests, as long as it can be theirs.

    Args:
        what: that is refused, for the message: ``image``.
        question: what the user should look at.
    """

    def __init__(self, what: str, question: str) -> None:
        self._what, self._question = what, question
        self._num_refused: int | None = 0  # None once a request was answered

    def answered(self) -> None:
        self._num_refused = None

    def refused(self, model: str, reason: str) -> CaptionAnswer:
        """Raises: UserError: ``model`` has refused all of the first requests."""
        if self._num_refused is not None:
            self._num_refused += 1
            if self._num_refused == NUM_REFUSALS:
                raise UserError(
                    f"{model} refuses every {self._what}, the last with: {reason}. {self._question}"
                )
        return CaptionAnswer(failure=f"prompt-refused: {reason}")
