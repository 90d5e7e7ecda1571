import os
import signal
from collections.abc import Iterator

import pytest

from pretrain.preemption import SIGNALS, StopRequest


@pytest.fixture
def blocked_by_the_launcher() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.usefixtures("blocked_by_the_launcher")
def test_a_signal_that_was_blocked_when_the_process_was_started_arrives(number: int) -> None:
    request = StopRequest()
    os.kill(os.getpid(), number)
    assert request.signal_name == signal.Signals(number).name
