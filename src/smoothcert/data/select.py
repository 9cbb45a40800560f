"""Which images of a data set a run looks at."""

from collections.abc import Sequence
from numbers import Integral

import numpy as np

from smoothcert.checks import check_count
from smoothcert.errors import InputError


def select_indices(size: int, *, start: int = 0, every: int = 1, max_images: int | None = None,
                   indices: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
    """Return the images start, start + every, ... below `size`, or at most `max_images` of them, evenly spaced; or
    exactly `indices`.

    Data sets are often sorted by class, so the first images of one would show few of its classes.

    Returns int64 indices, in the order given. Raises InputError where `indices` comes with another choice,
    where an index is out of range, negative or repeated, and where nothing is selected.

    >>> select_indices(10_000, start=10, every=20)[:3]
    array([10, 30, 50])
    >>> select_indices(10_000, start=10, every=20, max_images=3)
    array([  10, 5010, 9990])
    """
    check_count("size", size)
    if indices is not None:
        if (start, every, max_images) != (0, 1, None):
            raise InputError("indices names the images one by one; leave start, every and max_images out")
        return _explicit(size, list(indices))
    check_count("start", start, least=0)
    check_count("every", every)
    if start >= size:
        raise InputError(f"start is {start}, but the data set holds {size} images (0 to {size - 1})")
    return spaced(np.arange(start, size, every, dtype=np.int64), max_images)


def spaced(indices: np.ndarray, max_images: int | None) -> np.ndarray:
    """Return at most `max_images` of the indices, evenly spaced, the first and the last among them.

    Raises InputError where `max_images` is below 1.

    >>> spaced(np.arange(10), 4)
    array([0, 3, 6, 9])
    """
    if max_images is None or check_count("max_images", max_images) >= len(indices):
        return indices
    return indices[spaced_places(np.arange(max_images), max_images, len(indices))]


def spaced_places(k: np.ndarray, count: int, of: int) -> np.ndarray:
    """Return the places among `of` images that number k of `count` evenly spaced ones has; k (M,), int64 (M,)."""
    return np.rint(k * ((of - 1) / max(count - 1, 1))).astype(np.int64)


def _explicit(size: int, indices: list[int]) -> np.ndarray:
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
