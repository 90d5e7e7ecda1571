"""Figures that others published, to stand beside ours: per cent, as their papers give them.

Base size (ViT-B/16) unless the name says otherwise. Papers do not always say which variant of a
set they used, nor do all use the same; so these are for orientation.
"""

#: Benchmark -> model and its pairs -> figure -> per cent.
PUBLISHED: dict[str, dict[str, dict[str, float]]] = {
    "dci": {
        "CLIP (400M)": {"T2I R@1": 43.0, "I2T R@1": 45.5},
        "Long-CLIP (400M + 1M)": {"T2I R@1": 57.3, "I2T R@1": 51.7},
        "LoTLIP (100M)": {"T2I R@1": 62.6, "I2T R@1": 64.1},
        "GOAL (400M + DCI)": {"T2I R@1": 72.6, "I2T R@1": 72.8},
        "MulCLIP (400M + DCI)": {"T2I R@1": 75.1, "I2T R@1": 72.0},
        "CAFT (30M, from scratch)": {"T2I R@1": 72.4, "I2T R@1": 69.7},
    },
    "docci": {
        "CLIP (400M)": {"T2I R@1": 57.1, "I2T R@1": 60.6},
        "Long-CLIP (400M + 1M)": {"T2I R@1": 71.4, "I2T R@1": 63.1},
        "GOAL (400M + DCI)": {"T2I R@1": 71.2, "I2T R@1": 72.2},
        "MulCLIP (400M + DCI)": {"T2I R@1": 73.8, "I2T R@1": 71.8},
        "CAFT (30M, from scratch)": {"I2T R@1": 80.6},
    },
    "sharegpt4v": {  # of 10,000
        "CLIP (400M)": {"T2I R@1": 56.2, "I2T R@1": 60.2},
        "Long-CLIP (400M + 1M)": {"T2I R@1": 77.1, "I2T R@1": 79.2},
        "LoTLIP (100M)": {"T2I R@1": 82.7, "I2T R@1": 88.4},
    },
    "urban1k": {
        "CLIP (400M)": {"T2I R@1": 52.9, "I2T R@1": 67.1},
        "Long-CLIP (400M + 1M)": {"T2I R@1": 79.5, "I2T R@1": 78.9},
        "LoTLIP (100M)": {"T2I R@1": 84.8, "I2T R@1": 88.8},
        "GOAL (400M + DCI)": {"T2I R@1": 77.2, "I2T R@1": 82.9},
        "MulCLIP (400M + DCI)": {"T2I R@1": 80.9, "I2T R@1": 85.2},
    },
    "iiw": {
        "CLIP (400M)": {"T2I R@1": 87.6, "I2T R@1": 88.2},
        "Long-CLIP (400M + 1M)": {"T2I R@1": 93.2, "I2T R@1": 89.6},
        "LoTLIP (100M)": {"T2I R@1": 92.7, "I2T R@1": 94.3},
    },
}


def published(benchmark: str, variant: str) -> dict[str, dict[str, float]]:
    """Figures of the benchmark; none for a variant that nobody's are known for."""
    if (benchmark, variant) == ("sharegpt4v", "1k"):
        return {}
    return PUBLISHED.get(benchmark, {})
