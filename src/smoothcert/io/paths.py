"""Where a store can be: a folder, or a prefix of an object storage that pyarrow reaches (s3://, gs://, ...)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from smoothcert.errors import FileError, InputError
from smoothcert.io.zoo import local_path


@dataclass(frozen=True)
class RemotePath:
    """An object, or the prefix of several, under the names and meanings that `pathlib.Path` has for them.

    A file is put whole in one step, or not at all; folders are where files are. As in pathlib, what fails in reading
    and writing is an OSError; a storage that cannot be asked at all is a FileError.

    Attributes:
        scheme, host: `s3` and `bucket` of `s3://bucket/a/b`.
        path: `a/b`, no slash at either end.
        query: options of the connection, such as `region=eu-west-1` or `endpoint_override=HOST:PORT`; never shown,
            because keys may be among them.
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

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        return self._info().is_file

    def is_dir(self) -> bool:
        return self._info().type.name == "Directory"

    def iterdir(self) -> Iterator["RemotePath"]:
        from pyarrow.fs import FileSelector

        files, where = self._files()
        return iter([self / info.base_name for info in self._asked(files, FileSelector(where, allow_not_found=True))])

    def mkdir(self, parents: bool = True, exist_ok: bool = True) -> None:
        """Nothing: a folder begins with its first file."""

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

    def _info(self) -> Any:
        files, where = self._files()
        return self._asked(files, where)

    def _asked(self, files: Any, what: Any) -> Any:
        try:
            return files.get_file_info(what)
        except OSError as error:
            raise FileError(f"cannot reach {self}: {error}") from None

    def _files(self) -> tuple[Any, str]:
        """The file system, and where in it this is."""
        files, root = _opened(self.scheme, self.host, self.query)
        return files, f"{root.rstrip('/')}/{self.path}".rstrip("/")


Place = Path | RemotePath
"""Where a store is."""


def place(text: str) -> Place:
    """A folder, `zoo:NAME/certificates`, or a URI (`s3://bucket/run`, `gs://bucket/run?...`, `file:///home/me/run`),
    as a place.

    Raises:
        InputError: a URI that leads nowhere that pyarrow knows, or no such entry of the zoo. FileError: no zoo.
    """
    if "://" not in text:
        return local_path(text)
    uri = urlsplit(text)
    if uri.scheme == "file":
        return Path(unquote(uri.path))
    if not uri.netloc:
        raise InputError(f"{text} names no bucket or host: give it as {uri.scheme}://BUCKET/FOLDER")
    found = RemotePath(uri.scheme, uri.netloc, unquote(uri.path).strip("/"), uri.query)
    _opened(found.scheme, found.host, found.query)
    return found


@lru_cache
def _opened(scheme: str, host: str, query: str) -> tuple[Any, str]:
    from pyarrow import ArrowException
    from pyarrow.fs import FileSystem

    try:
        return FileSystem.from_uri(f"{scheme}://{host}{'?' * bool(query)}{query}")
    except (ArrowException, OSError) as error:
        raise InputError(f"cannot open {scheme}://{host}: {error}") from None
