"""A rank that hangs does not hold up the others for ever."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pretrain.distributed.ranks import RanksConfig, joined_ranks
from recaption.common.config import ConfigError
from tests.daemons import free_ports
from tests.places import CHECKOUT

TIMEOUT = 3.0


def hang_on_rank_1(folder: Path) -> None:
    """Rank 0 waits in a collective for one that does not come."""
    # The timeout is also that of joining, which must not wait for the other's imports.
    (folder / os.environ["RANK"]).touch()
    while len(list(folder.iterdir())) < 2:
        time.sleep(0.01)
    with joined_ranks(RanksConfig(collective_timeout=TIMEOUT)) as ranks:
        ranks.barrier()
        if ranks.is_first:
            started = time.monotonic()
            try:
                ranks.any(False)
            except RuntimeError:
                print(f"gave up after {time.monotonic() - started} s", flush=True)
            os._exit(0)
        time.sleep(60)


def test_a_rank_gives_up_on_one_that_hangs(tmp_path: Path) -> None:
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    common["MASTER_PORT"] = str(free_ports(1)[0])
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.pretrain.distributed.test_ranks", str(tmp_path)],
            cwd=CHECKOUT,
            env={**os.environ, **common, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        said = ranks[0].communicate(timeout=120)[0]
        assert TIMEOUT - 0.5 < float(said.split("gave up after ")[1].split()[0]) < 30
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()


def test_no_time_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"ranks\.collective_timeout=0"):
        RanksConfig(collective_timeout=0)


if __name__ == "__main__":
    hang_on_rank_1(Path(sys.argv[1]))
