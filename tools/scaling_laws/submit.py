"""The runs of a ladder as jobs of Slurm: an array of all shortest lengths, and the longer ones.

Each longer one waits until the run that it goes on from has ended, however it did: a run whose
trunk is missing ends with an error that says so. Where that would be more chains of runs at a time
than ``job.max_parallel``, the longer ones are arrays, too, of which each waits for all before. A
job goes back to the queue until its training is done, as any that `slurm.submit` submits.
"""

from pathlib import Path

from tools.scaling_laws.cost import Costs
from tools.scaling_laws.jobs import Jobs
from tools.scaling_laws.ladder import LadderConfig, Rung
from tools.scaling_laws.outcome import close, is_trained, note_failure, state_of


def submit_rungs(rungs: list[Rung], config: LadderConfig, costs: Costs) -> list[Rung]:
    """Closes the runs that have been trained, and submits those that are neither done nor in the
    queue.

    Returns:
        Those whose job ended before the last step. They are submitted again.

    Raises:
        UserError: there is no Slurm here, or it does not answer.
    """
    Path(config.output).mkdir(parents=True, exist_ok=True)
    open_rungs = [rung for rung in rungs if not state_of(rung).is_done]
    jobs = Jobs(config, open_rungs)
    todo, failed = [], []
    for rung in open_rungs:
        job = jobs.of(rung)
        if jobs.is_queued(rung):
            print(f"{rung.name}: job {job.job} is in the queue", flush=True)
        elif is_trained(rung):
            close(rung, config, costs)
        else:
            if job.job:
                reason = f"job {job.job}: {job.reason}"
                log = job.log or config.job.logs
                print(f"{rung.name} ended before its last step; {reason}; log {log}", flush=True)
                note_failure(rung, reason)
                failed.append(rung)
            todo.append(rung)
    for depth in sorted({_depth(rung) for rung in todo}):
        level = [rung for rung in todo if _depth(rung) == depth]
        parents = {
            rung.name: jobs.of(rung.parent).job
            for rung in level
            if rung.parent and jobs.is_queued(rung.parent)
        }
        if len(level) > config.job.max_parallel:
            _submit(jobs, level, sorted(set(parents.values())))
            continue
        if free := [rung for rung in level if rung.name not in parents]:
            _submit(jobs, free, [])
        for rung in level:
            if rung.name in parents:
                _submit(jobs, [rung], [parents[rung.name]])
    return failed


def _submit(jobs: Jobs, rungs: list[Rung], waits_for: list[str]) -> None:
    jobs.submit(rungs, waits_for)
    for rung in rungs:
        print(f"{rung.name}: job {jobs.of(rung).job}; log {jobs.of(rung).log}", flush=True)


def _depth(rung: Rung) -> int:
    return 1 + _depth(rung.parent) if rung.parent else 0
