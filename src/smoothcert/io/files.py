"""Files that are written whole or not at all, and folders that one run at a time writes to."""

import errno
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smoothcert.errors import FileError, StoreError
from smoothcert.io.paths import Place, RemotePath
from smoothcert.limits import JSON_BYTES, bounded_bytes, from_json

if TYPE_CHECKING:
    from pydantic import ValidationError


def write_whole(path: Place, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary file, then move it to `path` in one step.

    Raises FileError where the disk is full or the folder cannot be written; `path` then stays as it was.
    """
    if isinstance(path, RemotePath):
        try:
            with tempfile.TemporaryDirectory() as folder:
                temporary = Path(folder) / path.name
                write(temporary)
                path.write_bytes(temporary.read_bytes())
        except OSError as error:
            raise write_error(error, path) from error
        return
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise write_error(error, path) from error


def write_text(path: Place, text: str) -> None:
    """Write a text whole or not at all. Raises FileError."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Place, content: Any) -> None:
    """Write JSON whole or not at all, indented, with keys in their order. Raises FileError."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Place) -> Any:
    """Return the content of a JSON file within `smoothcert.limits`. Raises FileError if it is missing or corrupt."""
    try:
        content = bounded_bytes(path, JSON_BYTES) if isinstance(path, Path) and path.exists() else path.read_bytes()
    except FileNotFoundError:
        raise FileError(f"there is no file {path}") from None
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}") from error
    return from_json(content, str(path))


def sha256(path: Place) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def claim_folder(folder: Place, marker: str) -> None:
    """Create an output folder, or accept one that is empty or holds `marker`.

    Raises StoreError where it is a file, or holds other things.
    """
    if folder.is_file():
        raise StoreError(f"{folder} is a file: -o needs a folder")
    if folder.is_dir() and not (folder / marker).exists():
        others = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
        if others:
            raise StoreError(f"{folder} holds {others[0]} but no {marker}: choose an empty or new folder for -o")
    make_folder(folder)


def make_folder(path: Place) -> None:
    """Create a folder and its parents, or raise FileError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(error, path) from error


@contextmanager
def lock_folder(folder: Place) -> Iterator[None]:
    """Lock a folder against other writers; the lock ends with the process, however that ends.

    In an object storage, which has no locks, do nothing. Raises StoreError where another run is writing there.
    """
    if isinstance(folder, RemotePath):
        yield
        return
    try:
        handle = open(folder / ".lock", "w")  # noqa: SIM115 - open for as long as the lock is held
    except OSError as error:
        raise write_error(error, folder) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StoreError(f"another run is writing to {folder}: wait for it, or choose another -o") from None
        yield


def write_error(error: OSError, path: Place) -> FileError:
    """Return the FileError for an OSError in writing: it names the file and says what to do."""
    if error.errno == errno.ENOSPC:
        return FileError(f"the disk is full: {path} was not written. Finished work is kept; free some space and run "
                         f"the same command again")
    return FileError(f"cannot write {path}: {error.strerror or error}")


def list_problems(what: str, error: "ValidationError") -> str:
    """Return `what` and a line for each of the first ten problems: the field, the reason, and what was got."""
    problems = [f"  - {'.'.join(map(str, e['loc']))}: {e['msg'].removeprefix('Value error, ')}, got {e['input']!r:.80}"
                for e in error.errors()[:10]]
    return "\n".join([f"{what}:", *problems])
