"""Comparison of two identities: do they belong to one run?

They are compared field by field, and equal means equal, but for what a model answered: processors round differently,
so answers are kept as numbers and compared within `AGREEMENT`. A hash of them, however coarsely they are rounded
before, would refuse honest resumes and workers whenever a number lies next to a step.
"""

from typing import Any

AGREEMENT = 1e-4
"""Answers agree within this share of the largest. Float32 rounding moves logits by about 1e-6 of their scale, and votes
whose top logits differ by less than 1e-4 are judged again: more than this makes another classifier."""

_RECORDED = ("sources", "attributes", "answers")
"""What a model's identity holds since certificates rest on it; older stores lack it."""


def differences(stored: dict[str, Any], wanted: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the fields that differ, by dotted name, with both values; None stands for what is missing."""
    before, now = _flatten(stored), _flatten(wanted)
    return {name: (before.get(name), now.get(name)) for name in {**before, **now}
            if before.get(name) != now.get(name) and not _agree(name, before, now)}


def without_unrecorded(found: dict[str, tuple[Any, Any]], stored: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the differences without those in fields that a store of an older smoothcert did not record."""
    missing = (*(f"model.{name}" for name in list_unrecorded(stored)), *(() if "sources" in stored else ("sources.",)))
    return {name: pair for name, pair in found.items() if not name.startswith(missing)}


def list_unrecorded(stored: dict[str, Any]) -> list[str]:
    """Return which fields a stored model lacks, none of which a later store of it would lack."""
    model = stored.get("model") or {}
    return [] if any(name in model for name in _RECORDED) else list(_RECORDED)


def is_vouched_for(stored: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Tell whether a run goes on with a store whose model was known by its answers, now under a name that the caller
    gives it; what is known of the model has to agree."""
    before, now = stored.get("model") or {}, wanted.get("model") or {}
    if (before.get("by"), now.get("by")) != ("probe", "id"):
        return False
    named = {**{name: value for name, value in before.items() if name != "sha256"}, "by": "id", "id": now["id"]}
    return not without_unrecorded(differences({**stored, "model": named}, wanted), stored)


def _agree(name: str, before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Tell whether two unequal values say the same: answers within rounding, or hashes of such answers."""
    owner, field = name[: name.rfind(".") + 1], name[name.rfind(".") + 1 :]
    first, second = (answers if isinstance(answers := told.get(f"{owner}answers"), list)
                     and all(isinstance(number, int | float) for number in answers) else [] for told in (before, now))
    if not first or len(first) != len(second):
        return False
    if field == "sha256":
        return before.get(f"{owner}by") == now.get(f"{owner}by") == "probe"
    largest = max(map(abs, (*first, *second)))
    return field == "answers" and all(abs(a - b) <= AGREEMENT * largest for a, b in zip(first, second, strict=True))


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
