"""A labelled set of images in a fixed order: what every loader returns and every run reads."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np

from smoothcert.checks import check_count
from smoothcert.classes import (
    USE_ITS_CLASSES,
    check_class_count,
    in_order_of_numbers,
    match_classes,
    numbered,
    recorded_names,
    warn_of_text_order,
)
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

    labels: (N,) int64 in 0..num_classes-1; class_names: one name per class; description: a note for people;
    named: whether the data name their classes, rather than number them.
    Raises DataError where the set is empty, or has a label outside its classes.
    """

    name: str
    split: str
    labels: np.ndarray
    class_names: tuple[str, ...]
    source: PixelSource
    description: str = ""
    named: bool = True

    def __post_init__(self):
        if len(self.labels) != len(self.source):
            raise DataError(f"{self.name} has {len(self.source)} images and {len(self.labels)} labels")
        if len(self.labels) == 0:
            raise DataError(f"{self.name} ({self.split}) holds no images")
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

    def with_classes(self, names: Sequence[str] | None = None, num_classes: int | None = None,
                     whose: str = "the model", advice: str = USE_ITS_CLASSES) -> Self:
        """The same images with the classes of a model: labels become its indices.

        The data may lack some of the classes. Data that number their classes are taken to use the model's indices.

        Args:
            names: of the model's classes, in the order of its outputs; None where it has none: then the data's order
                is taken.
            num_classes: K, where there are no names; None is that of the data.
            whose: who has these names or classes, for messages. advice: what to do where they differ.
        Raises:
            InputError: the data have classes that the model lacks, or, without names to tell by, another number of
                them. DataError: a label is no class of the model, or there is but one class.
        """
        count = len(names) if names is not None else num_classes or self.num_classes
        if count < 2:
            raise DataError(f"{self.name} has {count} class; certification needs at least two")
        if names is None:
            check_class_count(count, self.class_names, self.named, f"{whose} gives {count} scores an image")
            warn_of_text_order(self.name, self.class_names)
            return self
        if not self.named:
            check_labels(self.labels, count, self.source.where)
            return replace(self, class_names=tuple(names), named=tuple(names) != numbered(count))
        places = match_classes(names, self.class_names, whose, advice=advice)
        return replace(self, labels=places[self.labels], class_names=recorded_names(names, self.class_names))

    def in_order_of_numbers(self) -> Self:
        """The same images with classes in the order of the numbers that are their names.

        Raises InputError where a class has another name.
        """
        if not self.named:
            return self
        names = in_order_of_numbers(self.class_names)
        if names is None:
            raise InputError(f"numeric_classes orders classes by the numbers that are their names; {self.name} has the "
                             f"classes {', '.join(self.class_names[:10])}: leave it out")
        return replace(self, labels=match_classes(names, self.class_names)[self.labels], class_names=names)

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

    Raises DataError for a negative label or one too large to be a class.
    """
    if num_classes is not None:
        check_count("num_classes", num_classes, least=2)
    if names is not None:
        return tuple(names)
    check_labels(labels, None, where)
    if num_classes is None and labels.size and labels.max() >= IMPLIED_CLASSES_LIMIT:
        row = int(np.argmax(labels))
        raise DataError(f"{where(row)} has label {labels[row]}; labels must be 0, 1, ... up to the number of classes "
                        f"less one (give num_classes if there are more than {IMPLIED_CLASSES_LIMIT:,})")
    count = num_classes if num_classes is not None else int(labels.max(initial=-1)) + 1
    return numbered(count)


def _framed(content: bytes) -> bytes:
    """`content` after its length, so that no two sequences of contents run together into the same bytes."""
    return len(content).to_bytes(8, "little") + content
