"""A rank that hangs does not hold up the others for ever."""

import os
import subprocess
import sys
import time

import pytest

from pretrain.distributed.ranks import RanksConfig, joined_ranks
from recaption.common.config import ConfigError
from tests.places import CHECKOUT


def hang_on_rank_1() -> None:
    """Rank 0 waits in a collective for one that does not come."""
    with joined_ranks(RanksConfig(collective_timeout=2.0)) as ranks:
        ranks.barrier()
        if ranks.is_first:
            started = time.monotonic()
            try:
                ranks.any(False)
            except RuntimeError:
                print(f"gave up after {time.monotonic() - started:.0f} s", flush=True)
            os._exit(0)
        time.sleep(60)


def test_a_rank_gives_up_on_one_that_hangs() -> None:
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    common["MASTER_PORT"] = str(20000 + os.getpid() % 10000)
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.pretrain.distributed.test_ranks"],
            cwd=CHECKOUT,
            env={**os.environ, **common, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        assert "gave up after 2 s" in ranks[0].communicate(timeout=120)[0]
    finally:
        ranks[1].kill()
        ranks[1].communicate()


def test_no_time_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"ranks\.collective_timeout=0"):
        RanksConfig(collective_timeout=0)


if __name__ == "__main__":
    hang_on_rank_1()
