"""How much a figure would move with another draw of the images."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 1000
#: What stands in parentheses behind a figure.
INTERVALS = f"95 % of {NUM_RESAMPLES:,} resamples of the images (percentile bootstrap)"
_SEED = 0
_CHUNK = 100  # resamples drawn at once
#: Ends of the interval.
_QUANTILES = (0.025, 0.975)


def share_intervals(
    hits: NDArray[np.float64], image_of_query: NDArray[np.int64]
) -> list[tuple[float, float]]:
    """95 % percentile intervals of shares of hits, by resampling images with replacement.

    The texts of one image share its fate, so images are drawn and not queries (cluster bootstrap).
    The candidates stay as they are. The same input gives the same interval.

    Args:
        hits: (num_queries, C) values whose mean is wanted, such as 0 or 1; one column a share.
        image_of_query: (num_queries,) the image that each query belongs to.

    Returns:
        (low, high) of each of the C shares.
    """
    images, cluster = np.unique(image_of_query, return_inverse=True)
    num_images = len(images)
    sums = np.zeros((num_images, hits.shape[1]))
    np.add.at(sums, cluster, hits)
    sizes = np.bincount(cluster, minlength=num_images).astype(np.float64)
    shares = [drawn @ sums / (drawn @ sizes)[:, None] for drawn in _draws(num_images)]
    low, high = np.quantile(np.concatenate(shares), _QUANTILES, axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def resampled_interval(
    of_images: NDArray[np.float64],
    figure: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> tuple[float, float]:
    """The same interval of any figure that is made of sums over the images.

    Args:
        of_images: (num_images, ...) what is summed.
        figure: from such sums, (R, ...), the figure of each, (R,).
    """
    flat = of_images.reshape(len(of_images), -1)
    shape = of_images.shape[1:]
    figures = [figure((drawn @ flat).reshape(-1, *shape)) for drawn in _draws(len(flat))]
    low, high = np.quantile(np.concatenate(figures), _QUANTILES)
    return float(low), float(high)


def _draws(num_images: int) -> Iterator[NDArray[np.float64]]:
    """(_CHUNK, num_images) how often each image is drawn, until there are all resamples."""
    generator = np.random.default_rng(_SEED)
    even = np.full(num_images, 1 / num_images)
    for _ in range(0, NUM_RESAMPLES, _CHUNK):
        yield generator.multinomial(num_images, even, size=_CHUNK).astype(np.float64)
