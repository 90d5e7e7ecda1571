"""Figures that others published, to stand beside ours: per cent, as their papers give them.

Base size (ViT-B/16) unless the name says otherwise. A figure stands under its variant:

- DCI: CLIP, Long-CLIP and LoTLIP are of all splits, 7,805; GOAL and MulCLIP of GOAL's list of
  1,999. Of CAFT's it is not known here; they stand under the usual variant.
- DOCCI: GOAL's own list of files begins with those of qual_test and ends with test_04999, so its
  figures are of both splits. Of the others it is not known here whether qual_test is among them.
- ShareGPT4V: 10,000. Urban1k and IIW have one variant.
- FG-OVD: of MulCLIP it is not known here whether it looks at crops, as ours, or pools features over
  the box in the whole picture, as FG-CLIP's script.
- RefCOCO: CAFT's threshold of the map is not known here. Its "G-Ref val" stands under the split of
  UMD, as no other is read.
"""

CAFT = "CAFT (30M, from scratch)"
CLIP = "CLIP (400M)"
GOAL = "GOAL (400M + DCI)"
LONG_CLIP = "Long-CLIP (400M + 1M)"
LOTLIP = "LoTLIP (100M)"
MULCLIP = "MulCLIP (400M + DCI)"

_Figures = dict[str, dict[str, float]]  # model and its pairs -> column -> per cent


def _recall(text_to_image: float, image_to_text: float) -> dict[str, float]:
    return {"T2I R@1": text_to_image, "I2T R@1": image_to_text}


def _miou(value: float) -> _Figures:
    return {CAFT: {"miou": value}}


_FG_OVD = {"hard": 19.24, "medium": 40.73, "easy": 47.27, "trivial": 68.63}  # of MulCLIP

#: Benchmark and variant -> figures.
PUBLISHED: dict[tuple[str, str], _Figures] = {
    ("dci", "7805"): {
        CLIP: _recall(43.0, 45.5),
        LONG_CLIP: _recall(57.3, 51.7),
        LOTLIP: _recall(62.6, 64.1),
        CAFT: _recall(72.4, 69.7),
    },
    ("dci", "1999"): {GOAL: _recall(72.6, 72.8), MULCLIP: _recall(75.1, 72.0)},
    ("docci", "test"): {
        CLIP: _recall(57.1, 60.6),
        LONG_CLIP: _recall(71.4, 63.1),
        MULCLIP: _recall(73.8, 71.8),
        CAFT: {"I2T R@1": 80.6},
    },
    ("docci", "test+qual_test"): {GOAL: _recall(71.2, 72.2)},
    ("sharegpt4v", "10k"): {
        CLIP: _recall(56.2, 60.2),
        LONG_CLIP: _recall(77.1, 79.2),
        LOTLIP: _recall(82.7, 88.4),
    },
    ("urban1k", ""): {
        CLIP: _recall(52.9, 67.1),
        LONG_CLIP: _recall(79.5, 78.9),
        LOTLIP: _recall(84.8, 88.8),
        GOAL: _recall(77.2, 82.9),
        MULCLIP: _recall(80.9, 85.2),
    },
    ("iiw", ""): {
        CLIP: _recall(87.6, 88.2),
        LONG_CLIP: _recall(93.2, 89.6),
        LOTLIP: _recall(92.7, 94.3),
    },
    ("fg-ovd", "all"): {MULCLIP: {f"by_group {level}": value for level, value in _FG_OVD.items()}},
    **{("fg-ovd", level): {MULCLIP: {"accuracy": value}} for level, value in _FG_OVD.items()},
    ("refcoco", "val"): _miou(28.85),
    ("refcoco", "testA"): _miou(30.8),
    ("refcoco", "testB"): _miou(28.53),
    ("refcoco+", "val"): _miou(28.46),
    ("refcoco+", "testA"): _miou(29.8),
    ("refcoco+", "testB"): _miou(28.32),
    ("refcocog", "val"): _miou(31.39),
}

_CROPS = "whether theirs are of crops, as ours, is not known here"
_THRESHOLD = "whether they cut the map where ours is cut is not known here"
_CAVEATS = {
    ("dci", "7805"): "whether CAFT's are of all splits is not known here",
    ("docci", "test"): "whether qual_test is among their pictures is not known here",
    ("fg-ovd", ""): _CROPS,
    ("refcoco", ""): _THRESHOLD,
    ("refcoco+", ""): _THRESHOLD,
    ("refcocog", ""): f"{_THRESHOLD}, nor whether the split is that of UMD",
}


def published(benchmark: str, variant: str) -> _Figures:
    """Figures of this variant; none where nobody's are known."""
    return PUBLISHED.get((benchmark, variant), {})


def caveat(benchmark: str, variant: str) -> str:
    """What keeps the published figures of a variant from being compared without a thought."""
    return _CAVEATS.get((benchmark, variant), _CAVEATS.get((benchmark, ""), ""))
