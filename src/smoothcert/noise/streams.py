"""Noise as a function of its key: (run seed, image, stage, position) -> standard normals, in a named format.

Formats are versioned, and part of a store's identity, because another format is other noise.
"""

from typing import Final, Protocol

import numpy as np

from smoothcert.checks import check_known
from smoothcert.noise.philox import PhiloxStream
from smoothcert.noise.sfc64 import BoxMullerStream, Sfc64Stream


class Stream(Protocol):
    """The draws of one (run seed, image, stage), read in order of position: standard normals, or a noise's own."""

    @property
    def position(self) -> int:
        """How many samples have been read or skipped."""
        ...

    def fill(self, out: np.ndarray) -> None:
        """Write the next len(out) samples into `out`, float32 (m, dimension), C-contiguous: flat in CHW order."""
        ...


FORMATS: dict[str, type[Sfc64Stream] | type[BoxMullerStream] | type[PhiloxStream]] = {
    stream.format: stream for stream in (Sfc64Stream, BoxMullerStream, PhiloxStream)
}
"""Stream formats by name: (seed, image, stage, dimension, start) -> Stream."""

SMALL_SPACE_FORMAT: Final = BoxMullerStream.format
"""The format for spaces of few dimensions."""


def open_stream(format: str, seed: int, image: int, stage: str, dimension: int, start: int = 0) -> Stream:
    """The standard normals of (seed, image, stage) in a format.

    Args:
        format: a name from `FORMATS`.
        seed: run seed, in [0, 2^128).
        image: index of the image in its data set (below 2^32), or `image_key` of its bytes.
        stage: a name from `STAGES`.
        dimension: values per sample.
        start: position, the number of samples to skip: free in philox-v1, cheap in the others at whole blocks.
    Raises:
        InputError: values outside these. UnknownNameError: no such format or stage.
    """
    return FORMATS[check_known("stream format", format, FORMATS)](seed, image, stage, dimension, start)
