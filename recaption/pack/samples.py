"""One sample of a web shard and its captions -> a sample of a training shard, or why not."""

import math
from dataclasses import dataclass
from typing import Any

from recaption.images import BadImageError, encode_image
from recaption.pack.config import PackConfig
from recaption.pack.tables import RAW, TableCaptions
from recaption.pictures import read_picture
from recaption.sentences import split_sentences
from recaption.shards import Sample, Shard

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


@dataclass(frozen=True)
class Packed:
    """A sample for the writer, or the reason why there is none."""

    key: str
    sample: dict[str, Any] | None = None
    reason: str | None = None
    notes: tuple[str, ...] = ()


def pack_sample(
    shard: Shard, tables: list[dict[str, TableCaptions]], config: PackConfig, sample: Sample
) -> Packed:
    """Decodes the image and encodes it again (upright, RGB, without EXIF); joins its captions."""
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
