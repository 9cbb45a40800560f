"""The text of a log as a header and rows, whichever tool wrote, edited or packed it; and what it says of its making."""

import csv
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smoothcert.errors import FileError
from smoothcert.limits import LOG_BYTES, unpacked_bytes
from smoothcert.stats import METHODS
from smoothcert.store.names import log_stem
from smoothcert.store.store import Store

NEEDED = ("idx", "label", "predict")
COLUMNS = "idx, label, predict, radius (not in logs of PREDICT), correct, time"

_PREAMBLE = 50  # the header stands among the first so many lines
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
    """The character between the values of a line; None stands for any run of spaces."""

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
    text = _decode(path)
    lines = text.splitlines()
    at, header, separator = _header(path, lines)
    above = sum(bool(line.strip()) and not line.startswith("#") for line in lines[:at])
    found = LogText(header, [], [], [f"{_omission(above)} above the header"] if above else [])
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
            cells = _mend(cells, header, separator)
            if len(cells) != len(header) or not any(_WHOLE.fullmatch(cells[header.index(name)]) for name in NEEDED):
                odd.append((number, line))  # a row has a number where one is needed; one of them may be damaged
                continue
        if odd:
            break
        found.rows.append(cells)
        found.lines.append(number)
    else:
        if odd and not text.endswith(("\n", "\r")):
            cells = separator.split(odd[-1][1])
            if len(cells) < len(header) and _WHOLE.fullmatch(cells[0]):
                odd.pop()
                found.notes.append("its last line was cut off, and is left out")
        odd = _without_footers(odd, found)
    if odd:
        number, line = odd[0]
        count = len(separator.split(line))
        has_decimals = separator.character == "," and count > len(header)
        raise FileError(f"{path}, line {number}: {count} value{'' if count == 1 else 's'} under {len(header)} columns "
                        f"({', '.join(header)}), separated by {separator.words}"
                        f"{' (are decimals written with commas? Quote them)' if has_decimals else ''}: "
                        f"{line.strip()!r:.80}. Mend the line, or remove it")
    if repeated:
        found.notes.append(f"the header is repeated in line {', '.join(map(str, repeated[:3]))}: several runs were "
                           f"appended, and are read as one")
    return found


def _decode(path: Path) -> str:
    content = unpacked_bytes(path, LOG_BYTES)
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


def _header(path: Path, lines: list[str]) -> tuple[int, list[str], Separator]:
    """Return the number of lines above the header, its names, and their separator."""
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
    raise FileError(f"{path} is not a log: line {number} has no {', '.join(missing)}, but {first.strip()!r:.80}. A log "
                    f"is tab separated, under a line of names: {COLUMNS}")


def _names(cells: list[str]) -> list[str]:
    """Return cells as names of columns, without empty ones at the end."""
    names = [cell.strip().lower() for cell in cells]
    while names and not names[-1]:
        names.pop()
    return names


def _mend(cells: list[str], header: list[str], separator: Separator) -> list[str]:
    """Return a row without empty cells behind the last column, and with a last "1 day, 0:00:01" in one piece."""
    width = len(header)
    while len(cells) > width and not cells[-1].strip():
        cells = cells[:-1]
    last = (separator.character or " ").join(cells[width - 1:])
    return [*cells[:width - 1], last] if len(cells) > width and _LONG_TIME.fullmatch(last) else cells


def _without_footers(odd: list[tuple[int, str]], found: LogText) -> list[tuple[int, str]]:
    """Return the lines if one of them begins with a number, as rows do; else note that they are left out."""
    if not odd or any(re.match(r"\s*-?\d+(?:\.0*)?(?:[\t,; ]|\s*$)", line) for _, line in odd):
        return odd
    found.notes.append(f"{_omission(len(odd))} below the last image: {odd[0][1].strip()!r:.80}")
    return []


def _omission(count: int) -> str:
    return f"{count} line{' is' if count == 1 else 's are'} left out"


FACTS = ("sigma", "method", "alpha", "n", "n_max", "margin", "decided", "asked_to", "norm", "rounded")
"""Columns that hold one value in all rows, any of which a log may have: the noise level; the procedure; the radii that
a sequential run decided (a/b, or none), or the one up to which its curve was asked for (0: none); the norm of the
radii; "down" where no radius was rounded up."""

_SIGMA = re.compile(r"(?<![a-z])(?:sigma|noise)(?:_?(?:sd|std))?[_=-]?(\d*[.,p]?\d+(?:e-\d+)?)", re.IGNORECASE)
_SAMPLES = re.compile(r"(?<![a-z])n[_=-]?([1-9]\d*(?:e\d)?)([km]?)(?![a-z\d])", re.IGNORECASE)
_MULTIPLES = {"": 1, "k": 10**3, "m": 10**6}
_NORM = re.compile(r"(?<![a-z\d])(?:l[_ -]?([012])|(?:l[_ -]?)?(inf)(?:ini)?(?:ty)?)(?![a-z\d])", re.IGNORECASE)
_LENGTH = re.compile(r"\d{1,18}(?:\.\d{1,30})?(?:[eE][-+]?\d{1,3})?")
_OTHERS = {"laplace": "l1", "generalized": "generalized", "generalised": "generalized", "wasserstein": "Wasserstein",
           "ellips": "ellipsoid", "anisotropic": "ellipsoid", "iid_bound": "any iid noise"}


