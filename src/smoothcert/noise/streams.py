"""Noise as a function of its key: (run seed, image, stage, position) -> standard normals, in a named format.

Formats are versioned, and part of a store's identity, because another format is other noise.

`binomial-v1` draws at once how many of n votes fall on a class of known probability: a keyed draw from Bin(n, p) by
NumPy's generator over SFC64, seeded by SeedSequence(run seed, spawn key (image, stage, start, 0x42494E31)). It is one
number a run of samples, so runs are not cut, and looks at other counts are other draws.
"""

from typing import Final, Protocol

import numpy as np

from smoothcert.checks import check_known
from smoothcert.noise.keys import stream_key
from smoothcert.noise.philox import PhiloxStream
from smoothcert.noise.sfc64 import BoxMullerStream, Sfc64Stream


class Stream(Protocol):
    """The draws of one (run seed, image, stage), read in order of position: standard normals, or a noise's own."""

    @property
    def position(self) -> int:
        """The number of samples that have been read or skipped."""
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

BINOMIAL_FORMAT: Final = "binomial-v1"

_BINOMIAL: Final = 0x42494E31


def open_stream(format: str, seed: int, image: int, stage: str, dimension: int, start: int = 0) -> Stream:
    """Return the standard normals of (seed, image, stage) in a format.

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


def binomial(seed: int, image: int, stage: str, start: int, n: int, p: float, q: float) -> int:
    """Return the votes among samples start ... start + n - 1 of a stage for a class of probability p = 1 - q.

    The smaller of p and q is used, so that neither loses digits near 1.
    """
    seed, (key, stage_number) = stream_key(seed, image, stage)
    sequence = np.random.SeedSequence(seed, spawn_key=(key, stage_number, start, _BINOMIAL))
    rare = int(np.random.Generator(np.random.SFC64(sequence)).binomial(n, min(p, q)))
    return rare if p <= q else n - rare
