"""Web shards and their caption tables -> MDS training shards.

Every image is decoded once here and encoded again (upright, RGB, without EXIF), so that training
meets no bad file. What is left out stands in ``quarantine.jsonl`` with the reason.
"""

import importlib.util
import json
import math
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from recaption.common.config import UserError, check_at_least, check_choice, to_dict, write_config
from recaption.common.files import read_json, sync
from recaption.common.progress import Progress
from recaption.images import BadImageError, ImageConfig, encode_image
from recaption.pictures import read_picture
from recaption.prefetch import map_ahead
from recaption.sentences import split_sentences
from recaption.shards import Sample, Shard, find_shards, open_shard
from recaption.table import SourceFile, check_table, read_table, table_path

COLUMNS = {
    "key": "str",
    "image": "bytes",
    "width": "int",
    "height": "int",
    "captions": "json",  # source -> list of sentences; `raw` is the alt text
    "objects": "json",
    "sha256": "str",  # of the image as it was on the web, as in the caption tables
    "shard": "str",
}
RAW = "raw"


@dataclass
class PackConfig:
    #: A folder of tars, one tar, or a glob in quotes.
    shards: str
    #: The new folder of training shards.
    output: str
    #: Folders of caption tables, separated by commas; none for the alt texts alone.
    tables: str | None = None
    #: Sources (prompt ids, `raw` for the alt text) without a caption of which a sample is left out.
    require: list[str] = field(default_factory=list)
    images: ImageConfig = field(default_factory=ImageConfig)
    #: How images are stored: jpeg, or png for small lossless sources.
    image_format: str = "jpeg"
    #: JPEG quality.
    quality: int = 95
    #: Largest size of a training shard, in MiB.
    shard_size: int = 64
    #: Threads that decode and encode.
    num_threads: int = 4

    def __post_init__(self) -> None:
        check_choice("image_format", self.image_format, ("jpeg", "png"))
        for name in ("quality", "shard_size", "num_threads"):
            check_at_least(1, {name: getattr(self, name)})


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
    num_damaged_shards: int = 0
    seconds: float = 0.0
    was_finished: bool = False

    def __str__(self) -> str:
        if self.was_finished:
            return f"{self.output} is finished already: {self.num_samples:,} samples"
        counts = sorted((self.reasons + self.notes + self.sources).items())
        return (
            f"{self.num_samples:,} samples in {self.output}, {self.num_quarantined:,} quarantined, "
            f"{self.seconds:.1f} s; {', '.join(f'{name} {count:,}' for name, count in counts)}"
        )


@dataclass(frozen=True)
class Packed:
    """A sample for the writer, or the reason why there is none."""

    key: str
    sample: dict[str, Any] | None = None
    reason: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableCaptions:
    """The captions of one table: of the image with this hash, sentences of each prompt."""

    sha256: str | None
    sentences: dict[str, list[str]]


def pack(config: PackConfig) -> PackSummary:
    """Writes the training shards of ``config``, or finds them finished.

    Raises:
        UserError: streaming is not installed, no shards, unfinished tables, no usable sample, or
            an output folder that holds something else.
    """
    shards = find_shards(config.shards)
    folders = [Path(folder) for folder in (config.tables or "").split(",") if folder]
    _check_tables(shards, folders)
    output = Path(config.output)
    finished = _read_finished(output, config, shards, folders)
    if finished is not None:
        return finished
    if importlib.util.find_spec("streaming") is None:
        raise UserError(
            "pack needs mosaicml-streaming, which this environment does not have: run "
            "`make .venv-train/.installed` and use .venv-train/bin/python"
        )
    partial_folder = output.with_name(f"{output.name}.partial")
    shutil.rmtree(partial_folder, ignore_errors=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        summary = _write(config, shards, folders, partial_folder)
        inputs = [asdict(SourceFile.of(path)) for path in _inputs(shards, folders)]
        marker = {"summary": vars(summary), "config": _fixed(config), "inputs": inputs}
        (partial_folder / "pack.json").write_text(json.dumps(marker, indent=1) + "\n")
        write_config(config, partial_folder / "config.yaml")
        for path in [*partial_folder.iterdir(), partial_folder]:
            sync(path)
        partial_folder.rename(output)
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)
    return summary


