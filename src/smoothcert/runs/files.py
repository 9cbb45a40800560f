"""Writing files whole or not at all."""

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from smoothcert.errors import FileError, StoreError


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary file beside `path`, then move it there in one step.

    Raises:
        FileError: the disk is full or the folder cannot be written; `path` is then as it was.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise explained(error, path) from error


def write_text(path: Path, text: str) -> None:
    """`write_whole` for text."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """`write_whole` for JSON, indented, keys in their order."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file, or FileError where it is missing or corrupt."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileError(f"there is no file {path}") from None
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise FileError(f"{path} is corrupt: {error}") from None


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def claim_folder(folder: Path, marker: str) -> None:
    """Create an output folder, or take an empty one or one that holds `marker`; anything else is left alone.

    Raises:
        StoreError: it is a file, or holds other things.
    """
    if folder.is_file():
        raise StoreError(f"{folder} is a file: -o needs a folder")
    if folder.is_dir() and not (folder / marker).exists():
        others = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
        if others:
            raise StoreError(f"{folder} holds {others[0]} and no {marker}: choose an empty or new folder for -o")
    make_folder(folder)


def make_folder(path: Path) -> None:
    """Create a folder and its parents, or raise FileError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explained(error, path) from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder against other writers; the lock falls with the process, however it ends.

    Raises:
        StoreError: another run is writing there.
    """
    try:
        handle = open(folder / ".lock", "w")  # noqa: SIM115 - held open for as long as the lock
    except OSError as error:
        raise explained(error, folder) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StoreError(f"another run is writing to {folder}: wait for it, or choose another -o") from None
        yield


def explained(error: OSError, path: Path) -> FileError:
    """An OSError as an error of ours that names the file and what to do."""
    if error.errno == errno.ENOSPC:
        return FileError(f"the disk is full: {path} was not written. What was finished is kept; free some space and "
                         f"run the same command again")
    return FileError(f"cannot write {path}: {error.strerror or error}")
