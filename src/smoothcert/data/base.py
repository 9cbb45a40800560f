"""A labelled set of inputs in a fixed order: every loader returns one, and every run reads one.

Inputs are images (C, H, W), or tensors of any other shape: rows of a table (D,), series (C, T), volumes (C, D, H, W).
Messages and names call them images where they are, and where it makes no difference.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, Protocol, Self

import numpy as np

from smoothcert.checks import check_count
from smoothcert.classes import (
    USE_ITS_CLASSES,
    check_class_count,
    in_order_of_numbers,
    index_names,
    match_classes,
    names_to_record,
    warn_of_text_order,
)
from smoothcert.display import Displayed
from smoothcert.errors import DataError, InputError
from smoothcert.progress import phase

IMPLIED_CLASSES_LIMIT = 100_000
"""A label from here on is taken for an identifier, not for a class, unless the number of classes is given."""

CANONICAL = {"cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))}
"""The constants under which published CIFAR-10 models were trained. The standard deviations, as usual in print, are
averages over images of each image's own; over all pixels at once they are about 0.25."""

LEAST_STD = 1e-3
_CHUNK = 500


Bounds = tuple[float, float] | None


class PixelSource(Protocol):
    """N stored inputs and how to read them; one implementation per way of storing."""

    shape: tuple[int, ...]
    """The shape of one input after preprocessing: (C, H, W) of images, any other of tensors."""
    levels: int | None
    """L such that L * x is an integer for a clean value x, and integer pixels k stand for k / L; None where the values
    lie on no grid that is known."""
    bounds: Bounds
    """(low, high) that every value keeps, (0, 1) of images; None where nothing is known."""
    preprocessing: str
    """The preprocessing of a stored image in words; part of the fingerprint."""

    def __len__(self) -> int: ...

    def pixels(self, indices: np.ndarray) -> np.ndarray:
        """Return the preprocessed inputs (B, *shape): float32, or uint8 in 0..levels."""
        ...

    def read_raw(self, index: int) -> bytes:
        """Return the bytes of one image as they are stored, before decoding and preprocessing."""
        ...

    def where(self, index: int, /) -> str:
        """Return a name for one image that a person can find it by, for messages."""
        ...


