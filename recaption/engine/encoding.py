"""Pictures as an API takes them: a ``data:`` URL, made in the processes that decode."""

import base64
import io
from dataclasses import dataclass

from PIL import Image

#: Pixels a side; libjpeg writes no more.
MAX_JPEG_SIDE = 65500


@dataclass(frozen=True)
class EncodedImage:
    data_url: str

    def decode(self) -> Image.Image:
        return Image.open(io.BytesIO(base64.b64decode(self.data_url.partition(",")[2])))


@dataclass(frozen=True)
class ImageEncoding:
    """How pictures are encoded: ``form`` is ``png`` or ``jpeg``, the latter of a ``quality``."""

    form: str
    quality: int

    def encode(self, image: Image.Image) -> EncodedImage:
        """``image`` in RGB. What JPEG cannot hold, as it is too long, becomes a PNG."""
        form = "png" if max(image.size) > MAX_JPEG_SIDE else self.form
        buffer = io.BytesIO()
        if form == "png":
            image.save(buffer, "PNG", compress_level=1)  # of the others, size matters least
        else:
            image.save(buffer, "JPEG", quality=self.quality, subsampling=0)
        return EncodedImage(
            f"data:image/{form};base64,{base64.b64encode(buffer.getvalue()).decode()}"
        )
