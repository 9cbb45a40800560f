"""Class counts: sampling ends in them, and every certificate is computed from them."""

from typing import Any

import numpy as np
import numpy.typing as npt

from smoothcert.errors import InputError


class ClassCounts:
    """Counts of the classes predicted for n noisy copies: (K,) or, for M images, (M, K).

    Immutable int64. `a + b` merges two disjoint sets of samples of the same images.

    >>> ClassCounts([3, 90, 7]) + ClassCounts([0, 100, 0])
    ClassCounts([3, 190, 7])
    """

    __slots__ = ("_values",)

    def __init__(self, values: npt.ArrayLike):
        self._values = check_counts("counts", values)
        self._values.flags.writeable = False

    @property
    def n(self) -> Any:
        """The number of samples: an int for one image, int64 (M,) for M images."""
        total = self._values.sum(axis=-1)
        return int(total) if self._values.ndim == 1 else total

    @property
    def num_classes(self) -> int:
        return self._values.shape[-1]

    @property
    def top(self) -> Any:
        """The most frequent class (the lowest index among equals): an int, or int64 (M,)."""
        top = self._values.argmax(axis=-1)
        return int(top) if self._values.ndim == 1 else top

    def __add__(self, other: "ClassCounts") -> "ClassCounts":
        if not isinstance(other, ClassCounts):
            return NotImplemented
        if other._values.shape != self._values.shape:
            raise InputError(f"counts of shape {self._values.shape} cannot be merged with {other._values.shape}")
        return ClassCounts(self._values + other._values)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ClassCounts):
            return NotImplemented
        return np.array_equal(self._values, other._values)

    def __hash__(self) -> int:
        return hash((self._values.shape, self._values.tobytes()))

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, item: Any) -> Any:
        return self._values[item]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._values, dtype=dtype)

    def tolist(self) -> list:
        return self._values.tolist()

    def __repr__(self) -> str:
        return f"ClassCounts({self._values.tolist()})"


def check_counts(name: str, values: npt.ArrayLike, least_total: int = 0) -> np.ndarray:
    """Return `values` as a fresh int64 array (K,) or (M, K), or raise InputError.

    Refused: fewer than two classes, other ranks, fractions, negative counts, totals below `least_total`.
    """
    array = np.asarray(values)
    if array.ndim not in (1, 2):
        raise InputError(f"{name} must have shape (K,) or (M, K), got shape {array.shape}")
    if array.shape[-1] < 2:
        raise InputError(f"{name} must hold at least two classes, got shape {array.shape}")
    if array.dtype.kind not in "iu":
        raise InputError(f"{name} must be integers, got dtype {array.dtype}")
    if array.size and array.min() < 0:
        raise InputError(f"{name} must not be negative, got {array.min()}")
    array = array.astype(np.int64)
    totals = array.sum(axis=-1)
    if array.size and totals.min() < least_total:
        raise InputError(f"{name} must add up to at least {least_total} sample(s), got {totals.min()}")
    return array
