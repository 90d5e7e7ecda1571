"""Which releases a folder holds. Reads a few small files of each and imports no torch."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrain.checksums import SUMS
from recaption.common.config import UserError
from recaption.common.files import below_home, read_json

#: Folders of releases lie at most so deep: RUNS/RUN/releases/NAME.
_MAX_DEPTH = 3


@dataclass(frozen=True)
class ModelRecord:
    """A release at a glance; None is what it does not say."""

    name: str
    folder: Path
    architecture: str | None  # such as CAFT-B-16
    objective: str  # caft, flair, clip, ...
    image_size: int  # pixels
    embed_dim: int
    num_parameters: int | None
    num_samples_seen: int | None
    data: str | None
    text_to_image_r1: float | None  # share, on the set that it was evaluated on


def list_models(folder: Path | str) -> list[ModelRecord]:
    """The releases in a folder, or up to three levels below it, by their names.

    A folder that looks like one and cannot be read as one is left out, with a UserWarning.

    Raises:
        UserError: there is no such folder.
    """
    folder = below_home(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder")
    depths = range(_MAX_DEPTH + 1)
    found = {path.parent for depth in depths for path in folder.glob("*/" * depth + SUMS)}
    # A hidden one is being written, or was when its command was killed.
    shown = [path for path in found if not path.name.startswith(".")]
    releases = [path for path in shown if (path / "config.json").is_file()]
    records = []
    for path in sorted(releases):
        try:
            records.append(_describe(path))
        except (UserError, OSError) as error:
            warnings.warn(f"left out: {error}", stacklevel=3)  # past pretrain.list_models
    return sorted(records, key=lambda model: model.name)


def _describe(release: Path) -> ModelRecord:
    """Raises: UserError, OSError: it is no release, or is damaged."""
    config = read_json(release / "config.json")
    facts, evaluation = _read(release / "release.json"), _read(release / "evaluation.json")
    try:
        summary = evaluation.get("summary", {})
        return ModelRecord(
            name=facts.get("name", release.name),
            folder=release,
            architecture=facts.get("architecture"),
            objective=config["objective"]["name"],
            image_size=config["model"]["image"]["size"],
            embed_dim=config["model"]["embed_dim"],
            num_parameters=facts.get("num_parameters", {}).get("total"),
            num_samples_seen=facts.get("training", {}).get("num_samples_seen"),
            data=facts.get("data", {}).get("name"),
            text_to_image_r1=summary.get("t2i_r1"),
        )
    except KeyError as error:
        raise UserError(
            f"{release} is damaged, or no release: its config.json lacks {error}"
        ) from None
    except (TypeError, AttributeError) as error:
        raise UserError(f"{release} is damaged: a JSON file has another form ({error})") from None


def _read(path: Path) -> Any:
    return read_json(path) if path.is_file() else {}
