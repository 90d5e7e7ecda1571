import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from recaption.prefetch import map_ahead


def test_results_come_in_order_and_few_wait() -> None:
    num_started = 0
    lock = threading.Lock()

    def work(item: int) -> int:
        nonlocal num_started
        with lock:
            num_started += 1
        time.sleep(0.002 * (item % 3))
        return item * item

    with ThreadPoolExecutor(4) as pool:
        for number, result in enumerate(map_ahead(pool, work, range(40), depth=6)):
            assert result == number * number
            assert num_started <= number + 6
    assert num_started == 40


def test_an_error_reaches_the_reader() -> None:
    with ThreadPoolExecutor(2) as pool, pytest.raises(ZeroDivisionError):
        list(map_ahead(pool, lambda item: 1 // item, [1, 0, 1], depth=2))
