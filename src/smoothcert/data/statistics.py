"""The mean and spread of a data set's channels, for the normalisation layer inside a model."""

import numpy as np

from smoothcert.checks import check_count
from smoothcert.data.base import ImageData

CANONICAL = {"cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))}
"""The constants under which published CIFAR-10 models were trained. The standard deviations, as usual in
print, are averages over images of each image's own; over all pixels at once they are about 0.25."""
LEAST_STD = 1e-3
_CHUNK = 500


def channel_statistics(data: ImageData, max_images: int = 5000) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std), C floats each, over all pixels of at most `max_images` evenly spaced images.

    The constants in CANONICAL are returned as they are; a std is at least LEAST_STD, so that dividing by it
    is safe for a channel that is constant.
    """
    check_count("max_images", max_images)
    if data.name in CANONICAL:
        return CANONICAL[data.name]
    count = min(len(data), max_images)
    indices = np.arange(count) * len(data) // count
    total, squares = np.zeros(data.shape[0]), np.zeros(data.shape[0])
    for begin in range(0, count, _CHUNK):
        images = data.batch(indices[begin:begin + _CHUNK]).astype(np.float64)
        total += images.sum(axis=(0, 2, 3))
        squares += np.square(images).sum(axis=(0, 2, 3))
    pixels = count * data.shape[1] * data.shape[2]
    mean = total / pixels
    std = np.sqrt(np.maximum(squares / pixels - mean**2, 0))
    return tuple(mean.tolist()), tuple(np.maximum(std, LEAST_STD).tolist())
