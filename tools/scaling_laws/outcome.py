"""What came out of a ladder: one row a run, read from what the runs have written.

``RUN/result.json`` is a finished run's row and the mark that it is finished; ``results.csv`` holds
those of all runs, and of the failed ones what is known of them. A run whose held-out loss is no
number is finished, too, as ``diverged``.
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrain.checkpoint import (
    CONFIG,
    MAY_CHANGE,
    complete_checkpoints,
    step_of,
)
from pretrain.metrics import METRICS, read_metrics, read_validations
from recaption.common.config import UserError, check_unchanged
from recaption.common.files import atomic_write, read_json
from tools.scaling_laws.cost import Costs, ModelCost
from tools.scaling_laws.hardware import describe_hardware
from tools.scaling_laws.ladder import LadderConfig, Rung

RESULT = "result.json"
FAILURE = "failure.json"
RESULTS = "results.csv"
DONE, FAILED, DIVERGED = "done", "failed", "diverged"

#: ``flops`` are training FLOPs in all, the shared trunk included, as are gpu_hours (of ranks, while
#: steps were made); ``error`` is 1 - R@1, the mean of both directions; ``params`` leaves out the
#: token embedding, ``forward_macs_per_sample`` the objective. Rows of one ``run`` share a trunk.
COLUMNS = (
    *("name", "model", "params_image", "params_text", "params", "forward_macs_per_sample"),
    *("flops_per_sample", "samples", "unique_samples", "batch", "lr", "flops", "gpu_hours"),
    *("samples_per_second", "loss", "error", "method", "data", "seed", "status", "run", "hardware"),
)
#: What may be another than when a run was begun. What its held-out figures depend on may not.
_MAY_CHANGE = (
    *(key for key in MAY_CHANGE if key not in ("data.train", "validation")),
    "validation.every",
)
#: Of two counts of the same FLOPs.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class RungState:
    """How far a run has come."""

    status: str  # done, failed, begun or new
    step: int = 0  # of its last checkpoint; where it begins, if there is none

    @property
    def is_done(self) -> bool:
        return self.status == DONE


def state_of(rung: Rung) -> RungState:
    """Raises: UserError: the folder holds a run of other settings than the ladder's of now."""
    begun = rung.folder / CONFIG
    if not begun.exists():
        step = rung.begin_step
        return RungState(FAILED if (rung.folder / FAILURE).exists() else "new", step)
    check_unchanged(rung.config, begun, _MAY_CHANGE)
    result = rung.folder / RESULT
    if result.exists():
        kept = read_json(result)
        for key, value in (("samples", rung.samples), ("batch", rung.batch)):
            if kept[key] != value:
                raise UserError(
                    f"{rung.folder} was trained with {key}={kept[key]}, not {value}: use another "
                    "output folder, or delete this one"
                )
        return RungState(DONE, rung.num_steps)
    complete = complete_checkpoints(rung.folder)
    step = step_of(complete[-1]) if complete else rung.begin_step
    return RungState(FAILED if (rung.folder / FAILURE).exists() else "begun", step)


def check_cost(rung: Rung, cost: ModelCost) -> None:
    """Raises: UserError: the run is done, and its row was written with other FLOPs a sample."""
    result = rung.folder / RESULT
    if not result.exists():
        return
    then = read_json(result)["flops_per_sample"]
    if abs(then / cost.flops_per_sample - 1) > _ROUNDING:
        raise UserError(
            f"{result} was written with {then:.6g} FLOPs a sample, not {cost.flops_per_sample:.6g} "
            "as they are counted now: give the cost.text_length of then, or delete the file and "
            "`run` writes it again"
        )


def can_begin(rung: Rung) -> bool:
    """Whether the trunk that it goes on from is there."""
    return rung.parent is None or (rung.folder / CONFIG).exists() or _has_branch(rung.parent)


def _has_branch(parent: Rung) -> bool:
    return any(step_of(path) == parent.branch_step for path in complete_checkpoints(parent.folder))


def is_trained(rung: Rung) -> bool:
    """Whether its last step is saved and its held-out figures are there."""
    complete = complete_checkpoints(rung.folder)
    is_saved = bool(complete) and step_of(complete[-1]) == rung.num_steps
    return is_saved and _held_out(rung) is not None


