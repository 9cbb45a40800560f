"""The loading of every data set: scikit-learn's digits, MNIST and CIFAR-10 by name, others by the path where they lie.
"""

import importlib
import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from smoothcert.checks import suggestion
from smoothcert.classes import check_class_count, index_names, read_class_names
from smoothcert.data.arrays import ArraySource
from smoothcert.data.base import ImageData, resolve_classes
from smoothcert.data.preprocess import Preprocess
from smoothcert.data.reading import Reading
from smoothcert.errors import CodeError, DataError, FileError, InputError, MissingExtraError, UnknownNameError
from smoothcert.parts import Registry, names_code

if TYPE_CHECKING:
    from smoothcert.data.tables import StoredRows

_IMAGES = ("resize", "crop")
_TABLES = (*_IMAGES, "features", "label", "bounds", "levels")
PATH_KINDS = {
    "parquet": ("parquet:load_parquet", _TABLES), "csv": ("csv_files:load_csv", _TABLES),
    "npz": ("npz:load_npz", _TABLES), "datasets": ("saved:load_saved", _TABLES),
    "imagefolder": ("encoded:load_imagefolder", _IMAGES), "labels": ("relabelled:load_relabelled", _TABLES)}
"""What stands before the colon in KIND:PATH: the function of this room that loads it, and the options it takes."""
DISK_KINDS = tuple(kind for kind in PATH_KINDS if kind != "labels")
"""Those of them whose path leads to the inputs themselves."""
KNOWN_SPECS = ("digits", "mnist", "cifar10", "parquet:PATH", "csv:PATH", "npz:PATH", "datasets:PATH",
               "imagefolder:PATH", "labels:FILE")
SPLITS = ("train", "test")
DATA_DIR_VARIABLE = "SMOOTHCERT_DATA_DIR"
_DIGIT_NAMES = tuple("0123456789")


@dataclass(frozen=True)
class HubSet:
    """A data set of the public hub: its repository, its image column, the shape (C, H, W), and its classes."""

    repository: str
    image_column: str
    shape: tuple[int, int, int]
    class_names: tuple[str, ...]


