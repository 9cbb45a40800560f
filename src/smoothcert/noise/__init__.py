"""Smoothing noise and the keyed streams it is drawn from."""

from collections.abc import Callable
from typing import Any

from smoothcert.checks import check_known, check_positive
from smoothcert.noise.boxmuller import box_muller
from smoothcert.noise.grid import GridNoise
from smoothcert.noise.keys import STAGES, fresh_seed, image_key, walk_position
from smoothcert.noise.protocol import GaussianNoise, Noise, NoiseCentre, least_float32
from smoothcert.noise.sound import SoundNoise, SoundStream
from smoothcert.noise.streams import (
    BINOMIAL_FORMAT,
    FORMATS,
    SMALL_SPACE_FORMAT,
    BoxMullerStream,
    PhiloxStream,
    Sfc64Stream,
    Stream,
    binomial,
    open_stream,
    philox4x32,
    row_key,
)

NOISES: dict[str, Callable[[float, int, float], Noise]] = {
    "grid": GridNoise,
    "gaussian": lambda sigma, levels, reach: GaussianNoise(sigma),
    "sound": SoundNoise,
}
"""Noise kinds by name: (sigma, levels, reach) -> Noise."""


def build_noise(kind: str, sigma: Any, levels: int = 255, reach: float = 1.0) -> Noise:
    """Return a noise by name; see `GridNoise` for `levels` and `reach`.

    Raises:
        InputError: bad values. UnknownNameError: no such noise.
    """
    return NOISES[check_known("noise", kind, NOISES)](check_positive("sigma", sigma), levels, reach)


__all__ = [
    "BINOMIAL_FORMAT",
    "FORMATS",
    "NOISES",
    "SMALL_SPACE_FORMAT",
    "STAGES",
    "BoxMullerStream",
    "GaussianNoise",
    "GridNoise",
    "Noise",
    "NoiseCentre",
    "PhiloxStream",
    "Sfc64Stream",
    "SoundNoise",
    "SoundStream",
    "Stream",
    "binomial",
    "box_muller",
    "build_noise",
    "fresh_seed",
    "image_key",
    "least_float32",
    "open_stream",
    "philox4x32",
    "row_key",
    "walk_position",
]
