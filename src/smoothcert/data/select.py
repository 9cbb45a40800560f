"""Which images of a data set a run looks at."""

from collections.abc import Sequence
from numbers import Integral

import numpy as np

from smoothcert.checks import check_count
from smoothcert.errors import InputError


def select_indices(size: int, *, start: int = 0, every: int = 1, max_images: int | None = None,
                   indices: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
    """The images start, start + every, ... below `size`, at most `max_images` of them; or exactly `indices`.

    Returns int64 indices, in the order given. Raises InputError where `indices` comes with another choice,
    where an index is out of range, negative or repeated, and where nothing is selected.

    >>> select_indices(10_000, start=10, every=20, max_images=3)
    array([10, 30, 50])
    """
    check_count("size", size)
    if indices is not None:
        if (start, every, max_images) != (0, 1, None):
            raise InputError("indices names the images one by one; leave start, every and max_images out")
        return _explicit(size, list(indices))
    check_count("start", start, least=0)
    check_count("every", every)
    if max_images is not None:
        check_count("max_images", max_images)
    if start >= size:
        raise InputError(f"start is {start}, but the data set holds {size} images (0 to {size - 1})")
    return np.arange(start, size, every, dtype=np.int64)[:max_images]


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
