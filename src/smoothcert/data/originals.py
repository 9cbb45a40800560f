"""MNIST and CIFAR-10 as their authors publish them, which is how torchvision and Keras leave them on disk.

MNIST: a file of images and a file of labels in the IDX format, which may be compressed by gzip. CIFAR-10: batches of
10,000 rows of 3,072 bytes, red first, as pickles ("python version") or as plain bytes ("binary version"). Sources:
LeCun, Cortes and Burges, "The MNIST database"; Krizhevsky, "The CIFAR-10 dataset".
"""

import gzip
import io
import pickle
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from smoothcert.errors import FileError
from smoothcert.limits import bounded_bytes, within

_STEMS = {"train": "train", "test": "t10k"}
_BATCHES = {"train": tuple(f"data_batch_{k}" for k in range(1, 6)), "test": ("test_batch",)}
_MOST_BYTES = 1 << 28
"""Size of a file: the largest, 60,000 images of MNIST, takes a fifth of it."""
_ARCHIVES = ("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz")
_SIDE = 32


@dataclass(frozen=True)
class PublishedSplit:
    """Images and labels of one split, and the files that they come from.

    Attributes:
        images: (N, C, H, W) uint8.
        labels: (N,) int64.
        starts: the number of the first image of each file.
    """

    images: np.ndarray
    labels: np.ndarray
    files: tuple[Path, ...]
    starts: tuple[int, ...]

    def where(self, index: int) -> str:
        """Return image `index` as "image 5 of test_batch", counted from 0 within its file."""
        k = int(np.searchsorted(self.starts, index, side="right")) - 1
        return f"image {index - self.starts[k]} of {self.files[k]}"


def read_original(name: str, split: str, folder: Path) -> PublishedSplit | None:
    """Return a split of "mnist" or "cifar10" under the first layout that the folder holds, None if it holds none.

    Raises FileError for a file that is missing beside others, unreadable, or not what its name says.
    """
    for files in _candidates(name, split, folder):
        there = [file for file in files if file.is_file()]
        if there and len(there) < len(files):
            absent = ", ".join(file.name for file in files if file not in there)
            raise FileError(f"{there[0]} has no {absent} beside it: {name} needs all of these files")
        if there:
            parts = [_read_idx_pair(*files)] if name == "mnist" else [_read_batch(file) for file in files]
            images, labels = (np.concatenate(columns) for columns in zip(*parts, strict=True))
            starts = np.cumsum([0, *(len(part[1]) for part in parts[:-1])]).tolist()
            return PublishedSplit(images, labels, tuple(files) if name == "cifar10" else (files[0],), tuple(starts))
    return None


def first_layout(name: str, split: str) -> str:
    """Return the files of a split under the usual layout, that of torchvision, in words."""
    return " and ".join(file.as_posix() for file in next(_candidates(name, split, Path()))[:2])


def advise_unpacking(name: str, folder: Path) -> str:
    """Return what to do where the folder holds CIFAR-10's archive alone, for an error message; else nothing."""
    found = [file for file in _ARCHIVES if name == "cifar10" and (folder / file).is_file()]
    return f"; {found[0]} there has to be unpacked: tar xzf {found[0]}" if found else ""


def find_original(folder: Path) -> str | None:
    """Return which of the two sets a folder holds, if any."""
    return next((name for name in ("mnist", "cifar10") for split in _STEMS
                 for files in _candidates(name, split, folder) if files[0].is_file()), None)


def _candidates(name: str, split: str, folder: Path) -> Iterator[list[Path]]:
    """Yield the files of a split under each layout, in the order in which they are looked for."""
    if name == "mnist":
        own = folder.resolve()
        here = [""] if "mnist" in (own.name.lower(), own.parent.name.lower() if own.name == "raw" else "") else []
        for place in ("MNIST/raw", "mnist/raw", "mnist", *here, *(["raw"] if here else [])):
            for dot in "-.":
                for ending in ("", ".gz"):
                    yield [folder / place / f"{_STEMS[split]}-{kind}{dot}{form}-ubyte{ending}"
                           for kind, form in (("images", "idx3"), ("labels", "idx1"))]
    else:
        for parent in ("", name):
            for place in ("cifar-10-batches-py", "cifar-10-batches-bin", ""):
                for ending in ("", ".bin"):
                    yield [folder / parent / place / f"{batch}{ending}" for batch in _BATCHES[split]]


