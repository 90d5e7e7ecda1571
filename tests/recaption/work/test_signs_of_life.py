import time
from pathlib import Path

import pytest

from recaption.common.config import load_config
from recaption.config import RunConfig
from recaption.runner import RunSummary, run
from recaption.work.claims import ClaimConfig, Claims
from recaption.work.signs_of_life import SignsOfLife
from tests.recaption.shard_files import sample, write_tar


def test_only_claims_that_move_are_signs_of_life(tmp_path: Path) -> None:
    watched = SignsOfLife(tmp_path)
    with Claims(tmp_path, ClaimConfig(heartbeat=0.05, stale_after=60)) as living:
        assert living.take("a") is not None
        (tmp_path / "b.claim.1").write_text("{}")
        assert not watched.of_all(["a"]), "looked at once"
        deadline = time.monotonic() + 10
        while not watched.of_all(["a"]):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert not watched.of_all(["a", "b"])
        assert not watched.of_all(["a", "nobody's"])
        (tmp_path / "b.claim.2").write_text("{}")
        assert watched.of_all(["a", "b"]), "it changed hands"


def left_to_others(tmp_path: Path, **claims: float) -> RunSummary:
    given = [f"claims.{name}={value}" for name, value in claims.items()]
    given += ["engine.name=existing", "wait_for_others=false", "num_decode_processes=1"]
    return run(load_config(RunConfig, [f"input={tmp_path}/in", f"output={tmp_path}/out", *given]))


@pytest.mark.parametrize(("is_alive", "num_processed"), [(True, 1), (False, 2)])
def test_a_worker_leaves_to_the_living_and_takes_over_from_the_dead(
    tmp_path: Path, is_alive: bool, num_processed: int
) -> None:
    for name in "ab":
        write_tar(tmp_path / f"in/{name}.tar", sample(name, 0))
    heartbeat = 0.1 if is_alive else 1000
    with Claims(tmp_path / "out/work", ClaimConfig(heartbeat, 3 * heartbeat)) as other:
        assert other.take("a") is not None
        if not is_alive:  # of another machine, where nobody can ask for the process
            (claim,) = (tmp_path / "out/work").glob("a.claim.*")
            claim.write_text('{"worker": "gone", "machine": "elsewhere", "process": 1}')
        summary = left_to_others(tmp_path, heartbeat=0.3, stale_after=2)
        assert summary.num_processed == num_processed
