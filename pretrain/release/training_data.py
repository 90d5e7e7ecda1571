"""What the training shards say of themselves: `data_card.json`, or at least `pack.json`."""

import copy
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from recaption.common.files import read_json

DATA_CARD = "data_card.json"
_SUMMARY = "pack.json"
#: As a data card says that nobody told (`recaption.pack`).
_UNKNOWN = "unknown"


@dataclass
class TrainingData:
    """None, and an empty list, stand for what is not known."""

    name: str | None = None
    num_samples: int | None = None  # trained on: all that are packed, or the first so many
    num_packed: int | None = None  # in the shards
    num_captions: dict[str, int] = field(default_factory=dict)  # by source
    num_quarantined: int | None = None  # left out when packing
    captioners: dict[str, str] = field(default_factory=dict)  # source -> model that wrote it
    licences: list[str] = field(default_factory=list)  # of images, alt texts and captions
    has_card: bool = False


def describe_training_data(train: str, name: str | None, num_first: int = 0) -> TrainingData:
    """Of the folder of training shards; what the run says where it is not on this machine.

    Args:
        train: folder as the run's configuration has it.
        name: what the data are called.
        num_first: the run trained on the first so many samples (`data.num_samples`); 0: on all.
    """
    card, summary = read_data_card(train), _read_summary(Path(train))
    data = TrainingData(name)
    if summary is not None:
        data.num_packed = summary["num_samples"]
        data.num_captions = dict(summary["sources"])
        data.num_quarantined = summary["num_quarantined"]
    if card is not None:
        split = card["splits"].get(Path(train).name) or card["splits"].get("all")
        if split is not None:
            data.num_packed = split["num_samples"]
            data.num_captions = {n: s["num_captions"] for n, s in split["sources"].items()}
        # A split's own summary does not know what was left out of the whole.
        data.num_quarantined = sum(card["quarantined"].values())
        data.captioners = {source["name"]: _model_of(source) for source in card["sources"]}
        data.licences = [text for text in card["licences"] if not text.startswith(_UNKNOWN)]
        data.has_card = True
    data.num_samples = num_first or data.num_packed
    if data.num_samples != data.num_packed:
        data.num_captions = {}  # nobody counted those of the first samples
    return data


def read_data_card(train: str) -> dict[str, Any] | None:
    """The card of the shards, or of what they are a split of; without the folders they came from.

    None if there is none.
    """
    folder = Path(train)
    for place in (folder, folder.parent):
        if (place / DATA_CARD).is_file():
            card: dict[str, Any] = read_json(place / DATA_CARD)
            if place == folder or folder.name in card["splits"]:
                return _without_folders(card)
    return None


def _without_folders(card: dict[str, Any]) -> dict[str, Any]:
    named = copy.deepcopy(card)
    named["input"] = {key: value and last_names(value) for key, value in card["input"].items()}
    for source in named["sources"]:
        source["folder"] = source["folder"] and last_names(source["folder"])
        if Path(source["model"]).is_absolute():
            source["model"] = last_names(source["model"])
    return named


def last_names(paths: str) -> str:
    """``/sets/a,s3://sets/b`` -> ``a,b``: where things lay is nobody's business elsewhere."""
    return ",".join(PurePath(path).name for path in paths.split(","))


def _read_summary(folder: Path) -> dict[str, Any] | None:
    if not (folder / _SUMMARY).is_file():
        return None
    summary: dict[str, Any] = read_json(folder / _SUMMARY)["summary"]
    return summary


def _model_of(source: dict[str, Any]) -> str:
    revision, model = source.get("model_revision"), source["model"]
    return f"{model} (revision {revision})" if revision else str(model)
