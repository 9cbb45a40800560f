"""The randomness of a training run: one seed, and a stream of numbers for every purpose."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from smoothcert.draws import RowGenerator


@contextmanager
def seeded(seed: int, *purpose: Any) -> Iterator[None]:
    """Seed torch's global generator, which layers' initial weights and dropout draw from, for a purpose, alike in
    every run; it is put back on the way out."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(derived_seed(seed, *purpose))
        yield


def generator(device: torch.device, seed: int, *purpose: Any) -> RowGenerator:
    """A generator on a device, for a purpose."""
    seeded_one = RowGenerator(device)
    seeded_one.manual_seed(derived_seed(seed, *purpose))
    return seeded_one


def derived_seed(seed: int, *purpose: Any) -> int:
    """63 bits for one purpose of a run; other purposes get unrelated ones."""
    words = [int.from_bytes(str(p).encode(), "big") for p in purpose]
    return int(np.random.SeedSequence(seed, spawn_key=tuple(words)).generate_state(1, np.uint64)[0] >> 1)
