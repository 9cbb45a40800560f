"""Inputs and labels that are already arrays: tensors in memory, lists in a parquet file, the digits.

Labels come as people store them: whole numbers, names, categories or one-hot rows.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from smoothcert.data.base import Bounds, ImageData, PixelSource, resolve_classes
from smoothcert.data.preprocess import Preprocess
from smoothcert.data.reading import Reading
from smoothcert.data.targets import real_data
from smoothcert.errors import DataError, InputError

Where = Callable[[int], str]
"""A name for one image that a person can find it by, for messages."""

_WHOLE = re.compile(r"\s*[+-]?\d+\s*")
_LARGEST = float(1 << 53)


class ArraySource:
    """The PixelSource of a (N, C, H, W) array: whole numbers in 0..levels, or floats in [0, 1].

    Raises DataError naming the first image with a value outside that range (or NaN).
    """

    def __init__(self, values: np.ndarray, where: Where, *, levels: int = 255,
                 preprocess: Preprocess | None = None) -> None:
        self._values = _check_pixels(values, levels, where)
        self._preprocess = preprocess or Preprocess()
        self.where: Where = where
        self.levels: int | None = levels
        self.bounds: Bounds = (0, 1)
        self.preprocessing = str(self._preprocess)
        channels, height, width = values.shape[1:]
        self.shape: tuple[int, ...] = (channels, *self._preprocess.output_size((height, width), where(0)))

    def __len__(self) -> int:
        return len(self._values)

    def pixels(self, indices: np.ndarray) -> np.ndarray:
        """Return (B, C, H, W) uint8 or float32."""
        chosen = self._values[indices]
        if self._preprocess == Preprocess() or len(indices) == 0:
            return chosen.reshape(len(indices), *self.shape)
        return np.stack([self._preprocess.apply_array(image) for image in chosen])

    def read_raw(self, index: int) -> bytes:
        """Return the pixels of one image in row-major order, one byte or one little-endian float32 each."""
        image = self._values[index]
        return image.astype(image.dtype.newbyteorder("<")).tobytes()


class TensorSource:
    """The PixelSource of a (N, *shape) array of numbers, of any shape and in any range.

    Args:
        reading: its bounds and levels are those of the values.
        names: of the columns of a table that are the first axis of an input.
    Raises:
        InputError: a type that is no number, or options for images.
        DataError: values that are missing or infinite, or leave the bounds.
    """

    preprocessing = str(Preprocess())

    def __init__(self, values: np.ndarray, where: Where, reading: Reading, names: Sequence[str] = ()) -> None:
        reading.refuse_preprocessing(values.shape[1:])
        if values.dtype.kind not in "fiu":
            hint = ": give 0.0 and 1.0" if values.dtype.kind == "b" else ""
            raise InputError(f"inputs must be numbers, got {values.dtype}{hint}")
        if 0 in values.shape:
            raise DataError(f"inputs must hold values, got shape {values.shape}")
        self.where: Where = where
        self.columns = tuple(names)
        self.shape: tuple[int, ...] = values.shape[1:]
        self.levels, self.bounds = reading.levels, reading.tensor_bounds
        with np.errstate(over="ignore"):  # too large a number is refused below
            self._values = np.ascontiguousarray(values, dtype=np.float32)
        if faults := find_faults(self._values, where, self.bounds, names):
            raise DataError(list_faults("the inputs", faults))

    def __len__(self) -> int:
        return len(self._values)

    def pixels(self, indices: np.ndarray) -> np.ndarray:
        """Return (B, *shape) float32."""
        return self._values[indices]

    def read_raw(self, index: int) -> bytes:
        """Return the values of one input in row-major order, one little-endian float32 each."""
        return self._values[index].astype("<f4").tobytes()


def find_faults(values: np.ndarray, where: Where, bounds: Bounds, names: Sequence[str] = ()) -> list[str]:
    """Return what is wrong with numbers (N, ...): for each kind of fault, and each of the columns `names` along the
    second axis, the first that has it."""
    low, high = bounds or (-np.inf, np.inf)
    with np.errstate(over="ignore", invalid="ignore"):
        stored = values.astype(np.float32, copy=False)
        if np.isfinite(stored).all() and stored.min() >= np.float32(low) and stored.max() <= np.float32(high):
            return []
        if names:
            return [f"{name}: {fault}" for column, name in enumerate(names)
                    for fault in find_faults(values[:, column], where, bounds)]
        faults = {"a value is missing (NaN or empty)": np.isnan(stored),
                  "is infinite, or beyond what float32 holds": np.isinf(stored),
                  f"is outside the bounds [{low:g}, {high:g}]": np.isfinite(stored) & ~(
                      (stored >= np.float32(low)) & (stored <= np.float32(high)))}
    found = []
    for fault, wrong in faults.items():
        if wrong.any():
            row, *entry = (int(place) for place in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
            value = "" if fault.startswith("a value") else f"{values[(row, *entry)]:g} "
            rows = int(wrong.reshape(len(wrong), -1).any(axis=1).sum())
            found.append(f"{where(row)}{f', entry {tuple(entry)}' if entry else ''}: {value}{fault}; "
                         f"{rows} such row{'s' * (rows > 1)}")
    return found


def list_faults(what: str, faults: Sequence[str]) -> str:
    """Return faults as one message."""
    return "\n".join([f"{what} cannot be used:", *(f"  - {fault}" for fault in faults)])


def array_source(values: np.ndarray, where: Where, reading: Reading) -> PixelSource:
    """Return the source of arrays in Python: (N, C, H, W) are images unless other bounds are given; others tensors.

    Raises InputError for arrays of another type, or for what looks like images of another layout; DataError for values
    out of range.
    """
    if values.ndim < 2:
        raise InputError(f"inputs must have shape (N, ...), got {values.shape}: give one number an input as x[:, None]")
    if reading.bounds is None and values.dtype == np.uint8 and values.ndim == 3:
        raise InputError(f"images must have shape (N, C, H, W), got {values.shape}; give grey images as "
                         f"images[:, None]")
    if values.ndim != 4 or not reading.may_be_images:
        return TensorSource(values, where, reading)
    if 0 in values.shape[1:]:
        raise InputError(f"images must have shape (N, C, H, W), got {values.shape}")
    if values.shape[3] == 3 and min(values.shape[1:3]) > 4:
        raise InputError(f"images must have shape (N, C, H, W), and {values.shape} looks like (N, H, W, C): give "
                         f"images.transpose(0, 3, 1, 2)")
    levels = reading.levels or 255
    if values.dtype.kind not in "fiu":
        hint = ": give 0.0 and 1.0" if values.dtype.kind == "b" else ""
        raise InputError(f"images must be floats in [0, 1] or whole numbers in 0..{levels}, got {values.dtype}{hint}")
    return ArraySource(values, where, levels=levels, preprocess=reading.preprocess)


def from_tensors(images: Any, labels: Any, *, num_classes: int | None = None, name: str = "tensors",
                 levels: int | None = None, preprocess: Preprocess | None = None, bounds: Any = None,
                 real: bool = False) -> ImageData:
    """Return tensors or arrays as ImageData, without a copy if they are float32 or uint8 already.

    Args:
        images: images (N, C, H, W), floats in [0, 1] or whole numbers in 0..levels; or inputs of any other shape
            (N, ...), numbers of any range.
        labels: (N,) whole numbers, or names, whose classes come in the order of the names; or one-hot (N, K).
        levels: L such that L * x is an integer for every clean value x. None is 255 for images, and no grid for others.
        preprocess: resizing and cropping of images, none by default.
        bounds: (low, high) that all values keep, or "none": then (N, C, H, W) are no images either. None is (0, 1) for
            images, and "none" for others.
        real: whether the labels are real values (N,) or (N, M), the targets of a regression.
    Raises:
        InputError: a wrong shape or type. DataError: values out of range.

    >>> data = from_tensors(np.zeros((4, 1, 2, 2), dtype=np.uint8), [0, 1, 2, 1])
    >>> data.num_classes, data.shape, data.bounds
    (3, (1, 2, 2), (0, 1))
    >>> data = from_tensors(np.linspace(-9, 9, 12).reshape(4, 3), ["ill", "well", "well", "ill"])
    >>> data.class_names, data.shape, data.bounds
    (('ill', 'well'), (3,), None)
    """
    done = preprocess or Preprocess()
    reading = Reading(resize=done.resize, crop=done.crop, bounds=bounds, levels=levels)
    values, classes = _to_numpy("images", images), _to_numpy("labels", labels)
    if classes.ndim == 0 or values.ndim == 0 or len(classes) != len(values):
        raise InputError(f"there are {len(values) if values.ndim else 0} images and {classes.size} labels, of shape "
                         f"{classes.shape}")
    source = array_source(values, _row, reading)
    if real:
        return real_data(name, "all", classes, source, "arrays")
    indices, names = class_indices(classes, _row)
    return ImageData(name, "all", indices, resolve_classes(indices, names, num_classes, _row), source,
                     f"{len(indices)} inputs given as arrays", named=names is not None).with_classes()


def class_indices(values: np.ndarray, where: Where, categories: Sequence[str] | None = None
                  ) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Return ((N,) int64 labels, the names of the classes or None) for an array of N labels.

    Whole numbers may be of any type, text included ("7", 7.0, True); (N, 1) is a column of labels and (N, K) one-hot.
    Other text is names: their classes are `categories` if given, else the names that occur, sorted.
    Raises DataError for other labels, naming the first of them.
    """
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 2 and values.dtype.kind in "biuf":
        odd = ((values != 0).sum(axis=1) != 1) | (values.max(axis=1, initial=0) != 1)
        if odd.any():
            row = int(np.argmax(odd))
            raise DataError(f"{where(row)} has the label {values[row].tolist()!s:.80}; labels of shape {values.shape} "
                            f"must be one-hot: a single 1, and zeros (certify takes several labels of an input with "
                            f"task multi-label, and real values with task regression)")
        return values.argmax(axis=1), None
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


