"""Records kept one by one, before their shard is full: a line each, with a checksum."""

import json
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from io import StringIO
from pathlib import Path

from smoothcert.checks import check_count
from smoothcert.errors import SmoothcertError
from smoothcert.io.files import write_error, write_text
from smoothcert.io.paths import Place, RemotePath
from smoothcert.limits import from_json
from smoothcert.store.records import Record

NAME = "journal.jsonl"


class Lines:
    """A file that grows by lines: on a disk each is written at once; an object storage, where nothing can be appended
    to, gets the whole again after `interval` seconds and at the end."""

    def __init__(self, path: Place, begin: str | None, interval: float) -> None:
        """`begin`: what the file is to hold first; None goes on with what it holds."""
        self._path, self._interval = path, interval
        try:
            if isinstance(path, RemotePath):
                self._file, self._put = StringIO(), time.monotonic()
                self._file.write(begin if begin is not None else path.read_text() if path.is_file() else "")
            else:
                if begin is not None:
                    write_text(path, begin)
                self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - open until close()
        except OSError as error:
            raise write_error(error, path) from error

    def add(self, line: str) -> None:
        try:
            self._file.write(line)
            if isinstance(self._path, Path):
                self._file.flush()
            elif time.monotonic() - self._put >= self._interval:
                self._upload()
        except OSError as error:
            raise write_error(error, self._path) from error

    def close(self) -> None:
        try:
            if isinstance(self._path, RemotePath):
                self._upload()
            self._file.close()
        except OSError as error:
            raise write_error(error, self._path) from error

    def _upload(self) -> None:
        assert isinstance(self._file, StringIO)
        write_text(self._path, self._file.getvalue())
        self._put = time.monotonic()


def read_journal(path: Place) -> dict[int, Record]:
    """Return the records by position. Lines that are torn, damaged or no records are left out, to be done again."""
    records: dict[int, Record] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            checksum, _, body = line.partition(" ")
            if checksum != _checksum(body):
                continue
            with suppress(SmoothcertError, TypeError, KeyError):  # anyone can make the checksum of something else
                content = from_json(body, "a line of the journal")
                position = check_count("position", content["position"], least=0)
                records[position] = Record.from_row(content["record"])
    return records


def journal_lines(records: Mapping[int, Record]) -> str:
    """Return the content of a journal that holds these records, by position."""
    return "".join(journal_line(position, record) for position, record in sorted(records.items()))


def journal_line(position: int, record: Record) -> str:
    body = json.dumps({"position": position, "record": record.row()})
    return f"{_checksum(body)} {body}\n"


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"
