"""A folder of image files, one folder per class: PATH/SPLIT/CLASS/*.png, or PATH/CLASS/*.png without splits."""

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

from smoothcert.data.base import ImageData, resolve_classes
from smoothcert.data.encoded import EncodedSource, survey
from smoothcert.data.preprocess import IMAGENET, Preprocess
from smoothcert.errors import DataError, FileError, InputError
from smoothcert.limits import IMAGE_BYTES, open_bounded

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"})
SPLIT_FOLDERS = {"test": ("test", "val", "validation")}
"""Folders that may hold a split, in the order in which they are tried; other splits have their own name only."""
_KNOWN_SPLITS = ("train", "test", "val", "validation")


class FileBlobs:
    """Encoded images, each in a file of its own."""

    def __init__(self, paths: list[Path]):
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def open(self, index: int) -> BinaryIO:
        """Return the image's file. Raises FileError if it cannot be opened, or is too long for an image."""
        return open_bounded(self._paths[index], IMAGE_BYTES)

    def where(self, index: int) -> str:
        """Return the image's path."""
        return str(self._paths[index])


def load_imagefolder(path: Path, split: str, preprocess: Preprocess, num_classes: int | None) -> ImageData:
    """Return the images of one split, classes and files in the order of their names, decoded when they are used.

    If no preprocessing is given, a set whose images share one size of at most 224 x 224 is used as it is; any other
    gets ImageNet's (shorter side to 256, centre crop 224). Raises FileError for a missing folder, InputError for a
    split that is not there, DataError for the rest.
    """
    root = _split_folder(path, split)
    classes = sorted(_folders(root))
    files = [(file, label) for label, folder in enumerate(classes) for file in _image_files(root / folder)]
    if not files:
        raise DataError(f"{root} holds no images; imagefolder:PATH expects PATH/SPLIT/CLASS/*.png "
                        f"(classes found: {', '.join(classes) or 'none'})")
    blobs = FileBlobs([file for file, _ in files])
    labels = np.array([label for _, label in files], dtype=np.int64)
    names = resolve_classes(labels, classes, num_classes, blobs.where)
    found = survey(blobs)
    is_small = len(found.sizes) == 1 and max(next(iter(found.sizes))) <= (IMAGENET.crop or 0)
    if preprocess == Preprocess() and not is_small:
        preprocess = IMAGENET
    source = EncodedSource(blobs, found, preprocess)
    divided = "" if root != path else "; the folder is not divided into splits"
    return ImageData(f"imagefolder:{path.resolve().name}", split, labels, names, source,
                     f"{len(files)} images, stored as {'/'.join(found.formats)}; "
                     f"preprocessing: {source.preprocessing}{divided}")


def _split_folder(path: Path, split: str) -> Path:
    """Return the folder that holds the class folders of `split`, which is PATH itself if it has no splits."""
    if not path.is_dir():
        raise FileError(f"{path} is not a folder; imagefolder:PATH expects PATH/SPLIT/CLASS/*.png")
    folders = _folders(path)
    for name in SPLIT_FOLDERS.get(split, (split,)):
        if name in folders:
            return path / name
    splits = [name for name in _KNOWN_SPLITS if name in folders]
    if splits:
        raise InputError(f"{path} has no split {split!r}; the splits found: {', '.join(splits)}")
    return path


def _folders(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")}


def _image_files(folder: Path) -> list[Path]:
    """Return the image files of a class, with those in folders below its own, as torchvision finds them."""
    found: list[Path] = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(root, name) for name in names
                  if os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")]
    return sorted(found)
