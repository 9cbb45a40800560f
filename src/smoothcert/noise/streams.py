"""Noise as a function of its key: (run seed, image, stage, position) -> standard normals.

Nothing else enters: not the batch size, not the order of images, not what was drawn before. Formats are named and
versioned, and part of a store's identity, because another format is other noise.

`sfc64-v1` (CPU): NumPy's SFC64 seeded by SeedSequence(run seed, spawn key (image, stage, block)), float32 ziggurat
normals in blocks of exactly 100 samples, each sample drawn flat in CHW order. The float32 ziggurat ends at 8.2 sigma,
beyond which the normal law has mass 2.4e-16: that is the total variation a value, up to the spacing of its float32
values (23 random bits within each of 256 layers, at most 4.4e-7 apart below 3.65 sigma).
"""

import hashlib
import secrets
from typing import Final

import numpy as np

from smoothcert.checks import check_count, check_known, check_seed
from smoothcert.errors import InputError

FORMAT: Final = "sfc64-v1"
BLOCK: Final = 100

STAGES: Final = {"select": 0, "estimate": 1, "pilot": 2, "predict": 3, "attack": 4, "walk": 5}
"""What noise is drawn for; the streams of two stages are disjoint."""


def fresh_seed() -> int:
    """A run seed from the operating system's entropy: 63 bits, so that it fits a signed integer of any language."""
    return secrets.randbits(63)


def image_key(image: np.ndarray) -> int:
    """The key of an image that has no index: SHA-256 of its float32 bytes, so that two images never share noise."""
    return int.from_bytes(hashlib.sha256(np.ascontiguousarray(image, dtype=np.float32).tobytes()).digest(), "big")


class NormalStream:
    """The standard normals of one (run seed, image, stage), read in order of position.

    Args:
        seed: run seed, in [0, 2^128).
        image: index of the image in its data set (below 2^32), or `image_key` of its bytes.
        stage: a name from `STAGES`.
        dimension: values per sample, C * H * W.
        start: position (number of samples to skip); cheap where it is a multiple of `BLOCK`.
    """

    def __init__(self, seed: int, image: int, stage: str, dimension: int, start: int = 0):
        self._seed = check_seed(seed)
        if image < 0:
            raise InputError(f"an image's key must not be negative, got {image}")
        self._key = (int(image), STAGES[check_known("stage", stage, STAGES)])
        self._dimension = dimension
        start = check_count("start", start, least=0)
        self._position = start - start % BLOCK
        self._generator: np.random.Generator | None = None
        if start % BLOCK:
            self.fill(np.empty((start % BLOCK, dimension), dtype=np.float32))

    @property
    def position(self) -> int:
        """How many samples have been read or skipped."""
        return self._position

    def fill(self, out: np.ndarray) -> None:
        """Write the next len(out) samples into `out`, float32 (m, dimension), C-contiguous."""
        done = 0
        while done < len(out):
            offset = self._position % BLOCK
            if offset == 0 or self._generator is None:
                sequence = np.random.SeedSequence(self._seed, spawn_key=(*self._key, self._position // BLOCK))
                self._generator = np.random.Generator(np.random.SFC64(sequence))
            take = min(len(out) - done, BLOCK - offset)
            self._generator.standard_normal(out=out[done : done + take], dtype=np.float32)
            self._position += take
            done += take
