"""Checks of the values behind certificates."""

import math
import numbers
from collections.abc import Iterable
from typing import Any

import numpy as np

from smoothcert.checks import check_positive
from smoothcert.errors import InputError

CLIP_IT = ("cross-entropy has no upper bound, and a loss without one can be made as large as one likes by moving a "
           "small share of the images far away; clip it, min(l, M), as clipped_cross_entropy(M) does, or use zero_one")


def check_rho(rho: Any) -> float:
    """Return a transport cost as a float, or raise InputError unless it is a finite number of at least 0."""
    if isinstance(rho, bool) or not isinstance(rho, numbers.Real) or not 0 <= float(rho) < math.inf:
        raise InputError(f"rho, the transport cost, must be a finite number of at least 0, got {rho!r}")
    return float(rho)


def check_gammas(gammas: float | Iterable[float]) -> tuple[float, ...]:
    """Return one or several prices of distance as a tuple, or raise InputError unless all are above 0."""
    several = tuple(gammas) if isinstance(gammas, Iterable) else (gammas,)
    if not several:
        raise InputError("gamma must name at least one price of distance, got none")
    return tuple(check_positive("gamma", float(g) if isinstance(g, np.floating) else g) for g in several)


def round_up(value: float) -> float:
    """Return a float that exceeds `value` by more than the rounding of the few sums that made it."""
    return float(np.nextafter(value + abs(value) * 2.0**-40, np.inf))
