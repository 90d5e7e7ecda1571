"""Kills captioning workers at random moments, and compares their tables with an undisturbed run's.

    python -m tools.survive_kills_recaption output=FOLDER [cluster=true] [key=value ...] [--json]

    # with vLLM and the tiny model, on a cluster of two nodes brought up on this machine
    python -m tools.survive_kills_recaption output=FOLDER cluster=true image_size=112 \\
        python=.venv-recaption/bin/python num_shards=60 shard_size=100 \\
        overrides='[engine.name=vllm]'

One worker captions the tars first, undisturbed. Then several share them and are killed (SIGKILL) at
random moments of the work: a worker, a process that decodes, the engine's process, or a worker that
is writing a table. Killed workers come back: by Slurm's queue (cluster=true), or at once.
Every key must then have its rows exactly once, no answer that was kept may have been asked for
again, no table written twice, and captions (of temperature 0) must be equal.
"""

import contextlib
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from recaption.common.config import (
    ConfigError,
    UserError,
    check_at_least,
    check_choice,
    load_config,
    print_json,
    run_command,
)
from recaption.shards import find_shards
from recaption.table import read_stats
from tools.make_scenes.shards import write_shards
from tools.survive_kills_recaption.check import compare
from tools.survive_kills_recaption.witness import Witness, WriteKills
from tools.survive_kills_recaption.workers import (
    Array,
    Processes,
    Target,
    suspended_targets,
    worker_command,
)

KINDS = ("worker", "decoder", "engine", "write")
#: Kills stop at this share of the work, so that those who come back still find some.
_LAST_KILL = 0.6
#: A kill that has found nobody of its kind for this share of the work takes a worker instead.
_PATIENCE = 0.05
#: Seconds. Small work is over soon: who looks seldom finds nobody left to kill.
_KILL_INTERVAL = 0.01
_END_INTERVAL = 0.2
#: A request, or a picture, that was with several engines or decoders when they died gets a failed
#: row, as it is taken for their killer. So those of one worker are not killed more often than this;
#: the worker is killed instead.
_MAX_KILLS_OF_CHILDREN = {"engine": 2, "decoder": 1}


@dataclass
class KillConfig:
    """What is captioned, and how often somebody is killed."""

    output: str = "???"  # folder of both runs
    input: str = ""  # tars; empty: scenes are drawn
    overrides: list[str] = field(default_factory=list)  # further key=value of the captioning
    python: str = ""  # of the workers; empty: this one
    cluster: bool = False  # workers as an array on two nodes, rather than plain processes
    num_workers: int = 3
    num_kills: int = 20
    kinds: list[str] = field(default_factory=list)  # of KINDS; empty: all that the engine has
    num_shards: int = 24  # of scenes
    shard_size: int = 40
    image_size: int = 1024  # pixels a side; large ones take long to decode
    seed: int = 0  # of scenes, moments and victims
    timeout: int = 3600  # seconds for the disturbed run

    def __post_init__(self) -> None:
        check_at_least(1, {"num_workers": self.num_workers, "num_kills": self.num_kills})
        for kind in self.kinds:
            check_choice("kinds", kind, KINDS)

    @property
    def arguments(self) -> list[str]:
        """Of `recaption run`; the last of equal keys wins."""
        defaults = ["engine.name=existing", "num_decode_processes=1"]
        defaults += ["claims.heartbeat=2", "claims.stale_after=30"]
        return [*defaults, *self.overrides]

    @property
    def drawn_kinds(self) -> list[str]:
        has_engine = "engine.name=vllm" in self.overrides
        return self.kinds or [kind for kind in KINDS if kind != "engine" or has_engine]


