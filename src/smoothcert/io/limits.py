"""What a file from outside may ask for, and the readers that hold it to that before memory is taken.

Each limit is far above what the package needs and far below what hurts a machine; an error that names one says what
was got, the limit, and what to do. docs/untrusted.md lists them.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from smoothcert.errors import FileError, SmoothcertError

NESTING = 64
"""Lists and mappings within one another, in JSON and YAML."""
JSON_BYTES = 1 << 28
"""A JSON file: a manifest that lists a million images one by one takes a tenth of it."""
YAML_BYTES = 1 << 20
"""A YAML text: the longest recipe takes a hundredth of it."""
YAML_VALUES = 100_000
"""Values of a YAML text, those that aliases repeat counted each time."""
LOG_BYTES = 1 << 30
"""A log (TSV)."""
CLASSES = 1_000_000
"""Classes that a store, a log, a count file or a model card may name."""
VOTES = 10**12
"""Votes for one class at one look."""
PIXELS = 64_000_000
"""Pixels of one image, before and after preprocessing: a small file can unfold to gigabytes."""
IMAGE_BYTES = 1 << 29
"""One encoded image file."""
UNFOLDED_BYTES = 1 << 32
"""What a compressed file (parquet, npz) may always unfold to ..."""
UNFOLDED_RATIO = 200
"""... and beyond that, as a multiple of its own size."""
CARD_OPTION = 1 << 16
"""A whole number among a model card's options, such as a width."""
CARD_LAYERS = 1000
"""A depth among them, and how many sizes a list of them has."""


def within(what: str, got: int, limit: int, advice: str, error: type[SmoothcertError] = FileError) -> int:
    """Return `got`, or raise an error that says what was got, the limit, and what to do."""
    if got > limit:
        raise error(f"{what} is {got:,}; the limit is {limit:,}: {advice}")
    return got


def unfolds_to(path: str | os.PathLike[str], stored: int, unfolded: int, error: type[SmoothcertError] = FileError
               ) -> None:
    """Raise an error where a file of `stored` bytes claims to hold more than it may unfold to."""
    within(f"{path} has {stored:,} bytes; what it claims to hold, in bytes,", unfolded,
           max(UNFOLDED_BYTES, UNFOLDED_RATIO * stored), "split it into smaller files if it is what you expect", error)


def open_bounded(path: Path, limit: int) -> BinaryIO:
    """A regular file of at most `limit` bytes, opened; no pipe and no device, which may never end.

    Raises FileError where it is missing, unreadable, no file, or longer.
    """
    try:
        told = path.stat()
        if not stat.S_ISREG(told.st_mode):
            raise FileError(f"{path} is not a file")
        within(f"the length of {path}", told.st_size, limit, "it is not what its name says, or has to be split")
        return path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise FileError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def bounded_bytes(path: Path, limit: int) -> bytes:
    """The bytes of such a file. Raises FileError."""
    with open_bounded(path, limit) as file:
        try:
            return file.read()
        except OSError as error:
            raise FileError(f"{path} cannot be read: {error.strerror or error}") from None


def from_json(text: str | bytes, where: str) -> Any:
    """The value of a JSON text, at most `NESTING` deep. Raises FileError naming `where`.

    >>> from_json('{"a": [1]}', "x.json")
    {'a': [1]}
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise FileError(f"{where} is nested more than {NESTING} deep: it is no file of ours, or is damaged") from None
    except ValueError as error:
        raise FileError(f"{where} is corrupt: {error}") from None
    _check_depth(value, where)
    return value


def inside(folder: Path, name: str) -> Path:
    """The file `name` of a folder, or FileError where the name or a link leads out of it."""
    path = folder / name
    try:
        leaves = not path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError) as error:  # a zero byte, or links in a circle
        raise FileError(f"{folder} has no file {name!r}: {error}") from None
    if leaves:
        raise FileError(f"{path} leads out of {folder}: put a copy of the file there instead of a link or a path")
    return path


def _check_depth(value: Any, where: str) -> None:
    level = [value]
    for _ in range(NESTING):
        level = [child for parent in level if isinstance(parent, dict | list)
                 for child in (parent.values() if isinstance(parent, dict) else parent)
                 if isinstance(child, dict | list)]
        if not level:
            return
    raise FileError(f"{where} is nested more than {NESTING} deep: it is no file of ours, or is damaged")
