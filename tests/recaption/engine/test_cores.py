import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psutil
import pytest

from recaption.engine.cores import Cores

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two cores to choose from",
)
_WAIT = "import sys; print(flush=True); sys.stdin.read()"
_BIND_AND_WAIT = "import os; os.sched_setaffinity(0, {%d}); " + _WAIT


@contextmanager
def running(code: str) -> Iterator[psutil.Process]:
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield psutil.Process(process.pid)
    finally:
        process.communicate()


@pytest.fixture
def cores() -> Iterator[Cores]:
    before = os.sched_getaffinity(0)
    yield Cores()
    for thread in psutil.Process().threads():
        os.sched_setaffinity(thread.id, before)


def test_all_but_what_is_bound_moves_away(cores: Cores) -> None:
    allowed = os.sched_getaffinity(0)
    bound = min(allowed)
    other_thread_waits, its_id = threading.Event(), []
    thread = threading.Thread(
        target=lambda: (its_id.append(threading.get_native_id()), other_thread_waits.wait())
    )
    thread.start()
    with running(_BIND_AND_WAIT % bound) as worker, running(_WAIT) as decoder:
        assert cores.leave([worker]) == allowed - {bound}
        for process in (decoder, psutil.Process()):
            assert set(process.cpu_affinity() or []) == allowed - {bound}
        assert os.sched_getaffinity(its_id[0]) == allowed - {bound}
        assert worker.cpu_affinity() == [bound]
        cores.take_back()
        with running(_WAIT) as next_engine:
            assert set(next_engine.cpu_affinity() or []) == allowed
    other_thread_waits.set()
    thread.join()


def test_nothing_moves_where_nothing_is_bound(cores: Cores) -> None:
    allowed = os.sched_getaffinity(0)
    with running(_WAIT) as worker:
        assert cores.leave([worker]) == set()
    assert os.sched_getaffinity(0) == allowed


def test_nothing_moves_where_every_core_is_bound(cores: Cores) -> None:
    allowed = os.sched_getaffinity(0)
    with ExitStack() as stack:
        workers = [stack.enter_context(running(_BIND_AND_WAIT % core)) for core in allowed]
        assert cores.leave(workers) == set()
    assert os.sched_getaffinity(0) == allowed
