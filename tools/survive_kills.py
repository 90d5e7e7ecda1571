"""Kills a training at random moments, and compares it with one that was left alone.

    python -m tools.survive_kills config=RUN.yaml output=FOLDER [key=value ...] [--json]

Every process of the run is killed (SIGKILL) after its first step, and the same command is started
again, so often; then it may go on to the end. Every second kill comes at a random moment; the
others wait for a checkpoint to be written, closed or removed, and come into that. The keys of the
samples of every step must be those of the uninterrupted run, and weights, moments and the running
mean of the weights equal to the last bit.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch
from safetensors.torch import load_file

from pretrain.checkpoint import (
    COMPLETE,
    EMA_WEIGHTS,
    MOMENTS,
    WEIGHTS,
    checkpoint_folder,
    complete_checkpoints,
)
from recaption.common.config import ConfigError, UserError, load_config, print_json, run_command
from recaption.common.progress import format_seconds


@dataclass
class KillConfig:
    """What is trained, and how often it is killed."""

    config: str = "???"  # YAML of `python -m pretrain train`
    output: str = "???"  # folder of both runs
    overrides: list[str] = field(default_factory=list)  # further key=value of the training
    num_kills: int = 20
    num_steps: int = 200
    num_ranks: int = 2
    checkpoint_every: int = 5  # steps
    seed: int = 0  # of the moments
    timeout: int = 600  # seconds that an attempt may take


#: What a kill can meet: tensors being written aside; a folder that has its name and no marker yet;
#: an old checkpoint on its way out.
PHASES = ("writing", "closing", "removing")
#: Seconds into the writing of a checkpoint in which a kill may come.
INTO_WRITING = 0.05


def main(argv: list[str]) -> None:
    config = load_config(KillConfig, argv, __doc__)
    output = Path(config.output)
    if output.exists() and any(output.iterdir()):
        raise ConfigError(f"{output} is not empty: give another folder as output")
    started = time.monotonic()
    whole = Attempt(config, output / "whole")
    whole.wait()
    seconds = max(whole.seconds_of_steps, 1.0)
    print(f"uninterrupted: {config.num_steps} steps in {seconds:.0f} s", flush=True)

    num_killed = 0
    rng, run = random.Random(config.seed), output / "killed"
    num_lost, met = 0, Counter(dict.fromkeys(PHASES, 0))
    for number in range(config.num_kills):
        attempt = Attempt(config, run)
        # Less than its share of the run, on average: some kills lose nothing, some much. In steps,
        # for a machine with other work is not as fast in one minute as in the next.
        num_steps = 1.5 * config.num_steps / config.num_kills
        if number % 2:
            awaited = PHASES[number // 2 % len(PHASES)]
            is_killed = attempt.kill_while(awaited, num_steps, rng.uniform(0.0, INTO_WRITING))
        else:
            seconds_a_step = seconds / config.num_steps
            is_killed = attempt.kill_after(
                rng.uniform(0.0, num_steps), rng.uniform(0.0, seconds_a_step)
            )
        if not is_killed:
            print(f"it was at its end before kill {number + 1}", flush=True)
            break
        num_killed = number + 1
        saved = max(map(_step, complete_checkpoints(run)), default=0)
        num_lost += max(attempt.last_step - saved, 0)
        phase = attempt.phase
        met.update([phase] if phase else [])
        left = (config.num_kills - number - 1) * (time.monotonic() - started) / (number + 1)
        print(
            f"kill {number + 1}/{config.num_kills} at step {attempt.last_step}, "
            f"{f'{phase} a checkpoint' if phase else 'between checkpoints'}, last complete one of "
            f"{saved}  {format_seconds(left)} left",
            flush=True,
        )
    Attempt(config, run).wait()
    result = {
        "num_kills": num_killed,
        **{f"num_while_{phase}": met[phase] for phase in PHASES},
        "num_steps_lost": num_lost,
        "same_keys": read_keys(run) == read_keys(output / "whole"),
        "num_different_tensors": len(different_tensors(config, output)),
    }
    print(
        f"{num_killed} kills, of which "
        + ", ".join(f"{met[phase]} while {phase}" for phase in PHASES)
        + f" a checkpoint; {num_lost} steps done twice: keys of the samples "
        f"{'equal' if result['same_keys'] else 'DIFFERENT'}, "
        f"{result['num_different_tensors']} tensors differ"
    )
    print_json(argv, result)
    if not result["same_keys"] or result["num_different_tensors"]:
        raise UserError(f"the killed run is not the uninterrupted one: see {output}")


class Attempt:
    """One start of the training, its output read as it comes."""

    def __init__(self, config: KillConfig, run: Path) -> None:
        self._timeout = config.timeout
        self._checkpoints = run / "checkpoints"
        self._started = time.time()
        self.last_step = 0
        self._first_step_at = self._last_step_at = 0.0
        self._lines: list[str] = []
        self._ranks: list[int] = []
        self._has_stepped = threading.Event()
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(config.num_ranks), "-m", "pretrain", "train"]
        command += [config.config, f"run={run}", f"train.num_steps={config.num_steps}"]
        command += [f"train.checkpoint_every={config.checkpoint_every}", "train.write_keys=true"]
        self._process = subprocess.Popen(
            [*command, "train.log_every=1", *config.overrides],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"OMP_NUM_THREADS": "1", **os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def seconds_of_steps(self) -> float:
        return self._last_step_at - self._first_step_at

    def wait(self) -> None:
        """To the end.

        Raises:
            UserError: it failed.
        """
        if self._process.wait(self._timeout):
            self._reader.join()
            # torchrun's own account of a rank's end follows what the rank said.
            said = [line for line in self._lines if line.startswith("error: ")]
            raise UserError("the training failed: " + "\n".join(said or self._lines[-60:]))
        self._reader.join()

    def kill_after(self, num_steps: float, seconds: float) -> bool:
        """Kills every process so many steps and seconds after the first step.

        False if it was at its end before.
        """
        if not self._wait_for_first_step():
            return False
        last_step = self.last_step + num_steps
        while self.last_step < last_step:
            if self._process.poll() is not None:
                self.wait()
                return False
            time.sleep(0.005)
        time.sleep(seconds)
        self._kill()
        return True

    def kill_while(self, phase: str, num_steps: float, seconds_into_writing: float) -> bool:
        """Kills every process in a phase of saving, or after so many steps without it.

        False if it was at its end before.
        """
        if not self._wait_for_first_step():
            return False
        last_step = self.last_step + num_steps
        while self.last_step < last_step:
            if self._process.poll() is not None:
                self.wait()
                return False
            found = self.phase
            if found == phase:
                if phase == "writing":
                    time.sleep(seconds_into_writing)
                self._signal_ranks(signal.SIGSTOP)
                if self.phase == phase:
                    break
                self._signal_ranks(signal.SIGCONT)  # it was over before: the next one
                seconds_into_writing /= 2
            elif found is None:  # else not a moment: closing takes less than a millisecond
                time.sleep(0.0005)
        self._kill()
        return True

    @property
    def phase(self) -> str | None:
        """What it is doing, or was when it was killed, to a checkpoint on the disk: see PHASES."""
        phases, newest = set(), ""
        try:
            folders = sorted(self._checkpoints.iterdir(), reverse=True)
        except OSError:
            return None
        for folder in folders:
            if (folder / COMPLETE).exists():
                newest = newest or folder.name
            elif self._has_touched(folder):
                is_aside = folder.name.startswith(".")
                phases.add("writing" if is_aside else "removing" if newest else "closing")
        return next((phase for phase in PHASES if phase in phases), None)

    def _has_touched(self, folder: Path) -> bool:
        """Not so what an earlier attempt left."""
        try:
            return folder.stat().st_mtime > self._started
        except OSError:  # it is gone
            return False

    def _wait_for_first_step(self) -> bool:
        while not self._has_stepped.wait(0.2):
            if self._process.poll() is not None:
                self.wait()
                return False
        self._ranks = [child.pid for child in psutil.Process(self._process.pid).children()]
        return True

    def _kill(self) -> None:
        # Stopped at once: to find all their children takes longer than some phases do.
        self._signal_ranks(signal.SIGSTOP)
        launcher = psutil.Process(self._process.pid)
        for member in [*launcher.children(recursive=True), launcher]:
            member.kill()
        self._process.wait()
        self._reader.join()

    def _signal_ranks(self, number: signal.Signals) -> None:
        for rank in self._ranks:
            with contextlib.suppress(ProcessLookupError):  # it was at its end
                os.kill(rank, number)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line.rstrip())
            if line.startswith("step "):
                self.last_step = int(line.split()[1].split("/")[0].replace(",", ""))
                self._last_step_at = time.monotonic()
                if not self._has_stepped.is_set():
                    self._first_step_at = self._last_step_at
                    self._has_stepped.set()


def read_keys(run: Path) -> dict[int, set[str]]:
    """The keys of the samples of each step, of all ranks."""
    keys: dict[int, set[str]] = {}
    for path in run.glob("keys/*.txt"):
        for line in path.read_text().splitlines():
            step, *of_rank = line.split()
            keys.setdefault(int(step), set()).update(of_rank)
    return keys


def different_tensors(config: KillConfig, output: Path) -> list[str]:
    """Names of those at the last step that are not equal to the last bit."""
    different = []
    for name in (WEIGHTS, MOMENTS, EMA_WEIGHTS):
        paths = [checkpoint_folder(output / run, config.num_steps) / name for run in _RUNS]
        if not any(path.exists() for path in paths):
            continue
        one, other = (load_file(path) for path in paths)
        different += [
            f"{name}: {key}"
            for key in sorted(one.keys() | other.keys())
            if key not in one or key not in other or not torch.equal(one[key], other[key])
        ]
    return different


_RUNS = ("whole", "killed")


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
