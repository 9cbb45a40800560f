"""What a noise is: a centre made once per image, samples around it, and the radius its theorem gives."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from smoothcert.noise.streams import NormalStream
from smoothcert.stats import ProbabilityBounds


@dataclass(frozen=True)
class Centre:
    """An image made ready for a noise: `values` float32 (d,), flat in CHW order, in the noise's own units.

    `off_grid` marks an image that a grid noise could not take exactly (see `smoothcert.noise.grid`).
    """

    values: np.ndarray
    off_grid: bool = False


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
        """Noise level, in units of the image."""
        ...

    def centre(self, image: np.ndarray) -> Centre:
        """Prepare a float32 image, any shape."""
        ...

    def sample(self, centre: Centre, stream: NormalStream, out: np.ndarray) -> None:
        """Fill `out`, float32 (m, d), with the next m noisy copies: never clipped, no other memory of that size."""
        ...

    def radius(self, bounds: ProbabilityBounds, margin: float | None = None) -> np.ndarray:
        """Certified radius in `norm`, rounded down, from bounds on the class probabilities."""
        ...

    def identity(self) -> dict[str, Any]:
        """Everything that determines the samples, given a stream: part of a store's identity."""
        ...
