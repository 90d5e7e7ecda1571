"""Who this process is among the others, told before any library asks the environment.

mosaicml-streaming, DeepSpeed and torch read `VARIABLES` from the environment, and streaming takes
one process a node where it finds no `LOCAL_WORLD_SIZE`. torchrun sets them all; below `srun` they
come from Slurm's own numbers; a process that nobody launched is alone. No torch is imported here.
"""

import os
import re
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

from recaption.common.errors import UserError
from recaption.common.processes import end_with_parent

VARIABLES = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
    *("MASTER_ADDR", "MASTER_PORT"),
)
#: A rank that misses another one ends with this, `EX_UNAVAILABLE`: for `slurm/lib.sh` a crash.
EXIT_LOST_RANK = 69

_Environment = MutableMapping[str, str]


def announce_rank(environment: _Environment = os.environ) -> None:
    """Sets all of `VARIABLES`, and `TMPDIR` to a folder of this attempt on this node.

    Raises:
        UserError: the environment says another number of processes than Slurm, or too little.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        return  # torchrun has set them, also inside a job
    if is_slurm_step(environment):
        ranks = _ranks_of_slurm(environment)
        _check_against(environment, ranks)
        environment.update(ranks)
        _scope_temporary_folder(environment)
    elif "RANK" in environment:
        missing = [name for name in VARIABLES if name not in environment]
        if missing:
            raise UserError(
                f"RANK={environment['RANK']} is set and {', '.join(missing)} is not: unset RANK, "
                "or start the ranks with torchrun or srun"
            )
    else:
        alone = _alone()
        _check_against(environment, {"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"})
        environment.update(alone)


def end_with_launcher(environment: _Environment = os.environ) -> None:
    """Has a rank of torchrun end when torchrun does, however that ends.

    torchrun starts its ranks in sessions of their own: killed, it would leave them training, and a
    second start of the command would train beside them in the same folder. Where it has ended
    before this call the ranks never meet, as it is torchrun that keeps the store in which they do,
    and they give up in minutes. Slurm itself ends the ranks of its steps.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        end_with_parent()


def announced_world_size() -> int:
    """How many processes work together; 1 where nobody has announced any."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_slurm_step(environment: _Environment = os.environ) -> bool:
    """Whether `srun` started this process itself: no batch script, and no torchrun in between."""
    is_step = "SLURM_STEP_ID" in environment and "SLURM_PROCID" in environment
    return is_step and "TORCHELASTIC_RUN_ID" not in environment


def describe_attempt(environment: _Environment = os.environ) -> str:
    """`attempt 2 of job 17 on n[1-2]`, or nothing outside a job."""
    if "SLURM_JOB_ID" not in environment:
        return ""
    attempt = int(environment.get("SLURM_RESTART_COUNT", "0")) + 1
    job, nodes = environment["SLURM_JOB_ID"], environment.get("SLURM_JOB_NODELIST", "?")
    if "SLURM_ARRAY_JOB_ID" in environment:
        job = f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return f"attempt {attempt} of job {job} on {nodes}"


def note_that_it_stopped(environment: _Environment = os.environ) -> None:
    """For `slurm/lib.sh`: all is saved, however the ranks that are still there end."""
    if "CANOPY_STOPPED_NOTE" in environment:
        Path(environment["CANOPY_STOPPED_NOTE"]).touch()


def first_host(nodes: str) -> str:
    """The first host of a list as Slurm writes it: `gpu[03-10,12],login` -> `gpu03`."""
    first = re.split(r",(?![^\[]*\])", nodes)[0]
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first)


def job_folder_names(environment: _Environment = os.environ) -> list[str]:
    """Names of the temporary folders of this job's attempts, that of the present one last.

    Attempts are told apart, as an attempt that Slurm ends may still be tidying up when the next one
    works; so are nodes, which in a test share a disk.
    """
    job, node = environment["SLURM_JOB_ID"], environment.get("SLURM_NODEID", "0")
    num_restarts = int(environment.get("SLURM_RESTART_COUNT", "0"))
    return [f"canopy-{job}-{attempt}-{node}" for attempt in range(1, num_restarts + 2)]


def _alone() -> dict[str, str]:
    numbers = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    return {**numbers, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}


def _ranks_of_slurm(environment: _Environment) -> dict[str, str]:
    num_tasks, rank = _number(environment, "SLURM_NTASKS"), _number(environment, "SLURM_PROCID")
    if num_tasks == 1:
        return _alone()
    local_rank, node = _number(environment, "SLURM_LOCALID"), _number(environment, "SLURM_NODEID")
    per_node = _tasks_per_node(environment)
    if len(set(per_node)) > 1 or sum(per_node) != num_tasks:
        raise UserError(
            f"Slurm runs {num_tasks} tasks as {environment['SLURM_STEP_TASKS_PER_NODE']} on the "
            "nodes; every node must have as many: give srun --ntasks-per-node"
        )
    if (rank // per_node[0], rank % per_node[0]) != (node, local_rank):
        raise UserError(
            f"task {rank} is number {local_rank} of node {node}, which is not its turn with "
            f"{per_node[0]} tasks a node: give srun --distribution=block"
        )
    # A port of its own for each step, so that neither two jobs on a node meet nor two steps, and
    # below those that the system gives to clients.
    job, step = _number(environment, "SLURM_JOB_ID"), _number(environment, "SLURM_STEP_ID")
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(local_rank),
        "WORLD_SIZE": str(num_tasks),
        "LOCAL_WORLD_SIZE": str(per_node[0]),
        "MASTER_ADDR": environment.get("MASTER_ADDR")
        or first_host(environment["SLURM_STEP_NODELIST"]),
        "MASTER_PORT": environment.get("MASTER_PORT") or str(20000 + (16 * job + step) % 12000),
    }


def _number(environment: _Environment, name: str) -> int:
    value = environment.get(name, "")
    if not value.isdigit():
        raise UserError(f"{name}={value!r} in a step of Slurm: start the ranks with srun")
    return int(value)


def _tasks_per_node(environment: _Environment) -> list[int]:
    """`2(x3),1` -> `[2, 2, 2, 1]`."""
    counts: list[int] = []
    for part in environment.get("SLURM_STEP_TASKS_PER_NODE", "").split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if match is None:
            raise UserError(f"SLURM_STEP_TASKS_PER_NODE={part!r}: start the ranks with srun")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def _check_against(environment: _Environment, ranks: dict[str, str]) -> None:
    """An export left in a shell, or an older script, must not decide who trains with whom."""
    launched_by = "Slurm started" if is_slurm_step(environment) else "nobody launched more than"
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "RANK", "LOCAL_RANK"):
        given, expected = environment.get(name), ranks.get(name)
        if given is not None and expected is not None and given != expected:
            what = f"{launched_by} {ranks['WORLD_SIZE']} process(es), and here"
            raise UserError(
                f"the environment says {name}={given}; {what} it is {expected}: unset {name}"
            )


def _scope_temporary_folder(environment: _Environment) -> None:
    """Locks and caches of this attempt lie in a folder that goes with it."""
    base = Path(environment.get("TMPDIR", "/tmp"))
    name = job_folder_names(environment)[-1]
    folder = base if base.name == name else base / name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    environment["TMPDIR"] = str(folder)
    if environment is os.environ:
        tempfile.tempdir = None  # asked again
