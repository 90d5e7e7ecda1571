"""What a folder of caption tables says about itself, for the commands that look into it."""

from dataclasses import dataclass
from pathlib import Path

from recaption.common.config import UserError, read_config
from recaption.config import RunConfig
from recaption.shards import find_shards


@dataclass
class OutputConfig:
    #: The folder of the caption tables.
    output: str
    #: The tars; empty: those of OUTPUT/config.yaml.
    input: str = ""


@dataclass(frozen=True)
class OutputFolder:
    """Tables, claims and journals, and the tars that they belong to."""

    path: Path
    #: As the last `run` wrote it; None where there is no config.yaml.
    config: RunConfig | None
    tars: list[Path]

    @property
    def work(self) -> Path:
        return self.path / "work"


def open_output(config: OutputConfig) -> OutputFolder:
    """Raises: UserError: no such folder, or nothing that says which tars it is for."""
    path = Path(config.output)
    if not path.is_dir():
        raise UserError(f"output={path}: no such folder")
    written = path / "config.yaml"
    run = read_config(RunConfig, written) if written.is_file() else None
    if not config.input and run is None:
        raise UserError(f"{written} is not there: give input=FOLDER, the tars of these tables")
    pattern = config.input or (run.input if run is not None else "")
    return OutputFolder(path, run, find_shards(pattern))
