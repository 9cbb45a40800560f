"""`gaussian`: plain float32 noise y = x + sigma Z, as in the literature.

In floating point the rounding of x + sigma Z depends on x, so a crafted base classifier can read the centre from it
(Voracek & Hein 2023). The default, `grid`, cannot be read that way; use this one to follow published runs.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from smoothcert.noise.protocol import NoiseCentre, NormalNoise, least_float32
from smoothcert.stats import ProbabilityBounds, gaussian_radius


@dataclass(frozen=True)
class GaussianNoise(NormalNoise):
    """N(0, sigma^2 I) added in float32, sigma rounded up to one."""

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