@dataclass
class Kills:
    """What is still to be killed, and what was."""

    config: KillConfig
    output: Path
    num_rows: int
    rng: random.Random
    done: Counter[str] = field(default_factory=Counter)
    _of_children: Counter[tuple[int, str]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        kinds = self.config.drawn_kinds
        drawn = [kinds[number % len(kinds)] for number in range(self.config.num_kills)]
        self.rng.shuffle(drawn)
        self.writes = WriteKills(drawn.count("write"), 0, self.rng)
        others = [kind for kind in drawn if kind != "write"]
        moments = sorted(self.rng.uniform(0, _LAST_KILL) * self.num_rows for _ in others)
        self._plan = list(zip(moments, others, strict=True))

    @property
    def num_left(self) -> int:
        return len(self._plan) + self.writes.num_left

    def kill_if_due(self, witness: Witness) -> None:
        num_answered = witness.num_answered()
        if not self._plan or num_answered < self._plan[0][0]:
            return
        with suspended_targets(self.output, witness.workers()) as targets:
            self._kill_one_of(targets, num_answered)

    def _kill_one_of(self, targets: list[Target], num_answered: int) -> None:
        moment, kind = self._plan[0]
        is_overdue = num_answered > moment + _PATIENCE * self.num_rows
        if is_overdue or (targets and all(self._is_spared(target, kind) for target in targets)):
            kind = "worker"
        victims = [
            (target, process) for target in targets for process in self._victims(target, kind)
        ]
        if not victims:
            return  # its time comes
        target, victim = self.rng.choice(victims)
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
            self._of_children[target.worker.pid, kind] += 1
            self.done[kind] += 1
            self._plan.pop(0)
            print(f"kill: {kind}, at row {num_answered} of {self.num_rows}", flush=True)

    def _victims(self, target: Target, kind: str) -> list[psutil.Process]:
        if kind == "worker":
            return [target.worker]
        if self._is_spared(target, kind):
            return []
        if kind == "engine":
            return target.engines
        is_at_work = target.engines or "engine" not in self.config.drawn_kinds
        return target.decoders if is_at_work else []

    def _is_spared(self, target: Target, kind: str) -> bool:
        limit = _MAX_KILLS_OF_CHILDREN.get(kind)
        return limit is not None and self._of_children[target.worker.pid, kind] >= limit


def main(argv: list[str]) -> None:
    config = load_config(KillConfig, argv, __doc__)
    output = Path(config.output).resolve()
    if output.exists() and any(output.iterdir()):
        raise ConfigError(f"{output} is not empty: give another folder as output")
    output.mkdir(parents=True, exist_ok=True)
    tars = config.input or str(output / "scenes")
    if not config.input:
        Path(tars).mkdir()
        num_scenes = config.num_shards * config.shard_size
        sizes = (config.shard_size, config.image_size)
        write_shards(Path(tars), "scene", num_scenes, 0, config.seed, *sizes, 0.25)

    whole, killed = output / "whole", output / "killed"
    started = time.monotonic()
    command = worker_command(config.python, [*config.arguments, f"input={tars}"])
    _run_to_end(Processes([*command, f"output={whole}"], 1, output), config.timeout)
    stats = [read_stats(whole, tar.stem) for tar in find_shards(tars)]
    num_rows = sum(one.num_rows for one in stats if one is not None)
    undisturbed_seconds = time.monotonic() - started
    print(f"undisturbed: {num_rows} rows in {undisturbed_seconds:.0f} s", flush=True)

    logs = output / "logs"
    logs.mkdir()
    kills = Kills(config, killed, num_rows, random.Random(config.seed))
    kills.writes.num_tables = len(stats)
    started = time.monotonic()
    with Witness(killed, output / "witness", kills.writes) as witness:
        kind = Array if config.cluster else Processes
        workers = kind([*command, f"output={killed}"], config.num_workers, logs)
        _run_to_end(workers, config.timeout, lambda: kills.kill_if_due(witness))
    kills.done.update({"write": len(kills.writes.found), "worker": kills.writes.num_too_late})

    compared = compare(tars, killed, whole)
    again = witness.answered_twice()
    result = {
        "engine": "vllm" if "engine.name=vllm" in config.overrides else "existing",
        "cluster": config.cluster,
        "num_kills": kills.done.total(),
        "kills": dict(kills.done),
        "found_of_tables": dict(Counter(_stage(names) for names in kills.writes.found)),
        "num_starts": workers.num_starts,
        "num_rows": compared.num_rows,
        "num_missing": len(compared.missing),
        "num_double": len(compared.double),
        "num_unknown": len(compared.unknown),
        "num_different": len(compared.different),
        "num_answered_twice": len(again),
        "num_tables_written_twice": len(witness.written_twice()),
        "undisturbed_seconds": round(undisturbed_seconds, 1),
        "seconds": round(time.monotonic() - started, 1),
    }
    for name, value in result.items():
        print(f"  {name:<28}{value}")
    for problem in (compared.missing + compared.double + compared.different)[:10]:
        print(f"  {problem}")
    print_json(argv, result)
    if kills.num_left:
        raise UserError(f"{kills.num_left} kills found nobody in time: give more num_shards")
    if any(result[name] for name in result if name.startswith(("num_missing", "num_double"))):
        raise UserError(f"keys have not exactly one row: see {output}")
    wrong = ("num_unknown", "num_different", "num_answered_twice", "num_tables_written_twice")
    if any(result[name] for name in wrong):
        raise UserError(f"the disturbed run is not the undisturbed one: see {output}")


def _run_to_end(
    workers: Array | Processes, timeout: float, meanwhile: Callable[[], None] = lambda: None
) -> None:
    deadline = time.monotonic() + timeout
    try:
        while not workers.are_done():
            if time.monotonic() > deadline:
                raise UserError(f"not done after timeout={timeout:.0f} s")
            looked = time.monotonic()
            while time.monotonic() < looked + _END_INTERVAL:
                meanwhile()
                time.sleep(_KILL_INTERVAL)
    finally:
        workers.stop()


def _stage(names: list[str]) -> str:
    """How far a killed worker was with a table."""
    if not any(name.endswith(".parquet") for name in names):
        return "unfinished"
    return "without marker"


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
