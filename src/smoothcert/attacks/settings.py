"""Checks of attack and objective settings that `smoothcert.checks` has no name for."""

import math
from typing import Any

from smoothcert.checks import check_positive
from smoothcert.errors import InputError


def check_weight(name: str, value: Any) -> float:
    """Return `value` as a float, or raise InputError unless it is a finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value >= 0):
        raise InputError(f"{name} must be a finite number of at least 0, got {value!r}")
    return float(value)


def check_share(name: str, value: Any) -> float:
    """Return `value` as a float, or raise InputError unless it lies in [0, 1)."""
    if check_weight(name, value) >= 1:
        raise InputError(f"{name} must lie in [0, 1), got {value!r}")
    return float(value)


def check_flag(name: str, value: Any) -> bool:
    """Return `value`, or raise InputError unless it is true or false."""
    if not isinstance(value, bool):
        raise InputError(f"{name} must be true or false, got {value!r}")
    return value


def check_optional_positive(name: str, value: Any) -> float | None:
    """Return None or a finite number above 0, or raise InputError."""
    return None if value is None else check_positive(name, value)
