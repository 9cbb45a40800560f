"""The places that a path names: files and folders, entries of the zoo (zoo:NAME), and prefixes of an object storage
that pyarrow reaches (s3://, gs://, ...).

The zoo, trained networks with their certificates, is the folder `zoo` of the repository; an installed package lacks it.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from smoothcert.checks import check_known
from smoothcert.errors import FileError, InputError
from smoothcert.limits import path_inside

ZOO_DIR_VARIABLE = "SMOOTHCERT_ZOO_DIR"
CERTIFICATES = "certificates"
"""The folder, within an entry of the zoo, of the store of its certificates."""

_ZOO_PREFIX = "zoo:"
_CHECKOUT_ZOO = Path(__file__).parents[3] / "zoo"

WEIGHTS_SUFFIXES = (".pt", ".pth", ".tar", ".ckpt", ".bin", ".th", ".safetensors")
"""Endings of files that hold the weights of a network and not the network; `.tar` stands for `.pth.tar`."""


def is_weights_file(text: Any) -> bool:
    """Tell if a path has the ending of a file of weights; the file need not exist.

    >>> is_weights_file("runs/net.pth.tar"), is_weights_file("net.pt2")
    (True, False)
    """
    return isinstance(text, str | Path) and Path(text).suffix.lower() in WEIGHTS_SUFFIXES


@dataclass(frozen=True)
class RemotePath:
    """An object, or the common prefix of several, with the methods and meanings of `pathlib.Path`.

    A file is written whole in one step, or not at all; a folder exists where a file does. As in pathlib, a failed read
    or write is an OSError; a storage that does not answer is a FileError.

    Attributes:
        scheme, host: `s3` and `bucket` of `s3://bucket/a/b`.
        path: `a/b`, without a slash at either end.
        query: options of the connection, such as `region=eu-west-1` or `endpoint_override=HOST:PORT`; never shown,
            because it may contain keys.
    """

    scheme: str
    host: str
    path: str
    query: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}/{self.path}"

    def __truediv__(self, name: str) -> "RemotePath":
        return replace(self, path=str(PurePosixPath(self.path) / name))

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name or self.host

    @property
    def parts(self) -> tuple[str, ...]:
        return (f"{self.scheme}://{self.host}", *PurePosixPath(self.path).parts)

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.path).suffix

    @property
    def parent(self) -> "RemotePath":
        return replace(self, path=str(PurePosixPath(self.path).parent).removeprefix("."))

    def absolute(self) -> "RemotePath":
        return self

    def resolve(self) -> "RemotePath":
        return self

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        return self._ask(*self._files()).is_file

    def is_dir(self) -> bool:
        return self._ask(*self._files()).type.name == "Directory"

    def iterdir(self) -> Iterator["RemotePath"]:
        from pyarrow.fs import FileSelector

        files, where = self._files()
        return iter([self / info.base_name for info in self._ask(files, FileSelector(where, allow_not_found=True))])

    def mkdir(self, parents: bool = True, exist_ok: bool = True) -> None:
        """Do nothing: a folder exists once a file in it does."""

    def read_bytes(self) -> bytes:
        files, where = self._files()
        with files.open_input_stream(where) as stream:
            return stream.read()

    def open(self, mode: Literal["rb"] = "rb") -> BytesIO:
        return BytesIO(self.read_bytes())

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self.read_bytes().decode(encoding, errors)

    def write_bytes(self, content: bytes) -> None:
        files, where = self._files()
        with files.open_output_stream(where) as stream:
            stream.write(content)

    def unlink(self, missing_ok: bool = False) -> None:
        files, where = self._files()
        try:
            files.delete_file(where)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def _ask(self, files: Any, what: Any) -> Any:
        try:
            return files.get_file_info(what)
        except OSError as error:
            raise FileError(f"cannot reach {self}: {error}") from None

    def _files(self) -> tuple[Any, str]:
        """Return the file system, and the path in it."""
        files, root = _connect(self.scheme, self.host, self.query)
        return files, f"{root.rstrip('/')}/{self.path}".rstrip("/")


Place = Path | RemotePath
"""Where a store is."""


def place(text: str) -> Place:
    """Return the place that a text names: a folder, `zoo:NAME/certificates`, or a URI (`s3://bucket/run`,
    `gs://bucket/run?...`, `file:///home/me/run`).

    Raises:
        InputError: a URI of a storage that pyarrow cannot open, or no such entry of the zoo. FileError: no zoo.
    """
    if "://" not in text:
        return local_path(text)
    uri = urlsplit(text)
    if uri.scheme == "file":
        return Path(unquote(uri.path))
    if not uri.netloc:
        raise InputError(f"{text} names no bucket or host: give it as {uri.scheme}://BUCKET/FOLDER")
    found = RemotePath(uri.scheme, uri.netloc, unquote(uri.path).strip("/"), uri.query)
    _connect(found.scheme, found.host, found.query)
    return found


@lru_cache
def _connect(scheme: str, host: str, query: str) -> tuple[Any, str]:
    """Return pyarrow's file system of a URI, and the root of the host in it."""
    from pyarrow import ArrowException
    from pyarrow.fs import FileSystem

    try:
        return FileSystem.from_uri(f"{scheme}://{host}{'?' * bool(query)}{query}")
    except (ArrowException, OSError) as error:
        raise InputError(f"cannot open {scheme}://{host}: {error}") from None


def local_path(named: str | Path) -> Path:
    """Return a local path: `zoo:NAME` is the folder of an entry of the zoo, `zoo:NAME/FILE` a file or folder in it, and
    any other path stays as it is.

    Raises:
        UnknownNameError: no such entry; the message lists the entries. FileError: there is no zoo here.
    """
    text = str(named)
    if not text.startswith(_ZOO_PREFIX):
        return Path(named)
    name, _, rest = text.removeprefix(_ZOO_PREFIX).partition("/")
    return path_inside(zoo_dir() / check_known("entry of the zoo", name, zoo_names()), rest)


def zoo_names() -> list[str]:
    """Return the names of the zoo's entries, sorted. Raises FileError where there is no zoo, or it is empty."""
    zoo = zoo_dir()
    names = sorted(card.parent.name for card in zoo.glob("*/model.json"))
    if not names:
        raise FileError(f"the zoo {zoo} has no entries: an entry is a folder with a model.json")
    return names


def name_folder(folder: Path) -> str:
    """Return how a user names a folder: `zoo:NAME` for an entry of the zoo, wherever that lies, else its path."""
    try:
        zoo = zoo_dir()
    except FileError:
        return str(folder)
    return f"{_ZOO_PREFIX}{folder.relative_to(zoo)}" if folder.is_relative_to(zoo) else str(folder)


def zoo_dir() -> Path:
    """Return the zoo's folder: SMOOTHCERT_ZOO_DIR, else that of this checkout. Raises FileError where it is missing."""
    named = os.environ.get(ZOO_DIR_VARIABLE)
    zoo = Path(named).absolute() if named else _CHECKOUT_ZOO
    if zoo.is_dir():
        return zoo
    if named:
        raise FileError(f"{ZOO_DIR_VARIABLE} is {named}, but there is no such folder: give the folder zoo of a "
                        f"checkout of smoothcert's repository")
    raise FileError(f"there is no zoo here: zoo:NAME is an entry of the folder zoo in smoothcert's repository, and an "
                    f"installed package does not include it; clone the repository, and set {ZOO_DIR_VARIABLE} to its "
                    f"folder zoo")
