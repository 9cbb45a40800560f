"""The field's logs (Cohen et al. 2019): tab separated `idx label predict radius correct time`; PREDICT has no radius.

A log says neither its alpha nor its n nor whether it is finished, and its radii were printed with three digits, rounded
to nearest: up to half a unit above what was proved. Ours are rounded down, and say more (see `log_text.FACTS`).
"""

import json
import math
import re
from datetime import timedelta
from decimal import ROUND_DOWN, Context, Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa

from smoothcert.checks import split_commas
from smoothcert.errors import FileError, StoreError
from smoothcert.interop.log_text import (
    FACTS,
    NEEDED,
    LogText,
    facts_of_columns,
    facts_of_path,
    facts_of_store,
    kind_of_radius,
    norm_of_columns,
    norm_of_name,
    procedure_of,
    read_text,
    sigma_of,
)
from smoothcert.io.files import make_folder, write_text
from smoothcert.limits import CLASSES, within
from smoothcert.store.identity import Identity
from smoothcert.store.manifest import Provenance
from smoothcert.store.names import log_stem
from smoothcert.store.records import VALUES, schema
from smoothcert.store.store import Store

DIGITS = 6
"""Significant digits of the radii we write."""

LOGGED = ("certify", "predict")
"""The kinds of store that logs hold."""

_OF_PREDICT = {*NEEDED, "correct", "time", *FACTS, ""}
_DECIMAL_COMMA = re.compile(r"\s*(-?\d+),(\d+)\s*")
_TIME = re.compile(r"(?:(\d{1,9}) days?, )?(\d{1,9}):(\d\d):(\d\d(?:\.\d+)?)")
_LONGEST = 1e12  # seconds


def read_log(path: Path, alpha: float | None = None, radius_column: str | None = None) -> Store:
    """Read a log as a store without votes: of kind "certify" where it has radii, else "predict".

    What it does not say is None in its identity, and NaN for sigma. Its sigma is that of its column, else the last
    `sigma_X` or `noise_X` in the name of the file, else of its folders; n that of its column, else the `N_X` in the
    name of the file. `correct` is made anew from `predict` and `label`, and abstentions have radius 0.

    Args:
        alpha: failure probability of each line, where the log does not say.
        radius_column: the column with the radii where it is not `radius`, or several separated by commas: the first
            that a log has. "none" reads a log of PREDICT that has unknown columns.
    Raises:
        FileError: no such file, or no log: columns missing, a value that is none, an image twice, or no column
            `radius` but unknown ones; the line is named, and what was expected.
    """
    text = read_text(path)
    columns = dict(zip(text.header, zip(*text.rows, strict=True), strict=True)) if text.rows else dict.fromkeys(
        text.header, ())
    radii = _radius_column(path, text.header, radius_column)
    kind = "certify" if radii else "predict"
    index, label, prediction = (_whole(path, text, name, columns[name], least)
                                for name, least in zip(NEEDED, (0, 0, -1), strict=True))
    top = int(max(label.max(initial=0), prediction.max(initial=0)))
    within(f"{path}: the largest class", top, CLASSES - 1, "label and predict must be classes")
    values, times = np.unique(index, return_counts=True)
    if len(twice := values[times > 1]):
        lines = [text.lines[row] for row in np.flatnonzero(index == twice[0])]
        cause = next((f" ({note})" for note in text.notes if "repeated" in note), "")
        raise FileError(f"{path} has image {twice[0]} in lines {lines[0]} and {lines[1]}{cause}: a log has a line an "
                        f"image. Split it into one file a run")
    if "correct" in columns:
        stated = np.array([cell.strip().lower() in ("1", "1.0", "true") for cell in columns["correct"]], bool)
        if count := int((stated != (prediction == label)).sum()):
            text.notes.append(f"the column `correct` is not `predict == label` in {count} lines; it was made anew")
    radius = _radii(path, text, radii, columns[radii], prediction) if radii else np.full(len(index), np.nan)
    layout = schema(kind)
    table = pa.table({"index": index, "label": label, "prediction": prediction, next(iter(VALUES[kind])): radius,
                      "off_grid": np.zeros(len(index), bool),
                      "tallies": pa.nulls(len(index), layout.field("tallies").type)}, schema=layout)
    facts, (sigma, n) = facts_of_columns(columns), facts_of_path(path)
    identity = {"kind": kind, "num_classes": top + 1, "images": {"count": len(index)}, "data": {},
                "noise": {"kind": "gaussian", "sigma": sigma_of(facts, sigma)},
                "procedure": procedure_of(facts, n, alpha), "printed": bool(radii) and facts.get("rounded") != "down"}
    if radii:
        identity["norm"] = norm_of_columns(facts) or _norm(path, text, radii, radius_column is not None)
    provenance = Provenance.model_validate({"log": str(path), "notes": text.notes})
    return Store(path, Identity.parse(identity), provenance, True, table)


