"""A labelled set of images in a fixed order: what every loader returns and every run reads."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from smoothcert.checks import check_count
from smoothcert.errors import DataError, InputError

IMPLIED_CLASSES_LIMIT = 100_000
"""A larger label than this is taken for an identifier, not for a class, unless the number of classes is given."""


class PixelSource(Protocol):
    """N stored images and how to read them; one implementation per way of storing."""

    shape: tuple[int, int, int]
    """(C, H, W) after preprocessing."""
    levels: int
    """L such that integer pixels k stand for the value k / L."""
    preprocessing: str
    """What is done to a stored image before it is used, in words; part of the fingerprint."""

    def __len__(self) -> int: ...

    def pixels(self, indices: np.ndarray) -> np.ndarray:
        """The preprocessed images: (B, C, H, W), uint8 in 0..levels or float32 in [0, 1]."""
        ...

    def stored(self, index: int) -> bytes:
        """The bytes of one image as they are stored, before decoding and preprocessing."""
        ...

    def where(self, index: int, /) -> str:
        """A name for one image that a person can find it by, for messages."""
        ...


@dataclass(frozen=True, eq=False)
class ImageData:
    """Labelled images, float32 in [0, 1], in the data set's own order; noise is added elsewhere.

    labels: (N,) int64 in 0..num_classes-1; class_names: one name per class; description: a note for people.
    Raises DataError where the set is empty, has fewer than two classes, or has a label outside them.
    """

    name: str
    split: str
    labels: np.ndarray
    class_names: tuple[str, ...]
    source: PixelSource
    description: str = ""

    def __post_init__(self):
        if len(self.labels) != len(self.source):
            raise DataError(f"{self.name} has {len(self.source)} images and {len(self.labels)} labels")
        if len(self.labels) == 0:
            raise DataError(f"{self.name} ({self.split}) holds no images")
        if len(self.class_names) < 2:
            raise DataError(f"{self.name} has {len(self.class_names)} class; certification needs at least two")
        check_labels(self.labels, self.num_classes, self.source.where)

    @property
    def num_classes(self) -> int:
        """The number of classes K."""
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        return self.source.shape

    @property
    def levels(self) -> int:
        """L such that L * x is an integer for a clean pixel x: 255 for 8-bit images, 16 for the digits."""
        return self.source.levels

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> np.ndarray:
        """One image: (C, H, W) float32 in [0, 1]. Raises InputError where there is no such image."""
        return self.batch([index])[0]

    def batch(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The images at `indices`, in that order: (B, C, H, W) float32 in [0, 1], a new array."""
        pixels = self.source.pixels(check_indices(indices, len(self)))
        if pixels.dtype == np.uint8:
            return pixels.astype(np.float32) / np.float32(self.levels)
        return pixels

    def fingerprint(self, indices: Sequence[int] | np.ndarray) -> str:
        """SHA-256 (hex) of the stored bytes and labels of these images, their preprocessing and shape.

        Two copies of a data set have one fingerprint wherever they lie; the order of `indices` counts.
        """
        digest = hashlib.sha256()
        header = f"smoothcert data 1; shape {self.shape}; levels {self.levels}; {self.source.preprocessing}"
        digest.update(_framed(header.encode()))
        for index in check_indices(indices, len(self)).tolist():
            digest.update(_framed(self.source.stored(index)))
            digest.update(int(self.labels[index]).to_bytes(8, "little"))
        return digest.hexdigest()


def check_indices(indices: Sequence[int] | np.ndarray, size: int) -> np.ndarray:
    """Return `indices` as a (B,) int64 array, or raise InputError unless all are in 0..size-1."""
    array = np.asarray(indices)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(f"indices must be a flat sequence of whole numbers, got {array.dtype} of shape {array.shape}")
    outside = np.flatnonzero((array < 0) | (array >= size))
    if outside.size:
        raise InputError(f"there is no image {array[outside[0]]}: the data set holds {size} (0 to {size - 1})")
    return array.astype(np.int64)


def check_labels(labels: np.ndarray, num_classes: int | None, where: Callable[[int], str]) -> None:
    """Raise DataError for the first label that is negative or not below `num_classes` (where that is given)."""
    outside = labels < 0 if num_classes is None else (labels < 0) | (labels >= num_classes)
    bad = np.flatnonzero(outside)
    if bad.size:
        expected = "at least 0" if num_classes is None else f"in 0..{num_classes - 1} ({num_classes} classes)"
        raise DataError(f"{where(int(bad[0]))} has label {labels[bad[0]]}; labels must be {expected}")


def resolve_classes(labels: np.ndarray, names: Sequence[str] | None, num_classes: int | None,
                    where: Callable[[int], str]) -> tuple[str, ...]:
    """The class names: those of the data where it has any, else "0", "1", ... up to `num_classes` or max(labels).

    Raises InputError where `num_classes` contradicts the data's own names, DataError for a negative label
    or one too large to be a class.
    """
    if num_classes is not None:
        check_count("num_classes", num_classes, least=2)
    if names is not None:
        if num_classes not in (None, len(names)):
            raise InputError(f"num_classes is {num_classes}, but the data name {len(names)} classes")
        return tuple(names)
    check_labels(labels, None, where)
    if num_classes is None and labels.size and labels.max() >= IMPLIED_CLASSES_LIMIT:
        row = int(np.argmax(labels))
        raise DataError(f"{where(row)} has label {labels[row]}; labels must be 0, 1, ... up to the number of classes "
                        f"less one (give num_classes if there are more than {IMPLIED_CLASSES_LIMIT:,})")
    count = num_classes if num_classes is not None else int(labels.max(initial=-1)) + 1
    return tuple(str(k) for k in range(count))


def _framed(content: bytes) -> bytes:
    """`content` after its length, so that no two sequences of contents run together into the same bytes."""
    return len(content).to_bytes(8, "little") + content
