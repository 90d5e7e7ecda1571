"""Does a picture open? Told from the beginning and the end of its file wherever that is enough."""

import os
from pathlib import Path

from PIL import Image

from pretrain.evaluate.benchmarks.base import Picture
from recaption.common.config import UserError
from recaption.image_formats import FORMATS
from recaption.images import ImageConfig, check_num_bytes, check_size

#: How whole files end. Damage in between shows only when a picture is decoded.
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}


def opens(picture: Picture) -> bool:
    """Whether a file that is there can be opened as a picture within the limits of size.

    A JPEG or PNG with a sound header and the end of a whole file is taken at its word, which takes
    a fraction of a millisecond; any other is decoded, as some that lack their end can be.
    """
    return _looks_whole(picture.path) or _decodes(picture)


def _looks_whole(path: Path) -> bool:
    limits = ImageConfig()
    try:
        check_num_bytes(path.stat().st_size, limits)
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            check_size(image.size, limits)
            end = _ENDS[image.format or ""]
            file.seek(-len(end), os.SEEK_END)
            return file.read() == end
    except Exception:  # Pillow's plugins raise nearly anything on damaged bytes
        return False


def _decodes(picture: Picture) -> bool:
    try:
        picture.open()
    except UserError:
        return False
    return True
