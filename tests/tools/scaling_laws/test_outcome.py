"""Rows of results, from what runs leave."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pretrain.checkpoint import CONFIG
from recaption.common.config import UserError, load_config, write_config
from tests.pretrain.trainruns import write_training_shards
from tests.tools.scaling_laws.ladders import write_ladder
from tools.scaling_laws.cost import Costs
from tools.scaling_laws.ladder import LadderConfig, Rung, make_rungs
from tools.scaling_laws.outcome import (
    Spent,
    check_cost,
    close,
    note_failure,
    spent_on,
    state_of,
    write_results,
)
from tools.scaling_laws.table import read_table


@pytest.fixture
def ladder(tmp_path: Path) -> LadderConfig:
    sizes = {"clip": {"recipe": [str(tmp_path / "clip.yaml")], "sizes": {"s": []}}}
    return load_config(
        LadderConfig, [str(write_ladder(tmp_path, methods=sizes, cost={"text_length": 20}))]
    )


def write_metrics(rung: Rung, *rows: tuple[float, ...], **validation: float | None) -> None:
    """Rows of (step, samples a second[, ranks]), as the trainer writes them."""
    rung.folder.mkdir(parents=True)
    names = ("step", "samples_per_second", "num_ranks")
    lines: list[dict[str, Any]] = [dict(zip(names, row, strict=False)) for row in rows]
    if validation:
        ways = [f"{way}_r{k}" for way in ("t2i", "i2t") for k in (1, 5, 10)]
        validation = dict.fromkeys(ways, 0.5) | validation
        lines.append({"step": rung.num_steps, "validation": validation})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (rung.folder / "metrics.jsonl").write_text(text)
    write_config(rung.config, rung.folder / CONFIG)


def test_a_row_is_of_the_whole_path(ladder: LadderConfig) -> None:
    """8 of the second run's 32 samples are the first one's; half of a window of it counts."""
    first, second = make_rungs(ladder)
    assert (first.branch_step, second.begin_step, second.num_steps) == (2, 2, 8)
    write_metrics(first, (1, 1.0), (3, 2.0), (4, 4.0), loss=2.0, t2i_r1=0.5, i2t_r1=0.25)
    write_metrics(second, (5, 3.0), (8, 12.0), loss=1.0, t2i_r1=0.75, i2t_r1=0.25)
    assert spent_on(first, 1) == Spent(16, 4 + 8 / 2 + 1, 9)
    assert spent_on(second, 1) == Spent(32, (4 + 4 / 2) + 12 / 3 + 12 / 12, 11)
    costs = Costs(ladder)
    row = close(second, ladder, costs)
    assert row["gpu_hours"] == pytest.approx(11 / 3600)
    assert row["samples_per_second"] == pytest.approx(32 / 11)
    assert (row["loss"], row["error"], row["samples"]) == (1.0, 0.5, 32)
    assert row["flops"] == 32 * row["flops_per_sample"] > 0
    assert (row["run"], row["status"], row["unique_samples"]) == ("clip-s-seed0", "done", 24)
    assert state_of(second).is_done and not state_of(first).is_done


def test_each_stretch_counts_with_the_ranks_that_made_it(ladder: LadderConfig) -> None:
    """The trunk's seconds are not those of today's ranks."""
    first, second = make_rungs(ladder)
    write_metrics(first, (4, 2.0, 1), loss=2.0)
    write_metrics(second, (4, 4.0, 2), (8, 8.0, 3), loss=1.0)
    assert spent_on(second, 9).rank_seconds == 1 * 8 / 2 + 2 * 8 / 4 + 3 * 16 / 8
    row = close(second, ladder, Costs(ladder))
    assert row["gpu_hours"] == pytest.approx(14 / 3600)
    assert row["hardware"].startswith("3 ranks on ")


def test_all_recalls_and_the_comparable_loss_stand_in_the_row(ladder: LadderConfig) -> None:
    first, second = make_rungs(ladder)
    recalls = {"t2i_r5": 0.5, "i2t_r5": 0.75, "t2i_r10": 1.0, "i2t_r10": 0.5}
    write_metrics(first, (4, 1.0), loss=2.0, retrieval_loss=1.5, **recalls)
    row = close(first, ladder, Costs(ladder))
    assert (row["r5"], row["r10"], row["retrieval_loss"]) == (0.625, 0.75, 1.5)
    write_metrics(second, (8, 1.0), loss=2.0)  # of a trainer that did not measure it yet
    assert close(second, ladder, Costs(ladder))["retrieval_loss"] is None


def test_rows_of_runs_that_are_not_in_the_ladder_of_now_stay(
    ladder: LadderConfig, tmp_path: Path
) -> None:
    rungs, costs = make_rungs(ladder), Costs(ladder)
    for rung in rungs:
        write_metrics(rung, (rung.num_steps, 1.0), loss=2.0)
        close(rung, ladder, costs)
    names = [rung.name for rung in rungs]
    assert [row["name"] for row in write_results(rungs[1:], ladder, costs)] == names[::-1]
    # What was measured on other samples is another thing.
    ladder.data.num_val_samples = 4
    assert write_results(make_rungs(ladder)[1:], ladder, costs)[1:] == []


def test_a_run_that_diverged_is_done_and_says_so(ladder: LadderConfig) -> None:
    rung, _ = make_rungs(ladder)
    write_metrics(rung, (4, 1.0), loss=None, t2i_r1=0.0, i2t_r1=0.0)
    costs = Costs(ladder)
    close(rung, ladder, costs)
    write_results([rung], ladder, costs)
    with Path(ladder.output, "results.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["loss"], row["error"], row["status"]) == ("", "1.0", "diverged")
    assert state_of(rung).is_done  # it is not trained again


def test_hardware_and_forward_macs_stand_in_the_row(ladder: LadderConfig) -> None:
    """A row of a run that was closed before there were such columns has gaps there."""
    first, second = make_rungs(ladder)
    costs = Costs(ladder)
    for rung in (first, second):
        write_metrics(rung, (rung.num_steps, 1.0), loss=2.0, t2i_r1=0.5, i2t_r1=0.25)
        row = close(rung, ladder, costs)
    assert row["hardware"].startswith("1 rank on ") and len(row["hardware"]) > len("1 rank on ")
    assert row["forward_macs_per_sample"] == sum(costs.of(second).forward_macs.values()) > 0
    old = {key: row[key] for key in row if key not in ("hardware", "forward_macs_per_sample")}
    (second.folder / "result.json").write_text(json.dumps(old))
    write_results([first, second], ladder, costs)
    table = read_table(str(Path(ladder.output, "results.csv")), "auto", {}, {})
    assert table.texts["hardware"] == [row["hardware"], ""]
    macs = table.numbers["forward_macs_per_sample"]
    assert macs[0] == row["forward_macs_per_sample"] and np.isnan(macs[1])


def test_parts_of_a_set_have_names_of_their_own(ladder: LadderConfig) -> None:
    ladder.data.num_samples = [8, 0]
    rungs = make_rungs(ladder)
    for rung in rungs:
        note_failure(rung, "none")
    rows = write_results(rungs, ladder, Costs(ladder))
    assert [row["data"] for row in rows] == ["squares:first-8"] * 2 + ["squares"] * 2


def test_failed_runs_have_a_row_without_figures(ladder: LadderConfig) -> None:
    first, second = make_rungs(ladder)
    note_failure(first, "error: no")
    Path(ladder.output, "results.csv").unlink(missing_ok=True)
    write_results([first, second], ladder, Costs(ladder))
    with Path(ladder.output, "results.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["name"], row["status"], row["loss"]) == (first.name, "failed", "")
    assert float(row["flops"]) > 0


def test_a_run_of_another_ladder_is_refused(ladder: LadderConfig) -> None:
    ladder.trunks = False  # else the cool-down's steps tell another batch, too
    ladder.overrides += ["optim.num_warmup_steps=1", "optim.learning_rate=1e-3"]
    first, _ = make_rungs(ladder)
    write_metrics(first, (4, 1.0), loss=2.0, t2i_r1=0.5, i2t_r1=0.25)
    close(first, ladder, Costs(ladder))
    ladder.overrides.append("optim.weight_decay=0.3")
    with pytest.raises(UserError, match=r"begun with optim\.weight_decay=0\.5, not 0\.3"):
        state_of(make_rungs(ladder)[0])
    ladder.overrides[-1] = "data.batch_size=2"
    with pytest.raises(UserError, match=r"trained with batch=4, not 2"):
        state_of(make_rungs(ladder)[0])


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("num_val_samples", 4, "validation.num_samples=8, not 4"),
        ("val_batch_size", 4, "validation.batch_size=8, not 4"),
        ("val", "", "validation.data=.*"),
        ("train", "", "data.train=.*"),
    ],
)
def test_what_the_held_out_figures_depend_on_may_not_change(
    ladder: LadderConfig, tmp_path: Path, key: str, value: object, named: str
) -> None:
    first, _ = make_rungs(ladder)
    write_metrics(first, (4, 1.0), loss=2.0, t2i_r1=0.5, i2t_r1=0.25)
    assert state_of(first).status == "begun"
    if key in ("val", "train"):  # which are read
        value = write_training_shards(tmp_path / "others", 24)
    setattr(ladder.data, key, str(value) if key in ("val", "train") else value)
    with pytest.raises(UserError, match=f"begun with {named}"):
        state_of(make_rungs(ladder)[0])


def test_flops_that_were_counted_otherwise(ladder: LadderConfig) -> None:
    first, _ = make_rungs(ladder)
    write_metrics(first, (4, 1.0), loss=2.0, t2i_r1=0.5, i2t_r1=0.25)
    close(first, ladder, Costs(ladder))
    check_cost(first, Costs(ladder).of(first))
    ladder.cost.text_length = 30
    with pytest.raises(UserError, match=r"result\.json was written with .* FLOPs a sample, not"):
        check_cost(first, Costs(ladder).of(first))


def test_no_figures_of_the_last_step(ladder: LadderConfig) -> None:
    first, _ = make_rungs(ladder)
    write_metrics(first, (3, 1.0))
    with pytest.raises(UserError, match=r"metrics\.jsonl has no figures of the last step"):
        close(first, ladder, Costs(ladder))
