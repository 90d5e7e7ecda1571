"""Trains the runs of a ladder that are not done."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType

from pretrain.metrics import METRICS, read_metrics
from pretrain.preemption import heeded_signals
from recaption.common.config import UserError, load_config, print_json
from recaption.common.processes import end_with_parent
from recaption.common.progress import Progress
from recaption.common.signals import EXIT_UNFINISHED, leave_terminal
from tools.scaling_laws.begin import as_begun, can_begin
from tools.scaling_laws.cost import Costs
from tools.scaling_laws.jobs import Jobs
from tools.scaling_laws.ladder import LadderConfig, Rung, make_rungs
from tools.scaling_laws.outcome import (
    DIVERGED,
    RESULTS,
    check_cost,
    close,
    is_trained,
    note_failure,
    state_of,
    write_results,
)
from tools.scaling_laws.submit import submit_rungs
from tools.stages import SHARED_CORES, torchrun

USAGE = """usage: python -m tools.scaling_laws run LADDER.yaml [key=value ...] [--json]

Runs that are done are skipped, one that was stopped or killed goes on, one that fails is named and
the others go on. The same command goes on after a stop, and tries what failed again. With
slurm=true the runs are submitted as jobs; the same command, later, reads what is done.
--json prints the rows of results.csv in the last line."""

_POLL = 1.0  # seconds between two looks at a run
_TAIL = 5  # lines of the log of a failed run
#: What progress is told in: the largest of which there are many.
_UNITS = (("TFLOP", 1e12), ("GFLOP", 1e9), ("MFLOP", 1e6), ("FLOP", 1.0))
_MANY = 1000


@dataclass
class Ended:
    """How a `run` ended."""

    failed: list[Rung] = field(default_factory=list)
    not_begun: list[Rung] = field(default_factory=list)  # their trunk is missing
    was_stopped: bool = False  # by a signal


def main(argv: list[str]) -> int:
    config = load_config(LadderConfig, argv, USAGE)
    rungs, costs = [as_begun(rung) for rung in make_rungs(config)], Costs(config)
    for rung in rungs:  # what does not fit together is told before anything is trained
        state_of(rung)
        check_cost(rung, costs.of(rung))
    with _alone(Path(config.output)):
        if config.slurm:
            ended = Ended(submit_rungs(rungs, config, costs))
        else:
            check_not_queued(rungs, config)
            ended = run_here(rungs, config, costs)
        rows = write_results(rungs, config, costs)
    num_done = sum(state_of(rung).is_done for rung in rungs)
    print(f"{num_done} of {len(rungs)} runs done: {Path(config.output) / RESULTS}", flush=True)
    if diverged := [row["name"] for row in rows if row["status"] == DIVERGED]:
        print(f"diverged, so left out of any fit: {', '.join(diverged)}", flush=True)
    failed, not_begun = _names(ended.failed), _names(ended.not_begun)
    print_json(argv, {"results": rows, "failed": failed, "not_begun": not_begun})
    if ended.was_stopped:
        return EXIT_UNFINISHED
    if failed:
        logs, again = Path(config.output) / "logs", "the same command tries them again"
        if config.slurm:
            logs, again = Path(config.job.logs), "they are submitted again"
        behind = f"; not begun, as they go on from these: {', '.join(not_begun)}"
        raise UserError(
            f"failed: {', '.join(failed)}; their logs are in {logs}; {again}"
            + (behind if not_begun else "")
        )
    return 0


def check_not_queued(rungs: list[Rung], config: LadderConfig) -> None:
    """Raises: UserError: jobs of Slurm train runs of the ladder, or may do so."""
    open_rungs = [rung for rung in rungs if not state_of(rung).is_done]
    jobs = Jobs(config, open_rungs)
    queued = {rung.name: jobs.of(rung).job for rung in open_rungs if jobs.is_queued(rung)}
    if queued:
        told = ", ".join(f"{name} is job {job}" for name, job in queued.items())
        raise UserError(
            f"{told} in Slurm's queue, and would be trained here beside it: give slurm=true to "
            f"leave it to them, or first `scancel {' '.join(queued.values())}`"
        )


def run_here(rungs: list[Rung], config: LadderConfig, costs: Costs) -> Ended:
    """One after the other."""
    runner, ended = _Runner(config), Ended()
    todo = [rung for rung in rungs if not state_of(rung).is_done]
    total = sum(_flops_left(rung, costs) for rung in todo)
    unit, size = next((unit for unit in _UNITS if total >= _MANY * unit[1]), _UNITS[-1])
    with runner.stopped_by_signals(), Progress(round(total / size), unit, "ladder") as progress:
        for number, planned in enumerate(todo):
            left = f"{len(todo) - number} of {len(rungs)} runs left"
            rung = as_begun(planned)  # what it goes on from has been trained meanwhile
            if not can_begin(rung):
                ended.not_begun.append(rung)
                assert rung.parent is not None
                print(
                    f"{rung.name} cannot begin: {rung.parent.name} did not come to where it "
                    f"begins to cool down, step {rung.parent.branch_step}",
                    flush=True,
                )
                continue
            if not is_trained(rung):
                _tell_detour(rung)
                flops = costs.of(rung).flops_per_sample * rung.batch / size
                status = runner.train(rung, flops, progress, left)
                if runner.was_stopped:
                    print(f"stopped in {rung.name}; the same command goes on", flush=True)
                    break
                if status or not is_trained(rung):
                    ended.failed.append(rung)
                    _tell_failure(rung, status, config)
                    write_results(rungs, config, costs)
                    continue
            row = close(rung, config, costs)
            loss = "is no number" if row["loss"] is None else f"{row['loss']:.4f}"
            print(
                f"{rung.name}: loss {loss}, R@1 {1 - row['error']:.2%}, "
                f"{row['samples_per_second']:.1f} samples/s, {row['gpu_hours'] * 60:.1f} min",
                flush=True,
            )
            write_results(rungs, config, costs)
    ended.was_stopped = runner.was_stopped
    return ended


def log_of(rung: Rung, config: LadderConfig) -> Path:
    return Path(config.output) / "logs" / f"{rung.name}.log"


class _Runner:
    """Starts trainings, and hands a signal on to the one that runs, which saves and stops."""

    def __init__(self, config: LadderConfig) -> None:
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None
        self.was_stopped = False

    @contextmanager
    def stopped_by_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._stop) for number in heeded_signals()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def train(self, rung: Rung, flops: float, progress: Progress, left: str) -> int:
        """Trains a run to its end, its output in its log; returns the exit status.

        Args:
            rung: the run.
            flops: of a step, in units of ``progress``.
            progress: of the ladder.
            left: what else there is to do, in words.
        """
        log = log_of(rung, self._config)
        log.parent.mkdir(parents=True, exist_ok=True)
        launcher = [sys.executable, "-m"]
        if self._config.num_ranks > 1:
            launcher = torchrun(self._config.num_ranks)
        words = [*launcher, "pretrain", "train", *rung.arguments]
        done, begun = progress.done, state_of(rung).step
        with log.open("ab") as file:
            process = self._process = subprocess.Popen(
                words,
                env={**SHARED_CORES, **os.environ},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # signals come through here only, and once
                preexec_fn=partial(end_with_parent, os.getpid()),
            )
        if self.was_stopped:  # just before
            process.terminate()
        while True:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_POLL)
            now = max(begun, _last_step(rung))
            note = f"{rung.name} step {now}/{rung.num_steps}, {left}"
            progress.advance(done + round((now - begun) * flops) - progress.done, note)
            if process.returncode is not None:
                return process.returncode

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.was_stopped = True
        if number == signal.SIGHUP:
            leave_terminal()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Raises: UserError: another process trains this ladder."""
    output.mkdir(parents=True, exist_ok=True)
    with (output / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{output}: another `run` is at work in it") from None
        yield


def _flops_left(rung: Rung, costs: Costs) -> float:
    steps = rung.num_steps - state_of(rung).step
    return steps * rung.batch * costs.of(rung).flops_per_sample


def _names(rungs: list[Rung]) -> list[str]:
    return [rung.name for rung in rungs]


def _tell_detour(rung: Rung) -> None:
    begins_from = rung.parent.name if rung.parent else ""
    if begins_from != rung.trunk:
        where = f"from {begins_from}" if begins_from else "from step 0"
        print(
            f"{rung.name}: {rung.trunk} has no checkpoint of where it begins to cool down; "
            f"training begins {where} instead, to the same end",
            flush=True,
        )


def _last_step(rung: Rung) -> int:
    rows = read_metrics(rung.folder / METRICS)
    return int(rows[-1]["step"]) if rows else 0


def _tell_failure(rung: Rung, status: int, config: LadderConfig) -> None:
    """Names the run with the end of its log; its row says that it failed."""
    lines = log_of(rung, config).read_text(errors="replace").splitlines()[-_TAIL:]
    print(f"{rung.name} failed with status {status}; its log ends with", flush=True)
    print("\n".join(f"    {line}" for line in lines), flush=True)
    note_failure(rung, lines[-1] if lines else f"status {status}")
