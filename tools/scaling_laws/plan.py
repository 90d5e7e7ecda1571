"""What each run of a ladder is trained with, what it costs, and how far it has come."""

from collections.abc import Mapping
from contextlib import suppress
from statistics import median
from typing import Any

import numpy as np

from recaption.common.config import load_config, print_json
from recaption.common.progress import format_seconds
from tools.scaling_laws.begin import as_begun
from tools.scaling_laws.cost import Costs, ModelCost, assumed_speed
from tools.scaling_laws.determined import GROW_TOGETHER, grow_together
from tools.scaling_laws.jobs import Jobs, NoAnswer
from tools.scaling_laws.ladder import LadderConfig, Rung, make_rungs
from tools.scaling_laws.outcome import RungState, check_cost, spent_on, state_of

USAGE = """usage: python -m tools.scaling_laws plan LADDER.yaml [key=value ...] [--json]

Times are those measured in runs of the same model, else at the FLOP/s of the other models so far,
else by cost.*: an assumption."""


def main(argv: list[str]) -> None:
    config = load_config(LadderConfig, argv, USAGE)
    rungs = [as_begun(rung) for rung in make_rungs(config)]
    plan = make_plan(config, rungs, queued_jobs(config, rungs))
    print(format_plan(plan, config))
    print_json(argv, plan)


def queued_jobs(config: LadderConfig, rungs: list[Rung]) -> dict[str, str]:
    """Numbers of the jobs that wait or run, by the runs' names; none where Slurm does not tell."""
    with suppress(NoAnswer):
        open_rungs = [rung for rung in rungs if not state_of(rung).is_done]
        jobs = Jobs(config, open_rungs)
        return {rung.name: jobs.of(rung).job for rung in open_rungs if jobs.is_queued(rung)}
    return {}


