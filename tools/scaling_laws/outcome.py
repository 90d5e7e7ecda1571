"""What came out of a ladder: one row a run, read from what the runs have written.

``RUN/result.json`` is a finished run's row and the mark that it is finished; ``results.csv`` holds
those of all runs, and of the failed ones what is known of them. A run whose held-out loss is no
number is finished, too, as ``diverged``.
"""

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pretrain.checkpoint import (
    CONFIG,
    MAY_CHANGE,
    complete_checkpoints,
    step_of,
)
from pretrain.config import PretrainConfig
from pretrain.metrics import METRICS, read_metrics, read_validations
from recaption.common.config import UserError, check_unchanged, read_config
from recaption.common.files import atomic_write, read_json
from tools.scaling_laws.cost import Costs, ModelCost
from tools.scaling_laws.hardware import describe_hardware
from tools.scaling_laws.ladder import LadderConfig, Rung

RESULT = "result.json"
FAILURE = "failure.json"
RESULTS = "results.csv"
DONE, FAILED, DIVERGED = "done", "failed", "diverged"

#: ``flops`` are training FLOPs in all, the shared trunk included, as are gpu_hours (of ranks, while
#: steps were made); ``error`` is 1 - R@1, and ``r5`` and ``r10`` are the other recalls, means of
#: both directions; ``params`` leaves out the token embedding, ``forward_macs_per_sample`` the
#: objective. Rows of one ``run`` share a trunk.
COLUMNS = (
    *("name", "model", "params_image", "params_text", "params", "forward_macs_per_sample"),
    *("flops_per_sample", "samples", "unique_samples", "batch", "lr", "flops", "gpu_hours"),
    *("samples_per_second", "loss", "error", "r5", "r10", "retrieval_loss"),
    *("method", "data", "seed", "status", "run", "hardware"),
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
            "as they are counted now: delete the file and `run` writes it again without training, "
            "or give the cost.text_length of then"
        )


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
    r1, r5, r10 = (_mean_recall(figures, k) for k in (1, 5, 10))
    # JSON has no NaN, so a run that diverged has null in its metrics.
    status = DIVERGED if figures["loss"] is None else DONE
    row |= {"loss": figures["loss"], "error": 1 - r1, "r5": r5, "r10": r10, "status": status}
    row["retrieval_loss"] = figures.get("retrieval_loss")
    row["hardware"] = describe_hardware(config, _last_ranks(rung, config))
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
    """``OUTPUT/results.csv`` of what is done and what failed, in the ladder's order.

    Behind them are runs in ``OUTPUT/runs`` that are done and not in the ladder of now, which may be
    a part of the one that made them; not such as were measured on other held-out samples.
    """
    rows = []
    for rung in rungs:
        if (rung.folder / RESULT).exists():
            rows.append(read_json(rung.folder / RESULT))
        elif (rung.folder / FAILURE).exists():
            rows.append(_row(rung, config, costs) | {"status": FAILED})
    rows += _rows_of_others(rungs)
    with atomic_write(Path(config.output) / RESULTS) as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return rows


def _rows_of_others(rungs: list[Rung]) -> list[dict[str, Any]]:
    if not rungs:
        return []
    validation = replace(rungs[0].config.validation, every=0)
    folders, rows = {rung.folder.name for rung in rungs}, []
    for result in sorted(rungs[0].folder.parent.glob(f"*/{RESULT}")):
        begun = result.with_name(CONFIG)
        if result.parent.name in folders or not begun.exists():
            continue
        then = read_config(PretrainConfig, begun).validation
        if replace(then, every=0) == validation:
            rows.append(read_json(result))
    return rows


@dataclass(frozen=True)
class Spent:
    """Images that weights were trained on, and what their steps took."""

    samples: int = 0
    seconds: float = 0.0
    rank_seconds: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(
            self.samples + other.samples,
            self.seconds + other.seconds,
            self.rank_seconds + other.rank_seconds,
        )


def spent_on(rung: Rung, num_ranks: int) -> Spent:
    """On the weights so far: on the trunk up to where this run begins, and on its own steps.

    Args:
        rung: the run.
        num_ranks: that steps were made on whose metrics do not say it.
    """
    before = _spent_up_to_branch(rung.parent, num_ranks) if rung.parent else Spent()
    return before + _spent(rung, rung.num_steps, num_ranks)


def _spent_up_to_branch(rung: Rung, num_ranks: int) -> Spent:
    before = _spent_up_to_branch(rung.parent, num_ranks) if rung.parent else Spent()
    return before + _spent(rung, rung.branch_step, num_ranks)


def _spent(rung: Rung, last: int, num_ranks: int) -> Spent:
    """On its own steps up to ``last``, as far as they are made; a window of metrics that reaches
    over ``last`` counts with its share."""
    spent, before = Spent(), rung.begin_step
    for row in read_metrics(rung.folder / METRICS):
        steps = min(row["step"], last) - before
        if steps > 0:
            samples = steps * rung.batch
            seconds = samples / row["samples_per_second"]
            spent += Spent(samples, seconds, seconds * row.get("num_ranks", num_ranks))
            before += steps
    return spent


def _last_ranks(rung: Rung, config: LadderConfig) -> int:
    rows = read_metrics(rung.folder / METRICS)
    return int(rows[-1].get("num_ranks", config.world_size)) if rows else config.world_size


def _row(rung: Rung, config: LadderConfig, costs: Costs) -> dict[str, Any]:
    cost = costs.of(rung)
    spent = spent_on(rung, config.world_size)
    is_measured = spent.samples == rung.samples
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
        "gpu_hours": spent.rank_seconds / 3600 if is_measured else None,
        "samples_per_second": spent.samples / spent.seconds if spent.seconds else None,
        "loss": None,
        "error": None,
        "r5": None,
        "r10": None,
        "retrieval_loss": None,
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


def _mean_recall(figures: dict[str, Any], k: int) -> float:
    recall: float = (figures[f"t2i_r{k}"] + figures[f"i2t_r{k}"]) / 2
    return recall


def _held_out(rung: Rung) -> dict[str, Any] | None:
    """The figures of the last validation, if it is that of the last step."""
    rows = read_validations(rung.folder / METRICS)
    figures: dict[str, Any] | None = None
    if rows and rows[-1]["step"] == rung.num_steps:
        figures = rows[-1]["validation"]
    return figures
