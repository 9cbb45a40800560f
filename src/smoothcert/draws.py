"""Random numbers of training and attacks: a stream for each purpose of a seed, and rows that processes share."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

Draw = Callable[[list[int]], Tensor]
"""A shape -> random numbers of that shape."""


class RowGenerator(torch.Generator):
    """A generator that all processes of a run hold in the same state: each draws for every row of a batch and keeps
    the numbers of the rows that it holds.

    So a row's numbers depend on its place in the batch, and not on how many processes share it. What is drawn for the
    batch as a whole is the same in all of them.
    """

    _rows: list[int] | None = None
    _whole: int = 0

    def hold(self, rows: Sequence[int], whole: int) -> None:
        """Draw from now on for these of `whole` rows."""
        self._rows = None if list(rows) == list(range(whole)) else list(rows)
        self._whole = whole

    def drawn(self, draw: Draw, shape: Sequence[int], dim: int) -> Tensor:
        """`draw` of a shape that has all rows along `dim`, cut down to the rows held: of the shape given."""
        if self._rows is None:
            return draw(list(shape))
        whole = [*shape[:dim], self._whole, *shape[dim + 1 :]]
        numbers = draw(whole)
        return numbers.index_select(dim, torch.tensor(self._rows, device=numbers.device))


def standard_normals(shape: Sequence[int], generator: torch.Generator, like: Tensor) -> Tensor:
    """Standard normals of a shape (B, ...), on the device and of the type of `like`."""

    def draw(size: list[int]) -> Tensor:
        return torch.randn(size, generator=generator, device=like.device, dtype=like.dtype)

    return drawn(draw, shape, generator)


def drawn(draw: Draw, shape: Sequence[int], generator: torch.Generator, dim: int = 0) -> Tensor:
    """`draw(shape)`, whose numbers come from `generator`; of a `RowGenerator`, those of its rows, which lie along
    `dim`."""
    return generator.drawn(draw, shape, dim) if isinstance(generator, RowGenerator) else draw(list(shape))


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
