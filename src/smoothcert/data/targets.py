"""Real values in the place of labels: data sets for regressions."""

from typing import Any

import numpy as np

from smoothcert.data.base import ImageData, PixelSource
from smoothcert.errors import DataError


def real_data(name: str, split: str, values: Any, source: PixelSource, stored_as: str) -> ImageData:
    """Return inputs with real values as their targets, and no classes.

    Args:
        values: (N,) or (N, M) finite numbers.
        stored_as: how they are stored, in words.
    Raises:
        DataError: values of another kind; the first of them is named.
    """
    try:
        targets = np.asarray(values).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"the targets of a regression must be numbers, and those of {name} are not: {error}") from None
    targets = targets[:, None] if targets.ndim == 1 else targets
    return ImageData(name, split, np.zeros(len(targets), dtype=np.int64), ("0",), source,
                     f"{len(targets)} inputs with real values as targets, stored as {stored_as}; preprocessing: "
                     f"{source.preprocessing}", named=False, targets=targets)
