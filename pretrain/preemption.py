"""Signals become a flag; what to do about it is decided between two steps."""

import signal
from types import FrameType

from recaption.common.signals import leave_terminal

#: Ctrl-C, the end of a job, what `slurm/lib.sh` asks for ahead of the time limit, submitit's, and
#: a terminal that was closed.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


def heeded_signals() -> list[signal.Signals]:
    """``SIGNALS``, but for a SIGHUP that `nohup` has this process ignore."""
    ignores_hang_up = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [number for number in SIGNALS if number != signal.SIGHUP or not ignores_hang_up]


class StopRequest:
    """Set by any of `heeded_signals`. A second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.signal_name = ""
        for number in heeded_signals():
            signal.signal(number, self._on_signal)
        # What blocks a signal hands that down to all that it starts, and it would never arrive.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def __bool__(self) -> bool:
        return bool(self.signal_name)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signal_name = signal.Signals(number).name
        if number == signal.SIGHUP:
            leave_terminal()
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
