"""``pack.json``: the figures of a pack, and the marker of a folder that is whole."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recaption.common.config import UserError
from recaption.common.files import read_json
from recaption.pack import remote
from recaption.pack.buckets import SplitCounts
from recaption.pack.config import PackConfig, deciding_settings
from recaption.pack.inputs import Tar
from recaption.table import SourceFile

MARKER = "pack.json"


@dataclass
class PackSummary:
    """What stands in ``pack.json``, the commit marker of a folder of training shards."""

    output: str
    num_samples: int = 0
    #: Lines of ``quarantine.jsonl``: samples, single members and ends of damaged tars.
    num_quarantined: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    #: Samples that have captions of each source.
    sources: Counter[str] = field(default_factory=Counter)
    #: Samples of each split, if there are splits.
    splits: Counter[str] = field(default_factory=Counter)
    num_tars: int = 0
    #: Tars that an earlier pack, which was stopped, had read already.
    num_resumed_tars: int = 0
    num_damaged_shards: int = 0
    seconds: float = 0.0
    was_finished: bool = False

    def add_samples(self, counts: dict[str, SplitCounts]) -> None:
        """``counts``: of each split."""
        for split, count in counts.items():
            self.num_samples += count.num_samples
            if split:
                self.splits[split] += count.num_samples
            for name, source in sorted(count.sources.items()):
                self.sources[name] += source.num_captions

    def __str__(self) -> str:
        if self.was_finished:
            return f"{self.output} is finished already: {self.num_samples:,} samples"
        counts = sorted((self.reasons + self.notes + self.sources + self.splits).items())
        again = f" ({self.num_resumed_tars} read before)" if self.num_resumed_tars else ""
        return (
            f"{self.num_samples:,} samples of {self.num_tars} tars{again} in {self.output}, "
            f"{self.num_quarantined:,} quarantined, {self.seconds:.1f} s; "
            f"{', '.join(f'{name} {count:,}' for name, count in counts)}"
        )


def write_markers(
    config: PackConfig,
    folder: Path,
    summary: PackSummary,
    counts: dict[str, SplitCounts],
    inputs: dict[str, Any],
) -> None:
    """``pack.json``, and one with the figures of a split in each split's folder."""
    for split, count in counts.items():
        if split:
            of_split = PackSummary(f"{config.output}/{split}")
            of_split.add_samples({split: count})
            _write(folder / split / MARKER, {"summary": vars(of_split)})
    settings = deciding_settings(config)
    _write(folder / MARKER, {"summary": vars(summary), "config": settings, **inputs})


def _write(path: Path, tree: dict[str, Any]) -> None:
    path.write_text(json.dumps(tree, indent=1) + "\n")


def read_finished(
    config: PackConfig, work: Path, tars: list[Tar], tables: dict[str, list[str]]
) -> PackSummary | None:
    """The summary of an output that holds exactly what ``config`` asks for; None for no output.

    Raises:
        UserError: it holds something else.
    """
    output = config.output
    marker = _read_marker(output, work)
    if marker is None:
        return None
    then = [SourceFile(**source) for source in marker["tars"]]
    is_same = marker["tables"] == tables and len(tars) == len(then)
    is_same = is_same and all(tar.is_same(file) for tar, file in zip(tars, then, strict=True))
    if not is_same or marker["config"] != deciding_settings(config):
        what = "settings" if is_same else "shards or tables"
        raise UserError(f"{output} was packed from other {what}: use another output folder")
    tree: dict[str, Any] = marker["summary"] | {"output": output, "was_finished": True}
    counters = ("reasons", "notes", "sources", "splits")
    tree |= {name: Counter(tree[name]) for name in counters}
    return PackSummary(**tree)


def _read_marker(output: str, work: Path) -> dict[str, Any] | None:
    foreign = UserError(f"{output} exists and holds no packed shards: use another output folder")
    if not remote.is_remote(output):
        folder = Path(output)
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return None
        if not (folder / MARKER).is_file():
            raise foreign
        tree: dict[str, Any] = read_json(folder / MARKER)
        return tree
    if remote.find_file(f"{output}/{MARKER}") is not None:
        marker: dict[str, Any] = json.loads(remote.read_text(f"{output}/{MARKER}"))
        return marker
    # A pack that was stopped has uploaded shards already, and its work folder is still there.
    if remote.list_files(output) and not (work / "buckets").is_dir():
        raise foreign
    return None
