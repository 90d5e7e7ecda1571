"""``python -m recaption report``: `report.html`, what was captioned, to look at. One file.

All texts in it (captions, keys, alt texts) are strangers': they are escaped, and no key becomes a
file's name. Images are decoded within the limits of `images` and encoded anew.
"""

import base64
import io
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from recaption.common.config import UserError, check_at_least
from recaption.common.files import atomic_write
from recaption.common.progress import Progress
from recaption.images import ImageConfig
from recaption.output_folder import OutputConfig, OutputFolder, open_output
from recaption.pictures import read_picture
from recaption.shards import open_shard
from recaption.status import StatusConfig, status
from recaption.table import ShardStats, read_stats, read_table, table_path

REPORT = "report.html"
_TEMPLATE = Path(__file__).with_name("report.html.jinja")
_SIDE = 224  # pixels of an image's longer side
_NUM_BINS = 24
#: Words of a caption below which repeated ones tell nothing.
_MIN_WORDS = 10


@dataclass
class ReportConfig(OutputConfig):
    #: Captions shown beside their images, drawn at random.
    num_samples: int = 40
    #: Examples of each reason, and of each kind of worst case.
    num_examples: int = 4
    #: Tables that are read, drawn at random; counts are of all shards.
    num_tables: int = 16
    #: The same seed draws the same from the same tables.
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_samples", "num_examples", "num_tables"):
            check_at_least(1, {name: getattr(self, name)})


@dataclass
class ReportSummary:
    file: str
    num_tables: int
    num_captions: int
    num_images_shown: int

    def __str__(self) -> str:
        return (
            f"{self.file}: {self.num_images_shown} images, figures of {self.num_captions:,} rows "
            f"in {self.num_tables:,} tables"
        )


@dataclass(eq=False)
class Shown:
    """A row of a table, with what its sample in the tar adds."""

    row: dict[str, Any]
    image: str = ""
    alt_text: str = ""

    @property
    def words(self) -> list[str]:
        return (self.row["caption"] or "").split()


@dataclass(frozen=True)
class Histogram:
    title: str
    #: Label, count, and share of the largest count.
    bars: list[tuple[str, int, float]]


def write_report(config: ReportConfig) -> ReportSummary:
    """Writes OUTPUT/report.html from the shards that are finished.

    Raises:
        UserError: none is finished yet.
    """
    folder = open_output(config)
    draw = random.Random(config.seed)
    finished = [path for path in folder.tars if _is_there(folder, path.stem)]
    if not finished:
        raise UserError(f"{folder.path} has no finished table yet")
    read = sorted(draw.sample(finished, min(config.num_tables, len(finished))))
    rows = [Shown(row) for path in read for row in read_table(folder.path, path.stem).to_pylist()]
    captioned = [shown for shown in rows if shown.row["caption"]]
    samples = draw.sample(captioned, min(config.num_samples, len(captioned)))
    reasons = _examples_of_reasons(rows, config.num_examples, draw)
    worst = _worst(captioned, config.num_examples)
    picked = [
        *samples,
        *(one for group in (reasons, worst) for few in group.values() for one in few),
    ]
    images = folder.config.images if folder.config is not None else ImageConfig()
    _add_pictures(picked, {path.stem: path for path in read}, images)

    stats = [one for path in finished if (one := read_stats(folder.path, path.stem)) is not None]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(_TEMPLATE.read_text()).render(
        folder=str(folder.path),
        status=status(StatusConfig(config.output, config.input)),
        origins=[asdict(origin) for origin in stats[0].origins],
        prompts={} if folder.config is None else folder.config.asked,
        samples=samples,
        reasons=reasons,
        worst=worst,
        num_read=len(read),
        num_rows=len(rows),
        histograms=_histograms(captioned),
        rates=_rates(stats),
    )
    with atomic_write(folder.path / REPORT) as path:
        path.write_text(page, encoding="utf-8")
    shown = sum(bool(one.image) for one in picked)
    return ReportSummary(str(folder.path / REPORT), len(read), len(rows), shown)


def _is_there(folder: OutputFolder, shard: str) -> bool:
    return read_stats(folder.path, shard) is not None and table_path(folder.path, shard).is_file()


