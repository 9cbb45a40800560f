"""Smoothing noise and the keyed streams it is drawn from."""

from collections.abc import Callable
from typing import Any

from smoothcert.checks import check_known, check_positive
from smoothcert.noise.gaussian import GaussianNoise
from smoothcert.noise.grid import GridNoise
from smoothcert.noise.protocol import Centre, Noise
from smoothcert.noise.streams import BLOCK, FORMAT, STAGES, NormalStream, fresh_seed, image_key

NOISES: dict[str, Callable[[float, int, float], Noise]] = {
    "grid": GridNoise,
    "gaussian": lambda sigma, levels, reach: GaussianNoise(sigma),
}
"""Noise kinds by name: (sigma, levels, reach) -> Noise."""


def build_noise(kind: str, sigma: Any, levels: int = 255, reach: float = 1.0) -> Noise:
    """A noise by name; see `GridNoise` for `levels` and `reach`. Raises InputError for bad values or unknown names."""
    return NOISES[check_known("noise", kind, NOISES)](check_positive("sigma", sigma), levels, reach)


__all__ = [
    "BLOCK",
    "FORMAT",
    "NOISES",
    "STAGES",
    "Centre",
    "GaussianNoise",
    "GridNoise",
    "Noise",
    "NormalStream",
    "build_noise",
    "fresh_seed",
    "image_key",
]
