"""Smoothing noise and the keyed streams it is drawn from."""

from collections.abc import Callable
from typing import Any

from smoothcert.checks import check_positive
from smoothcert.errors import InputError
from smoothcert.noise.boxmuller import box_muller
from smoothcert.noise.grid import GridNoise
from smoothcert.noise.keys import STAGES, fresh_seed, image_key, walk_position
from smoothcert.noise.protocol import GaussianNoise, Noise, NoiseCentre, NormalNoise, least_float32
from smoothcert.noise.sound import SoundNoise, SoundPhiloxStream, SoundStream
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
from smoothcert.parts import Registry, known_arguments, missing_members


def _check_noise(part: Any) -> list[str]:
    if callable(part):
        return []
    return missing_members(part, _MEMBERS, "give the class, a function of sigma, or a noise that is ready")


NOISES: Registry[Callable[..., Noise]] = Registry("noise", "smoothcert.noises", {
    "grid": GridNoise, "gaussian": GaussianNoise, "sound": SoundNoise}, _check_noise)
"""Noise kinds by name: classes or functions that are called with those of sigma, levels and reach that they name."""

_MEMBERS = ("kind", "norm", "sigma", "formats", "unit", "centre", "stream", "fill", "place", "radius", "identity")


def build_noise(
    kind: str | type | Noise | None, sigma: Any, levels: int | None = 255, reach: float = 1.0
) -> Noise:
    """Return a noise by name; see `GridNoise` for `levels` and `reach`.

    Args:
        kind: a key of `NOISES`, a place of code (file.py:NAME, package.module:NAME), or a class; a noise that is ready
            is returned as it is. None is "grid" where there are levels, else "gaussian".
        levels: None where the inputs were quantised to none.
    Raises:
        InputError: bad values, or a part that does not keep the protocol `Noise`; or a ready noise of another sigma.
        UnknownNameError: no such noise. CodeError: code that cannot be imported.
    """
    kind = ("grid" if levels else "gaussian") if kind is None else kind
    if not isinstance(kind, str | type) and not missing_members(kind, _MEMBERS):
        if kind.sigma != sigma:
            raise InputError(f"the noise was made for sigma {kind.sigma:g}, but sigma is {sigma:g}")
        return kind
    maker, label = NOISES.find(kind), NOISES.label(kind)
    noise = maker(**known_arguments(maker, sigma=check_positive("sigma", sigma), levels=levels, reach=reach))
    if not NOISES.is_own(kind):
        lacking = missing_members(noise, _MEMBERS, "inherit smoothcert.noise.NormalNoise")
        if not lacking and noise.kind in ("grid", "gaussian", "sound"):
            lacking = [f"its kind is {noise.kind!r}, the name of another noise, whose theorems it would be given"]
        if lacking:
            raise InputError(f"noise {label} cannot be used: {'; '.join(lacking)}")
    return noise


def reach_of(bounds: tuple[float, float] | None) -> float:
    """Return the largest |value| within bounds; 1 where there are none."""
    return float(max(map(abs, bounds))) if bounds else 1.0


def identify_noise(noise: Noise, part: Any) -> dict[str, Any]:
    """Return what a store's identity says of a noise that was made from a part (see `build_noise`): its own kind and
    settings, or the name and the sources of a part that is not smoothcert's own."""
    named = {} if part is None or NOISES.is_own(part) else {"kind": NOISES.label(part), **NOISES.identify(part)}
    return {**noise.identity(), **named}


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
    "NormalNoise",
    "PhiloxStream",
    "Sfc64Stream",
    "SoundNoise",
    "SoundPhiloxStream",
    "SoundStream",
    "Stream",
    "binomial",
    "box_muller",
    "build_noise",
    "fresh_seed",
    "identify_noise",
    "image_key",
    "least_float32",
    "open_stream",
    "philox4x32",
    "reach_of",
    "row_key",
    "walk_position",
]
