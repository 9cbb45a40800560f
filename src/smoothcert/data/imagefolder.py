"""Images in folders, one for each class, or beside a list of their classes as in Tiny ImageNet."""

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

from smoothcert.data.base import ImageData, resolve_classes
from smoothcert.data.encoded import EncodedSource, survey
from smoothcert.data.preprocess import IMAGENET, Preprocess
from smoothcert.data.reading import Reading
from smoothcert.data.splits import folders_of, known_splits, split_names
from smoothcert.errors import DataError, FileError, InputError
from smoothcert.limits import IMAGE_BYTES, LIST_BYTES, bounded_bytes, open_bounded

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm",
                      ".pbm"})
_LIST = "val_annotations.txt"
"""Tiny ImageNet's file of classes: a line for each image of the folder `images`, its name and its class first."""


class FileBlobs:
    """Encoded images, each in a file of its own."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def open(self, index: int) -> BinaryIO:
        """Return the image's file. Raises FileError if it cannot be opened, or is too long for an image."""
        return open_bounded(self._paths[index], IMAGE_BYTES)

    def where(self, index: int) -> str:
        """Return the image's path."""
        return str(self._paths[index])


def load_imagefolder(path: Path, split: str, reading: Reading, num_classes: int | None) -> ImageData:
    """Return the images of one split, classes and files in the order of their names, decoded when they are used.

    If no preprocessing is given, a set whose images share one size of at most 224 x 224 is used as it is; any other
    gets ImageNet's (shorter side to 256, centre crop 224). Raises FileError for a missing folder, InputError for a
    split that is not there, DataError for the rest.
    """
    root = _split_folder(path, split)
    by_class = _read_list(root) if (root / _LIST).is_file() else _find_images(root)
    classes = sorted(by_class)
    files = [(file, label) for label, name in enumerate(classes) for file in sorted(by_class[name])]
    if not files:
        table = root / "metadata.csv"
        listed = f"; its list of images is read as csv:{table}" if table.is_file() else ""
        raise DataError(f"{root} holds no images; imagefolder:PATH expects PATH/SPLIT/CLASS/*.png "
                        f"(classes found: {', '.join(classes) or 'none'}){listed}")
    blobs = FileBlobs([file for file, _ in files])
    labels = np.array([label for _, label in files], dtype=np.int64)
    names = resolve_classes(labels, classes, num_classes, blobs.where)
    found = survey(blobs)
    is_small = len(found.sizes) == 1 and max(next(iter(found.sizes))) <= (IMAGENET.crop or 0)
    preprocess = IMAGENET if reading.preprocess == Preprocess() and not is_small else reading.preprocess
    source = EncodedSource(blobs, found, preprocess)
    undivided = "; the folder is not divided into splits" if root == path else ""
    return ImageData(f"imagefolder:{path.resolve().name}", split, labels, names, source,
                     f"{len(files)} images, stored as {'/'.join(found.formats)}; "
                     f"preprocessing: {source.preprocessing}{undivided}", divided=root != path)


def _split_folder(path: Path, split: str) -> Path:
    """Return the folder that holds the classes of `split`, which is PATH itself if it has no splits."""
    if not path.is_dir():
        raise FileError(f"{path} is not a folder; imagefolder:PATH expects PATH/SPLIT/CLASS/*.png")
    folders = {name.lower(): path / name for name in folders_of(path)}
    found = [folders[name] for name in map(str.lower, split_names(split)) if name in folders]
    if found:  # Tiny ImageNet's test images have no classes
        return next((one for one in found if (one / _LIST).is_file() or folders_of(one) != ["images"]), found[0])
    splits = [folders[name].name for name in known_splits() if name in folders]
    if splits:
        raise InputError(f"{path} has no split {split!r}; the splits found: {', '.join(splits)}")
    return path


def _find_images(root: Path) -> dict[str, list[Path]]:
    """Return the images of every class, with those of the folders below its own, as torchvision finds them."""
    found: dict[str, list[Path]] = {name: [] for name in folders_of(root)}
    for name, images in found.items():
        for place, folders, entries in os.walk(root / name):
            folders[:] = [folder for folder in folders if not folder.startswith(".")]
            images += [Path(place, entry) for entry in entries if _is_image(entry)]
    return found


def _read_list(root: Path) -> dict[str, list[Path]]:
    """Return the images of every class that Tiny ImageNet's list names.

    Raises DataError for a line of another form, and unless the list and the folder have the same images, each once.
    """
    found: dict[str, list[Path]] = {}
    lines: dict[str, int] = {}
    where, images = root / _LIST, root / "images"
    for number, line in enumerate(bounded_bytes(where, LIST_BYTES).decode(errors="replace").splitlines(), 1):
        image, *rest = line.split("\t")
        if not rest or Path(image).name != image:
            raise DataError(f"{where}, line {number}, is {line!r:.80}; expected the name of an image in {images} and "
                            f"its class, with a tab between them")
        if (first := lines.setdefault(image, number)) != number:
            raise DataError(f"{where} has {image} twice, in the lines {first} and {number}: keep one of them")
        found.setdefault(rest[0], []).append(images / image)
    there = {entry.name for entry in os.scandir(images) if _is_image(entry.name)} if images.is_dir() else set()
    if alone := sorted(there ^ set(lines)):
        raise DataError(f"{where} and {images} must have the same images, and {len(alone)} are in one of the two "
                        f"alone, such as {alone[0]}, which {'the folder' if alone[0] in lines else 'the list'} lacks")
    return found


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")