def close(rung: Rung, config: LadderConfig, costs: Costs) -> dict[str, Any]:
    """Writes the row of a trained run, the mark that it is done; returns it.

    Without Slurm it was trained on this machine.

    Raises:
        UserError: its metrics are not whole.
    """
    row = _row(rung, config, costs)
    figures = _held_out(rung)
    if figures is None or row["gpu_hours"] is None:
        raise UserError(f"{rung.folder / METRICS} has no figures of the last step")
    recall = (figures["t2i_r1"] + figures["i2t_r1"]) / 2
    # JSON has no NaN, so a run that diverged has null in its metrics.
    status = DIVERGED if figures["loss"] is None else DONE
    row |= {"loss": figures["loss"], "error": 1 - recall, "status": status}
    row["hardware"] = describe_hardware(config)
    with atomic_write(rung.folder / RESULT) as path:
        path.write_text(json.dumps(row, indent=1))
    forget_failure(rung)
    return row


def note_failure(rung: Rung, reason: str) -> None:
    rung.folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(rung.folder / FAILURE) as path:
        path.write_text(json.dumps({"reason": reason}))


def forget_failure(rung: Rung) -> None:
    (rung.folder / FAILURE).unlink(missing_ok=True)


def write_results(rungs: list[Rung], config: LadderConfig, costs: Costs) -> list[dict[str, Any]]:
    """``OUTPUT/results.csv`` of what is done and what failed, in the ladder's order."""
    rows = []
    for rung in rungs:
        if (rung.folder / RESULT).exists():
            rows.append(read_json(rung.folder / RESULT))
        elif (rung.folder / FAILURE).exists():
            rows.append(_row(rung, config, costs) | {"status": FAILED})
    with atomic_write(Path(config.output) / RESULTS) as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return rows


def measured_seconds(rung: Rung) -> tuple[int, float]:
    """Images that the weights were trained on so far, and the seconds of their steps: those of the
    trunk up to where this run begins, and its own."""
    samples, seconds = measured_seconds_up_to(rung.parent) if rung.parent else (0, 0.0)
    own, of_own = _measured(rung, rung.begin_step, rung.num_steps)
    return samples + own, seconds + of_own


def measured_seconds_up_to(rung: Rung) -> tuple[int, float]:
    """The same up to where the next length begins."""
    samples, seconds = measured_seconds_up_to(rung.parent) if rung.parent else (0, 0.0)
    own, of_own = _measured(rung, rung.begin_step, rung.branch_step)
    return samples + own, seconds + of_own


def _measured(rung: Rung, first: int, last: int) -> tuple[int, float]:
    """Of the steps behind ``first`` up to ``last``, as far as they are made; a window of metrics
    that reaches over ``last`` counts with its share."""
    samples, seconds, before = 0, 0.0, first
    for row in read_metrics(rung.folder / METRICS):
        steps = min(row["step"], last) - before
        if steps > 0:
            samples += steps * rung.batch
            seconds += steps * rung.batch / row["samples_per_second"]
            before += steps
    return samples, seconds


def _row(rung: Rung, config: LadderConfig, costs: Costs) -> dict[str, Any]:
    cost = costs.of(rung)
    samples, seconds = measured_seconds(rung)
    is_measured = samples == rung.samples
    return {
        "name": rung.name,
        "model": rung.model,
        "params_image": cost.params_image,
        "params_text": cost.params_text,
        "params": cost.params,
        "forward_macs_per_sample": sum(cost.forward_macs.values()),
        "flops_per_sample": cost.flops_per_sample,
        "samples": rung.samples,
        "unique_samples": rung.unique_samples,
        "batch": rung.batch,
        "lr": rung.config.optim.learning_rate,
        "flops": cost.flops_per_sample * rung.samples,
        "gpu_hours": seconds * config.world_size / 3600 if is_measured else None,
        "samples_per_second": samples / seconds if seconds else None,
        "loss": None,
        "error": None,
        "method": rung.method,
        "data": _data_name(rung, config),
        "seed": rung.seed,
        "status": "",
        "run": rung.run,
        "hardware": "",
    }


def _data_name(rung: Rung, config: LadderConfig) -> str:
    """Each part of a set has a name of its own, so that `by=data` parts them."""
    name = config.data.name or config.data.train
    first = rung.config.data.num_samples
    return f"{name}:first-{first}" if first else name


def _held_out(rung: Rung) -> dict[str, Any] | None:
    """The figures of the last validation, if it is that of the last step."""
    rows = read_validations(rung.folder / METRICS)
    figures: dict[str, Any] | None = None
    if rows and rows[-1]["step"] == rung.num_steps:
        figures = rows[-1]["validation"]
    return figures
