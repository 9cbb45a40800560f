"""Labels as people store them, whole numbers, names, categories or one-hot rows, as the indices of classes."""

import re
from collections.abc import Callable, Sequence

import numpy as np

from smoothcert.errors import DataError

Where = Callable[[int], str]
_WHOLE = re.compile(r"\s*[+-]?\d+\s*")
_LARGEST = float(1 << 53)


def class_indices(values: np.ndarray, where: Where, categories: Sequence[str] | None = None
                  ) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Return ((N,) int64 labels, the names of the classes or None) for labels as an array of N rows.

    Whole numbers may be of any type, text included ("7", 7.0, True); (N, 1) is a column of labels and (N, K) one-hot.
    Other text is names: their classes are `categories` where given, else the names that occur, sorted.
    Raises DataError for other labels, naming the first row that is in the way.
    """
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 2 and values.dtype.kind in "biuf":
        return _read_one_hot(values, where), None
    if values.ndim != 1:
        raise DataError(f"labels must have shape (N,), or be one-hot (N, K), got {values.dtype} of shape "
                        f"{values.shape}")
    if values.dtype.kind in "biu":
        return values.astype(np.int64), None
    if values.dtype.kind == "f":
        return _check_whole(values, where), None
    if values.dtype.kind in "OU":
        names = [_read_text(value, where(row)) for row, value in enumerate(values.tolist())]
        return _index_names(names, where, categories)
    raise DataError(f"labels must be whole numbers or names, got {values.dtype}")


def _check_whole(values: np.ndarray, where: Where) -> np.ndarray:
    odd = ~((np.floor(values) == values) & (np.abs(values) <= _LARGEST))
    if odd.any():
        row = int(np.argmax(odd))
        missing = " (a missing label?)" if np.isnan(values[row]) else ""
        raise DataError(f"{where(row)} has label {values[row]}{missing}; labels must be whole numbers or names")
    return values.astype(np.int64)


def _read_one_hot(values: np.ndarray, where: Where) -> np.ndarray:
    odd = ((values != 0).sum(axis=1) != 1) | (values.max(axis=1, initial=0) != 1)
    if odd.any():
        row = int(np.argmax(odd))
        raise DataError(f"{where(row)} has the label {values[row].tolist()!s:.80}; labels of shape {values.shape} "
                        f"must be one-hot: a single 1, and zeros")
    return values.argmax(axis=1)


def _index_names(names: list[str], where: Where, categories: Sequence[str] | None
           ) -> tuple[np.ndarray, tuple[str, ...] | None]:
    if categories is None and names and all(map(_WHOLE.fullmatch, names)):
        return _check_whole(np.array([float(name) for name in names]), where), None
    classes = tuple(sorted(set(names))) if categories is None else tuple(categories)
    places = {name: place for place, name in enumerate(classes)}
    for row, name in enumerate(names):
        if name not in places:
            raise DataError(f"{where(row)} has label {name!r}, which is none of the classes {', '.join(classes)}")
    return np.array([places[name] for name in names], dtype=np.int64), classes


def _read_text(value: object, where: str) -> str:
    """A label of a column of text. Whole numbers among them are let pass."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    if value is None or value != value:
        raise DataError(f"{where} has no label")
    raise DataError(f"{where} has label {value!r:.80}; labels must be whole numbers or names")
