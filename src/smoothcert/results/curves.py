"""Curves of certified accuracy against radius, as arrays."""

from dataclasses import dataclass

import numpy as np

from smoothcert.results.certified import Result


@dataclass(frozen=True)
class Curve:
    """Certified accuracy `accuracy` at `radius`, with the exact lower bound on this test set; all (P,)."""

    name: str
    radius: np.ndarray
    accuracy: np.ndarray
    lower: np.ndarray


def certified_curve(result: Result, rho: float = 0.05) -> Curve:
    """The step curve of a run: its corners are the radii of its right images, so nothing is lost between them."""
    steps = np.unique(result.radius[result.correct])
    radius = np.concatenate([[0.0], steps, np.nextafter(steps[-1:], np.inf)])
    at = result.at(radius, rho)
    name = f"{result.name} (lower bound)" if result.is_lower_bound else result.name
    return Curve(name, radius, at.accuracy, at.test_set)
