"""The data sets known by name: scikit-learn's digits, MNIST and CIFAR-10."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from smoothcert.data.arrays import ArraySource
from smoothcert.data.base import ImageData, resolve_classes
from smoothcert.data.preprocess import Preprocess
from smoothcert.errors import DataError, FileError, InputError, MissingExtraError

if TYPE_CHECKING:
    from smoothcert.data.parquet import Rows

SPLITS = ("train", "test")
DATA_DIR_VARIABLE = "SMOOTHCERT_DATA_DIR"
_DIGIT_NAMES = tuple("0123456789")


@dataclass(frozen=True)
class HubSet:
    """A data set of the public hub: its repository there, the shape (C, H, W), and what identifies its files."""

    repository: str
    image_column: str
    shape: tuple[int, int, int]
    class_names: tuple[str, ...]


HUB_SETS = {
    "mnist": HubSet("ylecun/mnist", "image", (1, 28, 28), _DIGIT_NAMES),
    "cifar10": HubSet("uoft-cs/cifar10", "img", (3, 32, 32), (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")),
}


def load_digits(split: str, preprocess: Preprocess, num_classes: int | None) -> ImageData:
    """scikit-learn's 1,797 digits of 8x8 pixels in 17 shades: every fifth image is `test`, the rest `train`."""
    from sklearn import datasets

    _check_split("digits", split)
    digits: Any = datasets.load_digits()
    chosen = np.flatnonzero((np.arange(len(digits.target)) % 5 == 4) == (split == "test"))
    labels = digits.target[chosen].astype(np.int64)

    def where(index: int) -> str:
        return f"image {index} of the digits"

    source = ArraySource(digits.images[chosen, None].astype(np.uint8), where, levels=16, preprocess=preprocess)
    return ImageData("digits", split, labels, resolve_classes(labels, _DIGIT_NAMES, num_classes, where), source,
                     f"{len(labels)} images from scikit-learn; preprocessing: {source.preprocessing}")


def load_hub_set(name: str, split: str, data_dir: Path | None, preprocess: Preprocess,
                 num_classes: int | None) -> ImageData:
    """MNIST or CIFAR-10 from parquet files in `data_dir`, else in $SMOOTHCERT_DATA_DIR, else from the hub.

    Raises FileError where a folder is given and the set is not in it, MissingExtraError where none is given
    and the hub's library is absent, DataError where the files hold something else than the name says.
    """
    from smoothcert.data.parquet import parquet_data, read_rows

    _check_split(name, split)
    known = HUB_SETS[name]
    variable = os.environ.get(DATA_DIR_VARIABLE)
    folder = data_dir or (Path(variable).expanduser() if variable else None)
    rows = _from_hub(name, split) if folder is None else read_rows(find_files(name, split, folder))
    data = parquet_data(rows, name, split, Preprocess(), num_classes, known.class_names)
    if data.shape != known.shape:
        raise DataError(f"{rows.files[0]} holds images of shape {data.shape}; those of {name} are {known.shape}")
    if preprocess == Preprocess():
        return data
    return parquet_data(rows, name, split, preprocess, num_classes, known.class_names)


def find_files(name: str, split: str, folder: Path) -> list[Path]:
    """The parquet files of one split under any of the accepted layouts. Raises FileError naming those tried."""
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
    if files and _fits(name, folder, files[0]):
        return files
    tried = ", ".join(f"{prefix}{split}{end}.parquet" for prefix in (*(f"{layout}/" for layout in layouts), "")
                      for end in ("", "-*"))
    unfit = f"; {files[0].name} there is of another data set" if files else ""
    raise FileError(f"no {split} images of {name} in {folder}{unfit}; tried {tried}")


def _fits(name: str, folder: Path, file: Path) -> bool:
    """Whether a file that lies in the data folder itself is of the set `name`, by its folder or its columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = pq.read_schema(file).names
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FileError(f"{file} cannot be read as a parquet file: {error}") from error
    return "label" in columns and (folder.resolve().name == name or HUB_SETS[name].image_column in columns)


def _from_hub(name: str, split: str) -> "Rows":
    """The rows of one split through the hub's library, from its cache or the network."""
    from smoothcert.data.parquet import Rows

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
    return Rows(table, (repository,))


def _check_split(name: str, split: str) -> None:
    if split not in SPLITS:
        raise InputError(f"{name} has no split {split!r}; its splits: {', '.join(SPLITS)}")
