"""The keys of noise: (run seed, image, stage), and the position within that stream.

Nothing else enters: not the batch size, not the order of images, not what was drawn before.
"""

import hashlib
import secrets
from typing import Any, Final

import numpy as np

from smoothcert.checks import check_known, check_seed
from smoothcert.errors import InputError

STAGES: Final = {"select": 0, "estimate": 1, "pilot": 2, "predict": 3, "attack": 4, "walk": 5, "calibrate": 6,
                 "transfer": 7}
"""The purposes that noise is drawn for; the streams of two stages are disjoint."""

_STEP_BITS, _SAMPLE_BITS = 20, 40


def fresh_seed() -> int:
    """Return a run seed from the operating system's entropy: 63 bits, which fit a signed integer of any language."""
    return secrets.randbits(63)


def image_key(image: np.ndarray) -> int:
    """Return the key of an image that has no index: SHA-256 of its float32 bytes. Two images never share noise."""
    return int.from_bytes(hashlib.sha256(np.ascontiguousarray(image, dtype=np.float32).tobytes()).digest(), "big")


def stream_key(seed: Any, image: int, stage: str) -> tuple[int, tuple[int, int]]:
    """Return the checked run seed and spawn key (image, number of the stage) of a stream's SeedSequence.

    Args:
        seed: run seed, in [0, 2^128).
        image: index of the image in its data set (below 2^32), or `image_key` of its bytes.
        stage: a name from `STAGES`.
    """
    if image < 0:
        raise InputError(f"an image's key must not be negative, got {image}")
    return check_seed(seed), (int(image), STAGES[check_known("stage", stage, STAGES)])


def walk_position(stage: str, step: int, sample: int) -> int:
    """Return the position of a random base classifier's normals in the stream (seed, image, "walk") of `philox-v1`.

    Every sample of every stage has normals of its own for each step of its walk: those of two stages must not be
    shared, as what is proved from one stage's samples was chosen by another's. Of one step, those of consecutive
    samples lie side by side.

    Args:
        stage: whose sample it is, a name from `STAGES`.
        step: of the walk, below 2^20.
        sample: its position within the stage, below 2^40.
    """
    if not (0 <= step < 1 << _STEP_BITS and 0 <= sample < 1 << _SAMPLE_BITS):
        raise InputError(f"a walk has at most 2^{_STEP_BITS} steps and a stage 2^{_SAMPLE_BITS} samples, got step "
                         f"{step} of sample {sample}")
    return STAGES[check_known("stage", stage, STAGES)] << _STEP_BITS + _SAMPLE_BITS | step << _SAMPLE_BITS | sample
