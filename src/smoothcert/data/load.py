"""The loading of every data set: some by their names, others by the path where they lie."""

import importlib
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from smoothcert.checks import suggestion
from smoothcert.classes import check_class_count, index_names, read_class_names
from smoothcert.data.base import ImageData
from smoothcert.data.named import NAMED_SETS
from smoothcert.data.reading import Reading
from smoothcert.errors import CodeError, InputError, UnknownNameError
from smoothcert.parts import Registry, names_code

_IMAGES = ("resize", "crop")
_TABLES = (*_IMAGES, "features", "label", "bounds", "levels")
PATH_KINDS = {
    "parquet": ("parquet:load_parquet", _TABLES), "csv": ("csv_files:load_csv", _TABLES),
    "npz": ("npz:load_npz", _TABLES), "datasets": ("saved:load_saved", _TABLES),
    "imagefolder": ("imagefolder:load_imagefolder", _IMAGES), "labels": ("relabelled:load_relabelled", _TABLES)}
"""What stands before the colon in KIND:PATH: the function of this room that loads it, and the options it takes."""
DISK_KINDS = tuple(kind for kind in PATH_KINDS if kind != "labels")
"""Those of them whose path leads to the inputs themselves."""
KNOWN_SPECS = ("digits", "mnist", "cifar10", "parquet:PATH", "csv:PATH", "npz:PATH", "datasets:PATH",
               "imagefolder:PATH", "labels:FILE")


def load_data(spec: Any, split: str = "test", *, data_dir: str | PathLike[str] | None = None,
              resize: int | None = None, crop: int | None = None, features: Sequence[str] | str | None = None,
              label: str | None = None, bounds: Any = None, levels: int | None = None,
              num_classes: int | None = None, classes: Sequence[str] | str | PathLike[str] | None = None,
              numeric_classes: bool = False) -> ImageData:
    """Load labelled inputs: images, which are decoded when they are used, or tensors of any shape.

    Args:
        spec: one of KNOWN_SPECS, the name of a set that a package registers, or the place of your own code,
            file.py:NAME or package.module:NAME; or the data themselves (see `smoothcert.data.own.load_own`).
        split: "train", "test", or as the data call it.
        data_dir: the folder of `mnist` and `cifar10`, in place of the environment's SMOOTHCERT_DATA_DIR.
        resize: of images, the new length of the shorter side in pixels.
        crop: of images, the side of a central square, taken after resizing.
        features: the columns that make an input, in this order, or the array of inputs; None takes the usual ones.
        label: the column or array of labels.
        bounds: (low, high) that all values keep, or "none"; None is (0, 1) for images, and "none" for other inputs.
        levels: L such that L * x is a whole number for every clean value x.
        num_classes: K, for data that do not name their classes.
        classes: the names of all classes of a model in the order of its outputs, or a file of them; labels then become
            its indices (see `ImageData.with_classes`).
        numeric_classes: put classes that are named by numbers in the order of these; with num_classes or the classes 0,
            1, ... of a model, each number is an index.
    Raises:
        UnknownNameError: another spec. InputError: a split that is not there, or other classes.
        FileError: files that are missing or corrupt. DataError: content that cannot be used.

    >>> data = load_data("digits")
    >>> len(data), data.shape, data.levels, data.num_classes
    (359, (1, 8, 8), 16, 10)
    """
    names = None if classes is None else read_class_names(classes)
    if names is not None and num_classes not in (None, len(names)):
        raise InputError(f"num_classes is {num_classes}, but classes has {len(names)} names: leave num_classes out")
    data = open_data(spec, split, data_dir=data_dir, num_classes=num_classes, numeric_classes=numeric_classes,
                     resize=resize, crop=crop, features=features, label=label, bounds=bounds, levels=levels)
    if names is None and numeric_classes and num_classes is not None:
        names = names_from_indices(data, num_classes)
    if names is None and num_classes is not None:
        check_class_count(num_classes, data.class_names, data.named, f"num_classes is {num_classes}")
    return data.with_classes(names, num_classes, "the given list")


def names_from_indices(data: ImageData, num_classes: int) -> tuple[str, ...] | None:
    """Return the names "0", "1", ... for a model whose classes have none, if they include all names of the data."""
    names = index_names(num_classes)
    return names if data.named and set(data.class_names) <= set(names) else None


def open_data(spec: Any, split: str, *, data_dir: str | PathLike[str] | None = None, num_classes: int | None = None,
              numeric_classes: bool = False, **reading: Any) -> ImageData:
    """Load inputs as `load_data` does, with the classes as the data have them, which may be some of a model's.

    Args:
        reading: how they are read; see `smoothcert.data.reading.Reading`.
    """
    data = _open(spec, split, data_dir, Reading(**reading), num_classes)
    return data.in_order_of_numbers() if numeric_classes else data


def _open(spec: Any, split: str, data_dir: str | PathLike[str] | None, reading: Reading, num_classes: int | None
          ) -> ImageData:
    folder = None if data_dir is None else Path(data_dir).expanduser()
    if not isinstance(spec, str):
        from smoothcert.data.own import given_data

        return given_data(spec, split, reading, num_classes)
    if spec in NAMED_SETS:
        reading.refuse(_IMAGES, spec)
        return DATA[spec](split, reading.preprocess, num_classes, folder)
    kind, colon, location = spec.partition(":")
    if colon and kind in PATH_KINDS:
        if not location:
            raise InputError(f"{spec!r} names no path; write {kind}:PATH")
        place, takes = PATH_KINDS[kind]
        reading.refuse(takes, f"{kind}:PATH")
        module, _, function = place.partition(":")
        load = getattr(importlib.import_module(f"smoothcert.data.{module}"), function)
        return load(Path(location).expanduser(), split, reading, folder if kind == "labels" else num_classes)
    try:
        part = DATA.find(spec)
    except (UnknownNameError, CodeError) as error:
        absent = isinstance(error.__cause__, ModuleNotFoundError) and error.__cause__.name == kind.partition(".")[0]
        if not absent and names_code(spec):
            raise
        from smoothcert.data.kinds import suggest_kind  # brings pyarrow, which other data do without

        close = suggest_kind(spec) or suggestion(f"{kind}:PATH" if colon else spec, KNOWN_SPECS)
        known = ", ".join(dict.fromkeys([*KNOWN_SPECS, *DATA]))
        raise UnknownNameError(f"unknown data set {spec!r}{close}; known: {known}; or your own, as file.py:NAME or "
                               f"package.module:NAME") from None
    from smoothcert.data.own import load_own

    return load_own(part, DATA.label(spec), split, reading, num_classes, data_dir)


DATA: Registry[Any] = Registry("data set", "smoothcert.data", NAMED_SETS, lambda part: [])
"""Data sets by name; see `smoothcert.data.own.load_own` for what those of others are."""


def is_own_code(spec: object) -> bool:
    """Tell whether a text names data by the place of a user's code."""
    return names_code(spec) and str(spec).partition(":")[0] not in PATH_KINDS
