"""Noise as a function of its key: (run seed, image, stage, position) -> standard normals, in a named format.

Formats are versioned, and part of a store's identity, because another format is other noise.

`sfc64-v1`, for images, is read from NumPy's SFC64: seeded by SeedSequence(run seed, spawn key (image, stage, block)),
float32 ziggurat normals in blocks of exactly 100 samples, each sample drawn flat in CHW order. The float32 ziggurat
ends at 8.2 sigma, beyond which the normal law has mass 2.4e-16: that is the total variation a value, up to the spacing
of its float32 values (23 random bits within each of 256 layers, at most 4.4e-7 apart below 3.65 sigma).

`sfc64-bm-v1`, for spaces of few dimensions d: seeded by SeedSequence(run seed, spawn key (image, stage, block,
0x424D5631)), whose last word no block of `sfc64-v1` reaches; blocks of 10,000 samples of h = ceil(d / 2) raw 64-bit
words each. A sample's values are the first d of its h cosines and h sines by Box-Muller (`smoothcert.noise.boxmuller`,
which gives the tail: 7.54 sigma, 1e-13).

`philox-v1`, for a GPU: normals addressed by (sample, value) at random; here on the CPU, the same bits. Philox4x32-10
(Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") turns a counter of four 32-bit words and a key of
two into four words. SeedSequence(run seed, spawn key (image, stage)) makes three: the key, and the last word of the
counter, whose others are the quad's number within the sample and the sample's position, low word first. Output words
(w0, w1, w2, w3) of quad q are two 64-bit words, w0 2^32 + w1 and w2 2^32 + w3, and Box-Muller makes the values
4q ... 4q + 3 of the sample of them: cosine and sine of the one, then of the other. |z| ends at 7.54 sigma; the total
variation is 1e-13 a value, up to the spacing of the values.

`binomial-v1` draws at once how many of n votes fall on a class of known probability: a keyed draw from Bin(n, p) by
NumPy's generator over SFC64, seeded by SeedSequence(run seed, spawn key (image, stage, start, 0x42494E31)). It is one
number a run of samples, so runs are not cut, and looks at other counts are other draws.
"""

from collections.abc import Iterator
from typing import Any, Final, Protocol

import numpy as np

from smoothcert.checks import check_count, check_known
from smoothcert.noise.boxmuller import CHUNK, box_muller, ieee_box_muller
from smoothcert.noise.keys import stream_key


class Blocks:
    """The position of a stream, and its generators: one a block of `block` samples."""

    block: int
    spawn: tuple[int, ...] = ()
    _bits: np.random.SFC64

    def __init__(self, seed: int, image: int, stage: str, dimension: int, start: int = 0) -> None:
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
        """Return the next samples' words where each takes `width` of them, uint64 (samples, width)."""
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


_LOW = 0xFFFFFFFF
_MULTIPLIERS = np.array([[0xD2511F53], [0xCD9E8D57]], np.uint64)
_WEYL = np.array([[0x9E3779B9], [0xBB67AE85]], np.uint64)


def philox4x32(counter: np.ndarray, key: Any) -> np.ndarray:
    """Return Philox4x32-10 of counters (4, ...) and a key of two words: words (4, ...), all uint64 below 2^32."""
    words = np.array(counter, np.uint64)
    flat = words.reshape(4, -1)
    _rounds(flat[::2], flat[1::2], np.empty((2, flat.shape[1]), np.uint64), key)
    return words


def _rounds(even: np.ndarray, odd: np.ndarray, products: np.ndarray, key: Any) -> None:
    """Do ten rounds in place: words 0 and 2 in `even`, 1 and 3 in `odd`, both (2, n); `products` is overwritten."""
    crossed = products[::-1]
    word = np.array(key, np.uint64)[:, np.newaxis]
    for _ in range(10):
        np.multiply(even, _MULTIPLIERS, out=products)
        odd ^= word
        np.right_shift(crossed, 32, out=even)
        even ^= odd
        np.bitwise_and(crossed, _LOW, out=odd)
        word = (word + _WEYL) & _LOW


def row_key(seed: int, image: int, stage: str, *more: int) -> np.ndarray:
    """Return the three words of a stream, (3,) uint32: Philox's key and the counter's last word.

    Args:
        more: what another format adds to the spawn key, so that its streams are others.
    """
    seed, key = stream_key(seed, image, stage)
    return np.random.SeedSequence(seed, spawn_key=(*key, *more)).generate_state(3)


class PhiloxStream:
    """The standard normals of one (run seed, image, stage) in the format `philox-v1`; see `open_stream`."""

    format = "philox-v1"

    def __init__(self, seed: int, image: int, stage: str, dimension: int, start: int = 0) -> None:
        self._words = row_key(seed, image, stage)
        self._dimension = dimension
        self._position = check_count("start", start, least=0)

    @property
    def position(self) -> int:
        """The number of samples that have been read or skipped."""
        return self._position

    def fill(self, out: np.ndarray) -> None:
        """Write the next len(out) samples into `out`, float32 (m, dimension)."""
        quads = -(-self._dimension // 4)
        rows = max(1, min(CHUNK // (2 * quads), len(out)))
        room = np.empty((3, 2, rows, quads), np.uint64)
        normals = np.empty((rows, quads, 2, 2), np.float32)
        for start in range(0, len(out), rows):
            part = out[start : start + rows]
            size = len(part)
            for leg, values in enumerate(ieee_box_muller(self._pairs(room[:, :, :size]))):
                normals[:size, ..., leg] = values
            part[:] = normals[:size].reshape(size, 4 * quads)[:, : self._dimension]
            self._position += size

    def _pairs(self, room: np.ndarray) -> np.ndarray:
        """Return the 64-bit words of the next m samples of q quads, (m, q, 2); overwrite `room`, (3, 2, m, q)."""
        k0, k1, last = self._words
        even, odd, products = room
        samples, quads = even.shape[1:]
        positions = np.arange(self._position, self._position + samples, dtype=np.uint64)[:, np.newaxis]
        even[0], even[1] = np.arange(quads), positions >> 32
        odd[0], odd[1] = positions & _LOW, last
        _rounds(even.reshape(2, -1), odd.reshape(2, -1), products.reshape(2, -1), (k0, k1))
        even <<= 32
        words = np.empty((samples, quads, 2), np.uint64)
        np.bitwise_or(even, odd, out=words.transpose(2, 0, 1))
        return words


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
