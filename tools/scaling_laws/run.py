"""Trains the runs of a ladder that are not done."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType

from pretrain.metrics import METRICS, read_metrics
from recaption.common.config import UserError, load_config, print_json
from recaption.common.processes import end_with_parent
from recaption.common.progress import Progress
from recaption.common.signals import EXIT_UNFINISHED
from tools.scaling_laws.cost import Costs
from tools.scaling_laws.ladder import LadderConfig, Rung, make_rungs
from tools.scaling_laws.outcome import (
    DIVERGED,
    RESULTS,
    can_begin,
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
slurm=true the runs are submitted as arrays of jobs; the same command, later, reads what is done.
--json prints the rows of results.csv in the last line."""

_POLL = 1.0  # seconds between two looks at a run
_TAIL = 5  # lines of the log of a failed run


def main(argv: list[str]) -> int:
    config = load_config(LadderConfig, argv, USAGE)
    rungs, costs = make_rungs(config), Costs(config)
    for rung in rungs:  # what does not fit together is told before anything is trained
        state_of(rung)
        check_cost(rung, costs.of(rung))
    failed: list[Rung] = []
    was_stopped = False
    with _alone(Path(config.output)):
        if config.slurm:
            failed = submit_rungs(rungs, config, costs)
        else:
            failed, was_stopped = run_here(rungs, config, costs)
        rows = write_results(rungs, config, costs)
    num_done = sum(state_of(rung).is_done for rung in rungs)
    print(f"{num_done} of {len(rungs)} runs done: {Path(config.output) / RESULTS}", flush=True)
    if diverged := [row["name"] for row in rows if row["status"] == DIVERGED]:
        print(f"diverged, so left out of any fit: {', '.join(diverged)}", flush=True)
    print_json(argv, {"results": rows, "failed": [rung.name for rung in failed]})
    if was_stopped:
        return EXIT_UNFINISHED
    if failed:
        logs, again = Path(config.output) / "logs", "the same command tries them again"
        if config.slurm:
            logs, again = Path(config.job.logs), "they are submitted again"
        names = ", ".join(rung.name for rung in failed)
        raise UserError(f"failed: {names}; their logs are in {logs}; {again}")
    return 0


def run_here(rungs: list[Rung], config: LadderConfig, costs: Costs) -> tuple[list[Rung], bool]:
    """One after the other. Returns the runs that failed or could not begin, and whether a signal
    stopped it."""
    runner = _Runner(config)
    todo = [rung for rung in rungs if not state_of(rung).is_done]
    total = sum(_flops_left(rung, costs) for rung in todo)
    failed: list[Rung] = []
    with runner.stopped_by_signals(), Progress(round(total / 1e9), "GFLOP", "ladder") as progress:
        for number, rung in enumerate(todo):
            left = f"{len(todo) - number} of {len(rungs)} runs left"
            if not can_begin(rung):
                failed.append(rung)
                assert rung.parent is not None
                print(
                    f"{rung.name} cannot begin: {rung.parent.name} did not come to where it "
                    f"begins to cool down, step {rung.parent.branch_step}",
                    flush=True,
                )
                continue
            if not is_trained(rung):
                status = runner.train(rung, costs, progress, left)
                if runner.was_stopped:
                    print(f"stopped in {rung.name}; the same command goes on", flush=True)
                    break
                if status or not is_trained(rung):
                    failed.append(rung)
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
    return failed, runner.was_stopped


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
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
        before = {number: signal.signal(number, self._stop) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def train(self, rung: Rung, costs: Costs, progress: Progress, left: str) -> int:
        """Trains a run to its end, its output in its log; returns the exit status."""
        log = log_of(rung, self._config)
        log.parent.mkdir(parents=True, exist_ok=True)
        launcher = [sys.executable, "-m"]
        if self._config.num_ranks > 1:
            launcher = torchrun(self._config.num_ranks)
        words = [*launcher, "pretrain", "train", *rung.arguments]
        done, begun = progress.done, state_of(rung).step
        gigaflops = costs.of(rung).flops_per_sample * rung.batch / 1e9
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
            progress.advance(done + round((now - begun) * gigaflops) - progress.done, note)
            if process.returncode is not None:
                return process.returncode

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.was_stopped = True
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


def _last_step(rung: Rung) -> int:
    rows = read_metrics(rung.folder / METRICS)
    return int(rows[-1]["step"]) if rows else 0


def _tell_failure(rung: Rung, status: int, config: LadderConfig) -> None:
    """Names the run with the end of its log; its row says that it failed."""
    lines = log_of(rung, config).read_text(errors="replace").splitlines()[-_TAIL:]
    print(f"{rung.name} failed with status {status}; its log ends with", flush=True)
    print("\n".join(f"    {line}" for line in lines), flush=True)
    note_failure(rung, lines[-1] if lines else f"status {status}")
