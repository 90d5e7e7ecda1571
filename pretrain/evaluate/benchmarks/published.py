"""Figures that others published, to stand beside ours: per cent, as their papers give them.

Base size (ViT-B/16) unless the name says otherwise. A figure stands under its variant:

- DCI: CLIP, Long-CLIP and LoTLIP are of all splits, 7,805; GOAL and MulCLIP of GOAL's list of
  1,999. Of CAFT's it is not known here; they stand under the usual variant.
- DOCCI: GOAL's own list of files begins with those of qual_test and ends with test_04999, so its
  figures are of both splits. Of the others it is not known here whether qual_test is among them.
- ShareGPT4V: 10,000. Urban1k and IIW have one variant.
- FG-OVD has none: how many lines its files have is not known here, so neither is whether ours are
  all of it. (MulCLIP's are known, but not whether they are of crops, as ours, or of features pooled
  over the box in the whole picture, as FG-CLIP's script has it.)
- RefCOCO: CAFT's threshold of the map is not known here. Its "G-Ref val" stands under the split of
  UMD, as no other is read.
- Flickr30k, ImageNet, ImageNet-V2, ImageNet-O, CIFAR: of open_clip's own tables,
  docs/openclip_retrieval_results.csv (commit 05e7db4) and docs/openclip_results.csv (0a1cc15), of
  the sets of DataComp's evaluation, which is CLIP_benchmark's: 18 prompts for CIFAR
  (en_zeroshot_classification_templates.json), ImageNet-V2's matched-frequency (builder.py).
- COCO has none: those of open_clip are of 5,000 pictures of COCO 2014 (mscoco_2014_5k_test in
  DataComp's tasklist.yml), other ones than val2017. SugarCrepe, VOC20 and ADE20K have none that a
  source at hand tells.
"""

CAFT = "CAFT (30M, from scratch)"
CLIP = "CLIP (400M)"
GOAL = "GOAL (400M + DCI)"
LONG_CLIP = "Long-CLIP (400M + 1M)"
LOTLIP = "LoTLIP (100M)"
MULCLIP = "MulCLIP (400M + DCI)"
#: Of open_clip's tables: ViT-B-16 with these weights.
OPENAI = "CLIP (openai, 400M)"
LAION = "open_clip (laion2b_s34b_b88k)"
DATACOMP = "open_clip (datacomp_xl_s13b_b90k)"
SIGLIP = "SigLIP (webli)"

_Figures = dict[str, dict[str, float]]  # model and its pairs -> column -> per cent


def _recall(text_to_image: float, image_to_text: float) -> dict[str, float]:
    return {"T2I R@1": text_to_image, "I2T R@1": image_to_text}


def _recalls(text_to_image: list[float], image_to_text: list[float]) -> dict[str, float]:
    """Of R@1, R@5 and R@10."""
    ways = {"T2I": text_to_image, "I2T": image_to_text}
    return {
        f"{way} R@{k}": value
        for way, values in ways.items()
        for k, value in zip((1, 5, 10), values, strict=True)
    }


def _miou(value: float) -> _Figures:
    return {CAFT: {"miou": value}}


def _top1(openai: float, laion: float, datacomp: float) -> _Figures:
    values = {OPENAI: openai, LAION: laion, DATACOMP: datacomp}
    return {model: {"top1": value} for model, value in values.items()}


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
    ("flickr30k", "test"): {
        OPENAI: _recalls([62.16, 85.72, 91.92], [82.2, 96.6, 99.0]),
        LAION: _recalls([69.84, 90.38, 94.56], [86.3, 97.9, 99.4]),
        DATACOMP: _recalls([67.56, 88.34, 93.0], [85.1, 97.2, 98.4]),
        SIGLIP: _recalls([74.68, 92.3, 95.62], [89.1, 98.0, 99.3]),
    },
    ("imagenet", "val"): _top1(68.34, 70.23, 73.49),
    ("imagenet-v2", "matched-frequency"): _top1(61.88, 62.28, 65.98),
    ("imagenet-o", "test"): _top1(42.3, 46.25, 42.85),
    ("cifar10", "test"): _top1(90.77, 94.94, 96.24),
    ("cifar100", "test"): _top1(66.95, 76.84, 82.12),
    ("refcoco", "val"): _miou(28.85),
    ("refcoco", "testA"): _miou(30.8),
    ("refcoco", "testB"): _miou(28.53),
    ("refcoco+", "val"): _miou(28.46),
    ("refcoco+", "testA"): _miou(29.8),
    ("refcoco+", "testB"): _miou(28.32),
    ("refcocog", "val"): _miou(31.39),
}

_PROMPTS = "theirs are of 18 prompts made for CIFAR, ours of ImageNet's 80"
_THRESHOLD = "whether they cut the map where ours is cut is not known here"
_CAVEATS = {
    ("dci", "7805"): "whether CAFT's are of all splits is not known here",
    ("docci", "test"): "whether qual_test is among their pictures is not known here",
    ("cifar10", ""): _PROMPTS,
    ("cifar100", ""): _PROMPTS,
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
