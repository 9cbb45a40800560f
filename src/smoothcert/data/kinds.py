"""The kind of data that lies at a path, told by the names of files there."""

import os
from itertools import islice
from pathlib import Path

from smoothcert.data.imagefolder import SUFFIXES
from smoothcert.data.originals import find_original
from smoothcert.data.saved import DICTIONARY, STATE
from smoothcert.data.splits import known_splits

_ENDINGS = {".parquet": "parquet", ".npz": "npz", ".npy": "npz", ".csv": "csv", ".csv.gz": "csv"}
_DEPTH = 3
"""Folders within folders that are looked through, ..."""
_ENTRIES = 10_000
"""... and how much of each depth."""


def suggest_kind(spec: str) -> str:
    """Return, for an error message, how to name what lies at a path that was given without its kind; else nothing."""
    path = Path(spec).expanduser()
    if os.path.isfile(path):
        kind = _kind_of(path)
        return f", which is a file: write {kind}:{spec}" if kind else ""
    if not os.path.isdir(path):
        return ""
    if original := find_original(path):
        return f", which is a folder: write {original}, and --data-dir {spec}"
    return f", which is a folder: write {_name_folder(path)}"


def _name_folder(path: Path) -> str:
    if any((path / name).is_file() for name in (DICTIONARY, STATE)):
        return f"datasets:{path}"
    for depth in range(_DEPTH):
        entries = sorted(islice(path.glob("*/" * depth + "*"), _ENTRIES))
        if any(entry.suffix.lower() in SUFFIXES for entry in entries):
            break
        if found := next(filter(_kind_of, entries), None):
            divided = depth > 0 or any(entry.name.lower().startswith(known_splits()) for entry in entries)
            return f"{_kind_of(found)}:{path if divided and found.suffix != '.npy' else found}"
    return f"imagefolder:{path}"


def _kind_of(file: Path) -> str | None:
    """Return the kind of data that a file's name tells, if any."""
    return next((kind for ending, kind in _ENDINGS.items() if file.name.lower().endswith(ending)), None)
