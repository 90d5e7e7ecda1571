"""Runs whose laws are known: what fits and their intervals are tried on."""

import numpy as np

from tools.scaling_laws.laws import Floats

#: E, A, b, C0 of a curve, and E, A, a, B, b of a joint law, in FLOPs, parameters and samples.
CURVE = {"E": 0.3, "A": 0.8 * 1e17**0.25, "b": 0.25, "C0": 2e15}
JOINT = {"E": 0.4, "A": 0.6 * 2e7**0.34, "a": 0.34, "B": 0.5 * 3e7**0.28, "b": 0.28}


def curve(flops: Floats, E: float, A: float, b: float, C0: float) -> Floats:
    return E + A * (flops + C0) ** -b


def joint(
    sizes: Floats, samples: Floats, E: float, A: float, a: float, B: float, b: float
) -> Floats:
    return E + A * sizes**-a + B * samples**-b


def ladder(num_sizes: int = 6, num_lengths: int = 4) -> Floats:
    """Sizes and samples ``[n, 2]``, every pair of them."""
    sizes, samples = np.geomspace(1e6, 3e8, num_sizes), np.geomspace(1e6, 1e9, num_lengths)
    return np.stack([np.repeat(sizes, num_lengths), np.tile(samples, num_sizes)], axis=1)


def noise(count: int, scatter: float, seed: int) -> Floats:
    return np.exp(scatter * np.random.default_rng(seed).standard_normal(count))


def trunk_noise(
    num_trunks: int, num_branches: int, trunks: float, branches: float, seed: int
) -> Floats:
    """A factor for each branch ``[trunks * branches]``: of its trunk, times its own."""
    rng = np.random.default_rng(seed)
    shifts = np.repeat(trunks * rng.standard_normal(num_trunks), num_branches)
    return np.exp(shifts + branches * rng.standard_normal(len(shifts)))
