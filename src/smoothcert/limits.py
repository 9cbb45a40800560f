"""Limits on files from outside, and readers that check them before they take any memory.

Each limit is far above what the package needs and far below what harms a machine; an error says what was got, the
limit, and what to do. docs/untrusted.md lists the limits.
"""

import gzip
import io
import json
import os
import stat
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from smoothcert.errors import FileError, SmoothcertError

NESTING = 64
"""Depth of nested lists and mappings, in JSON and YAML."""
JSON_BYTES = 1 << 28
"""Size of a JSON file: a manifest that lists a million images takes a tenth of it."""
YAML_BYTES = 1 << 20
"""Size of a YAML text: the longest recipe takes a hundredth of it."""
CODE_BYTES = 1 << 26
"""Size of a file of Python code."""
YAML_VALUES = 100_000
"""Values in a YAML text; values that an alias repeats count each time."""
LOG_BYTES = 1 << 30
"""Size of a log (TSV)."""
CSV_BYTES = 1 << 30
"""Size of a table of comma-separated values."""
LIST_BYTES = 1 << 26
"""Size of a list of the images of a folder: that of a million takes two thirds of it."""
HUB_BYTES = 1 << 36
"""Size of all files that are taken from a repository of the hub."""
HUB_FILES = 20_000
"""Number of these files."""
CLASSES = 1_000_000
"""Number of classes in a store, a log, a count file or a model card."""
VOTES = 10**12
"""Votes for one class at one look."""
PIXELS = 64_000_000
"""Pixels of one image, before and after preprocessing: a small file can decode to gigabytes."""
IMAGE_BYTES = 1 << 29
"""Size of one encoded image file."""
UNPACKED_BYTES = 1 << 32
"""A compressed file (parquet, npz) may always unpack to this size ..."""
UNPACKED_RATIO = 200
"""... and to this multiple of its own size."""
CARD_OPTION = 1 << 16
"""The largest whole number among a model card's options, such as a width."""
CARD_LAYERS = 1000
"""The largest depth among these options, and the length of a list of sizes."""
CARD_COLUMNS = 100_000
"""The columns of a table that a model card lists."""


def within(what: str, got: int, limit: int, advice: str, error: type[SmoothcertError] = FileError) -> int:
    """Return `got`, or raise an error that says what was got, the limit, and what to do."""
    if got > limit:
        raise error(f"{what} is {got:,}; the limit is {limit:,}: {advice}")
    return got


def check_unpacked_size(path: str | os.PathLike[str], stored: int, unpacked: int) -> None:
    """Raise FileError where a file of `stored` bytes claims to unpack to more than is allowed."""
    within(f"{path} has {stored:,} bytes; its unpacked size in bytes", unpacked,
           max(UNPACKED_BYTES, UNPACKED_RATIO * stored), "if that is what you expect, split it into smaller files")


def open_bounded(path: Path, limit: int) -> BinaryIO:
    """Open a regular file of at most `limit` bytes; a pipe or a device may never end.

    Raises FileError where it is missing, unreadable, not a regular file, or longer.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise FileError(f"{path} is not a file")
        within(f"the size of {path} in bytes", status.st_size, limit,
               "either it is not what its name says, or it has to be split")
        return path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise FileError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def bounded_bytes(path: Path, limit: int) -> bytes:
    """Return the content of a regular file of at most `limit` bytes. Raises FileError as `open_bounded` does."""
    with open_bounded(path, limit) as file:
        try:
            return file.read()
        except OSError as error:
            raise FileError(f"{path} cannot be read: {error.strerror or error}") from None


def unpacked_bytes(path: Path, limit: int) -> bytes:
    """Return the content of a file, unpacked if it is compressed by gzip, of at most `limit` bytes either way.

    Raises FileError as `open_bounded` does, and for a damaged file.
    """
    content = bounded_bytes(path, limit)
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        with gzip.open(io.BytesIO(content)) as file:
            whole = file.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise FileError(f"{path} cannot be unpacked by gzip: its gzip data are damaged or cut off ({error}). Copy it "
                        f"again") from None
    within(f"the unpacked size of {path} in bytes", len(whole), limit,
           "either it is not what its name says, or it has to be split")
    return whole


def from_json(text: str | bytes, where: str) -> Any:
    """Return the value of a JSON text, at most `NESTING` deep. Raises FileError that names `where`.

    >>> from_json('{"a": [1]}', "x.json")
    {'a': [1]}
    """
    too_deep = f"{where} is nested more than {NESTING} deep: smoothcert did not write it, or it is damaged"
    try:
        value = json.loads(text)
    except RecursionError:
        raise FileError(too_deep) from None
    except ValueError as error:
        raise FileError(f"{where} is corrupt: {error}") from None
    level = [value]
    for _ in range(NESTING):
        level = [child for parent in level if isinstance(parent, dict | list)
                 for child in (parent.values() if isinstance(parent, dict) else parent)
                 if isinstance(child, dict | list)]
        if not level:
            return value
    raise FileError(too_deep)


def path_inside(folder: Path, name: str) -> Path:
    """Return the path of `name` in a folder, or raise FileError where the name or a link leads out of it."""
    path = folder / name
    try:
        leaves = not path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError) as error:  # a zero byte, or a loop of links
        raise FileError(f"{folder} has no file {name!r}: {error}") from None
    if leaves:
        raise FileError(f"{path} leads out of {folder}: copy the file into the folder instead")
    return path