def _write(
    config: PackConfig, shards: list[Path], folders: list[Path], output: Path
) -> PackSummary:
    from streaming import MDSWriter

    summary = PackSummary(config.output)
    first_with: dict[str, str] = {}
    with (
        MDSWriter(out=str(output), columns=COLUMNS, size_limit=config.shard_size * 2**20) as writer,
        (output / "quarantine.jsonl").open("w") as quarantine,
        ThreadPoolExecutor(config.num_threads) as pool,
        Progress(None, "images") as progress,
    ):

        def give_up(key: str, shard: str, reason: str) -> None:
            summary.num_quarantined += 1
            summary.reasons[reason.split(":")[0]] += 1
            quarantine.write(json.dumps({"key": key, "shard": shard, "reason": reason}) + "\n")

        sizes = [shard.stat().st_size for shard in shards]
        for number, path in enumerate(shards):
            with open_shard(path) as shard:
                index = shard.index
                progress.total = progress.done + shard.estimate_num_samples(sizes[number:])
                summary.notes.update(shard.count_ignored())
                summary.notes.update(_warn_of_other_tars(shard, folders))
                for member in index.bad_members:
                    give_up(member.name, shard.name, f"bad-member: {member.reason}")
                if index.damage is not None:
                    summary.num_damaged_shards += 1
                    give_up("", shard.name, f"damaged-tar: {index.damage}")
                for packed in _pack_shard(shard, folders, config, pool):
                    summary.notes.update(packed.notes)
                    progress.advance()
                    if packed.sample is None:
                        give_up(packed.key, shard.name, packed.reason or "")
                        continue
                    where = f"{shard.name}/{packed.key}"
                    other = first_with.setdefault(packed.sample["sha256"], where)
                    if other != where:
                        give_up(packed.key, shard.name, f"duplicate-image: the same as {other}")
                        continue
                    writer.write(packed.sample)
                    summary.num_samples += 1
                    summary.sources.update(packed.sample["captions"].keys())
        summary.seconds = round(progress.seconds, 3)
    if not summary.num_samples:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(summary.reasons.items()))
        raise UserError(f"{config.shards} gives no usable sample; quarantined: {counts or 'none'}")
    return summary


def _pack_shard(
    shard: Shard, folders: list[Path], config: PackConfig, pool: ThreadPoolExecutor
) -> Iterator[Packed]:
    tables = [_read_captions(folder, shard.name) for folder in folders]
    work = partial(_pack_sample, shard, tables, config)
    yield from map_ahead(pool, work, shard.index.samples, 8 * config.num_threads)


def _pack_sample(
    shard: Shard, tables: list[dict[str, TableCaptions]], config: PackConfig, sample: Sample
) -> Packed:
    picture = read_picture(shard, sample, config.images)
    if picture.decoded is None:
        return Packed(sample.key, reason=picture.failure)
    image = picture.decoded.image
    try:
        encoded = encode_image(image, config.image_format, config.quality)
    except BadImageError as error:
        return Packed(sample.key, reason=str(error))

    texts = shard.read_texts(sample)
    notes = [*texts.problems, *picture.decoded.notes]
    captions: dict[str, list[str]] = {}
    if texts.alt_text:
        captions[RAW] = split_sentences(texts.alt_text)
    for table in tables:
        row = table.get(sample.key)
        if row is None:
            notes.append("not-in-table")
        elif row.sha256 not in (None, picture.sha256):
            return Packed(sample.key, reason="other-image: its caption is of another image")
        else:
            captions |= row.sentences
    captions = {source: sentences for source, sentences in captions.items() if sentences}
    if not captions:
        return Packed(sample.key, reason="missing-caption: neither alt text nor an ok row")
    for source in config.require:
        if source not in captions:
            return Packed(sample.key, reason=f"no-{source}: no ok caption of a source required")
    objects = texts.metadata.get("objects", [])
    named = (
        [thing for thing in objects if _is_named_box(thing)] if isinstance(objects, list) else []
    )
    if named != objects:
        notes.append("objects-malformed")
    return Packed(
        sample.key,
        {
            "key": sample.key,
            "image": encoded,
            "width": image.width,
            "height": image.height,
            "captions": captions,
            "objects": named,
            "sha256": picture.sha256,
            "shard": shard.name,
        },
        notes=tuple(notes),
    )


