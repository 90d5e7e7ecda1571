"""The picture of a sample: its bytes, their hash, and what they decode to."""

import hashlib
from dataclasses import dataclass

from recaption.images import (
    BadImageError,
    DecodedImage,
    ImageConfig,
    check_num_bytes,
    decode_image,
)
from recaption.shards import Sample, Shard


@dataclass(frozen=True)
class Picture:
    """``decoded``, or why there is nothing (``code: detail``)."""

    #: Of the bytes as they were on the web; None where there are none, or too many to read.
    sha256: str | None = None
    decoded: DecodedImage | None = None
    failure: str | None = None


def read_picture(shard: Shard, sample: Sample, config: ImageConfig) -> Picture:
    """Never raises for a bad picture; its failure says what is wrong with it."""
    if sample.image is None:
        return Picture(failure=sample.image_failure or "no-image: in tar")
    sha256 = None
    try:
        check_num_bytes(sample.image.size, config)
        data = shard.read(sample.image)
        sha256 = hashlib.sha256(data).hexdigest()
        return Picture(sha256, decode_image(data, config))
    except BadImageError as error:
        return Picture(sha256, failure=str(error))