def facts_of_path(path: Path) -> tuple[float, int | None]:
    """Return sigma and n as the names of a file and of its folders state them, the file's first; else NaN and None.

    >>> facts_of_path(Path("noise_0.25/test/sigma_0.50")), facts_of_path(Path("noise_0.50_6947/N_1000.txt.gz"))
    ((0.5, None), (0.5, 1000))
    """
    file = log_stem(path.name)
    mentions = [_SIGMA.findall(part) for part in (file, *(parent.name for parent in path.absolute().parents))]
    told = next((found[-1] for found in mentions if found), "0").lower().replace(",", ".").replace("p", ".")
    sigma = 0.0 if re.match(r"0\d", told) else float(told)  # 025 may be .25 or 25
    samples = [int(float(digits)) * _MULTIPLES[unit.lower()] for digits, unit in _SAMPLES.findall(file)]
    return sigma if sigma > 0 else math.nan, samples[-1] if samples else None


def norm_of_name(name: str) -> str | None:
    """Return the norm in a name, or None where there is none.

    >>> norm_of_name("radius_Linf"), norm_of_name("l_1 radius"), norm_of_name("r_infty"), norm_of_name("radius")
    ('linf', 'l1', 'linf', None)
    """
    found = _NORM.search(name)
    return found and f"l{(found[1] or found[2]).lower()}"


def kind_of_radius(*names: str) -> str:
    """Return the norm of radii, or their other kind, from the first of these names that states one; else "l2".

    >>> kind_of_radius("radius"), kind_of_radius("radius_linf"), kind_of_radius("radius", "generalized_sigma_0.5")
    ('l2', 'linf', 'generalized')
    """
    for name in names:
        other = next((kind for word, kind in _OTHERS.items() if word in name.lower()), None)
        if told := norm_of_name(name) or other:
            return told
    return "l2"


def facts_of_columns(columns: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the columns among `FACTS` that hold one value in all rows, with that value."""
    found = {name: {cell.strip() for cell in columns[name]} for name in FACTS if name in columns}
    return {name: values.pop() for name, values in found.items() if len(values) == 1 and values != {""}}


def procedure_of(facts: Mapping[str, str], n: int | None, alpha: float | None) -> dict[str, Any]:
    """Return the procedure that a log's columns state; n and alpha come from elsewhere where they do not state them."""
    most = _number(facts, "n_max", lambda value: value >= 1)
    fixed = _number(facts, "n", lambda value: value >= 1)
    method = facts.get("method")
    told: dict[str, Any] = {
        "method": method if method in (*METHODS, "predict") else None,
        "alpha": _number(facts, "alpha", lambda value: 0 < value < 1) or alpha, "n": int(fixed) if fixed else n,
        "n_max": int(most) if most else None, "margin": _number(facts, "margin", lambda value: 0 < value < 0.5)}
    if most and "decided" in facts:
        radii = [float(part) for part in facts["decided"].split("/") if _LENGTH.fullmatch(part)]
        told |= {"n": None, "design": "radii", "radii": radii, "decided": bool(radii)}
    elif most and (asked_to := _number(facts, "asked_to", lambda value: value >= 0)) is not None:
        told |= {"n": None, "design": "curve", "to": asked_to or 1.0, "decided": asked_to > 0}
    return told


def norm_of_columns(facts: Mapping[str, str]) -> str | None:
    """Return the norm of the radii that a column states, such as l2, 2 or Linf; None without such a column."""
    told = facts.get("norm", "")
    return norm_of_name(told) or norm_of_name(f"l{told}") or told or None


def sigma_of(facts: Mapping[str, str], otherwise: float) -> float:
    """Return the sigma that a log's columns state, else `otherwise`."""
    return _number(facts, "sigma", lambda value: value > 0) or otherwise


def facts_of_store(store: Store) -> dict[str, str]:
    """Return the facts of a store that a log can state, by the names of their columns."""
    procedure, sigma = store.identity.procedure, store.identity.noise.sigma
    n = procedure.raw.get("n")
    facts = {"sigma": None if math.isnan(sigma) else sigma, "method": procedure.method, "alpha": procedure.alpha,
             "n": n[-1] if isinstance(n, list) else n, "n_max": None if n else procedure.n_max,
             "margin": procedure.margin}
    if procedure.design == "radii":
        facts["decided"] = "/".join(map(str, procedure.raw["radii"])) if procedure.decided else "none"
    if procedure.to is not None:
        facts["asked_to"] = procedure.to if procedure.decided else 0.0
    if "radius" in store.at_hand.column_names:
        facts["norm"] = store.identity.norm or "l2"
        facts["rounded"] = None if store.identity.printed else "down"
    return {name: str(value) for name, value in facts.items() if value is not None}


def _number(facts: Mapping[str, str], name: str, allowed: Callable[[float], bool]) -> float | None:
    text = facts.get(name, "")
    return float(text) if _LENGTH.fullmatch(text) and allowed(float(text)) else None
