"""The splits of a data set on disk: the names they go by, and the files of a folder that hold one."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from smoothcert.errors import FileError, InputError

_NAMES = {"train": ("train", "training"), "test": ("test", "testing", "val", "valid", "validation")}
_PART = re.compile(r"(part|shard|chunk)?[-_.]?\d.*")
"""Names that Spark, Dask and pyarrow give to the parts of one table."""
_NO_DATA = ("__MACOSX", "@eaDir")
"""Folders that archives and network drives add to those of the data."""


@dataclass(frozen=True)
class SplitFiles:
    """The files that hold a split, in the order of their names.

    Attributes:
        files: at least one.
        divided: they hold this split alone; else all of the data.
    """

    files: list[Path]
    divided: bool


def split_names(split: str) -> tuple[str, ...]:
    """Return the names that a split goes by, in the order in which they are tried.

    >>> split_names("test"), split_names("Dev")
    (('test', 'testing', 'val', 'valid', 'validation'), ('Dev',))
    """
    return _NAMES.get(split, (split,))


def known_splits() -> tuple[str, ...]:
    """Return every name that a split usually goes by."""
    return tuple(name for names in _NAMES.values() for name in names)


def find_split(path: Path, split: str, *endings: str) -> SplitFiles:
    """Return a file itself, or the files of one split in a folder, in its folder `data`, or in another folder of it.

    A folder whose files are parts of one table (part-0.parquet, 0001.parquet) is not divided.

    Raises FileError where there are none, InputError for a split that is not there, or is in several folders.
    """
    kind = endings[0].removeprefix(".")
    if not path.exists():
        raise FileError(f"{path} does not exist; {kind}:PATH takes a {endings[0]} file or a folder of them")
    if path.is_file():
        return SplitFiles([path], divided=False)
    below = [path / name for name in folders_of(path)]
    for name in split_names(split):
        for folder in (path, path / "data"):
            if files := split_files(folder, name, *endings):
                return SplitFiles(files, divided=True)
        found = {folder: files for folder in below if (files := split_files(folder, name, *endings))}
        if len(found) > 1:
            raise InputError(f"{path} has a split {split!r} in several of its folders "
                             f"({', '.join(folder.name for folder in found)}): give one, such as "
                             f"{kind}:{next(iter(found))}")
        if found:
            return SplitFiles(*found.values(), divided=True)
    files = _files(path, endings)
    if files and all(_PART.fullmatch(file.name) for file in files):
        return SplitFiles(files, divided=False)
    splits = {re.split(r"[-_.]", file.name)[0] for folder in (path, *below) for file in _files(folder, endings)}
    if not splits:
        raise FileError(f"{path} holds no {endings[0]} files, nor do the folders in it")
    raise InputError(f"{path} has no split {split!r}; the splits found: {', '.join(sorted(splits))}")


def split_files(folder: Path, name: str, *endings: str) -> list[Path]:
    """Return the files of the split with this name in one folder, sorted: `NAME.parquet`, else all `NAME-*.parquet` or
    `NAME_0.parquet`, else those of the folder NAME; in small letters or capitals.
    """
    files, name = _files(folder, endings), name.lower()
    if whole := [file for file in files if _stem(file, endings).lower() == name]:
        return whole[:1]
    part = re.compile(rf"{re.escape(name)}(-|[_.]\d)", re.IGNORECASE)
    return [file for file in files if part.match(file.name)] or [
        file for below in folders_of(folder) if below.lower() == name for file in _files(folder / below, endings)]


def folders_of(path: Path) -> list[str]:
    """Return the names of the folders in a folder that may hold data, sorted; none if it is no folder."""
    return sorted(entry.name for entry in _entries(path) if entry.name not in _NO_DATA and entry.is_dir())


def _files(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    return sorted(folder / entry.name for entry in _entries(folder)
                  if entry.name.endswith(endings) and entry.is_file())


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return what is in a folder and not hidden, with its kind: a folder may hold a million images."""
    return [entry for entry in os.scandir(folder) if not entry.name.startswith(".")] if folder.is_dir() else []


def _stem(file: Path, endings: tuple[str, ...]) -> str:
    return file.name.removesuffix(next(ending for ending in endings if file.name.endswith(ending)))
