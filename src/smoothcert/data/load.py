"""One door to every data set: a short name or a path to images, and a split."""

from os import PathLike
from pathlib import Path

from smoothcert.checks import suggestion
from smoothcert.data.base import ImageData
from smoothcert.data.preprocess import Preprocess
from smoothcert.errors import InputError, UnknownNameError

KNOWN_SPECS = ("digits", "mnist", "cifar10", "parquet:PATH", "imagefolder:PATH")


def load_data(spec: str, split: str = "test", *, data_dir: str | PathLike[str] | None = None,
              resize: int | None = None, crop: int | None = None, num_classes: int | None = None) -> ImageData:
    """Load labelled images; they are decoded when asked for.

    spec: one of KNOWN_SPECS; split: "train", "test", or what the data call it. data_dir: the folder of `mnist` and
    `cifar10`, before the environment's SMOOTHCERT_DATA_DIR. resize: the new length of the shorter side in pixels;
    crop: the side of a central square, taken after it. num_classes: K, for data that do not name their classes.
    Raises UnknownNameError for another spec, InputError for a split that is not there, FileError for files that
    are missing or corrupt, DataError for content that cannot be used.

    >>> data = load_data("digits")
    >>> len(data), data.shape, data.levels, data.num_classes
    (359, (1, 8, 8), 16, 10)
    """
    kind, colon, location = spec.partition(":")
    preprocess = Preprocess(resize, crop)
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
