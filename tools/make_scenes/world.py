"""The little world's vocabulary: what things there are, in which colours, sizes and textures.

Kept small on purpose: a captioner of a few megabytes must learn all of it.
"""

from dataclasses import dataclass, field

#: Roles of a sprite's pixels: nothing, the thing's own colour, its two parts, a dark detail, and
#: the lighter shade of its own colour where it has a texture.
NOTHING, MAIN, FIRST_PART, SECOND_PART, DETAIL, SECOND_SHADE = range(6)

Color = tuple[int, int, int]
#: (role, shape, coordinates in the unit square: x to the right, y downwards)
Shape = tuple[int, str, tuple[float, ...]]


@dataclass(frozen=True)
class Kind:
    """A kind of thing: how wide it is for its height, its parts and its drawing."""

    shapes: tuple[Shape, ...]
    parts: tuple[str, ...] = ()
    aspect: float = 1.0


COLORS: dict[str, Color] = {
    "red": (212, 32, 36),
    "orange": (247, 142, 24),
    "yellow": (250, 222, 50),
    "green": (36, 146, 60),
    "blue": (38, 84, 214),
    "purple": (128, 54, 184),
    "pink": (247, 142, 192),
    "brown": (120, 72, 34),
    "black": (28, 28, 30),
    "white": (252, 252, 252),
}


def _lighter(value: int) -> int:
    return round(0.4 * value + 0.6 * 255)


#: The second colour of a textured surface: a lighter shade, grey for white and black.
SHADES: dict[str, Color] = {
    **{
        name: (_lighter(red), _lighter(green), _lighter(blue))
        for name, (red, green, blue) in COLORS.items()
    },
    "white": (168, 168, 172),
    "black": (128, 128, 132),
    "yellow": (255, 246, 190),
}

#: Things are whole numbers of steps wide and high, of a lattice of so many a side: at any size a
#: thing would look new to a model of a few megabytes. Where things change places in the twin of a
#: scene, they also stand on it.
LATTICE = 16

#: Longer side in steps of the lattice.
SIZES = {"small": 3, "medium": 4, "large": 6}

TEXTURES = ("plain", "striped", "dotted", "checked")


@dataclass(frozen=True)
class Background:
    """What stands behind the things: the upper and the lower colour and how they are told."""

    phrases: tuple[str, ...]
    upper: Color
    lower: Color
    horizon: float = 1.0
    pattern: str = "plain"
    avoid: tuple[str, ...] = field(default=())


BACKGROUNDS: dict[str, Background] = {
    "meadow": Background(
        ("a meadow under a pale sky", "a pale sky over a meadow"),
        (214, 232, 244), (178, 214, 156), 0.55, "grass",
    ),
    "beach": Background(
        ("a sandy beach under a clear sky", "a clear sky over a sandy beach"),
        (196, 226, 246), (238, 224, 184), 0.6,
    ),
    "sea": Background(
        ("a calm sea under a hazy sky", "a hazy sky over a calm sea"),
        (236, 234, 226), (150, 196, 218), 0.5, "waves",
    ),
    "snow": Background(
        ("a snowy field under a grey sky", "a grey sky over a snowy field"),
        (190, 196, 204), (232, 238, 242), 0.6, avoid=("white",),
    ),
    "room": Background(
        ("a room with a wooden floor", "a wooden floor and a bare wall"),
        (232, 222, 208), (204, 174, 138), 0.7, "boards",
    ),
    "street": Background(
        ("a street under a cloudy sky", "a cloudy sky over a street"),
        (218, 222, 228), (166, 166, 170), 0.65,
    ),
    "night": Background(
        ("a dark night with tiny stars", "tiny stars in a dark night"),
        (46, 52, 84), (66, 72, 104), 0.7, "stars", ("black",),
    ),
    "paper": Background(
        ("a sheet of squared paper", "some squared paper"),
        (240, 240, 232), (240, 240, 232), 1.0, "squares", ("white",),
    ),
}  # fmt: skip