def make_plan(
    config: LadderConfig, rungs: list[Rung], queued: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """All figures; ``seconds`` are of what a run need still train, None where unknown."""
    queued = queued or {}
    costs = Costs(config)
    speeds = Speeds(config, rungs, costs)
    for rung in rungs:
        check_cost(rung, costs.of(rung))
    rows = [
        _row(rung, state_of(rung), costs.of(rung), speeds) | {"job": queued.get(rung.name, "")}
        for rung in rungs
    ]
    known = [row["seconds_left"] for row in rows]
    seconds = None if None in known else sum(known)
    return {
        "rungs": rows,
        "num_done": sum(row["status"] == "done" for row in rows),
        "flops_to_train": sum(row["flops_left"] for row in rows),
        "seconds_left": seconds,
        "gpu_hours_left": None if seconds is None else seconds * config.world_size / 3600,
        "notes": _notes(rungs),
    }


def _notes(rungs: list[Rung]) -> list[str]:
    """What a fit to each method's runs will not tell."""
    inputs: dict[str, list[tuple[int, int]]] = {}
    for rung in rungs:
        inputs.setdefault(rung.method, []).append((rung.params, rung.samples))
    return [
        f"{method}: {GROW_TOGETHER}; L(N, D) will tell no best N and D of a budget"
        for method, pairs in inputs.items()
        if grow_together(np.array(pairs, dtype=np.float64))
    ]


class Speeds:
    """Images a second of each model: as measured, else as supposed."""

    def __init__(self, config: LadderConfig, rungs: list[Rung], costs: Costs) -> None:
        self._config, self._costs = config, costs
        totals: dict[str, tuple[int, float]] = {}
        of_model = {rung.model: rung for rung in rungs}
        for rung in rungs:
            samples, seconds = totals.get(rung.model, (0, 0.0))
            spent = spent_on(rung, config.world_size)
            totals[rung.model] = samples + spent.samples, seconds + spent.seconds
        self._measured = {name: n / t for name, (n, t) in totals.items() if t}
        rates = [
            speed * costs.of(of_model[name]).computed_flops_per_sample
            for name, speed in self._measured.items()
        ]
        self._flops_per_second = median(rates) if rates else None

    def of(self, rung: Rung) -> tuple[float | None, str]:
        """Images a second, and where that is from."""
        if rung.model in self._measured:
            return self._measured[rung.model], "measured"
        cost = self._costs.of(rung)
        if self._flops_per_second:
            return self._flops_per_second / cost.computed_flops_per_sample, "FLOP/s of the others"
        return assumed_speed(rung, cost, self._config), "assumed"


def _row(rung: Rung, state: RungState, cost: ModelCost, speeds: Speeds) -> dict[str, Any]:
    speed, source = speeds.of(rung)
    left = (rung.num_steps - state.step) * rung.batch
    return {
        "name": rung.name,
        "method": rung.method,
        "size": rung.size,
        "seed": rung.seed,
        "params_image": cost.params_image,
        "params_text": cost.params_text,
        "params": cost.params,
        "text_length": cost.text_length,
        "forward_macs": cost.forward_macs,
        "flops_per_sample": cost.flops_per_sample,
        "samples": rung.samples,
        "unique_samples": rung.unique_samples,
        "batch": rung.batch,
        "num_steps": rung.num_steps,
        "begin_step": rung.begin_step,
        "begins_from": rung.parent.name if rung.parent else "",
        "num_warmup_steps": rung.config.optim.num_warmup_steps,
        "num_decay_steps": rung.config.optim.num_decay_steps,
        "learning_rate": rung.config.optim.learning_rate,
        "flops": cost.flops_per_sample * rung.samples,
        "flops_left": cost.flops_per_sample * left,
        "samples_per_second": speed,
        "speed_is": source,
        "seconds_left": left / speed if speed else (0.0 if not left else None),
        "status": state.status,
        "step": state.step,
        "arguments": list(rung.arguments),
    }


_HEADER = (
    f"{'':36}{'N':>8}{'GFLOPs':>8}{'samples':>9}{'batch':>7}{'LR':>9}{'warm':>6}{'cool':>6}"
    f"{'steps':>13}{'FLOPs':>9}{'left':>8}  status"
)


def format_plan(plan: dict[str, Any], config: LadderConfig) -> str:
    lines = [_HEADER]
    for row in plan["rungs"]:
        seconds = row["seconds_left"]
        steps = f"{row['begin_step']}-{row['num_steps']}"
        status = row["status"]
        if status in ("begun", "failed"):
            status += f" at step {row['step']}"
        if row["job"]:
            status += f", job {row['job']} in the queue"
        lines.append(
            f"{row['name']:36}{row['params'] / 1e6:>7.2f}M{row['flops_per_sample'] / 1e9:>8.2f}"
            f"{row['samples']:>9,}{row['batch']:>7}{row['learning_rate']:>9.2g}"
            f"{row['num_warmup_steps']:>6}{row['num_decay_steps']:>6}{steps:>13}"
            f"{row['flops']:>9.2g}{'?' if seconds is None else format_seconds(seconds):>8}"
            f"  {status}"
        )
    seconds = plan["seconds_left"]
    time = "no time known: give cost.flops_per_second or cost.accelerator"
    if seconds is not None:
        sources = sorted({row["speed_is"] for row in plan["rungs"]})
        time = (
            f"{format_seconds(seconds)} one after the other, {plan['gpu_hours_left']:,.2f} "
            f"hours of ranks (speeds: {', '.join(sources)})"
        )
    return "\n".join(
        [
            *lines,
            "N: parameters without the token embedding; GFLOPs: of training on one sample; FLOPs: "
            "in all, the\ntrunk included; steps: from where the trunk is gone on from; warm, cool: "
            "steps of warm-up and cool-down",
            f"{plan['num_done']} of {len(plan['rungs'])} done; {plan['flops_to_train']:.3g} FLOPs "
            f"to train; {time}",
            *(f"note: {note}" for note in plan["notes"]),
        ]
    )