@dataclass(frozen=True, eq=False, repr=False)
class ImageData(Displayed):
    """Labelled inputs, float32, in the data set's own order; noise is added elsewhere.

    Images are (C, H, W) in [0, 1]; other inputs have any shape, and values of any range.

    Raises DataError if the set is empty, or has a label outside its classes.

    Attributes:
        labels: (N,) int64 in 0..num_classes-1.
        class_names: one name per class.
        description: a note for people.
        named: the data name their classes, rather than number them.
        targets: (N, M) float64, the real values that a regression is to give; None where the data have none.
        divided: the data have splits; without any, every split is all of the data.
    """

    name: str
    split: str
    labels: np.ndarray
    class_names: tuple[str, ...]
    source: PixelSource
    description: str = ""
    named: bool = True
    targets: np.ndarray | None = None
    divided: bool = True

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.source):
            raise DataError(f"{self.name} has {len(self.source)} images and {len(self.labels)} labels")
        if len(self.labels) == 0:
            raise DataError(f"{self.name} ({self.split}) holds no images")
        check_labels(self.labels, self.num_classes, self.source.where)
        if self.targets is not None:
            check_targets(self.targets, len(self.labels), self.source.where)

    @property
    def num_classes(self) -> int:
        """The number of classes K."""
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of every input: (C, H, W) of images, (D,) of tables, (C, T) of series, or any other."""
        return self.source.shape

    @property
    def levels(self) -> int | None:
        """L such that L * x is an integer for a clean value x: 255 for 8-bit images, 16 for the digits; None where the
        values lie on no grid that is known."""
        return self.source.levels

    @property
    def bounds(self) -> Bounds:
        """(low, high) that every value keeps: (0, 1) of images; None where nothing is known."""
        return self.source.bounds

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns of a table that make an input, in their order; () for other data."""
        return getattr(self.source, "columns", ())

    def __len__(self) -> int:
        return len(self.labels)

    def display_facts(self) -> dict[str, Any]:
        return {"name": self.name, "split": self.split, "images": len(self), "shape": self.shape,
                "classes": self.num_classes, "description": self.description}

    def image(self, index: int) -> np.ndarray:
        """Return one input, float32 of `shape`. Raises InputError if there is no such input."""
        return self.batch([index])[0]

    def batch(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the inputs at `indices`, in that order: (B, *shape) float32, a new array."""
        return scaled(self.source.pixels(check_indices(indices, len(self))), self.levels)

    def with_classes(self, names: Sequence[str] | None = None, num_classes: int | None = None,
                     whose: str = "the model", advice: str = USE_ITS_CLASSES) -> Self:
        """Return the same images with the classes of a model, so that labels are its indices.

        The data may lack some of the classes. Data that number their classes are taken to use the model's indices.

        Args:
            names: of the model's classes, in the order of its outputs; None keeps the data's order.
            num_classes: K, if there are no names; None is that of the data.
            whose: the owner of these names or classes, for messages. advice: the way out, if they differ.
        Raises:
            InputError: the data have classes that the model lacks, or, without names, another number of them.
            DataError: a label is not a class of the model, or there is only one class.
        """
        count = len(names) if names is not None else num_classes or self.num_classes
        if self.targets is not None:
            raise DataError(f"{self.name} has real values as targets, and no classes: give task regression")
        if count < 2:
            raise DataError(f"{self.name} has {count} class; certification needs at least two: where the model has "
                            f"more, give their number, num_classes, or their names, classes")
        if names is None:
            check_class_count(count, self.class_names, self.named, f"{whose} gives {count} scores an image")
            warn_of_text_order(self.name, self.class_names)
            return self
        if not self.named:
            check_labels(self.labels, count, self.source.where)
            return replace(self, class_names=tuple(names), named=tuple(names) != index_names(count))
        places = match_classes(names, self.class_names, whose, advice=advice)
        return replace(self, labels=places[self.labels], class_names=names_to_record(names, self.class_names))

    def in_order_of_numbers(self) -> Self:
        """Return the same images with classes in the order of the numbers that are their names.

        Raises InputError if a class has another name.
        """
        if not self.named:
            return self
        names = in_order_of_numbers(self.class_names)
        if names is None:
            raise InputError(f"numeric_classes orders classes by the numbers that are their names; {self.name} has the "
                             f"classes {', '.join(self.class_names[:10])}: leave it out")
        return replace(self, labels=match_classes(names, self.class_names)[self.labels], class_names=names)

    def fingerprint(self, indices: Sequence[int] | np.ndarray) -> str:
        """Return the SHA-256 (hex) of the stored bytes and labels of these images, their preprocessing and shape.

        Copies of a data set have the same fingerprint wherever they lie; the order of `indices` counts.
        """
        digest = hashlib.sha256()
        header = f"smoothcert data 1; shape {self.shape}; levels {self.levels}; {self.source.preprocessing}"
        digest.update(_frame(header.encode()))
        chosen = check_indices(indices, len(self)).tolist()
        with phase("hashing the data", len(chosen), "images") as hashing:
            for index in chosen:
                digest.update(_frame(self.source.read_raw(index)))
                digest.update(int(self.labels[index]).to_bytes(8, "little"))
                if self.targets is not None:
                    digest.update(self.targets[index].astype("<f8").tobytes())
                hashing.advance()
        return digest.hexdigest()


def scaled(values: np.ndarray, levels: int | None) -> np.ndarray:
    """Return what a source gives as float32: whole numbers k are k / levels."""
    return values.astype(np.float32) / np.float32(levels) if levels and values.dtype == np.uint8 else values


def channel_statistics(data: ImageData, max_images: int = 5000) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return (mean, std), C floats each, over all values of at most `max_images` evenly spaced inputs.

    C is the first axis of `data.shape`: the channels of images and series, the columns of tables. They are for the
    normalisation layer inside a model. The constants in CANONICAL are returned as they are; a std is at least
    LEAST_STD, so that dividing by it is safe if a channel is constant.
    """
    check_count("max_images", max_images)
    if data.name in CANONICAL:
        return CANONICAL[data.name]
    count = min(len(data), max_images)
    indices = np.arange(count) * len(data) // count
    total, squares = np.zeros(data.shape[0]), np.zeros(data.shape[0])
    for begin in range(0, count, _CHUNK):
        values = data.batch(indices[begin:begin + _CHUNK]).astype(np.float64)
        within = (0, *range(2, values.ndim))
        total += values.sum(axis=within)
        squares += np.square(values).sum(axis=within)
    pixels = count * math.prod(data.shape[1:])
    mean = total / pixels
    std = np.sqrt(np.maximum(squares / pixels - mean**2, 0))
    return tuple(mean.tolist()), tuple(np.maximum(std, LEAST_STD).tolist())


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
    """Raise DataError for the first label that is negative or not below `num_classes`, if that is given."""
    outside = labels < 0 if num_classes is None else (labels < 0) | (labels >= num_classes)
    bad = np.flatnonzero(outside)
    if bad.size:
        expected = "at least 0" if num_classes is None else f"in 0..{num_classes - 1} ({num_classes} classes)"
        unknown = ("; -1 marks images whose labels are not given: take another split, such as --split validation"
                   if (labels == -1).all() else "")
        raise DataError(f"{where(int(bad[0]))} has label {labels[bad[0]]}; labels must be {expected}{unknown}")


def check_targets(targets: np.ndarray, size: int, where: Callable[[int], str]) -> None:
    """Raise DataError unless targets are finite numbers, float64 (size, M)."""
    if targets.ndim != 2 or len(targets) != size or not targets.shape[1] or targets.dtype != np.float64:
        raise DataError(f"targets must be float64 of shape ({size}, M), got {targets.dtype} of shape {targets.shape}")
    bad = np.flatnonzero(~np.isfinite(targets).all(axis=1))
    if bad.size:
        raise DataError(f"{where(int(bad[0]))} has the target {targets[bad[0]].tolist()}; targets must be finite")


def resolve_classes(labels: np.ndarray, names: Sequence[str] | None, num_classes: int | None,
                    where: Callable[[int], str]) -> tuple[str, ...]:
    """Return the class names of the data, or "0", "1", ... up to `num_classes` or max(labels) if it has none.

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
    return index_names(count)


def _frame(content: bytes) -> bytes:
    """Return `content` after its length, so that different sequences of contents never give the same bytes."""
    return len(content).to_bytes(8, "little") + content


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
