"""``python -m tools.score_captions tables=DIR shards=DIR [--json]``

Scores caption tables of drawn scenes: precision and recall of the (thing, colour) pairs that the
captions name, and the same against wrong scenes as a control.
"""

import dataclasses
import io
import json
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from omegaconf import MISSING

from recaption.common.config import UserError, load_config, print_json, run_command
from tools.score_captions.mentions import Pair
from tools.score_captions.score import score_captions


@dataclass
class ScoreCaptionsConfig:
    """What to score."""

    tables: str = MISSING  #: folder of caption tables (*.parquet), or one table
    shards: str = MISSING  #: folder of the scenes' shards (*.tar), or one shard


def main(arguments: list[str]) -> None:
    config = load_config(ScoreCaptionsConfig, arguments, __doc__)
    captions = read_captions(Path(config.tables))
    truths = read_truths(Path(config.shards))
    unknown = sorted(captions.keys() - truths.keys())
    if unknown:
        raise UserError(f"{config.shards} has no scene {unknown[0]!r} ({len(unknown)} are missing)")
    if len(captions) < 2:
        raise UserError(f"{config.tables} holds {len(captions)} captions; need at least two")
    keys = sorted(captions)
    score = score_captions([captions[key] for key in keys], [truths[key] for key in keys])
    for name, value in dataclasses.asdict(score).items():
        print(f"{name:>18}: {value if isinstance(value, int) else f'{value:.3f}'}")
    print_json(arguments, dataclasses.asdict(score))


def read_captions(path: Path) -> dict[str, str]:
    """Key -> caption; a caption that was rejected or failed counts as an empty one."""
    captions = {}
    for file in _files(path, "parquet"):
        table = pq.read_table(file, columns=["key", "caption", "status"])
        for row in table.to_pylist():
            captions[row["key"]] = (row["caption"] or "") if row["status"] == "ok" else ""
    return captions


def read_truths(path: Path) -> dict[str, set[Pair]]:
    """Key -> the (thing, colour) pairs of a scene."""
    truths = {}
    for file in _files(path, "tar"):
        with tarfile.open(file) as tar:
            for member in tar:
                if not member.name.endswith(".json"):
                    continue
                content = tar.extractfile(member)
                assert content is not None
                scene = json.load(io.TextIOWrapper(content, encoding="utf-8"))
                key = Path(member.name).name.removesuffix(".json")
                try:
                    truths[key] = {(thing["name"], thing["color"]) for thing in scene["objects"]}
                except (KeyError, TypeError):
                    raise UserError(
                        f"{file}: {member.name} does not say which things of which colours there "
                        "are; only scenes of tools.make_scenes can be scored"
                    ) from None
    return truths


def _files(path: Path, suffix: str) -> list[Path]:
    files = [path] if path.is_file() else sorted(path.glob(f"*.{suffix}"))
    if not files:
        raise UserError(f"no *.{suffix} in {path}")
    return files


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
