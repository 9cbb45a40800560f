"""The protocol of a noise: a centre made once per image, noisy copies around it, and its theorem's radius.

`GaussianNoise` is its simplest case.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from smoothcert.noise.streams import FORMATS, Stream, open_stream
from smoothcert.stats import ProbabilityBounds, gaussian_radius


@dataclass(frozen=True)
class NoiseCentre:
    """An image made ready for a noise: `values` float32 (d,), flat in CHW order, in the noise's own units.

    `fraction`, floats (d,), is what a grid noise adds before it rounds, or None where there is nothing to add.
    `off_grid` marks an image that a grid noise could not take exactly (see `smoothcert.noise.grid`).
    """

    values: np.ndarray
    fraction: np.ndarray | None = None
    off_grid: bool = False


def least_float32(value: float | Fraction) -> float:
    """Return the least float32 that is not below a number.

    Normals are multiplied by a float32, and noise of less than the claimed level would prove less than is claimed:
    float32(0.12) lies 2.2e-8 below 0.12.
    """
    nearest = np.float32(float(value))
    return float(nearest if Fraction(float(nearest)) >= Fraction(value) else np.nextafter(nearest, np.float32(np.inf)))


class Noise(Protocol):
    """A family of smoothing noise. To add one: write the class, register it in `smoothcert.noise.NOISES`."""

    @property
    def kind(self) -> str:
        """The name it is registered under."""
        ...

    @property
    def norm(self) -> str:
        """The norm of its certificates."""
        ...

    @property
    def sigma(self) -> float:
        """Noise level, in units of the image: never above the one that is drawn."""
        ...

    @property
    def formats(self) -> tuple[str, ...]:
        """The stream formats that it can be drawn from, the one for a CPU first."""
        ...

    @property
    def unit(self) -> float:
        """The standard deviation of what its streams give: 1 for normals."""
        ...

    def centre(self, image: np.ndarray) -> NoiseCentre:
        """Prepare a float32 image, any shape."""
        ...

    def stream(
        self, seed: int, image: int, stage: str, centre: NoiseCentre, start: int = 0, format: str | None = None
    ) -> Stream:
        """Return the draws of (seed, image, stage) that `place` takes for a centre; see `open_stream`.

        Args:
            format: one of `formats`; None is the first.
        Raises:
            InputError: as `open_stream`, or another format.
        """
        ...

    def fill(self, out: np.ndarray, centre: NoiseCentre, stream: Stream) -> None:
        """Write the next len(out) noisy copies around a centre into `out`, float32 (m, d), C-contiguous."""
        ...

    def place(self, out: Any, values: Any, fraction: Any = None) -> Any:
        """Turn a stream's draws into noisy copies, in place, and return them: never clipped to the images' range.

        No other memory of that size is taken.

        Args:
            out: float32 (m, d), a NumPy array or a torch tensor on any device.
            values, fraction: a centre's, (d,) or one a row (m, d), of the same kind and on the same device as `out`.
        """
        ...

    def radius(self, bounds: ProbabilityBounds, margin: float | None = None) -> np.ndarray:
        """Return the certified radius in `norm`, rounded down, from bounds on the class probabilities."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return everything that determines the samples, given a stream: part of a store's identity."""
        ...


class NormalNoise:
    """The methods that noises made of standard normals share."""

    formats = tuple(FORMATS)
    unit = 1.0

    def stream(
        self, seed: int, image: int, stage: str, centre: NoiseCentre, start: int = 0, format: str | None = None
    ) -> Stream:
        """See `Noise.stream`."""
        return open_stream(format or self.formats[0], seed, image, stage, len(centre.values), start)

    def fill(self, out: np.ndarray, centre: NoiseCentre, stream: Stream) -> None:
        """See `Noise.fill`."""
        stream.fill(out)
        self.place(out, centre.values, centre.fraction)

    def place(self, out: Any, values: Any, fraction: Any = None) -> Any:
        """See `Noise.place`."""
        raise NotImplementedError


@dataclass(frozen=True)
class GaussianNoise(NormalNoise):
    """`gaussian`: y = x + sigma Z in float32, sigma rounded up to one, as in the literature.

    In floating point the rounding of x + sigma Z depends on x, so a crafted base classifier can read the centre from it
    (Voracek & Hein 2023). The default, `grid`, cannot be read that way; use this one to follow published runs.
    """

    kind = "gaussian"
    norm = "l2"
    sigma: float

    @cached_property
    def drawn(self) -> float:
        """The level that is drawn, a float32."""
        return least_float32(self.sigma)

    def centre(self, image: np.ndarray) -> NoiseCentre:
        return NoiseCentre(np.ravel(image).astype(np.float32, copy=False))

    def place(self, out: Any, values: Any, fraction: Any = None) -> Any:
        out *= self.drawn
        out += values
        return out

    def radius(self, bounds: ProbabilityBounds, margin: float | None = None) -> np.ndarray:
        return gaussian_radius(bounds, self.sigma, margin)

    def identity(self) -> dict[str, Any]:
        return {"kind": self.kind, "sigma": self.sigma}
