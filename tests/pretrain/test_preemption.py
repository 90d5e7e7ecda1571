import os
import signal
from collections.abc import Iterator

import pytest

from pretrain import preemption
from pretrain.preemption import SIGNALS, StopRequest


@pytest.fixture
def blocked_by_the_launcher() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where the tests were started by nohup
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.usefixtures("blocked_by_the_launcher")
def test_a_signal_that_was_blocked_when_the_process_was_started_arrives(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preemption, "leave_terminal", lambda: None)  # it is that of the tests
    request = StopRequest()
    os.kill(os.getpid(), number)
    assert request.signal_name == signal.Signals(number).name


@pytest.mark.usefixtures("blocked_by_the_launcher")
def test_a_hang_up_that_nohup_ignores_stops_nothing() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    request = StopRequest()
    os.kill(os.getpid(), signal.SIGHUP)
    assert not request
