"""Arrays from `.npz` and `.npy` files of others: nothing is unpickled, no memory is taken that the file cannot fill."""

import math
import struct
import sys
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from smoothcert.errors import FileError, SmoothcertError
from smoothcert.io import limits
from smoothcert.io.limits import open_bounded, unfolds_to

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_KINDS = "biufSU"
_HEADER, _NAME_LENGTHS, _SIZE_BEHIND = 30, 26, 8  # a file in a zip: its header's bytes, where two lengths lie; a flag


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of numbers and texts in an `.npz` file, by name.

    Raises:
        FileError: no such file, none of its kind, damaged, beyond the limits, or with other things in it.
    """
    if not path.is_file():  # nor is a pipe one, which may never end
        raise FileError(f"there is no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            unfolds_to(path, path.stat().st_size, sum(member.file_size for member in members))
            _check_directory(path, archive)
            return {member.filename.removesuffix(".npy"): _array(archive, member) for member in members}
    except SmoothcertError:
        raise
    except Exception as error:  # numpy and zipfile raise whatever a damaged archive leads them to
        raise FileError(f"{path} holds no arrays (.npz), or is corrupt: {error}") from None


def read_array(path: Path) -> np.ndarray:
    """The array of numbers or texts in an `.npy` file.

    Raises:
        FileError: no such file, none of its kind, damaged, beyond the limits, or with other things in it.
    """
    with open_bounded(path, limits.UNFOLDED_BYTES) as file:
        try:
            _check_header(file, path.name, path.stat().st_size)
            file.seek(0)
            return _checked_text(npy.read_array(file, allow_pickle=False), path.name)
        except Exception as error:  # numpy raises whatever a damaged file leads it to
            raise FileError(f"{path} holds no array (.npy), or is corrupt: {error}") from None


def _check_directory(path: Path, archive: zipfile.ZipFile) -> None:
    """Raise ValueError where the archive's directory, which has no checksum, leaves out files that are there."""
    listed = {member.header_offset: member for member in archive.infolist()}
    at = 0
    with path.open("rb") as file:
        while at != archive.start_dir:
            if at not in listed or listed[at].flag_bits & _SIZE_BEHIND:
                raise ValueError(f"its directory does not tell what lies at byte {at}")
            file.seek(at + _NAME_LENGTHS)
            at += _HEADER + sum(struct.unpack("<HH", file.read(4))) + listed[at].compress_size


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """One array, after its header was compared with the bytes that follow it."""
    with archive.open(member) as file:
        _check_header(file, member.filename, member.file_size)
    with archive.open(member) as file:
        return _checked_text(npy.read_array(file, allow_pickle=False), member.filename)


def _check_header(file: IO[bytes], name: str, size: int) -> None:
    """Raise ValueError unless the `size` bytes of a file hold the array of numbers or texts that its header claims."""
    version: Any = npy.read_magic(file)
    shape, _, kind = _HEADERS[version](file)
    if kind.kind not in _KINDS or not kind.itemsize:
        raise ValueError(f"{name} has values of type {kind}, not numbers or texts")
    if math.prod(shape) * kind.itemsize != size - file.tell():
        raise ValueError(f"{name} claims shape {shape} of {kind}, which its {size:,} bytes do not hold")


def _checked_text(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype.kind == "U" and (array.reshape(-1).view(f"{array.dtype.str[0]}u4") > sys.maxunicode).any():
        raise ValueError(f"{name} holds texts of no characters")
    return array
