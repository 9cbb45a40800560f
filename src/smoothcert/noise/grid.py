"""`grid`, the default: Gaussian noise on a fixed grid, so that a noisy copy tells nothing of its centre but the sum.

With L levels per unit (255 for 8-bit images) and h = 1 / (L 2^e), e = 12, an image of whole levels is x = i h with
i = 2^e round(L x). Draw t = round(sigma Z / h) and form y = (t + i) h: |t + i| < 2^24, so the float32 sum is exact and
y depends on t + i alone. This is the base classifier f(Q(.)), Q = rounding to the grid, smoothed with continuous
noise, so every theorem holds unchanged. A sigma too large for 2^24 takes a smaller e.

An input off the grid (|L x - round(L x)| > (L + 1) 2^-24 for some pixel, which is the spacing of float32 below 1: for
8-bit images 2^-16 of a level; or beyond the range) is never snapped: with
x = (i + f) h, i whole and |f| <= 1/2, it is certified as given, y = Q(x + sigma Z) = (round(sigma Z / h + f) + i) h,
and flagged. Pixels beyond 2^24 h alone lose digits: there float32 no longer holds every i.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

from smoothcert.checks import check_count, check_positive
from smoothcert.errors import InputError
from smoothcert.noise.protocol import NoiseCentre, NormalNoise, least_float32
from smoothcert.stats import ProbabilityBounds, gaussian_radius

EXACT = 2**24
_FINEST = 12
_TAIL = 10.0  # float32 ziggurat normals end before 9 sigma; past the range the sum would only be rounded


@dataclass(frozen=True)
class GridNoise(NormalNoise):
    """N(0, sigma^2 I) rounded to steps of h = 1 / (levels 2^exponent).

    Args:
        sigma: noise level, in units of the image.
        levels: L, the number of levels per unit that the inputs were quantised to.
        reach: largest |value| that inputs may hold, max(|low|, |high|) of their bounds.
    Raises:
        InputError: no levels; or sigma so large, or levels so many, that no grid of float32 integers holds the noise.
    """

    kind = "grid"
    norm = "l2"
    sigma: float
    levels: int | None = 255
    reach: float = 1.0

    def __post_init__(self) -> None:
        check_positive("sigma", self.sigma)
        if self.levels is None:
            raise InputError('grid noise is for inputs that were quantised to levels, and none are declared: give '
                             'levels (255 for 8-bit images), or use noise="gaussian" or "sound"')
        check_count("levels", self.levels)
        check_positive("reach", self.reach)
        if self._widest > EXACT:
            raise InputError(
                f"sigma = {self.sigma} with {self.levels} levels is too large for grid noise (float32 holds integers "
                f'to 2^24): use noise="gaussian", or give sigma in units of the image'
            )

    @property
    def exponent(self) -> int:
        """e: the largest of at most 12 for which |t + i| stays below 2^24 out to 10 sigma."""
        return min(_FINEST, self._finest)

    @property
    def _widest(self) -> float:
        """The reach of images and noise, in levels."""
        return (self.levels or 1) * (_TAIL * self.sigma + self.reach)

    @property
    def _finest(self) -> int:
        return int(np.floor(np.log2(EXACT / self._widest)))

    @property
    def step(self) -> np.float32:
        """h, in units of the image."""
        return np.float32(1 / self.per_unit)

    @property
    def per_unit(self) -> float:
        """1 / h: a whole number where levels are declared."""
        return (self.levels or 1) * 2.0**self.exponent

    @property
    def scale(self) -> Fraction:
        """sigma / h."""
        return Fraction(self.sigma) * Fraction(self.per_unit)

    @cached_property
    def drawn(self) -> float:
        """The level that is drawn, in steps: sigma / h, rounded up to a float32."""
        return least_float32(self.scale)

    def centre(self, image: np.ndarray) -> NoiseCentre:
        assert self.levels is not None
        flat = np.ravel(image).astype(np.float32, copy=False)
        levels = flat.astype(np.float64) * self.levels
        whole = np.rint(levels)
        exact = np.abs(levels - whole) <= (self.levels + 1) * max(self.reach, 1.0) * 2.0**-24
        if exact.all() and np.abs(flat).max(initial=0) <= self.reach:
            return NoiseCentre((whole * 2**self.exponent).astype(np.float32))
        steps = levels * 2**self.exponent
        values = np.rint(steps).astype(np.float32)
        return NoiseCentre(values, (steps - values).astype(np.float32), off_grid=True)

    def place(self, out: Any, values: Any, fraction: Any = None) -> Any:
        out *= self.drawn
        if fraction is not None:
            out += fraction
        if hasattr(out, "round_"):
            out.round_()
        else:
            np.rint(out, out=out)
        out += values
        out *= float(self.step)
        return out

    def radius(self, bounds: ProbabilityBounds, margin: float | None = None) -> np.ndarray:
        return gaussian_radius(bounds, self.sigma, margin)

    def identity(self) -> dict[str, Any]:
        return {
            "kind": self.kind, "sigma": self.sigma,
            "levels": self.levels, "exponent": self.exponent, "reach": self.reach,
        }
