"""`binomial-v1`: how many of n votes fall on a class of known probability, drawn at once.

A keyed draw from Bin(n, p) by NumPy's generator over SFC64, seeded by SeedSequence(run seed, spawn key (image, stage,
start, 0x42494E31)): one number a run of samples, so runs are not cut, and looks at other counts are other draws.
"""

from typing import Final

import numpy as np

from smoothcert.noise.keys import stream_key

BINOMIAL_FORMAT: Final = "binomial-v1"

_SPAWN: Final = 0x42494E31


def binomial(seed: int, image: int, stage: str, start: int, n: int, p: float, q: float) -> int:
    """Votes among samples start ... start + n - 1 of a stage for a class of probability p = 1 - q.

    The smaller of p and q is used, so that neither loses digits near 1.
    """
    seed, (key, stage_number) = stream_key(seed, image, stage)
    sequence = np.random.SeedSequence(seed, spawn_key=(key, stage_number, start, _SPAWN))
    rare = int(np.random.Generator(np.random.SFC64(sequence)).binomial(n, min(p, q)))
    return rare if p <= q else n - rare
