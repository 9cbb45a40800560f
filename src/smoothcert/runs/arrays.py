"""Arrays from `.npz` files of others: nothing is unpickled, and no memory is taken that the file cannot fill."""

import math
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from smoothcert.errors import FileError, SmoothcertError
from smoothcert.limits import unfolds_to

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_KINDS = "biufSU"
_HEADER, _NAME_LENGTHS, _SIZE_BEHIND = 30, 26, 8  # a file in a zip: its header's bytes, where two lengths lie; a flag


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of numbers and texts in an `.npz` file, by name.

    Raises:
        FileError: no such file, none of its kind, damaged, beyond the limits, or with other things in it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            unfolds_to(path, path.stat().st_size, sum(member.file_size for member in members))
            _check_directory(path, archive)
            return {member.filename.removesuffix(".npy"): _array(archive, member) for member in members}
    except SmoothcertError:
        raise
    except FileNotFoundError:
        raise FileError(f"there is no file {path}") from None
    except Exception as error:  # numpy and zipfile raise whatever a damaged archive leads them to
        raise FileError(f"{path} holds no arrays (.npz), or is corrupt: {error}") from None


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
        version: Any = npy.read_magic(file)
        shape, _, kind = _HEADERS[version](file)
        if kind.kind not in _KINDS or not kind.itemsize:
            raise ValueError(f"{member.filename} has values of type {kind}, not numbers or texts")
        if math.prod(shape) * kind.itemsize != member.file_size - file.tell():
            raise ValueError(f"{member.filename} claims shape {shape} of {kind}, which its {member.file_size:,} bytes "
                             f"do not hold")
    with archive.open(member) as file:
        array = npy.read_array(file, allow_pickle=False)
    if kind.kind == "U" and (array.reshape(-1).view(f"{kind.str[0]}u4") > sys.maxunicode).any():
        raise ValueError(f"{member.filename} holds texts of no characters")
    return array
