"""Readers of `.npz` and `.npy` files from outside: they unpickle nothing, and allocate no more than the file fills."""

import math
import struct
import sys
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from smoothcert import limits
from smoothcert.errors import FileError, SmoothcertError
from smoothcert.limits import check_unpacked_size, open_bounded

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_KINDS = "biufSU"
_HEADER, _NAME_LENGTHS = 30, 26  # of a file in a zip: bytes of its header, and the place of two lengths in it
_SIZE_BEHIND = 8  # flag: its size follows its content


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of numbers and texts in an `.npz` file, by name.

    Raises FileError where the file is missing, of another kind, damaged, beyond the limits, or holds other things.
    """
    if not path.is_file():  # a pipe, which may never end, is not a file either
        raise FileError(f"there is no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            check_unpacked_size(path, path.stat().st_size, sum(member.file_size for member in members))
            _check_directory(path, archive)
            arrays = {}
            for member in members:
                with archive.open(member) as file:
                    _check_header(file, member.filename, member.file_size)
                with archive.open(member) as file:
                    arrays[member.filename.removesuffix(".npy")] = _read_checked(file, member.filename)
            return arrays
    except SmoothcertError:
        raise
    except Exception as error:  # numpy and zipfile raise many kinds for a damaged archive
        raise FileError(f"{path} is not a file of arrays (.npz), or is corrupt: {error}") from None


def read_array(path: Path) -> np.ndarray:
    """Return the array of numbers or texts in an `.npy` file.

    Raises FileError where the file is missing, of another kind, damaged, beyond the limits, or holds other things.
    """
    with open_bounded(path, limits.UNPACKED_BYTES) as file:
        try:
            _check_header(file, path.name, path.stat().st_size)
            file.seek(0)
            return _read_checked(file, path.name)
        except Exception as error:  # numpy raises many kinds for a damaged file
            raise FileError(f"{path} is not an array (.npy), or is corrupt: {error}") from None


def _check_directory(path: Path, archive: zipfile.ZipFile) -> None:
    """Raise ValueError where the archive's directory, which has no checksum, omits files that are in the archive."""
    listed = {member.header_offset: member for member in archive.infolist()}
    at = 0
    with path.open("rb") as file:
        while at != archive.start_dir:
            if at not in listed or listed[at].flag_bits & _SIZE_BEHIND:
                raise ValueError(f"its directory does not list what is at byte {at}")
            file.seek(at + _NAME_LENGTHS)
            at += _HEADER + sum(struct.unpack("<HH", file.read(4))) + listed[at].compress_size


def _check_header(file: IO[bytes], name: str, size: int) -> None:
    """Raise ValueError unless the `size` bytes of a file hold the array of numbers or texts that its header claims."""
    version: Any = npy.read_magic(file)
    shape, _, kind = _HEADERS[version](file)
    if kind.kind not in _KINDS or not kind.itemsize:
        raise ValueError(f"{name} has values of type {kind} instead of numbers or texts")
    if math.prod(shape) * kind.itemsize != size - file.tell():
        raise ValueError(f"{name} claims shape {shape} of {kind}, which does not fit its {size:,} bytes")


def _read_checked(file: IO[bytes], name: str) -> np.ndarray:
    """Return the array of a file whose header was checked, or raise ValueError for texts that are not Unicode."""
    array = npy.read_array(file, allow_pickle=False)
    if array.dtype.kind == "U" and (array.reshape(-1).view(f"{array.dtype.str[0]}u4") > sys.maxunicode).any():
        raise ValueError(f"{name} holds texts that are not Unicode")
    return array