def _read_idx_pair(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    pixels, classes = _read_idx(images, 3), _read_idx(labels, 1)
    if len(pixels) != len(classes):
        raise FileError(f"{images} holds {len(pixels):,} images and {labels} {len(classes):,} labels: they are of "
                        f"different sets, or one is cut")
    return pixels[:, None], classes.astype(np.int64)


def _read_idx(file: Path, axes: int) -> np.ndarray:
    """Return the array of bytes of an IDX file: two zeros, the type, the number of axes, their lengths, the values."""
    content = _unpacked(file)
    head = 4 * (1 + axes)
    if len(content) < head or content[:4] != bytes([0, 0, 8, axes]):
        raise FileError(f"{file} is no IDX file of bytes with {axes} ax{'es' if axes > 1 else 'is'}: it begins with "
                        f"{content[:4].hex(' ')}, expected 00 00 08 {axes:02x}")
    shape = struct.unpack(f">{axes}I", content[4:head])
    size = len(content) - head
    if (expected := int(np.prod(shape, dtype=object))) != size:
        raise FileError(f"{file} says that it holds {' x '.join(map(str, shape))} bytes, and has {size:,} of "
                        f"{expected:,}: it is damaged")
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)


def _unpacked(file: Path) -> bytes:
    content = bounded_bytes(file, _MOST_BYTES)
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        with gzip.open(io.BytesIO(content)) as packed_file:
            whole = packed_file.read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise FileError(f"{file} cannot be unpacked by gzip: {error}") from error
    within(f"the unpacked size of {file} in bytes", len(whole), _MOST_BYTES, "it cannot be what its name says")
    return whole


def _read_batch(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return images (N, 3, 32, 32) and labels (N,) of a batch of CIFAR-10, of either version."""
    content = bounded_bytes(file, _MOST_BYTES)
    row = 3 * _SIDE * _SIDE
    if file.suffix == ".bin":
        if not content or len(content) % (row + 1):
            raise FileError(f"{file} has {len(content):,} bytes, which are no whole rows of {row + 1:,}: it is damaged")
        rows = np.frombuffer(content, np.uint8).reshape(-1, row + 1)
        pixels, labels = rows[:, 1:], rows[:, 0].astype(np.int64)
    else:
        pixels, labels = _unpickle_batch(content, file)
    return pixels.reshape(-1, 3, _SIDE, _SIDE), labels


def _unpickle_batch(content: bytes, file: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        batch = _BatchUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises anything
        raise FileError(f"{file} is no batch of CIFAR-10: {error}") from error
    found = batch if isinstance(batch, dict) else {}
    pixels, labels = (found.get(key.encode(), found.get(key)) for key in ("data", "labels"))
    if not (isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.ndim == 2
            and pixels.shape[1] == 3 * _SIDE * _SIDE and isinstance(labels, list) and len(labels) == len(pixels)
            and all(isinstance(label, int) for label in labels)):
        raise FileError(f"{file} is no batch of CIFAR-10: expected a dictionary of data, rows of 3,072 bytes, and of "
                        f"labels, as many whole numbers")
    return pixels, np.array(labels, dtype=np.int64)


def _empty(kind: Any, shape: Any, code: Any) -> np.ndarray:
    """Return an array for the unpickler to fill, whatever the pickle asks for."""
    return np.empty(0, np.uint8)


def _byte_type(code: Any, *flags: Any) -> np.dtype:
    if code not in (b"u1", "u1"):
        raise pickle.UnpicklingError(f"it holds values of type {code!r}, expected bytes")
    return cast(Any, np.dtype)(code, False, True)


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _empty, ("numpy._core.multiarray", "_reconstruct"): _empty,
    ("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): _byte_type}


class _BatchUnpickler(pickle.Unpickler):
    """Makes dictionaries, lists, numbers, texts and arrays of bytes; a pickle that names anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which a batch does not need")
        return _KNOWN[module, name]
