"""The runs of a ladder as arrays of Slurm jobs: all shortest lengths, then all second ones, ...

An array waits until that of the lengths that it goes on from has ended, however it did: a run whose
trunk is missing ends with an error that says so. Each job goes back to the queue until its training
is done, as any that `slurm.submit` submits.
"""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

from recaption.common.errors import UserError
from recaption.common.files import atomic_write, read_json
from slurm.submit import submit
from tools.scaling_laws.cost import Costs
from tools.scaling_laws.ladder import LadderConfig, Rung
from tools.scaling_laws.outcome import close, forget_failure, is_trained, note_failure, state_of

JOBS = "jobs.json"


def submit_rungs(rungs: list[Rung], config: LadderConfig, costs: Costs) -> list[Rung]:
    """Closes the runs that have been trained, and submits those that are neither done nor in the
    queue; their jobs stand in ``OUTPUT/jobs.json``.

    Returns:
        Those whose job ended before the last step. They are submitted again.

    Raises:
        UserError: there is no Slurm here, or it does not answer.
    """
    path = Path(config.output) / JOBS
    jobs: dict[str, str] = read_json(path) if path.exists() else {}
    queued = _queued(list(jobs.values()))
    todo, failed = [], []
    for rung in rungs:
        if state_of(rung).is_done:
            continue
        if jobs.get(rung.name) in queued:
            print(f"{rung.name}: job {jobs[rung.name]} is in the queue", flush=True)
        elif is_trained(rung):
            close(rung, config, costs)
        else:
            if rung.name in jobs:
                print(
                    f"{rung.name}: job {jobs[rung.name]} ended before its last step; its log is "
                    f"in {config.job.logs}",
                    flush=True,
                )
                note_failure(rung, f"job {jobs[rung.name]} ended before the last step")
                failed.append(rung)
            todo.append(rung)
    for depth in sorted({_depth(rung) for rung in todo}):
        level = [rung for rung in todo if _depth(rung) == depth]
        waits_for = {jobs[r.parent.name] for r in level if r.parent and r.parent.name in jobs}
        waits_for &= queued
        options = list(config.job.options)
        if waits_for:
            options.append(f"dependency=afterany:{':'.join(sorted(waits_for))}")
        submitted = submit(
            replace(config.job, options=options), [list(rung.arguments) for rung in level]
        )
        for rung, job in zip(level, submitted, strict=True):
            jobs[rung.name] = job.job_id
            queued.add(job.job_id)
            forget_failure(rung)
            print(f"{rung.name}: job {job.job_id}; log {job.paths.stdout}", flush=True)
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(jobs, indent=1))
    return failed


def _depth(rung: Rung) -> int:
    return 1 + _depth(rung.parent) if rung.parent else 0


def _queued(jobs: list[str]) -> set[str]:
    """Which of the jobs wait or run."""
    if not jobs:
        return set()
    words = ["squeue", "--noheader", "--array", "--format=%i %A"]
    try:
        shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    except FileNotFoundError:
        raise UserError("there is no squeue here: is this a machine of the cluster?") from None
    except subprocess.CalledProcessError as error:
        raise UserError(
            f"squeue does not say which jobs wait or run: {error.stderr.strip()}; nothing was "
            "submitted, try again"
        ) from None
    return set(shown) & set(jobs)