HUB_SETS = {
    "mnist": HubSet("ylecun/mnist", "image", (1, 28, 28), _DIGIT_NAMES),
    "cifar10": HubSet("uoft-cs/cifar10", "img", (3, 32, 32), (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")),
}


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
    if spec in OWN_SETS:
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
        close = suggestion(f"{kind}:PATH" if colon else spec, KNOWN_SPECS)
        known = ", ".join(dict.fromkeys([*KNOWN_SPECS, *DATA]))
        raise UnknownNameError(f"unknown data set {spec!r}{close}; known: {known}; or your own, as file.py:NAME or "
                               f"package.module:NAME") from None
    from smoothcert.data.own import load_own

    return load_own(part, DATA.label(spec), split, reading, num_classes, data_dir)


def load_digits(split: str, preprocess: Preprocess, num_classes: int | None, data_dir: Path | None = None
                ) -> ImageData:
    """Return scikit-learn's 1,797 digits of 8x8 pixels in 17 shades: every fifth is `test`, the rest `train`."""
    _check_split("digits", split)
    images, target = read_digits()
    chosen = np.flatnonzero((np.arange(len(target)) % 5 == 4) == (split == "test"))
    labels = target[chosen]

    def where(index: int) -> str:
        return f"image {index} of the digits"

    source = ArraySource(images[chosen, None], where, levels=16, preprocess=preprocess)
    return ImageData("digits", split, labels, resolve_classes(labels, _DIGIT_NAMES, num_classes, where), source,
                     f"{len(labels)} images from scikit-learn; preprocessing: {source.preprocessing}")


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's digits: images (1797, 8, 8) uint8 in 0..16, and labels (1797,) int64.

    They are read from the file in its package. Importing scikit-learn takes a second of the processor, longer than
    certifying a first image.
    """
    package = importlib.util.find_spec("sklearn")
    folders = package.submodule_search_locations if package else None
    file = Path(next(iter(folders or ["."]))) / "datasets" / "data" / "digits.csv.gz"
    if file.is_file():
        rows = np.loadtxt(file, delimiter=",", dtype=np.uint8)
        return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.int64)
    from sklearn import datasets

    digits: Any = datasets.load_digits()
    return digits.images.astype(np.uint8), digits.target.astype(np.int64)


def load_hub_set(name: str, split: str, preprocess: Preprocess, num_classes: int | None,
                 data_dir: Path | None = None) -> ImageData:
    """Return MNIST or CIFAR-10 from parquet files in `data_dir`, else in $SMOOTHCERT_DATA_DIR, else from the hub.

    Raises FileError if a folder is given and the set is not in it, MissingExtraError if none is given and the hub's
    library is absent, DataError if the files hold another data set.
    """
    from smoothcert.data.parquet import read_rows
    from smoothcert.data.tables import table_data

    _check_split(name, split)
    known, folder = HUB_SETS[name], data_folder(name, data_dir)
    rows = _from_hub(name, split) if folder is None else read_rows(find_files(name, split, folder))
    data = table_data(rows, name, split, Reading(), num_classes, known.class_names)
    if data.shape != known.shape:
        raise DataError(f"{rows.files[0]} holds images of shape {data.shape}; those of {name} are {known.shape}")
    if preprocess == Preprocess():
        return data
    return table_data(rows, name, split, Reading(preprocess.resize, preprocess.crop), num_classes, known.class_names)


OWN_SETS = {"digits": load_digits, **{name: partial(load_hub_set, name) for name in HUB_SETS}}
DATA: Registry[Any] = Registry("data set", "smoothcert.data", OWN_SETS, lambda part: [])
"""Data sets by name; see `smoothcert.data.own.load_own` for what those of others are."""


def is_own_code(spec: object) -> bool:
    """Tell whether a text names data by the place of a user's code."""
    return names_code(spec) and str(spec).partition(":")[0] not in PATH_KINDS


def data_folder(spec: Any, data_dir: Path | None) -> Path | None:
    """Return the folder in which a set of the hub is looked for: `data_dir`, else $SMOOTHCERT_DATA_DIR, else None."""
    if not isinstance(spec, str) or spec not in HUB_SETS:
        return None
    variable = os.environ.get(DATA_DIR_VARIABLE)
    return data_dir or (Path(variable).expanduser() if variable else None)


def find_files(name: str, split: str, folder: Path) -> list[Path]:
    """Return the parquet files of one split under any accepted layout. Raises FileError naming those tried."""
    from smoothcert.data.parquet import split_files

    if not folder.is_dir():
        raise FileError(f"{folder} is not a folder; give the one that holds {name}/{split}.parquet "
                        f"(--data-dir, or the variable {DATA_DIR_VARIABLE})")
    layouts = (name, f"{name}/data", f"{name}/{name}", f"{name}/plain_text")
    for layout in layouts:
        files = split_files(folder / layout, split)
        if files:
            return files
    files = split_files(folder, split)
    if files and _is_of(name, folder, files[0]):
        return files
    tried = ", ".join(f"{prefix}{split}{end}.parquet" for prefix in (*(f"{layout}/" for layout in layouts), "")
                      for end in ("", "-*"))
    unfit = f"; {files[0].name} there is of another data set" if files else ""
    raise FileError(f"no {split} images of {name} in {folder}{unfit}; tried {tried}")


def _is_of(name: str, folder: Path, file: Path) -> bool:
    """Tell by its folder and its columns if a file that lies in the data folder itself is of the set `name`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = pq.read_schema(file).names
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FileError(f"{file} cannot be read as a parquet file: {error}") from error
    return "label" in columns and (folder.resolve().name == name or HUB_SETS[name].image_column in columns)


def _from_hub(name: str, split: str) -> "StoredRows":
    """Return the rows of one split through the hub's library, from its cache or the network."""
    from smoothcert.data.tables import StoredRows

    repository = HUB_SETS[name].repository
    elsewhere = f"a folder that holds {name}/{split}.parquet (--data-dir, or the variable {DATA_DIR_VARIABLE})"
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise MissingExtraError("datasets", "hub", f"loading {name} without {elsewhere}") from error
    try:
        table = load_dataset(repository, split=split).with_format("arrow")[:]
    except Exception as error:  # the library passes on whatever the network, the disk or the hub raise
        raise FileError(f"{repository} cannot be fetched from the hub ({type(error).__name__}: {error}); "
                        f"give {elsewhere}") from error
    return StoredRows(table, (repository,))


def _check_split(name: str, split: str) -> None:
    if split not in SPLITS:
        raise InputError(f"{name} has no split {split!r}; its splits: {', '.join(SPLITS)}")
