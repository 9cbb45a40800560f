"""What a noise is: a centre made once per image, noisy copies around it, and the radius its theorem gives."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from smoothcert.noise.streams import Stream
from smoothcert.stats import ProbabilityBounds


@dataclass(frozen=True)
class Centre:
    """An image made ready for a noise: `values` float32 (d,), flat in CHW order, in the noise's own units.

    `fraction`, float32 (d,), is what a grid noise adds before it rounds, or None where there is nothing to add.
    `off_grid` marks an image that a grid noise could not take exactly (see `smoothcert.noise.grid`).
    """

    values: np.ndarray
    fraction: np.ndarray | None = None
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

    def place(self, out: Any, values: Any, fraction: Any = None) -> None:
        """Turn standard normals into noisy copies, in place: never clipped, no other memory of that size.

        Args:
            out: float32 (m, d), a NumPy array or a torch tensor on any device.
            values, fraction: a centre's, (d,) or one a row (m, d), of the same kind and on the same device as `out`.
        """
        ...

    def radius(self, bounds: ProbabilityBounds, margin: float | None = None) -> np.ndarray:
        """Certified radius in `norm`, rounded down, from bounds on the class probabilities."""
        ...

    def identity(self) -> dict[str, Any]:
        """Everything that determines the samples, given a stream: part of a store's identity."""
        ...


def sample(noise: Noise, centre: Centre, stream: Stream, out: np.ndarray) -> None:
    """Fill `out`, float32 (m, d), with the next m noisy copies around `centre`."""
    stream.fill(out)
    noise.place(out, centre.values, centre.fraction)
