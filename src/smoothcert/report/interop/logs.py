"""The field's logs (Cohen et al. 2019): tab separated `idx label predict radius correct time`; PREDICT has no radius.

A log says neither its alpha nor its n nor whether it is finished, and its radii were printed with three digits, rounded
to nearest: up to half a unit above what was proved. Ours are rounded down.
"""

import json
import math
import re
from collections import Counter
from datetime import timedelta
from decimal import ROUND_DOWN, Context, Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa

from smoothcert.errors import FileError, StoreError
from smoothcert.limits import CLASSES, LOG_BYTES, bounded_bytes, within
from smoothcert.runs.files import make_folder, write_text
from smoothcert.runs.records import VALUES, schema
from smoothcert.runs.store import Store

DIGITS = 6
"""Significant digits of the radii we write."""
ALPHA = 0.001
"""What a log is taken to be certified at unless told otherwise: the papers' value."""

_NEEDED = ("idx", "label", "predict")
_SIGMA = re.compile(r"(?:sigma|noise)[_=-]?(\d+(?:\.\d+)?)")
_SAMPLES = re.compile(r"(?<![a-z])n[_=-]?(\d+)", re.IGNORECASE)
_TIME = re.compile(r"(?:(\d{1,9}) days?, )?(\d{1,9}):(\d\d):(\d\d(?:\.\d+)?)")
_LONGEST = 1e12  # seconds