def is_image_shape(shape: Sequence[int]) -> bool:
    """Tell whether stored values of this shape can be an image, (H, W), (H, W, C) or (C, H, W)."""
    return len(shape) == 2 or (len(shape) == 3 and (shape[0] in (1, 3) or shape[2] in (1, 3)))


def channels_first(values: np.ndarray, where: str) -> np.ndarray:
    """Return (N, H, W), (N, H, W, C) or (N, C, H, W) as (N, C, H, W), with C one of 1 and 3.

    If both ends could be the channels, the last axis is taken, as in the usual layout of stored arrays.
    """
    if values.ndim == 3:
        return values[:, None]
    if values.ndim == 4 and values.shape[3] in (1, 3):
        return values.transpose(0, 3, 1, 2)
    if values.ndim == 4 and values.shape[1] in (1, 3):
        return values
    raise DataError(f"{where}: an image of shape {values.shape[1:]} is none of (H, W), (H, W, C) and (C, H, W) "
                    "with 1 or 3 channels")


def _check_pixels(values: np.ndarray, levels: int, where: Where) -> np.ndarray:
    """Return `values` as uint8 (from whole numbers) or float32 (from floats). Raises DataError for one out of range."""
    if len(values) == 0:
        raise DataError("the data set holds no images")
    is_float = values.dtype.kind == "f"
    if is_float:
        with np.errstate(over="ignore"):  # too large a number is refused below
            values = values.astype(np.float32, copy=False)
    top = 1 if is_float else min(levels, 255)
    inside = (values >= 0) & (values <= top)
    if not inside.all():
        place = np.unravel_index(int(np.argmin(inside)), values.shape)
        expected = ("in [0, 1]; divide 8-bit values by 255, and put a normalisation into the model; or, if these are "
                    "no images, give --bounds none (in Python, bounds=\"none\")") if is_float else \
            f"whole numbers in 0..{top}; give deeper ones as floats in [0, 1]"
        raise DataError(f"{where(int(place[0]))} has a pixel of value {values[place]!s}; pixels must be {expected}")
    return np.ascontiguousarray(values, dtype=np.float32 if is_float else np.uint8)


def _to_numpy(name: str, values: Any) -> np.ndarray:
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} cannot be read as an array ({error})") from error


def _row(index: int) -> str:
    return f"row {index}"


def _check_whole(values: np.ndarray, where: Where) -> np.ndarray:
    odd = ~((np.floor(values) == values) & (np.abs(values) <= _LARGEST))
    if odd.any():
        row = int(np.argmax(odd))
        hint = "a missing label?" if np.isnan(values[row]) else "certify takes real values with task regression"
        raise DataError(f"{where(row)} has label {values[row]} ({hint}); labels must be whole numbers or names")
    return values.astype(np.int64)


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
    """Return one label of a column of text, which may have whole numbers in it."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    if value is None or value != value:
        raise DataError(f"{where} has no label")
    raise DataError(f"{where} has label {value!r:.80}; labels must be whole numbers or names")
