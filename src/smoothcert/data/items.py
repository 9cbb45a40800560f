"""Data sets whose items are read when they are used: map-style torch data sets, and other sequences of pairs."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from smoothcert.data.arrays import array_source, class_indices
from smoothcert.data.base import Bounds, ImageData, PixelSource, resolve_classes
from smoothcert.data.columns import IMAGE_COLUMNS, LABEL_COLUMNS
from smoothcert.data.encoded import pil_pixels
from smoothcert.data.preprocess import Preprocess
from smoothcert.data.reading import Reading
from smoothcert.data.targets import real_data
from smoothcert.errors import CodeError, DataError, InputError

_LABELS = ("targets", "labels", "_labels")
_IMAGES = (*IMAGE_COLUMNS, "pixel_values", "x", "input", "inputs", "input_values")


def from_items(items: Any, *, name: str, split: str, num_classes: int | None = None,
               reading: Reading = Reading()) -> ImageData:  # noqa: B008
    """Return a data set of items (input, label), or {"image": ..., "label": ...}, as ImageData that reads them lazily.

    Labels are taken from the data set's `targets` or `labels` where it has them, else from all items. Class names are
    its `classes`.

    Args:
        items: anything with a length and `[index]`. An image is a tensor or array (C, H, W), floats in [0, 1] or uint8,
            or a PIL image; other inputs are tensors or arrays of another shape, or of other bounds.
    Raises:
        InputError: items of another form. CodeError: an item fails. DataError: values out of range, or items that
        differ from one reading to the next.
    """
    if not len(items):
        raise InputError(f"data {name} hold no images")
    source = ItemSource(items, name, reading)
    labels = _known_labels(items)
    source.labels = [source.label(i) for i in range(len(items))] if labels is None else labels
    source.try_items()
    if reading.real:
        return real_data(name, split, source.labels, source, f"items of {name}")
    indices, names = class_indices(np.asarray(source.labels), source.where)
    if names is None and (known := _class_names(items)):
        names = known
    return ImageData(name, split, indices, resolve_classes(indices, names, num_classes, source.where), source,
                     f"{len(indices)} items of {name}; preprocessing: {source.preprocessing}",
                     named=names is not None).with_classes()


class ItemSource:
    """The PixelSource of a sequence of items; an item that is not the same at its next reading is refused."""

    def __init__(self, items: Any, name: str, reading: Reading) -> None:
        self._items, self._name, self._reading = items, name, reading
        self._seen: dict[int, bytes] = {}
        self.labels: list[Any] | None = None
        self.preprocessing = str(reading.preprocess)
        self._channels = None
        first, source = self._pixels(self._item(0)[0], 0)
        self._channels, *self._size = first.shape
        self._type = first.dtype
        self.levels: int | None = source.levels if source else 255
        self.bounds: Bounds = source.bounds if source else (0, 1)
        self.shape: tuple[int, ...] = self._output_shape(first, 0)

    def __len__(self) -> int:
        return len(self._items)

    def where(self, index: int, /) -> str:
        """Return "item 3 of NAME"."""
        return f"item {index} of {self._name}"

    def pixels(self, indices: np.ndarray) -> np.ndarray:
        """Return (B, *shape) uint8 or float32."""
        found = np.empty((len(indices), *self.shape), self._type)
        preprocess = self._reading.preprocess
        for place, index in enumerate(indices.tolist()):
            image = self._read(index)
            found[place] = image if preprocess == Preprocess() else preprocess.apply_array(image)
        return found

    def read_raw(self, index: int) -> bytes:
        """Return the pixels of one image in row-major order, as `ArraySource` does, behind its shape where that is not
        the first image's."""
        image = self._read(index)
        other = b"" if list(image.shape[1:]) == self._size else repr(image.shape).encode()
        return other + image.astype(image.dtype.newbyteorder("<")).tobytes()

    def label(self, index: int) -> Any:
        """Return the label of one item: a number, a text, or a one-hot list."""
        return self._item(index)[1]

    def try_items(self) -> None:
        """Read a few items twice. Raises DataError where one has changed."""
        for index in sorted({0, len(self) // 2, len(self) - 1}):
            self._read(index)
            self._read(index)

    def _item(self, index: int) -> tuple[Any, Any]:
        try:
            item = self._items[index]
        except Exception as error:
            raise CodeError(f"{self.where(index)} cannot be read: {type(error).__name__}: {error}") from error
        if isinstance(item, Mapping):
            image, label = (next((item[key] for key in keys if key in item), None) for keys in (_IMAGES, LABEL_COLUMNS))
            if image is None or label is None:
                raise InputError(f"{self.where(index)} has the keys {', '.join(map(str, item))}; an image is looked "
                                 f"for under {', '.join(_IMAGES)}, a label under {', '.join(LABEL_COLUMNS)}")
        elif isinstance(item, Sequence) and len(item) >= 2 and not isinstance(item, str):
            image, label = item[:2]
        else:
            raise InputError(f"data {self._name} must hold pairs (image, label), got {type(item).__name__}")
        return image, _plain(label)

    def _read(self, index: int) -> np.ndarray:
        """Return one input, uint8 or float32, the same at every reading."""
        image, label = self._item(index)
        pixels, _ = self._pixels(image, index)
        shape = self._output_shape(pixels, index)
        if shape != self.shape or pixels.dtype != self._type:
            raise DataError(f"{self.where(index)} is {pixels.dtype} of shape {shape}, but the first is {self._type} of "
                            f"shape {self.shape}: inputs must all have one shape; for images, give resize and crop, or "
                            f"do it in the data set's transform")
        found = hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()
        if self._seen.setdefault(index, found) != found:
            raise DataError(f"{self.where(index)} is another image when it is read again: a certificate is of one "
                            f"image, so give the data set without random augmentation")
        if self.labels is not None and self.labels[index] != label:
            raise DataError(f"{self.where(index)} has the label {label!r}, where the data set's list of labels, or an "
                            f"earlier reading, has {self.labels[index]!r}")
        return pixels

    def _pixels(self, image: Any, index: int) -> tuple[np.ndarray, PixelSource | None]:
        """Return one input as the data set has it, and its source alone; None where it is a Pillow image."""
        if hasattr(image, "getbands"):
            return pil_pixels(image, self._channels, self.where(index)), None
        image = image.detach().cpu() if hasattr(image, "detach") else image
        try:
            values = np.asarray(image)
        except ValueError as error:
            raise InputError(f"{self.where(index)} cannot be read as an array ({error})") from error
        hint = ""
        if self._reading.bounds is None and values.ndim == 2 and values.dtype == np.uint8:
            hint = "; give grey images as image[None]"
        elif self._reading.may_be_images and values.ndim == 3 and values.shape[2] == 3 and min(values.shape[:2]) > 4:
            hint = ", which looks like (H, W, C): give image.transpose(2, 0, 1), or use ToTensor"
        if values.dtype.kind not in "fiu" or not values.size or hint:
            raise InputError(f"{self.where(index)} must be an image (C, H, W), floats in [0, 1] or uint8, or a PIL "
                             f"image, or an array of numbers, got {values.dtype} of shape {values.shape}{hint}")
        if values.ndim == 0:
            raise InputError(f"{self.where(index)} is one number, {values:g}: give it as a list of one, [{values:g}]")
        source = array_source(values[None], lambda _: self.where(index), replace(self._reading, resize=None, crop=None))
        return source.pixels(np.zeros(1, dtype=np.int64))[0], source

    def _output_shape(self, pixels: np.ndarray, index: int) -> tuple[int, ...]:
        if pixels.ndim != 3 or not self._reading.may_be_images:
            self._reading.refuse_preprocessing(pixels.shape)
            return pixels.shape
        return len(pixels), *self._reading.preprocess.output_size(pixels.shape[1:], self.where(index))


def _known_labels(items: Any) -> list[Any] | None:
    """Return the labels that a data set lists, through any number of `torch.utils.data.Subset`."""
    if hasattr(items, "dataset") and hasattr(items, "indices"):
        below = _known_labels(items.dataset)
        return None if below is None else [below[int(i)] for i in items.indices]
    for name in _LABELS:
        listed = getattr(items, name, None)
        if listed is not None and hasattr(listed, "__len__") and not isinstance(listed, str | Mapping) \
                and len(listed) == len(items):
            return [_plain(label) for label in listed]
    return None


def _class_names(items: Any) -> tuple[str, ...] | None:
    while not hasattr(items, "classes") and hasattr(items, "dataset"):
        items = items.dataset
    features = getattr(items, "features", None)
    if isinstance(features, Mapping):  # of a Hugging Face data set whose items come from a transform
        items = next((features[name] for name in LABEL_COLUMNS if name in features), None)
    classes = getattr(items, "classes", getattr(items, "names", None))
    if not isinstance(classes, Sequence) or isinstance(classes, str) or len(classes) < 2:
        return None
    return tuple(classes) if all(isinstance(name, str) for name in classes) else None


def _plain(label: Any) -> Any:
    if hasattr(label, "tolist"):
        label = label.tolist()
    return label[0] if isinstance(label, list) and len(label) == 1 else label
