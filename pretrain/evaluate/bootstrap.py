"""How much a recall would move with another draw of the images."""

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 1000
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
        hits: (num_queries, C) 0 or 1, one column a share.
        image_of_query: (num_queries,) the image that each query belongs to.

    Returns:
        (low, high) of each of the C shares.
    """
    images, cluster = np.unique(image_of_query, return_inverse=True)
    num_images = len(images)
    sums = np.zeros((num_images, hits.shape[1]))
    np.add.at(sums, cluster, hits)
    sizes = np.bincount(cluster, minlength=num_images).astype(np.float64)
    generator = np.random.default_rng(_SEED)
    shares = []
    for _ in range(0, NUM_RESAMPLES, _CHUNK):
        even = np.full(num_images, 1 / num_images)
        drawn = generator.multinomial(num_images, even, size=_CHUNK).astype(np.float64)
        shares.append(drawn @ sums / (drawn @ sizes)[:, None])
    low, high = np.quantile(np.concatenate(shares), _QUANTILES, axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))