def write_log(store: Store, path: Path) -> None:
    """Write a `certify` or `predict` store as a log; radii are rounded down to `DIGITS` significant digits.

    What is known of how they were made stands in columns of its own behind those of the field.

    Raises:
        StoreError: another kind of store, or one without records.
    """
    if store.kind not in LOGGED:
        raise StoreError(f"{store.folder} is a store of kind {store.kind}: logs hold certificates or predictions")
    if not store.num_records:
        raise StoreError(f"{store.folder} has no records yet: there is nothing to write")
    if (claim := store.identity.procedure.claim) is not None:
        raise StoreError(f"{store.folder} holds radii of another claim ({claim.words}), which a log cannot say: write "
                         f"a table (-o FILE.parquet)")
    has_radii = "radius" in store.at_hand.column_names
    radius = [round_down(r) for r in store.column("radius").tolist()] if has_radii else []
    columns = [store.column(name).tolist() for name in ("index", "label", "prediction")]
    columns += [radius] if radius else []
    columns += [store.correct.astype(int).tolist(), [str(timedelta(seconds=s)) for s in seconds_of(store)]]
    facts = facts_of_store(store)
    columns += [[words] * store.num_records for words in facts.values()]
    head = ["idx", "label", "predict", *(["radius"] if radius else []), "correct", "time", *facts]
    make_folder(path.parent)
    write_text(path, "\n".join("\t".join(map(str, row)) for row in [head, *zip(*columns, strict=True)]) + "\n")


def round_down(radius: float) -> str:
    """Return a radius in `DIGITS` significant digits, rounded down; one that has no more stays as it is.

    >>> round_down(0.98765432), round_down(0.0)
    ('0.987654', '0.0')
    """
    if not radius > 0:
        return "0.0"
    return format(Context(prec=DIGITS, rounding=ROUND_DOWN).create_decimal(Decimal(repr(radius))).normalize(), "f")


def _radius_column(path: Path, header: list[str], asked: str | None) -> str | None:
    """Return the name of the column with the radii; None for a log of PREDICT."""
    wanted = [name.lower() for name in split_commas(asked or "radius")]
    found = next((name for name in wanted if name in (*header, "none")), None)
    if found:
        return None if found == "none" else found
    others = [name for name in header if name not in _OF_PREDICT]
    if asked is None and not others:
        return None
    raise FileError(f"{path} has no column {' or '.join(wanted)}; its other columns are {', '.join(others) or 'none'}. "
                    f"If one of them holds the radii, name it with --radius-column; --radius-column none reads a log "
                    f"of PREDICT")


def _norm(path: Path, text: LogText, column: str, is_chosen: bool) -> str:
    """Return the norm of the radii; a column that was chosen holds l2 radii, unless its own name states another."""
    said = kind_of_radius(column, log_stem(path.name))
    if not is_chosen:
        return said
    norm = norm_of_name(column) or "l2"
    if column != "radius" or said != norm:
        doubt = "" if said == norm else f", taken as {norm} radii by choice, though the names say {said}"
        text.notes.append(f"radii are those of the column {column}{doubt}")
    return norm


def _whole(path: Path, text: LogText, name: str, cells: tuple[str, ...], least: int) -> np.ndarray:
    try:
        values = np.array(cells, dtype=np.int64)
    except (ValueError, OverflowError):
        found = [re.fullmatch(r"\s*(-?\d{1,18})(?:\.0*)?\s*", cell) for cell in cells]  # some tools write 3 as 3.0
        if None in found:
            row = found.index(None)
            raise FileError(f"{path}, line {text.lines[row]}: {name} must be a whole number, got {cells[row]!r:.80}"
                            ) from None
        values = np.array([int(match[1]) for match in found if match], dtype=np.int64)
    if len(low := np.flatnonzero(values < least)):
        what = "a class, or -1 for an abstention" if least < 0 else "at least 0"
        raise FileError(f"{path}, line {text.lines[low[0]]}: {name} must be {what}, got {values[low[0]]}")
    return values


def _radii(path: Path, text: LogText, name: str, cells: tuple[str, ...], prediction: np.ndarray) -> np.ndarray:
    """Return the radii; an abstention has 0, whatever stands there."""
    try:
        radius = np.array(cells, dtype=np.float64)
    except ValueError:
        radius = np.array([_number(_DECIMAL_COMMA.sub(r"\1.\2", cell)) for cell in cells])
    radius = np.where(prediction < 0, 0.0, radius)
    if len(bad := np.flatnonzero(~(np.isfinite(radius) & (radius >= 0)))):
        raise FileError(f"{path}, line {text.lines[bad[0]]}: a radius must be a finite number of at least 0, "
                        f"got {cells[bad[0]]!r:.80} in the column {name}")
    return radius


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _seconds(text: str) -> float | None:
    """Return the seconds of '0:02:31.2' (also '1 day, 0:02:31') or '17.5'; None for anything else."""
    if found := _TIME.fullmatch(text.strip()):
        days, hours, minutes, seconds = found.groups()
        return int(days or 0) * 86400 + int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    seconds = _number(text)
    return seconds if 0 <= seconds < _LONGEST else None


def seconds_of(store: Store) -> list[float]:
    """Return the seconds of each record, from the log or from the file beside a store's records; 0 where unknown."""
    told: dict[int, float] = {}
    sidecar = store.folder / "times.jsonl"
    if store.provenance.log is not None:
        text = read_text(Path(store.provenance.log))
        if "time" in text.header:
            at = text.header.index("time")
            told = {index: _seconds(row[at]) or 0.0
                    for index, row in zip(store.column("index").tolist(), text.rows, strict=True)}
    elif sidecar.is_file():
        for line in sidecar.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
                index, seconds = entry["index"], float(entry["seconds"])
            except (ValueError, TypeError, KeyError, RecursionError, OverflowError):  # a kill cut the line off
                continue
            if isinstance(index, int) and 0 <= seconds < _LONGEST:
                told[index] = seconds
    return [told.get(index, 0.0) for index in store.column("index").tolist()]