def read_log(path: Path, alpha: float | None = None) -> Store:
    """A log as a store without votes: kind "certify" where it has radii, else "predict".

    Its sigma is the last `sigma_X` or `noise_X` in its path, else NaN; n the `N_X` in its name, else 0. `correct` is
    made anew from `predict` and `label`. A last line that was cut off is left out, and noted.

    Args:
        alpha: failure probability of each line, which logs do not say; None means 0.001.
    Raises:
        FileError: no such file, or no log: columns missing, a value that is none, an image twice; the line is named.
    """
    header, rows, notes = _rows(path)
    kind = "certify" if "radius" in header else "predict"
    columns = dict(zip(header, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(header, ())
    index, label, prediction = (_whole(path, name, columns[name], least)
                                for name, least in zip(_NEEDED, (0, 0, -1), strict=True))
    within(f"{path}: the largest class", int(max(label.max(initial=0), prediction.max(initial=0))), CLASSES - 1,
           "label and predict must be classes")
    _check_once(path, index)
    found = [] if "correct" not in columns else np.flatnonzero(
        np.array([text.strip() in ("1", "1.0", "True") for text in columns["correct"]], bool) != (prediction == label))
    if len(found):
        notes.append(f"the column `correct` is not `predict == label` in {len(found)} lines; it was made anew")
    values = [_radii(path, columns["radius"], prediction)] if kind == "certify" else [np.full(len(index), np.nan)]
    parts = {"index": index, "label": label, "prediction": prediction,
             **dict(zip(VALUES[kind], values, strict=True)), "off_grid": np.zeros(len(index), bool)}
    table = pa.table({**parts, "tallies": pa.array([[]] * len(index), schema(kind).field("tallies").type)},
                     schema=schema(kind))
    if "time" in columns:
        table = table.append_column("seconds", pa.array([_seconds(text) for text in columns["time"]], pa.float64()))
    sigma, n = _facts(path)
    procedure = {"method": "cohen", "alpha": ALPHA if alpha is None else alpha, "n": n, "n_max": 0, "margin": None}
    identity = {"kind": kind, "num_classes": int(max(label.max(initial=0), prediction.max(initial=0))) + 1,
                "images": {"count": len(index)}, "noise": {"kind": "gaussian", "sigma": sigma}, "data": {},
                "procedure": procedure, "printed": kind == "certify"}
    return Store(path, identity, {"log": str(path), "notes": notes}, True, table)


def write_log(store: Store, path: Path) -> None:
    """Write a `certify` or `predict` store as a log; radii are rounded down to `DIGITS` significant digits.

    Raises:
        StoreError: another kind of store, or one without records.
    """
    if store.kind not in ("certify", "predict"):
        raise StoreError(f"{store.folder} is a store of kind {store.kind}: logs hold certificates or predictions")
    if not store.num_records:
        raise StoreError(f"{store.folder} has no records yet: there is nothing to write")
    radius = [rounded_down(r) for r in store.column("radius").tolist()] if store.kind == "certify" else []
    columns = [store.column(name).tolist() for name in ("index", "label", "prediction")]
    columns += [radius] if radius else []
    columns += [store.correct.astype(int).tolist(), [str(timedelta(seconds=s)) for s in seconds_of(store)]]
    head = ["idx", "label", "predict", *(["radius"] if radius else []), "correct", "time"]
    make_folder(path.parent)
    write_text(path, "\n".join("\t".join(map(str, row)) for row in [head, *zip(*columns, strict=True)]) + "\n")


def rounded_down(radius: float) -> str:
    """A radius in `DIGITS` significant digits, never above it when read again; one that has no more stays as it is.

    >>> rounded_down(0.98765432), rounded_down(0.0)
    ('0.987654', '0.0')
    """
    if not radius > 0:
        return "0.0"
    return format(Context(prec=DIGITS, rounding=ROUND_DOWN).create_decimal(Decimal(repr(radius))).normalize(), "f")


def _rows(path: Path) -> tuple[list[str], list[list[str]], list[str]]:
    """Header, rows and notes of a file."""
    try:
        text = bounded_bytes(path, LOG_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileError(f"cannot read {path} as a log: {error}") from None
    first, *lines = text.splitlines() or [""]
    header = [name.strip() for name in first.split("\t")]
    if missing := [name for name in _NEEDED if name not in header]:
        raise FileError(f"{path} is no log: its first line has no {', '.join(missing)}. A log is tab separated: "
                        f"idx, label, predict, radius (not in PREDICT logs), correct, time")
    if twice := [name for name, times in Counter(header).items() if times > 1]:
        raise FileError(f"{path} has several columns {', '.join(twice)}: keep one of each")
    rows = [line.split("\t") for line in lines if line.strip()]
    notes = []
    if rows and not text.endswith("\n") and len(rows[-1]) < len(header):
        notes.append("its last line was cut off, and is left out")
        rows.pop()
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise FileError(f"{path}, line {number}: {len(row)} values under {len(header)} columns")
    return header, rows, notes


def _whole(path: Path, name: str, texts: tuple[str, ...], least: int) -> np.ndarray:
    try:
        values = np.array(texts, dtype=np.int64)
    except (ValueError, OverflowError):
        bad = next(k for k, text in enumerate(texts) if not re.fullmatch(r"\s*-?\d{1,18}\s*", text))
        raise FileError(f"{path}, line {bad + 2}: {name} must be a whole number, got {texts[bad]!r:.80}") from None
    if len(low := np.flatnonzero(values < least)):
        what = "a class, or -1 for an abstention" if least < 0 else "at least 0"
        raise FileError(f"{path}, line {low[0] + 2}: {name} must be {what}, got {values[low[0]]}")
    return values


def _radii(path: Path, texts: tuple[str, ...], prediction: np.ndarray) -> np.ndarray:
    """Radii, 0 where abstained."""
    try:
        radius = np.array(texts, dtype=np.float64)
    except ValueError:
        radius = np.array([_number(text) for text in texts])
    if len(bad := np.flatnonzero(~(np.isfinite(radius) & (radius >= 0)))):
        raise FileError(f"{path}, line {bad[0] + 2}: a radius must be a finite number of at least 0, "
                        f"got {texts[bad[0]]!r:.80}")
    return np.where(prediction < 0, 0.0, radius)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _check_once(path: Path, index: np.ndarray) -> None:
    values, times = np.unique(index, return_counts=True)
    if len(twice := values[times > 1]):
        lines = np.flatnonzero(index == twice[0]) + 2
        raise FileError(f"{path} has image {twice[0]} in lines {lines[0]} and {lines[1]}: a log has a line an image")


def _facts(path: Path) -> tuple[float, int]:
    """(sigma, n) as the path says them, the file's name first; NaN and 0 where it does not."""
    parts = [path.stem, *(parent.name for parent in path.absolute().parents)]
    told = [found for part in parts if (found := _SIGMA.findall(part))]
    samples = _SAMPLES.findall(path.stem)
    return (float(told[0][-1]) if told else math.nan), (int(samples[-1]) if samples else 0)


def _seconds(text: str) -> float | None:
    """'0:02:31.2' (also '1 day, 0:02:31') or '17.5' as seconds; None for what is neither."""
    if found := _TIME.fullmatch(text.strip()):
        days, hours, minutes, seconds = found.groups()
        return int(days or 0) * 86400 + int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    seconds = _number(text)
    return seconds if 0 <= seconds < _LONGEST else None


def seconds_of(store: Store) -> list[float]:
    """Seconds of each record, from a log or from the file beside a store's records; 0 where unknown."""
    if "seconds" in store.at_hand.column_names:
        return [seconds or 0.0 for seconds in store.at_hand.column("seconds").to_pylist()]
    told: dict[int, float] = {}
    sidecar = store.folder / "times.jsonl"
    if sidecar.is_file():
        for line in sidecar.read_text(encoding="utf-8", errors="replace").splitlines():
            told |= _entry(line)
    return [told.get(index, 0.0) for index in store.column("index").tolist()]


def _entry(line: str) -> dict[int, float]:
    """Image and seconds of a line of times, or nothing where a kill cut it off."""
    try:
        entry = json.loads(line)
        index, seconds = entry["index"], float(entry["seconds"])
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return {}
    return {index: seconds} if isinstance(index, int) and 0 <= seconds < _LONGEST else {}
