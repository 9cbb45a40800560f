"""`philox-v1`: normals addressed by (sample, value) at random, for a GPU; here on the CPU, the same bits.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") turns a counter of four 32-bit words
and a key of two into four words. SeedSequence(run seed, spawn key (image, stage)) makes three: the key, and the last
word of the counter, whose others are the quad's number within the sample and the sample's position, low word first.
Output words (w0, w1, w2, w3) of quad q are two 64-bit words, w0 2^32 + w1 and w2 2^32 + w3, and Box-Muller (see
`smoothcert.noise.boxmuller`) makes the values 4q ... 4q + 3 of the sample of them: cosine and sine of the one, then of
the other. |z| ends at 7.54 sigma; the total variation is 1e-13 a value, up to the spacing of the values.
"""

from typing import Any

import numpy as np

from smoothcert.checks import check_count
from smoothcert.noise.boxmuller import CHUNK, ieee_box_muller
from smoothcert.noise.keys import stream_key

_LOW = 0xFFFFFFFF
_MULTIPLIERS = np.array([[0xD2511F53], [0xCD9E8D57]], np.uint64)
_WEYL = np.array([[0x9E3779B9], [0xBB67AE85]], np.uint64)


def philox4x32(counter: np.ndarray, key: Any) -> np.ndarray:
    """Philox4x32-10: counters (4, ...) and a key of two words -> words (4, ...), all uint64 below 2^32."""
    words = np.array(counter, np.uint64)
    flat = words.reshape(4, -1)
    _rounds(flat[::2], flat[1::2], np.empty((2, flat.shape[1]), np.uint64), key)
    return words


def _rounds(even: np.ndarray, odd: np.ndarray, products: np.ndarray, key: Any) -> None:
    """Ten rounds in place: words 0 and 2 in `even`, words 1 and 3 in `odd`, both (2, n); `products` is overwritten."""
    crossed = products[::-1]
    word = np.array(key, np.uint64)[:, np.newaxis]
    for _ in range(10):
        np.multiply(even, _MULTIPLIERS, out=products)
        odd ^= word
        np.right_shift(crossed, 32, out=even)
        even ^= odd
        np.bitwise_and(crossed, _LOW, out=odd)
        word = (word + _WEYL) & _LOW


def row_key(seed: int, image: int, stage: str) -> np.ndarray:
    """Return the three words of a stream, (3,) uint32: Philox's key and the counter's last word."""
    seed, key = stream_key(seed, image, stage)
    return np.random.SeedSequence(seed, spawn_key=key).generate_state(3)


class PhiloxStream:
    """The standard normals of one (run seed, image, stage) in the format `philox-v1`; see `open_stream`."""

    format = "philox-v1"

    def __init__(self, seed: int, image: int, stage: str, dimension: int, start: int = 0):
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
        """The 64-bit words of the next m samples of q quads, (m, q, 2); `room`, (3, 2, m, q), is overwritten."""
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
