"""How sure a mean is, and whether two methods differ."""

import math
from collections.abc import Sequence

import numpy as np


def bootstrap_interval(
    values: Sequence[float], *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron 1979).

    Args:
        values: one figure per image; the images are what is resampled.
        level: coverage.
        resamples: number of samples drawn with replacement.
        seed: of the draws.

    Returns:
        Lower and upper end; both are the value itself where there is only one.
    """
    data = np.asarray(values, dtype=np.float64)
    generator = np.random.default_rng(seed)
    # In blocks: thousands of images times 10,000 resamples would be gigabytes.
    block = max(1, 5_000_000 // len(data))
    sizes = [min(block, resamples - start) for start in range(0, resamples, block)]
    means = [data[generator.integers(len(data), size=(size, len(data)))].mean(axis=1) for size in sizes]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def sign_test(differences: Sequence[float]) -> float:
    """Two-sided exact sign test: how likely so uneven a count of signs is if both are equally likely.

    Args:
        differences: one per image; zeros are left out.

    Returns:
        p value; 1.0 where nothing differs.
    """
    ups = sum(difference > 0 for difference in differences)
    downs = sum(difference < 0 for difference in differences)
    count = ups + downs
    tail = sum(math.comb(count, k) for k in range(min(ups, downs) + 1))
    return min(1.0, 2 * tail / 2**count)
