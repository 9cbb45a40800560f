"""One door to every data set: a short name or a path to images, and a split."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from smoothcert.checks import suggestion
from smoothcert.classes import check_class_count, numbered, read_class_names
from smoothcert.data.base import ImageData
from smoothcert.data.preprocess import Preprocess
from smoothcert.errors import InputError, UnknownNameError

KNOWN_SPECS = ("digits", "mnist", "cifar10", "parquet:PATH", "imagefolder:PATH")


def load_data(spec: str, split: str = "test", *, data_dir: str | PathLike[str] | None = None,
              resize: int | None = None, crop: int | None = None, num_classes: int | None = None,
              classes: Sequence[str] | str | PathLike[str] | None = None, numeric_classes: bool = False) -> ImageData:
    """Load labelled images; they are decoded when asked for.

    spec: one of KNOWN_SPECS; split: "train", "test", or what the data call it. data_dir: the folder of `mnist` and
    `cifar10`, before the environment's SMOOTHCERT_DATA_DIR. resize: the new length of the shorter side in pixels;
    crop: the side of a central square, taken after it. num_classes: K, for data that do not name their classes.
    classes: the names of all the classes of a model in the order of its outputs, or a file of them, by which labels
    become its indices (see `ImageData.with_classes`). numeric_classes: classes that are named by numbers come in the
    order of these; with num_classes or the classes 0, 1, ... of a model, each number is an index.
    Raises UnknownNameError for another spec, InputError for a split that is not there or for other classes, FileError
    for files that are missing or corrupt, DataError for content that cannot be used.

    >>> data = load_data("digits")
    >>> len(data), data.shape, data.levels, data.num_classes
    (359, (1, 8, 8), 16, 10)
    """
    names = None if classes is None else read_class_names(classes)
    if names is not None and num_classes not in (None, len(names)):
        raise InputError(f"num_classes is {num_classes}, but classes has {len(names)} names: leave num_classes out")
    data = open_data(spec, split, data_dir=data_dir, resize=resize, crop=crop, num_classes=num_classes,
                     numeric_classes=numeric_classes)
    if names is None and numeric_classes and num_classes is not None:
        names = indices_as_names(data, num_classes)
    if names is None and num_classes is not None:
        check_class_count(num_classes, data.class_names, data.named, f"num_classes is {num_classes}")
    return data.with_classes(names, num_classes, "the given list")


def indices_as_names(data: ImageData, num_classes: int) -> tuple[str, ...] | None:
    """The names "0", "1", ... of a model's classes that has no other names, where those of the data are among them."""
    names = numbered(num_classes)
    return names if data.named and set(data.class_names) <= set(names) else None


def open_data(spec: str, split: str, *, data_dir: str | PathLike[str] | None = None, resize: int | None = None,
              crop: int | None = None, num_classes: int | None = None, numeric_classes: bool = False) -> ImageData:
    """Load images as `load_data` does, with the classes as the data have them, which may be some of a model's."""
    data = _open(spec, split, data_dir, Preprocess(resize, crop), num_classes)
    return data.in_order_of_numbers() if numeric_classes else data


def _open(spec: str, split: str, data_dir: str | PathLike[str] | None, preprocess: Preprocess,
          num_classes: int | None) -> ImageData:
    kind, colon, location = spec.partition(":")
    if colon and kind in ("parquet", "imagefolder"):
        if not location:
            raise InputError(f"{spec!r} names no path; write {kind}:PATH")
        return _load_path(kind, Path(location).expanduser(), split, preprocess, num_classes)
    if spec == "digits":
        from smoothcert.data.named import load_digits
        return load_digits(split, preprocess, num_classes)
    if spec in ("mnist", "cifar10"):
        from smoothcert.data.named import load_hub_set
        folder = None if data_dir is None else Path(data_dir).expanduser()
        return load_hub_set(spec, split, folder, preprocess, num_classes)
    close = suggestion(f"{kind}:PATH" if colon else spec, KNOWN_SPECS)
    raise UnknownNameError(f"unknown data set {spec!r}{close}; known: {', '.join(KNOWN_SPECS)}")


def _load_path(kind: str, path: Path, split: str, preprocess: Preprocess, num_classes: int | None) -> ImageData:
    if kind == "parquet":
        from smoothcert.data.parquet import load_parquet
        return load_parquet(path, split, preprocess, num_classes)
    from smoothcert.data.imagefolder import load_imagefolder
    return load_imagefolder(path, split, preprocess, num_classes)