# fmt: off
KINDS: dict[str, Kind] = {
    "house": Kind((
        (MAIN, "rect", (.08, .42, .92, 1)), (FIRST_PART, "poly", (0, .45, .5, 0, 1, .45)),
        (SECOND_PART, "rect", (.38, .62, .62, 1)),
    ), ("roof", "door")),
    "tree": Kind((
        (FIRST_PART, "rect", (.38, .5, .62, 1)), (MAIN, "ellipse", (0, 0, 1, .7)),
    ), ("trunk",), 0.8),
    "car": Kind((
        (MAIN, "rect", (0, .42, 1, .82)), (MAIN, "poly", (.16, .46, .3, .05, .72, .05, .88, .46)),
        (DETAIL, "rect", (.36, .16, .66, .38)),
        (FIRST_PART, "ellipse", (.1, .58, .36, 1)), (FIRST_PART, "ellipse", (.64, .58, .9, 1)),
    ), ("wheels",), 1.6),
    "truck": Kind((
        (MAIN, "rect", (0, 0, .66, .8)),
        (FIRST_PART, "poly", (.69, .22, .88, .22, 1, .5, 1, .8, .69, .8)),
        (SECOND_PART, "ellipse", (.08, .64, .32, 1)), (SECOND_PART, "ellipse", (.66, .64, .9, 1)),
    ), ("cabin", "wheels"), 1.5),
    "robot": Kind((
        (FIRST_PART, "rect", (.22, 0, .78, .34)), (MAIN, "rect", (.02, .36, .98, .74)),
        (SECOND_PART, "rect", (.14, .74, .4, 1)), (SECOND_PART, "rect", (.6, .74, .86, 1)),
        (DETAIL, "rect", (.32, .1, .42, .2)), (DETAIL, "rect", (.58, .1, .68, .2)),
    ), ("head", "legs"), 0.75),
    "flag": Kind((
        (FIRST_PART, "rect", (0, 0, .13, 1)), (MAIN, "rect", (.13, .04, 1, .6)),
    ), ("pole",), 0.9),
    "boat": Kind((
        (MAIN, "poly", (0, .66, 1, .66, .82, 1, .18, 1)), (DETAIL, "rect", (.46, 0, .52, .66)),
        (FIRST_PART, "poly", (.56, .04, .96, .6, .56, .6)),
        (FIRST_PART, "poly", (.42, .12, .42, .6, .08, .6)),
    ), ("sail",)),
    "flower": Kind((
        (SECOND_PART, "rect", (.44, .5, .56, 1)),
        (MAIN, "ellipse", (.28, 0, .72, .3)), (MAIN, "ellipse", (.28, .4, .72, .7)),
        (MAIN, "ellipse", (0, .18, .44, .5)), (MAIN, "ellipse", (.56, .18, 1, .5)),
        (FIRST_PART, "ellipse", (.32, .22, .68, .47)),
    ), ("centre", "stem"), 0.75),
    "lamp": Kind((
        (MAIN, "poly", (.26, 0, .74, 0, 1, .5, 0, .5)), (FIRST_PART, "rect", (.43, .5, .57, .9)),
        (FIRST_PART, "rect", (.2, .88, .8, 1)),
    ), ("base",), 0.7),
    "ball": Kind(((MAIN, "ellipse", (0, 0, 1, 1)),)),
    "star": Kind(((MAIN, "poly", (
        .5, 0, .63, .36, 1, .38, .7, .6, .81, 1, .5, .77, .19, 1, .3, .6, 0, .38, .37, .36,
    )),)),
    "box": Kind((
        (MAIN, "rect", (0, 0, 1, 1)), (FIRST_PART, "rect", (.42, 0, .58, 1)),
        (FIRST_PART, "rect", (0, .42, 1, .58)),
    ), ("ribbon",)),
    "cup": Kind((
        (FIRST_PART, "ring", (.5, .14, 1, .76)), (MAIN, "poly", (0, 0, .72, 0, .62, 1, .1, 1)),
    ), ("handle",), 0.95),
    "fish": Kind((
        (FIRST_PART, "poly", (.62, .5, 1, .05, 1, .95)), (MAIN, "ellipse", (0, .06, .76, .94)),
        (DETAIL, "ellipse", (.13, .3, .23, .46)),
    ), ("tail",), 1.6),
    "kite": Kind((
        (MAIN, "poly", (.5, 0, 1, .34, .5, .76, 0, .34)), (FIRST_PART, "rect", (.46, .74, .54, 1)),
        (FIRST_PART, "poly", (.5, .8, .78, .74, .78, .94)),
        (FIRST_PART, "poly", (.5, .92, .22, .84, .22, 1)),
    ), ("string",), 0.75),
    "table": Kind((
        (MAIN, "rect", (0, 0, 1, .34)), (FIRST_PART, "rect", (.06, .34, .2, 1)),
        (FIRST_PART, "rect", (.8, .34, .94, 1)),
    ), ("legs",), 1.45),
    "umbrella": Kind((
        (MAIN, "pie", (0, 0, 1, 1.1)), (FIRST_PART, "rect", (.46, .5, .55, .95)),
        (FIRST_PART, "rect", (.28, .88, .55, 1)),
    ), ("pole",), 1.1),
    "heart": Kind((
        (MAIN, "ellipse", (0, 0, .54, .56)), (MAIN, "ellipse", (.46, 0, 1, .56)),
        (MAIN, "poly", (.04, .38, .5, .28, .96, .38, .5, 1)),
    )),
}
# fmt: on

#: Things with a flat top that others may stand on.
SUPPORTS = ("table", "box", "truck")

PLURAL_PARTS = ("wheels", "legs")
