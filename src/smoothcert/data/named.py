"""The data sets that are known by name: scikit-learn's digits, MNIST and CIFAR-10."""

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from smoothcert.data.arrays import ArraySource
from smoothcert.data.base import ImageData, resolve_classes
from smoothcert.data.originals import advise_unpacking, first_layout, read_original
from smoothcert.data.preprocess import Preprocess
from smoothcert.data.reading import Reading
from smoothcert.data.splits import split_files
from smoothcert.errors import DataError, FileError, InputError, MissingExtraError

if TYPE_CHECKING:
    from smoothcert.data.tables import StoredRows

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
    """Return MNIST or CIFAR-10 from `data_dir`, else from $SMOOTHCERT_DATA_DIR, else from the hub.

    In a folder, the hub's parquet files are taken before the authors' own files, which torchvision downloads.

    Raises FileError if a folder is given and the set is not in it, MissingExtraError if none is given and the hub's
    library is absent, DataError if the files hold another data set.
    """
    from smoothcert.data.parquet import read_rows
    from smoothcert.data.tables import table_data

    _check_split(name, split)
    known, folder = HUB_SETS[name], data_folder(name, data_dir)
    if folder is None:
        rows = _from_hub(name, split)
    elif files := find_files(name, split, folder):
        rows = read_rows(files)
    elif original := read_original(name, split, folder):
        source = ArraySource(original.images, original.where, preprocess=preprocess)
        _check_shape(name, original.images.shape[1:], original.files[0])
        names = resolve_classes(original.labels, known.class_names, num_classes, original.where)
        return ImageData(name, split, original.labels, names, source,
                         f"{len(source)} images, stored as arrays of bytes; preprocessing: {source.preprocessing}")
    else:
        raise FileError(_describe_absence(name, split, folder))
    data = table_data(rows, name, split, Reading(), num_classes, known.class_names)
    _check_shape(name, data.shape, rows.files[0])
    if preprocess == Preprocess():
        return data
    return table_data(rows, name, split, Reading(preprocess.resize, preprocess.crop), num_classes, known.class_names)


def _check_shape(name: str, shape: tuple[int, ...], file: str | Path) -> None:
    if shape != HUB_SETS[name].shape:
        raise DataError(f"{file} holds images of shape {shape}; those of {name} are {HUB_SETS[name].shape}")


NAMED_SETS: dict[str, Callable[..., ImageData]] = {
    "digits": load_digits, **{name: partial(load_hub_set, name) for name in HUB_SETS}}


def data_folder(spec: Any, data_dir: Path | None) -> Path | None:
    """Return the folder in which a set of the hub is looked for: `data_dir`, else $SMOOTHCERT_DATA_DIR, else None."""
    if not isinstance(spec, str) or spec not in HUB_SETS:
        return None
    variable = os.environ.get(DATA_DIR_VARIABLE)
    return data_dir or (Path(variable).expanduser() if variable else None)


def find_files(name: str, split: str, folder: Path) -> list[Path]:
    """Return the parquet files of one split under any accepted layout, if there are any.

    Raises FileError if the folder is not there.
    """
    if not folder.is_dir():
        raise FileError(f"{folder} is not a folder; give the one that holds {name}/{split}.parquet, or the files of "
                        f"torchvision (--data-dir, or the variable {DATA_DIR_VARIABLE})")
    for layout in _layouts(name):
        if files := split_files(folder / layout, split, ".parquet"):
            return files
    files = split_files(folder, split, ".parquet")
    return files if files and _is_of(name, folder, files[0]) else []


def _layouts(name: str) -> tuple[str, ...]:
    return name, f"{name}/data", f"{name}/{name}", f"{name}/plain_text"


def _describe_absence(name: str, split: str, folder: Path) -> str:
    """Return where the set was looked for, and what lies there in its place."""
    parquet = ", ".join(f"{prefix}{split}{end}.parquet" for prefix in (*(f"{layout}/" for layout in _layouts(name)), "")
                        for end in ("", "-*"))
    there = split_files(folder, split, ".parquet")[:1]
    other = "".join(f"; {file.name} there is of another data set" for file in there)
    return (f"no {split} images of {name} in {folder}{other}{advise_unpacking(name, folder)}; tried {parquet}, and the "
            f"files of its authors, such as {first_layout(name, split)}")


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
