"""Which run of a ladder is which job of Slurm, as ``OUTPUT/jobs.json`` keeps it.

A submission is noted under a name of its own before it is made. If this process ends before it has
heard the jobs' numbers, the next one finds them in the queue by that name and submits none twice.
"""

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from secrets import token_hex
from typing import Any

from recaption.common.errors import UserError
from recaption.common.files import atomic_write, read_json
from slurm.submit import submit
from tools.scaling_laws.ladder import LadderConfig, Rung

JOBS = "jobs.json"


class NoAnswer(UserError):
    """Slurm does not tell which jobs wait or run."""


@dataclass(frozen=True)
class Job:
    """Of one run. Without a number, ``submission`` is what an array was to be called of which it
    was to be job ``index``; an array of one is a job by itself."""

    job: str = ""  # 12, or 12_3 in an array
    log: str = ""
    submission: str = ""
    index: int = 0
    size: int = 1

    @property
    def reason(self) -> str:
        """Why it ended early: the last error in its logs, or what they end with."""
        lines = []
        if self.log:
            for path in (Path(self.log).with_suffix(".err"), Path(self.log)):
                if path.exists():
                    lines += path.read_text(errors="replace").split("\n")
        lines = [line.strip() for line in lines if line.strip()]
        errors = [line[line.index("error: ") :] for line in lines if "error: " in line]
        said = (errors or lines)[-1:]
        return said[0] if said else "ended before its last step"


class Jobs:
    """The jobs of a ladder's runs, by the runs' names.

    Raises:
        NoAnswer: there is no Slurm here to ask about jobs that may still run, or it does not
            answer.
        UserError: the file that names the jobs is damaged.
    """

    def __init__(self, config: LadderConfig, rungs: Sequence[Rung]) -> None:
        """Args: config: the ladder; rungs: those whose jobs matter."""
        self._path = Path(config.output) / JOBS
        self._config = config.job
        self._jobs = _read_jobs(self._path) if self._path.exists() else {}
        names = {rung.name for rung in rungs}
        self._queue = self._ask() if names & self._jobs.keys() else {}
        for name in names & self._jobs.keys():
            if not self._jobs[name].job:
                self._find(name)

    def of(self, rung: Rung) -> Job:
        """An empty one where it has none."""
        return self._jobs.get(rung.name, Job())

    def is_queued(self, rung: Rung) -> bool:
        """Whether its job waits or runs."""
        return self.of(rung).job in self._queue

    def submit(self, rungs: list[Rung], waits_for: list[str]) -> None:
        """As one job, or an array, that begins when those with these numbers have ended."""
        name = f"{self._config.name}-{token_hex(4)}"
        for index, rung in enumerate(rungs):
            self._jobs[rung.name] = Job(submission=name, index=index, size=len(rungs))
        self._write()
        options = list(self._config.options)
        if waits_for:
            options.append(f"dependency=afterany:{':'.join(sorted(waits_for))}")
        chosen = replace(self._config, name=name, options=options)
        submitted = submit(chosen, [list(rung.arguments) for rung in rungs])
        for rung, job in zip(rungs, submitted, strict=True):
            self._jobs[rung.name] = Job(job.job_id, str(job.paths.stdout))
            self._queue[job.job_id] = name
        self._write()

    def _find(self, name: str) -> None:
        """The job of a submission whose numbers nobody has heard; none if it was never made."""
        noted = self._jobs.pop(name)
        for number, submission in self._queue.items():
            is_it = noted.size == 1 or number.partition("_")[2] == str(noted.index)
            if submission == noted.submission and is_it:
                log = Path(self._config.logs).absolute() / f"{number}_0_log.out"
                self._jobs[name] = Job(number, str(log))
        self._write()

    def _ask(self) -> dict[str, str]:
        """Names of the jobs that wait or run, by number."""
        words = ["squeue", "--noheader", "--array", "--format=%i %j"]
        if shutil.which(words[0]) is None:
            raise NoAnswer(
                f"{self._path} names jobs of runs that are not done, and there is no squeue here "
                "to ask about them: is this a machine of the cluster? If they have ended, delete "
                "that file"
            )
        try:
            told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        except subprocess.CalledProcessError as error:
            raise NoAnswer(
                f"squeue does not say which jobs wait or run: {error.stderr.strip()}; nothing was "
                "begun, try again"
            ) from None
        rows = [line.split(maxsplit=1) for line in told.splitlines()]
        return {row[0]: row[1].strip() for row in rows if len(row) == 2}

    def _write(self) -> None:
        records = {name: _record_of(job) for name, job in self._jobs.items()}
        with atomic_write(self._path) as temporary:
            temporary.write_text(json.dumps(records, indent=1))


def _read_jobs(path: Path) -> dict[str, Job]:
    """Earlier versions kept the number alone. Raises: UserError: it holds something else."""
    try:
        return {
            name: Job(record) if isinstance(record, str) else Job(**record)
            for name, record in read_json(path).items()
        }
    except (TypeError, AttributeError) as error:
        raise UserError(
            f"{path} does not hold the jobs of runs ({error}): if none of them waits or runs, "
            "delete that file"
        ) from None


def _record_of(job: Job) -> dict[str, Any]:
    return {name: value for name, value in asdict(job).items() if value != getattr(Job(), name)}
