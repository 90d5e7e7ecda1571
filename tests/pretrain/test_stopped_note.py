"""A saved stop is noted before any rank ends: the first to end takes the others with it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.daemons import free_ports
from tests.places import CHECKOUT

NOTE = "CANOPY_STOPPED_NOTE"


def stop_on_this_rank(run: str) -> None:
    """A training that was stopped; its first rank is slow to note it."""
    from pretrain import train

    note_that_it_stopped = train.note_that_it_stopped

    def note_slowly() -> None:
        time.sleep(2)
        note_that_it_stopped()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "train", lambda config, ranks: False)
        patch.setattr(train, "note_that_it_stopped", note_slowly)
        train.main([f"run={run}", "data.train=none"])
    print("noted" if Path(os.environ[NOTE]).exists() else "not noted")


def test_no_rank_ends_before_the_stop_is_noted(tmp_path: Path) -> None:
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    common |= {"MASTER_PORT": str(free_ports(1)[0]), NOTE: str(tmp_path / "stopped")}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.pretrain.test_stopped_note", str(tmp_path / "run")],
            cwd=CHECKOUT,
            env={**os.environ, **common, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    said = [rank.communicate(timeout=300)[0].splitlines()[-1] for rank in ranks]
    assert said == ["noted", "noted"]


if __name__ == "__main__":
    stop_on_this_rank(sys.argv[1])
