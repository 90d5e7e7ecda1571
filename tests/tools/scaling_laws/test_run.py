"""The real commands on a tiny ladder: train, go on, name what failed, fit nothing, report."""

import csv
import math
import re
from pathlib import Path

import pytest

from pretrain.checkpoint import checkpoint_folder, complete_checkpoints
from pretrain.metrics import read_metrics
from recaption.common.config import UserError, load_config
from recaption.common.signals import EXIT_UNFINISHED
from tests.tools.scaling_laws.ladders import write_ladder
from tools.scaling_laws import report, run
from tools.scaling_laws.ladder import LadderConfig, Rung
from tools.scaling_laws.outcome import COLUMNS


@pytest.mark.slow
def test_a_ladder_from_the_first_run_to_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = str(tmp_path / "clip.yaml")
    methods = {
        "clip": {"recipe": [clip], "sizes": {"s": []}},
        "broken": {"recipe": [clip], "sizes": {"s": ["data.captions.sources=[none-such]"]}},
    }
    ladder = str(write_ladder(tmp_path, methods=methods, cost={"text_length": 20}))
    results = tmp_path / "out" / "results.csv"
    with pytest.raises(
        UserError, match=r"failed: broken-s-seed0-s16; their .*; not begun, .*: broken-s-seed0-s32$"
    ):
        run.main([ladder])
    told = capsys.readouterr().out
    assert "broken-s-seed0-s16 failed with status 2; its log ends with\n    " in told
    assert "none-such" in told
    assert "broken-s-seed0-s32 cannot begin: broken-s-seed0-s16 did not come to where" in told
    assert "2 of 4 runs done" in told

    with results.open() as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == COLUMNS
    by_name = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert {name: row["status"] for name, row in by_name.items()} == {
        "clip-s-seed0-s16": "done",
        "clip-s-seed0-s32": "done",
        "broken-s-seed0-s16": "failed",
    }
    long = by_name["clip-s-seed0-s32"]
    assert 0 < float(long["loss"]) < 5 and 0 <= float(long["error"]) <= 1
    assert float(long["gpu_hours"]) > 0
    # The second run made only the steps behind the first one's trunk, and cooled down by itself.
    second = tmp_path / "out" / "runs" / "clip-s-seed0-s32"
    steps = [row["step"] for row in read_metrics(second / "metrics.jsonl")]
    assert steps == [3, 4, 5, 6, 7, 8]
    first = tmp_path / "out" / "runs" / "clip-s-seed0-s16"
    assert complete_checkpoints(first) == [checkpoint_folder(first, step) for step in (2, 4)]

    assert 0 < float(long["r5"]) <= float(long["r10"]) <= 1
    assert 0 < float(long["retrieval_loss"]) < math.log(8) + 0.1

    # What is done is not done again: no folder is touched, though one is empty by now.
    before = results.read_text()
    methods.pop("broken")
    again = str(write_ladder(tmp_path / "again", methods=methods, cost={"text_length": 20}))
    (first / "metrics.jsonl").unlink()
    words = [f"output={tmp_path / 'out'}", f"data.train={tmp_path / 'shards'}"]
    words.append(f"data.val={tmp_path / 'shards'}")
    assert run.main([again, *words]) == 0
    assert "2 of 2 runs done" in capsys.readouterr().out
    assert results.read_text() == "".join(
        line for line in before.splitlines(keepends=True) if not line.startswith("broken")
    )

    report.main([f"table={results}"])
    page = (results.parent / "report" / "report.html").read_text()
    assert page.count("<img") == 4 and "clip-s" in page and "fits some" in page


def test_only_one_at_a_time(tmp_path: Path) -> None:
    busy = pytest.raises(UserError, match="another `run` is at work in it")
    with run._alone(tmp_path), busy, run._alone(tmp_path):
        pass


class _Stopped(run._Runner):
    """A training that is stopped by a signal: it saves and ends with status 0."""

    def train(self, rung: Rung, *_: object) -> int:
        self.was_stopped = True
        return 0


def test_a_stop_says_that_work_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ladder = write_ladder(tmp_path, cost={"text_length": 20})
    monkeypatch.setattr(run, "_Runner", _Stopped)
    assert run.main([str(ladder)]) == EXIT_UNFINISHED
    told = capsys.readouterr()
    assert "stopped in clip-m-seed0-s16; the same command goes on" in told.out
    # In a unit of which there are many, however small the ladder.
    total = re.search(r"ladder: 0/([\d,]+) [KMGT]?FLOP,", told.err)
    assert total is not None and int(total[1].replace(",", "")) >= 1000
    config = load_config(LadderConfig, [str(ladder)])
    assert (Path(config.output) / "results.csv").read_text().count("\n") == 1  # nobody failed
