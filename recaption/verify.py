"""``python -m recaption verify``: every key exactly once, and every table what it says it is."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from recaption.check_shard import CheckedShard, Problem, check_shard
from recaption.common.config import check_at_least
from recaption.common.files import atomic_write
from recaption.common.processes import end_with_parent
from recaption.common.progress import Progress
from recaption.output_folder import OutputConfig, OutputFolder, open_output
from recaption.table import ShardStats, changed_settings
from recaption.work.claims import ClaimConfig, read_holders
from recaption.work.journal import all_journals

_UNFINISHED = re.compile(r"\.(?P<shard>.*)\.(parquet|stats\.json)\.\d+\.tmp")
#: Problems that are printed; OUTPUT/verify.json has all.
_NUM_PRINTED = 20


@dataclass
class VerifyConfig(OutputConfig):
    #: Whether to read every image again and compare its sha256.
    hashes: bool = False
    #: Tars that are looked at beside each other.
    num_processes: int = 2

    def __post_init__(self) -> None:
        check_at_least(1, {"num_processes": self.num_processes})


@dataclass
class Verification:
    num_shards: int = 0
    num_images: int = 0
    num_rows: int = 0
    num_hashed: int = 0
    num_problems: int = 0
    #: Problems of each code.
    codes: Counter[str] = field(default_factory=Counter)
    #: The first of them.
    problems: list[Problem] = field(default_factory=list)
    #: All of them.
    file: str = ""

    def __str__(self) -> str:
        text = f"{self.num_shards:,} shards, {self.num_images:,} images, {self.num_rows:,} rows"
        text += f", {self.num_hashed:,} images hashed: " if self.num_hashed else ": "
        if not self.num_problems:
            return f"{text}every key exactly once, no problem"
        codes = ", ".join(f"{code} {count:,}" for code, count in sorted(self.codes.items()))
        lines = [f"{text}{self.num_problems:,} problems ({codes}), all in {self.file}"]
        lines += [f"  {problem}" for problem in self.problems]
        lines += ["  ..."] * (self.num_problems > len(self.problems))
        return "\n".join(lines)


def verify(config: VerifyConfig) -> Verification:
    """Looks at all shards; every problem goes to OUTPUT/verify.json."""
    folder = open_output(config)
    found = Verification(num_shards=len(folder.tars), file=str(folder.path / "verify.json"))
    problems: list[Problem] = []
    stats: list[ShardStats] = []
    check = partial(check_shard, folder=folder.path, hashes=config.hashes)
    with Progress(len(folder.tars), "shards", "verify") as progress:
        for checked in _check_all(check, folder.tars, config.num_processes):
            problems += checked.problems
            found.num_hashed += checked.num_hashed
            if checked.stats is not None:
                stats.append(checked.stats)
            progress.advance(note=f"{len(problems):,} problems")
    found.num_images = sum(one.num_images for one in stats)
    found.num_rows = sum(one.num_rows for one in stats)
    problems += _compare_settings(stats)
    problems += _find_leftovers(folder, {one.shard for one in stats})
    found.num_problems = len(problems)
    found.codes.update(problem.code for problem in problems)
    found.problems = problems[:_NUM_PRINTED]
    with atomic_write(found.file) as path:
        tree = {"num_shards": found.num_shards, "problems": [asdict(one) for one in problems]}
        path.write_text(json.dumps(tree, indent=1, ensure_ascii=False) + "\n")
    return found


def _check_all(
    check: "partial[CheckedShard]", tars: list[Path], num_processes: int
) -> Iterator[CheckedShard]:
    if num_processes == 1 or len(tars) == 1:
        yield from map(check, tars)
        return
    context = get_context("spawn")
    num_processes = min(num_processes, len(tars))
    with ProcessPoolExecutor(num_processes, context, end_with_parent, (os.getpid(),)) as pool:
        yield from pool.map(check, tars)


def _compare_settings(stats: list[ShardStats]) -> Iterator[Problem]:
    """All tables must be of the same prompts, models and filters: those that most have."""
    if not stats:
        return
    texts = {one.shard: json.dumps([list(map(asdict, one.origins)), one.filters]) for one in stats}
    usual = Counter(texts.values()).most_common(1)[0][0]
    model = next(one for one in stats if texts[one.shard] == usual)
    for one in stats:
        changed = changed_settings((one.origins, one.filters), (model.origins, model.filters))
        if changed:
            detail = f"{' and '.join(changed)} differ from those of {model.shard}"
            yield Problem(one.shard, "other-settings", detail)


def _find_leftovers(folder: OutputFolder, finished: set[str]) -> Iterator[Problem]:
    """What a killed worker left behind, and nobody needs: `run` clears it away."""
    unfinished = {path.name: _UNFINISHED.match(path.name) for path in folder.path.glob(".*.tmp")}
    if not folder.work.is_dir():
        return
    claims = folder.config.claims if folder.config is not None else ClaimConfig()
    in_hand = set()
    for holder in read_holders(folder.work, claims.stale_after):
        if holder.is_alive:
            in_hand.add(holder.shard)
        else:
            yield Problem(holder.shard, "leftover", f"claim of {holder.worker}, which is gone")
    for name, match in sorted(unfinished.items()):
        if match is not None and match["shard"] not in in_hand:
            yield Problem(match["shard"], "leftover", f"unfinished file {name}")
    for shard, path in all_journals(folder.work):
        if shard in finished - in_hand:
            yield Problem(shard, "leftover", f"journal of a finished shard: work/{path.name}")