def _examples_of_reasons(
    rows: Iterable[Shown], num_examples: int, draw: random.Random
) -> dict[str, list[Shown]]:
    """A few rows of each reason's code, the most frequent first."""
    by_code: dict[str, list[Shown]] = {}
    for shown in rows:
        if shown.row["reason"]:
            by_code.setdefault(shown.row["reason"].split(":")[0], []).append(shown)
    codes = sorted(by_code, key=lambda code: (-len(by_code[code]), code))
    return {
        code: draw.sample(by_code[code], min(num_examples, len(by_code[code]))) for code in codes
    }


def _worst(captioned: Sequence[Shown], num_examples: int) -> dict[str, list[Shown]]:
    """What got past the filters and stands out."""
    fit = [shown for shown in captioned if shown.row["status"] == "ok"]
    long_enough = [shown for shown in fit if len(shown.words) >= _MIN_WORDS]

    def first(rows: Iterable[Shown], measure: Callable[[Shown], float]) -> list[Shown]:
        return sorted(rows, key=measure)[:num_examples]

    return {
        "longest": first(fit, lambda shown: -len(shown.words)),
        "shortest": first(fit, lambda shown: len(shown.words)),
        "most repeated words": first(long_enough, lambda shown: _share_of_new(shown.words)),
    }


def _share_of_new(words: list[str]) -> float:
    return len({word.lower() for word in words}) / len(words)


def _add_pictures(picked: Iterable[Shown], tars: dict[str, Path], config: ImageConfig) -> None:
    """Reads image and alt text of each row; the headers of a tar are read once."""
    by_shard: dict[str, list[Shown]] = {}
    for shown in picked:
        by_shard.setdefault(shown.row["shard"], []).append(shown)
    with Progress(len(by_shard), "tars", "report") as progress:
        for name, rows in by_shard.items():
            with open_shard(tars[name]) as shard:
                samples = {sample.key: sample for sample in shard.index.samples}
                for shown in rows:
                    sample = samples.get(shown.row["key"])
                    if sample is None or shown.image:
                        continue
                    shown.alt_text = shard.read_texts(sample).alt_text or ""
                    decoded = read_picture(shard, sample, config).decoded
                    if decoded is not None:
                        shown.image = _data_uri(decoded.image)
            progress.advance()


def _data_uri(image: Image.Image) -> str:
    """The image itself, small, as an address of HTML."""
    image = image.convert("RGB")
    image.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _histograms(captioned: Sequence[Shown]) -> list[Histogram]:
    """Lengths of the captions of each prompt."""
    histograms = []
    for prompt in sorted({shown.row["prompt_id"] for shown in captioned}):
        of_prompt = [shown for shown in captioned if shown.row["prompt_id"] == prompt]
        lengths = {
            "words": [len(shown.words) for shown in of_prompt],
            "tokens": [shown.row["num_tokens"] for shown in of_prompt if shown.row["num_tokens"]],
            "sentences": [len(shown.row["sentences"]) for shown in of_prompt],
        }
        histograms += [
            Histogram(f"{prompt}: {unit} a caption", _bars(values))
            for unit, values in lengths.items()
            if values
        ]
    return histograms


def _bars(values: Sequence[float]) -> list[tuple[str, int, float]]:
    """Counts between round limits; the few values beyond the 99.5th percentile share the last."""
    limit = max(float(np.percentile(values, 99.5)), 1.0)
    width = max(1, int(np.ceil(limit / _NUM_BINS)))
    bins = np.arange(0, limit + width, width)
    counts = np.histogram(np.minimum(values, bins[-1]), np.append(bins, bins[-1] + width))[0]
    names = [
        f"{int(start)}" if width == 1 else f"{int(start)}-{int(start) + width - 1}"
        for start in bins
    ]
    names[-1] = f"{int(bins[-1])} or more"
    return [
        (name, int(count), float(count / max(counts.max(), 1)))
        for name, count in zip(names, counts, strict=True)
    ]


def _rates(stats: Iterable[ShardStats]) -> list[dict[str, Any]]:
    """Of each shard, the slowest first."""
    rates = [
        {
            "shard": one.shard,
            "num_images": one.num_images,
            "seconds": one.seconds,
            "rate": one.num_images / max(one.seconds, 1e-3),
            "failed": one.status.get("failed", 0),
            "rejected": one.status.get("rejected", 0),
            "num_attempts": one.num_attempts,
            "num_retries": one.num_retries,
        }
        for one in stats
    ]
    return sorted(rates, key=lambda rate: (rate["rate"], rate["shard"]))[:200]
