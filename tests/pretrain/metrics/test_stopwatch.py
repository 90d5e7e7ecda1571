"""By a clock that is set by hand."""

import threading

import pytest

from pretrain.metrics.stopwatch import PARTS, Stopwatch


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stopwatch(clock: Clock) -> Stopwatch:
    return Stopwatch(clock)


def test_time_belongs_to_the_innermost_part(clock: Clock, stopwatch: Stopwatch) -> None:
    with stopwatch.watch("data"):
        clock.now += 1
    with stopwatch.watch("compute"):
        clock.now += 2
        with stopwatch.watch("communicate"):
            clock.now += 3
        clock.now += 1
    clock.now += 3  # nobody's
    assert stopwatch.elapsed() == 10
    assert stopwatch.shares() == {
        "data": 0.1,
        "compute": 0.3,
        "communicate": 0.3,
        "save": 0.0,
        "validate": 0.0,
    }


def test_a_part_that_fails_has_ended(clock: Clock, stopwatch: Stopwatch) -> None:
    with pytest.raises(OSError), stopwatch.watch("save"):
        clock.now += 1
        raise OSError
    clock.now += 1
    assert stopwatch.shares()["save"] == 0.5


def test_a_reset_begins_anew_with_what_is_open(clock: Clock, stopwatch: Stopwatch) -> None:
    assert sum(stopwatch.shares().values()) == 0  # no time has passed
    with stopwatch.watch("save"):
        clock.now += 5
        stopwatch.reset()
        clock.now += 1
        assert stopwatch.shares()["save"] == 1
    clock.now += 3
    assert stopwatch.shares()["save"] == 0.25


def test_an_unknown_part_is_refused(stopwatch: Stopwatch) -> None:
    with pytest.raises(ValueError, match=r"'dta'.*data"):
        stopwatch.watch("dta").__enter__()


def test_threads_never_make_more_than_the_whole() -> None:
    stopwatch = Stopwatch()

    def work(part: str) -> None:
        for _ in range(2000):
            with stopwatch.watch(part):
                pass

    threads = [threading.Thread(target=work, args=(part,)) for part in PARTS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shares = stopwatch.shares()
    assert 0 < sum(shares.values()) <= 1
    assert min(shares.values()) >= 0
