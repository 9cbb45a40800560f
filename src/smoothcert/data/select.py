"""The choice of the images of a data set that a run uses."""

from collections.abc import Sequence
from numbers import Integral

import numpy as np

from smoothcert.checks import check_count
from smoothcert.errors import InputError


def select_indices(size: int, *, start: int = 0, every: int = 1, max_images: int | None = None,
                   indices: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
    """Return int64 indices: start, start + every, ... below `size`, or at most `max_images` of them, or `indices`.

    The images are evenly spaced because data sets are often sorted by class: the first ones would show few classes.

    Raises InputError if `indices` comes with another choice, if an index is out of range or repeated, and if nothing is
    selected.

    >>> select_indices(10_000, start=10, every=20)[:3]
    array([10, 30, 50])
    >>> select_indices(10_000, start=10, every=20, max_images=3)
    array([  10, 5010, 9990])
    """
    check_count("size", size)
    if indices is not None:
        if (start, every, max_images) != (0, 1, None):
            raise InputError("indices names the images one by one; leave start, every and max_images out")
        return _check_indices(size, list(indices))
    check_count("start", start, least=0)
    check_count("every", every)
    if start >= size:
        raise InputError(f"start is {start}, but the data set holds {size} images (0 to {size - 1})")
    return take_evenly(np.arange(start, size, every, dtype=np.int64), max_images)


def take_evenly(indices: np.ndarray, max_images: int | None) -> np.ndarray:
    """Return at most `max_images` of the indices, evenly spaced, the first and the last among them.

    Raises InputError if `max_images` is below 1.

    >>> take_evenly(np.arange(10), 4)
    array([0, 3, 6, 9])
    """
    if max_images is None or check_count("max_images", max_images) >= len(indices):
        return indices
    return indices[even_places(np.arange(max_images), max_images, len(indices))]


def even_places(k: np.ndarray, count: int, of: int) -> np.ndarray:
    """Return the places, among `of` images, of numbers k (M,) out of `count` evenly spaced ones, as int64 (M,)."""
    return np.rint(k * ((of - 1) / max(count - 1, 1))).astype(np.int64)


def _check_indices(size: int, indices: list[int]) -> np.ndarray:
    if not indices:
        raise InputError(f"indices is empty; choose from the {size} images of the data set")
    seen: set[int] = set()
    for index in indices:
        if isinstance(index, bool) or not isinstance(index, Integral):
            raise InputError(f"an index must be a whole number, got {index!r}")
        if not 0 <= index < size:
            raise InputError(f"there is no image {index}: the data set holds {size} (0 to {size - 1})")
        if index in seen:
            raise InputError(f"image {index} is named twice in indices ({len(indices)} given)")
        seen.add(int(index))
    return np.array(indices, dtype=np.int64)
