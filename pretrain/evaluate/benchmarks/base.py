"""What a benchmark is once its files are read: pictures, texts, and which belongs to which.

A reader of an official layout returns one of the sets below; how a set is scored is not its
business. Pictures are opened when they are needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from recaption.common.config import UserError
from recaption.images import BadImageError, ImageConfig, decode_image

#: x, y, width, height in pixels of the upright picture.
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Picture:
    """An image file of a benchmark, or a rectangle of it."""

    root: Path
    name: str  # relative to the root, as reports and errors call it
    box: Box | None = None  # what is looked at; None: all of it

    @property
    def path(self) -> Path:
        return self.root / self.name

    def open(self) -> Image.Image:
        """Upright, RGB, within the pixel limit.

        Raises:
            UserError: it is no image that can be read, or the box is not in it.
        """
        try:
            image = decode_image(self.path.read_bytes(), ImageConfig()).image
        except (OSError, BadImageError) as error:
            raise unreadable(self.path, error) from None
        if self.box is None:
            return image
        x, y, width, height = self.box
        across, down = _within(x, width, image.width), _within(y, height, image.height)
        if across is None or down is None:
            raise UserError(
                f"{self.path} is of {image.width} x {image.height} pixels, and its box "
                f"[{x:g}, {y:g}, {width:g}, {height:g}] (x, y, width, height) lies beside it: "
                "pictures and annotations do not belong together"
            )
        return image.crop((across[0], down[0], across[1], down[1]))


@dataclass(frozen=True)
class Coverage:
    """How much of a benchmark is there."""

    num_expected: int | None  # samples that the protocol names; None: how many is not known
    missing: list[str] = field(default_factory=list)  # files that were passed over, by name
    notes: Mapping[str, int] = field(default_factory=dict)  # oddities by name: repeated texts, ...
    inputs: Sequence[Path] = ()  # annotation files that were read: their checksums are kept
    num_found: int | None = None  # samples that are there; None: one an image
    num_texts: int | None = None  # of retrieval: texts that are there
    num_texts_expected: int | None = None  # and those of the protocol; None: it names no number


@dataclass(frozen=True)
class RetrievalSet:
    images: Sequence[Picture]
    texts: Sequence[str]
    image_of_text: Sequence[int]  # position in `images` of each text
    coverage: Coverage


@dataclass(frozen=True)
class JointSet(RetrievalSet):
    """Whole pictures and parts that were cut from them, each with its texts."""

    whole_of_image: Sequence[int]  # the picture that each was cut from; its own place: a whole one


@dataclass(frozen=True)
class ClassificationSet:
    images: Sequence[Picture]
    labels: Sequence[int]  # position in `classes` of each image
    classes: Sequence[str]
    templates: Sequence[str]  # prompts with {} for the class
    coverage: Coverage


@dataclass(frozen=True)
class ChoiceSet:
    """Several texts an image, of which the first is right."""

    images: Sequence[Picture]
    choices: Sequence[Sequence[str]]
    groups: Sequence[str]  # what each choice is about: accuracies are given by group, too
    coverage: Coverage


@dataclass(frozen=True)
class Options:
    """What a user may choose about a benchmark."""

    variant: str = ""  # one of the benchmark's published variants; empty: its first
    allow_missing: bool = False  # go on with what is there


def _within(start: float, length: float, side: int) -> tuple[int, int] | None:
    """First pixel, and the one behind the last, of a stretch cut off at the ends of a side.

    At least one pixel; None: all of it is beyond the ends.
    """
    if start >= side or start + length <= 0:
        return None
    first = min(max(round(start), 0), side - 1)
    return first, min(max(round(start + length), first + 1), side)


def unreadable(path: Path, error: Exception) -> UserError:
    """That a picture is damaged, and what to do: the same with and without `allow_missing`, which
    looks at the ends of a file only."""
    return UserError(
        f"{path} cannot be opened: {error}; copy it again, or take the file away, which is then "
        "missing (allow_missing=true goes on without it)"
    )


class LayoutError(UserError):
    """A root that does not hold what the benchmark's official layout says."""


class DamagedError(LayoutError):
    """A file that is cut off or in another encoding: of many, one may be passed over."""
