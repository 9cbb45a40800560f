"""The formats read from NumPy's SFC64: samples in blocks, each with a generator of its own, read in order.

`sfc64-v1`, for images: seeded by SeedSequence(run seed, spawn key (image, stage, block)), float32 ziggurat normals in
blocks of exactly 100 samples, each sample drawn flat in CHW order. The float32 ziggurat ends at 8.2 sigma, beyond which
the normal law has mass 2.4e-16: that is the total variation a value, up to the spacing of its float32 values (23 random
bits within each of 256 layers, at most 4.4e-7 apart below 3.65 sigma).

`sfc64-bm-v1`, for spaces of few dimensions d: seeded by SeedSequence(run seed, spawn key (image, stage, block,
0x424D5631)), whose last word no block of `sfc64-v1` reaches; blocks of 10,000 samples of h = ceil(d / 2) raw 64-bit
words each. A sample's values are the first d of its h cosines and h sines by Box-Muller (`smoothcert.noise.boxmuller`,
which gives the tail: 7.54 sigma, 1e-13).
"""

from collections.abc import Iterator

import numpy as np

from smoothcert.checks import check_count
from smoothcert.noise.boxmuller import CHUNK, box_muller
from smoothcert.noise.keys import stream_key


class Blocks:
    """The position of a stream, and its generators: one a block of `block` samples."""

    block: int
    spawn: tuple[int, ...] = ()
    _bits: np.random.SFC64

    def __init__(self, seed: int, image: int, stage: str, dimension: int, start: int = 0):
        self._seed, self._key = stream_key(seed, image, stage)
        self._dimension = dimension
        start = check_count("start", start, least=0)
        self._position = start - start % self.block
        if start % self.block:
            self._skip(start % self.block)

    @property
    def position(self) -> int:
        """The number of samples that have been read or skipped."""
        return self._position

    def _skip(self, samples: int) -> None:
        raise NotImplementedError

    def _raw(self, samples: int, width: int) -> np.ndarray:
        """The next samples' words where each takes `width` of them, uint64 (samples, width)."""
        parts = [bits.random_raw((rows.stop - rows.start, width)) for rows, bits in self._parts(samples)]
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty((0, width), np.uint64), *parts])

    def _parts(self, samples: int) -> Iterator[tuple[slice, np.random.SFC64]]:
        """Yield the rows of the next samples with their generator; draw them before asking for the next."""
        done = 0
        while done < samples:
            offset = self._position % self.block
            if offset == 0:
                key = (*self._key, self._position // self.block, *self.spawn)
                self._bits = np.random.SFC64(np.random.SeedSequence(self._seed, spawn_key=key))
            take = min(samples - done, self.block - offset)
            yield slice(done, done + take), self._bits
            self._position += take
            done += take


class Sfc64Stream(Blocks):
    """The standard normals of one (run seed, image, stage) in the format `sfc64-v1`; see `open_stream`."""

    format = "sfc64-v1"
    block = 100

    def fill(self, out: np.ndarray) -> None:
        """Write the next len(out) samples into `out`, float32 (m, dimension), C-contiguous."""
        for rows, bits in self._parts(len(out)):
            np.random.Generator(bits).standard_normal(out=out[rows], dtype=np.float32)

    def _skip(self, samples: int) -> None:
        self.fill(np.empty((samples, self._dimension), np.float32))


class BoxMullerStream(Blocks):
    """The standard normals of one (run seed, image, stage) in the format `sfc64-bm-v1`; see `open_stream`."""

    format = "sfc64-bm-v1"
    block = 10_000
    spawn = (0x424D5631,)

    def words(self, samples: int) -> np.ndarray:
        """Return the next samples' words, uint64 (samples, ceil(dimension / 2)), for one `box_muller` of many streams.

        The values of a sample are the first `dimension` of its cosines, then its sines.
        """
        return self._raw(samples, self._half)

    def fill(self, out: np.ndarray) -> None:
        """Write the next len(out) samples into `out`, float32 (m, dimension)."""
        half, rows = self._half, max(1, CHUNK // self._half)
        for start in range(0, len(out), rows):
            part = out[start : start + rows]
            cosines, sines = box_muller(self.words(len(part)))
            part[:, :half], part[:, half:] = cosines, sines[:, : self._dimension - half]

    @property
    def _half(self) -> int:
        return -(-self._dimension // 2)

    def _skip(self, samples: int) -> None:
        for rows, bits in self._parts(samples):
            bits.random_raw((rows.stop - rows.start) * self._half, output=False)
