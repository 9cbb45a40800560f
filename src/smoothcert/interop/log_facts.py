"""Facts on how a log was made, from the names of the file and its folders, and from columns with one value."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from smoothcert.stats import METHODS
from smoothcert.store.names import log_stem
from smoothcert.store.store import Store

FACTS = ("sigma", "method", "alpha", "n", "n_max", "margin", "decided", "norm", "rounded")
"""Columns that hold one value in all rows, any of which a log may have: the noise level; the procedure; the radii that
a sequential run decided (a/b, or none); the norm of the radii; "down" where no radius was rounded up."""

_SIGMA = re.compile(r"(?<![a-z])(?:sigma|noise)(?:_?(?:sd|std))?[_=-]?(\d*[.,p]?\d+(?:e-\d+)?)", re.IGNORECASE)
_SAMPLES = re.compile(r"(?<![a-z])n[_=-]?([1-9]\d*(?:e\d)?)([km]?)(?![a-z\d])", re.IGNORECASE)
_MULTIPLES = {"": 1, "k": 10**3, "m": 10**6}
_NORM = re.compile(r"(?<![a-z\d])(?:l[_ -]?([012])|(?:l[_ -]?)?(inf)(?:ini)?(?:ty)?)(?![a-z\d])", re.IGNORECASE)
_LENGTH = re.compile(r"\d{1,18}(?:\.\d{1,30})?(?:[eE][-+]?\d{1,3})?")
_OTHERS = {"laplace": "l1", "generalized": "generalized", "generalised": "generalized", "wasserstein": "Wasserstein",
           "ellips": "ellipsoid", "anisotropic": "ellipsoid", "iid_bound": "any iid noise"}


def facts_of_path(path: Path) -> tuple[float, int | None]:
    """Return sigma and n as the names of a file and of its folders state them; NaN and None where none does.

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
    """Return the norm in a name, None where there is none.

    >>> norm_of_name("radius_Linf"), norm_of_name("l_1 radius"), norm_of_name("r_infty"), norm_of_name("radius")
    ('linf', 'l1', 'linf', None)
    """
    found = _NORM.search(name)
    return found and f"l{(found[1] or found[2]).lower()}"


def kind_of_radius(*names: str) -> str:
    """Return what radii are of, a norm or another kind, by the first of these names that tells it; else "l2".

    >>> kind_of_radius("radius"), kind_of_radius("radius_linf"), kind_of_radius("radius", "generalized_sigma_0.5")
    ('l2', 'linf', 'generalized')
    """
    for name in names:
        other = next((kind for word, kind in _OTHERS.items() if word in name.lower()), None)
        if told := norm_of_name(name) or other:
            return told
    return "l2"


def facts_of_columns(columns: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the columns among `FACTS` that have one value in all rows, with that value."""
    found = {name: {cell.strip() for cell in columns[name]} for name in FACTS if name in columns}
    return {name: values.pop() for name, values in found.items() if len(values) == 1 and values != {""}}


def procedure_of(facts: Mapping[str, str], n: int | None, alpha: float | None) -> dict[str, Any]:
    """Return the procedure that a log's columns state; n and alpha are used where they do not, the rest is None."""
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
    return told


def norm_of_columns(facts: Mapping[str, str]) -> str | None:
    """Return the norm of the radii as a column states it, such as l2, 2 or Linf; None where there is no such column."""
    told = facts.get("norm", "")
    return norm_of_name(told) or norm_of_name(f"l{told}") or told or None


def sigma_of(facts: Mapping[str, str], otherwise: float) -> float:
    """Return sigma as a log's columns state it, else `otherwise`."""
    return _number(facts, "sigma", lambda value: value > 0) or otherwise


def facts_of_store(store: Store) -> dict[str, str]:
    """Return the facts of a store that a log can hold, by the names of their columns."""
    procedure, sigma = store.identity.procedure, store.identity.noise.sigma
    n = procedure.raw.get("n")
    facts = {"sigma": None if math.isnan(sigma) else sigma, "method": procedure.method, "alpha": procedure.alpha,
             "n": n[-1] if isinstance(n, list) else n, "n_max": None if n else procedure.n_max,
             "margin": procedure.margin}
    if procedure.design == "radii":
        facts["decided"] = "/".join(map(str, procedure.raw["radii"])) if procedure.decided else "none"
    if "radius" in store.at_hand.column_names:
        facts["norm"] = store.identity.norm or "l2"
        facts["rounded"] = None if store.identity.printed else "down"
    return {name: str(value) for name, value in facts.items() if value is not None}


def _number(facts: Mapping[str, str], name: str, allowed: Callable[[float], bool]) -> float | None:
    text = facts.get(name, "")
    return float(text) if _LENGTH.fullmatch(text) and allowed(float(text)) else None
