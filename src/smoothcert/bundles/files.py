"""The files of a bundle, written whole or not at all into a folder or a zip file, whose bytes follow from them."""

import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from smoothcert.errors import InputError
from smoothcert.io.files import make_folder, write_error, write_whole
from smoothcert.io.paths import Place

_FIRST, _LAST = (1980, 1, 1, 0, 0, 0), (2107, 12, 31, 23, 59, 58)
"""The times that a zip file can state."""


@dataclass(frozen=True)
class BundleFile:
    """A file of a bundle.

    Attributes:
        name: its path in the bundle. content: its bytes, or the file that has them.
        what: what it is. use: how to open or check it. Both are for the index, which leaves out a file without them.
    """

    name: str
    content: bytes | Place
    what: str = ""
    use: str = ""


def is_zip(out: Path) -> bool:
    """Tell whether a bundle is to be one file."""
    return out.suffix.lower() == ".zip"


def check_new(out: Path) -> None:
    """Raise InputError where something is in the place of a bundle, and for the name of an archive that is no zip file.
    """
    endings = {ending for _, known, _ in shutil.get_unpack_formats() for ending in known}
    if not is_zip(out) and out.name.lower().endswith(tuple(endings)):
        raise InputError(f"{out} is the name of an archive, and a bundle is a folder or a zip file: give -o DIR or "
                         f"-o FILE.zip")
    if out.is_dir() and not is_zip(out) and not any(out.iterdir()):
        return
    if out.exists() or out.is_symlink():
        raise InputError(f"{out} exists: give a new folder or a new file for -o")


def check_outside(out: Path, stores: Iterable[Place]) -> None:
    """Raise InputError where a bundle would lie inside a store, which is evidence and is not written into."""
    for store in stores:
        if isinstance(store, Path) and out.resolve().is_relative_to(store.resolve()):
            raise InputError(f"{out} lies in the store {store}: give a place outside it for -o")


@contextmanager
def draft(out: Path) -> Iterator[Path]:
    """Give a folder beside `out` to write into, which is gone afterwards. Raises FileError."""
    make_folder(out.parent)
    try:
        room = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise write_error(error, out) from error
    try:
        folder = room / "bundle"
        make_folder(folder)
        yield folder
    finally:
        shutil.rmtree(room, ignore_errors=True)


def write_files(folder: Path, files: Iterable[BundleFile]) -> None:
    """Write files into a folder. Raises FileError."""
    for file in files:
        path = folder / file.name
        make_folder(path.parent)
        try:
            if isinstance(file.content, bytes):
                path.write_bytes(file.content)
            else:
                with file.content.open("rb") as source, path.open("wb") as target:
                    shutil.copyfileobj(source, target)
        except OSError as error:
            raise write_error(error, path) from error


def move_into_place(folder: Path, out: Path, time: datetime | None) -> None:
    """Make the bundle of a folder that has all its files: rename it, or put it into a zip file.

    Args:
        time: of the files in a zip file; None takes the earliest that there is.
    Raises:
        FileError: it cannot be written.
    """
    if is_zip(out):
        write_whole(out, lambda path: _write_zip(path, folder, time))
        return
    try:
        folder.replace(out)
    except OSError as error:
        raise write_error(error, out) from error


def _write_zip(path: Path, folder: Path, time: datetime | None) -> None:
    """Write the files of a folder in order, as they are: the bytes of compressed ones depend on the version of zlib."""
    when = _FIRST if time is None else min(max(time.timetuple()[:6], _FIRST), _LAST)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(found for found in folder.rglob("*") if found.is_file()):
            entry = zipfile.ZipInfo(file.relative_to(folder).as_posix(), when)
            entry.create_system = 3  # Unix, on every system
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            entry.file_size = file.stat().st_size
            with file.open("rb") as source, archive.open(entry, "w") as target:
                shutil.copyfileobj(source, target)
