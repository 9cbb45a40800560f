"""The text of a log as a header and rows of cells, whichever tool wrote, edited or packed it."""

import csv
import gzip
import io
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from smoothcert.errors import FileError
from smoothcert.limits import LOG_BYTES, bounded_bytes, within

NEEDED = ("idx", "label", "predict")
COLUMNS = "idx, label, predict, radius (not in logs of PREDICT), correct, time"

_PREAMBLE = 50  # the header stands among the first so many lines
_GZIP = b"\x1f\x8b"
_PACKED = {b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_WHOLE = re.compile(r"\s*-?\d+(?:\.0*)?\s*")
_LONG_TIME = re.compile(r"\d+ days?, \d+:\d\d:\d\d(?:\.\d+)?")


@dataclass(frozen=True)
class LogText:
    """The names of the columns, in lower case; the rows of cells under them; the number of each row's line; notes."""

    header: list[str]
    rows: list[list[str]]
    lines: list[int]
    notes: list[str]


@dataclass(frozen=True)
class Separator:
    """The character between the values of a line, None for any run of spaces, and its name."""

    character: str | None
    words: str

    def split(self, line: str) -> list[str]:
        if '"' in line:
            return next(csv.reader([line], delimiter=self.character or " ", skipinitialspace=True), [])
        return line.split(self.character)


_SEPARATORS = (Separator("\t", "tabs"), Separator(",", "commas"), Separator(";", "semicolons"),
               Separator(None, "spaces"))


def read_text(path: Path) -> LogText:
    """Split a log into rows.

    Taken as they come: gzip, UTF-8 with or without a byte-order mark, UTF-16, any line ends, tabs, commas, semicolons
    or spaces between values, quotes, a separator at the end of a line, capitals in the header, comment lines (#).
    Left out with a note: lines above the header and below the last row, a repeated header, a last line that was cut
    off.

    Raises:
        FileError: no such file, no text, no header, or a line that is no row; the line is named.
    """
    text = _decoded(path)
    lines = text.splitlines()
    at, header, separator = _header(path, lines)
    above = sum(bool(line.strip()) and not line.startswith("#") for line in lines[:at])
    found = LogText(header, [], [], [f"{_left_out(above)} above the header"] if above else [])
    repeated: list[int] = []
    odd: list[tuple[int, str]] = []  # lines that are no rows: footers, unless rows follow
    for number, line in enumerate(lines[at + 1:], start=at + 2):
        cells = separator.split(line)
        if len(cells) != len(header) or not cells[0].isdigit():
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            if _names(cells) == header:
                odd = _without_footers(odd, found)
                repeated.append(number)
                continue
            cells = _mended(cells, header, separator)
            if not _is_row(cells, header):
                odd.append((number, line))
                continue
        if odd:
            break
        found.rows.append(cells)
        found.lines.append(number)
    else:
        if odd and not text.endswith(("\n", "\r")) and _is_cut_off(separator.split(odd[-1][1]), header):
            odd.pop()
            found.notes.append("its last line was cut off, and is left out")
        odd = _without_footers(odd, found)
    if odd:
        raise FileError(_no_row(path, *odd[0], header, separator))
    if repeated:
        found.notes.append(f"the header is repeated in line {', '.join(map(str, repeated[:3]))}: several runs were "
                           f"appended, and are read as one")
    return found


def _decoded(path: Path) -> str:
    content = bounded_bytes(path, LOG_BYTES)
    if content.startswith(_GZIP):
        content = _unzipped(path, content)
    if packed := next((name for mark, name in _PACKED.items() if content.startswith(mark)), None):
        raise FileError(f"cannot read {path} as a log: it is packed with {packed}. Unpack it, or pack it with gzip")
    encoding = "utf-8-sig"
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    elif content[:2].count(0) == 1:
        encoding = "utf-16-be" if content[0] == 0 else "utf-16-le"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise FileError(f"cannot read {path} as a log, line {number}: its bytes are no "
                        f"{encoding.removesuffix('-sig').upper()} ({error.reason}). Save it as UTF-8") from None
    if not text.strip():
        raise FileError(f"{path} is empty: a log has a line of names, and a line for each image")
    return text


def _unzipped(path: Path, content: bytes) -> bytes:
    try:
        unpacked = gzip.GzipFile(fileobj=io.BytesIO(content)).read(LOG_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise FileError(f"cannot read {path} as a log: its gzip data are damaged or cut off ({error}). Copy it again"
                        ) from None
    within(f"the unpacked length of {path}", len(unpacked), LOG_BYTES, "it is no log, or has to be split")
    return unpacked


def _header(path: Path, lines: list[str]) -> tuple[int, list[str], Separator]:
    """Return how many lines stand above the header, its names, and what separates them."""
    for number, line in enumerate(lines[:_PREAMBLE]):
        for separator in _SEPARATORS:
            names = _names(separator.split(line.lstrip("# ")))
            if all(name in names for name in NEEDED):
                if twice := [name for name, times in Counter(names).items() if name and times > 1]:
                    raise FileError(f"{path} has several columns {', '.join(twice)}: keep one of each")
                return number, names, separator
    number, first = next((k, line) for k, line in enumerate(lines, start=1) if line.strip())
    if re.match(r"\s*\d+[\t,; ]+\d+[\t,; ]+-?\d+", first):
        raise FileError(f"{path} has no header: line {number} is {first.strip()!r:.80}. Put a line with the names of "
                        f"the columns above it ({COLUMNS})")
    names = _names(max((separator.split(first) for separator in _SEPARATORS[:3]), key=len))
    missing = [name for name in NEEDED if name not in names]
    raise FileError(f"{path} is no log: line {number} has no {', '.join(missing)}, but {first.strip()!r:.80}. A log is "
                    f"tab separated, under a line of names: {COLUMNS}")


def _names(cells: list[str]) -> list[str]:
    """Return cells as names of columns, without empty ones at the end."""
    names = [cell.strip().lower() for cell in cells]
    while names and not names[-1]:
        names.pop()
    return names


def _mended(cells: list[str], header: list[str], separator: Separator) -> list[str]:
    """Return a row without empty cells behind the last column, and with a last "1 day, 0:00:01" in one piece."""
    width = len(header)
    while len(cells) > width and not cells[-1].strip():
        cells = cells[:-1]
    last = (separator.character or " ").join(cells[width - 1:])
    return [*cells[:width - 1], last] if len(cells) > width and _LONG_TIME.fullmatch(last) else cells


def _is_row(cells: list[str], header: list[str]) -> bool:
    """Return whether a line has a value under every column, and at least one number where one is needed."""
    return len(cells) == len(header) and any(_WHOLE.fullmatch(cells[header.index(name)]) for name in NEEDED)


def _is_cut_off(cells: list[str], header: list[str]) -> bool:
    return len(cells) < len(header) and bool(_WHOLE.fullmatch(cells[0]))


def _without_footers(odd: list[tuple[int, str]], found: LogText) -> list[tuple[int, str]]:
    """Return nothing, with a note, where no odd line begins with a number, as rows do; else the lines."""
    if not odd or any(re.match(r"\s*-?\d+(?:\.0*)?(?:[\t,; ]|\s*$)", line) for _, line in odd):
        return odd
    found.notes.append(f"{_left_out(len(odd))} below the last image: {odd[0][1].strip()!r:.80}")
    return []


def _no_row(path: Path, number: int, line: str, header: list[str], separator: Separator) -> str:
    count = len(separator.split(line))
    decimals = " (are decimals written with commas? Quote them)" if separator.character == "," and count > len(
        header) else ""
    return (f"{path}, line {number}: {count} value{'' if count == 1 else 's'} under {len(header)} columns "
            f"({', '.join(header)}), separated by {separator.words}{decimals}: {line.strip()!r:.80}. Mend the line, or "
            f"remove it")


def _left_out(count: int) -> str:
    return f"{count} line{' is' if count == 1 else 's are'} left out"