def _is_named_box(thing: Any) -> bool:
    """Whether it has a name and a box of four fractions, as localisation is scored by."""
    if not isinstance(thing, dict) or not isinstance(thing.get("name"), str):
        return False
    box = thing.get("box")
    return (
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(side, int | float) and math.isfinite(side) for side in box)
    )


def _read_captions(folder: Path, shard: str) -> dict[str, TableCaptions]:
    """Of each key in a shard's table: the image's hash, and the sentences of its ok rows."""
    columns = ["key", "sha256", "prompt_id", "sentences", "status"]
    captions: dict[str, TableCaptions] = {}
    for row in read_table(folder, shard).select(columns).to_pylist():
        entry = captions.setdefault(row["key"], TableCaptions(row["sha256"], {}))
        if row["status"] == "ok":
            entry.sentences[row["prompt_id"]] = row["sentences"]
    return captions


def _check_tables(shards: list[Path], folders: list[Path]) -> None:
    """Each folder has a finished table of each shard, and no two folders the same prompt's."""
    by_prompt: dict[str, list[Path]] = defaultdict(list)
    for folder in folders:
        origins = [origin for s in shards for origin in check_table(folder, s.stem).origins]
        for prompt in {origin.prompt_id for origin in origins}:
            by_prompt[prompt].append(folder)
    for prompt, users in by_prompt.items():
        if prompt == RAW or len(users) > 1:
            where = " and ".join(map(str, users))
            taken = "of the alt text" if prompt == RAW else "of one source"
            raise UserError(f"prompt_id {prompt!r} in {where}: a name {taken} only, rename one")


def _warn_of_other_tars(shard: Shard, folders: list[Path]) -> Counter[str]:
    """Tars of different sets are often called alike; then hardly a key is in the table."""
    notes: Counter[str] = Counter()
    for folder in folders:
        if not check_table(folder, shard.name).source.matches(shard.path):
            notes["table-of-another-tar"] += 1
            table = table_path(folder, shard.name)
            print(f"warning: {table} was made from another tar than {shard.path}", file=sys.stderr)
    return notes


def _inputs(shards: list[Path], folders: list[Path]) -> list[Path]:
    return [*shards, *(table_path(folder, shard.stem) for folder in folders for shard in shards)]


def _read_finished(
    output: Path, config: PackConfig, shards: list[Path], folders: list[Path]
) -> PackSummary | None:
    """The summary of a folder that holds exactly what ``config`` asks for; None for no folder."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None
    path = output / "pack.json"
    if not path.is_file():
        raise UserError(f"{output} exists and holds no packed shards: use another output folder")
    marker = read_json(path)
    inputs = _inputs(shards, folders)
    then = [SourceFile(**source) for source in marker["inputs"]]
    is_same = len(inputs) == len(then) and all(
        source.matches(file) for source, file in zip(then, inputs, strict=True)
    )
    if not is_same or marker["config"] != _fixed(config):
        what = "settings" if is_same else "shards or tables"
        raise UserError(f"{output} was packed from other {what}: use another output folder")
    tree: dict[str, Any] = marker["summary"] | {"output": str(output), "was_finished": True}
    tree |= {name: Counter(tree[name]) for name in ("reasons", "notes", "sources")}
    return PackSummary(**tree)


def _fixed(config: PackConfig) -> dict[str, Any]:
    """The settings that decide what is written; not where from, where to or how fast."""
    names = ("require", "images", "image_format", "quality", "shard_size")
    return {name: value for name, value in to_dict(config).items() if name in names}
