"""MNIST and CIFAR-10 as their authors publish them, which is how torchvision and Keras leave them on disk.

MNIST: a file of images and a file of labels in the IDX format, which may be compressed by gzip. CIFAR-10: batches of
10,000 rows of 3,072 bytes, red first, as pickles ("python version") or as plain bytes ("binary version"). Sources:
LeCun, Cortes and Burges, "The MNIST database"; Krizhevsky, "The CIFAR-10 dataset".
"""

import pickletools
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from smoothcert.errors import FileError
from smoothcert.limits import bounded_bytes, unpacked_bytes

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
                yield [_plain_or_packed(folder / place / f"{_STEMS[split]}-{kind}{dot}{form}-ubyte")
                       for kind, form in (("images", "idx3"), ("labels", "idx1"))]
    else:
        for parent in ("", name):
            for place in ("cifar-10-batches-py", "cifar-10-batches-bin", ""):
                for ending in ("", ".bin"):
                    yield [folder / parent / place / f"{batch}{ending}" for batch in _BATCHES[split]]


def _plain_or_packed(file: Path) -> Path:
    """Return a file, or the one that gzip made of it where that alone is there."""
    packed = file.with_name(f"{file.name}.gz")
    return packed if packed.is_file() and not file.is_file() else file


def _read_idx_pair(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    pixels, classes = _read_idx(images, 3), _read_idx(labels, 1)
    if len(pixels) != len(classes):
        raise FileError(f"{images} holds {len(pixels):,} images and {labels} {len(classes):,} labels: they are of "
                        f"different sets, or one is cut")
    return pixels[:, None], classes.astype(np.int64)


def _read_idx(file: Path, axes: int) -> np.ndarray:
    """Return the array of bytes of an IDX file: two zeros, the type, the number of axes, their lengths, the values."""
    content = unpacked_bytes(file, _MOST_BYTES)
    head = 4 * (1 + axes)
    if len(content) < head or content[:4] != bytes([0, 0, 8, axes]):
        got = f"it begins with {content[:4].hex(' ')}" if content else "it is empty"
        raise FileError(f"{file} is no IDX file of bytes with {axes} ax{'es' if axes > 1 else 'is'}: {got}, expected "
                        f"00 00 08 {axes:02x}")
    shape = struct.unpack(f">{axes}I", content[4:head])
    size = len(content) - head
    if (expected := int(np.prod(shape, dtype=object))) != size:
        raise FileError(f"{file} says that it holds {' x '.join(map(str, shape))} bytes, and has {size:,} of "
                        f"{expected:,}: it is damaged")
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)


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
        pixels, labels = _read_pickled(content, file)
    return pixels.reshape(-1, 3, _SIDE, _SIDE), labels


def _read_pickled(content: bytes, file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows (N, 3072) and the labels (N,) of a batch of the python version."""
    refusal = FileError(f"{file} is damaged, or is no batch of CIFAR-10 as its authors pickled it: a dictionary of "
                        f"data, rows of {3 * _SIDE * _SIDE:,} bytes, and of labels, a list. Arrays of your own are "
                        f"read from .npz: numpy.savez(\"own.npz\", x=images, y=labels)")
    try:
        batch = {_as_text(key): value for key, value in _read_pickle(content).items()}
        labels = np.array([int(label) for label in batch["labels"]], dtype=np.int64)
        _, shape, kind, by_columns, rows = batch["data"].state
        if _as_text(kind.arguments[0]) != "u1" or shape != (len(labels), 3 * _SIDE * _SIDE) or by_columns:
            raise refusal
        rows = rows if isinstance(rows, bytes) else rows.encode("latin-1")
        return np.frombuffer(rows, np.uint8).reshape(shape), labels
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise refusal from error


@dataclass
class _Made:
    """A call that a pickle asks for, and that is not made: its arguments, and the state that its result is given."""

    arguments: Any
    state: Any = None


def _read_pickle(content: bytes) -> Any:
    """Return what a pickle describes, with a `_Made` in place of every call.

    A pickle is a program for a machine with a stack. Its steps are followed here, but nothing that it names is looked
    up or called, so that a hostile one can do no more than fail. Text of Python 2 is left as it was stored.

    Raises ValueError for steps that a batch does not need.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}

    def pop(count: int) -> list[Any]:
        if not 0 <= count <= len(stack):
            raise ValueError("it takes more values than it has")
        start = len(stack) - count
        found = stack[start:]
        del stack[start:]
        return found

    def pop_to_mark() -> list[Any]:
        return pop(len(stack) - marks.pop())

    for step, given, _ in pickletools.genops(content):
        name = step.name
        if name in _VALUES:
            stack.append(given)
        elif name in _WITHOUT_VALUE:
            stack.append(_WITHOUT_VALUE[name]())
        elif name == "MARK":
            marks.append(len(stack))
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if given is None else given] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[given])
        elif name in ("SETITEM", "SETITEMS"):
            pairs = pop(2) if name == "SETITEM" else pop_to_mark()
            stack[-1].update(zip(pairs[::2], pairs[1::2], strict=True))
        elif name in ("APPEND", "APPENDS"):
            entries = pop(1) if name == "APPEND" else pop_to_mark()
            stack[-1].extend(entries)
        elif name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
            stack.append(tuple(pop_to_mark() if name == "TUPLE" else pop(int(name[-1]))))
        elif name == "STACK_GLOBAL":
            stack.append(" ".join(map(str, pop(2))))
        elif name == "REDUCE":
            stack.append(_Made(pop(2)[1]))
        elif name == "BUILD":
            made, made.state = pop(2)
            stack.append(made)
        elif name == "STOP":
            return stack[-1]
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"its step {name} has no place in one")
    raise ValueError("it has no end")


_VALUES = ("BININT", "BININT1", "BININT2", "SHORT_BINSTRING", "BINSTRING", "SHORT_BINUNICODE", "BINUNICODE",
           "SHORT_BINBYTES", "BINBYTES", "GLOBAL")
_WITHOUT_VALUE: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_DICT": dict, "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple}


def _as_text(value: Any) -> Any:
    return value.decode("latin-1") if isinstance(value, bytes) else value
