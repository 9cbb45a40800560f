"""Random numbers of training and attacks: one generator for each purpose of a seed, and rows that processes share."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

Draw = Callable[[list[int]], Tensor]
"""A shape -> random numbers of that shape."""


class RowGenerator(torch.Generator):
    """A generator that all processes of a run hold in the same state: each draws the numbers of every row of a batch
    and keeps those of its own rows.

    So a row's numbers depend on its place in the batch, and not on how many processes share the batch. Numbers that
    belong to the batch as a whole are the same in all processes.
    """

    _rows: list[int] | None = None
    _whole: int = 0

    def hold(self, rows: Sequence[int], whole: int) -> None:
        """From now on, draw for these rows of a batch of `whole` rows."""
        self._rows = None if list(rows) == list(range(whole)) else list(rows)
        self._whole = whole

    def draw_rows(self, draw: Draw, shape: Sequence[int], dim: int) -> Tensor:
        """Call `draw` for all rows of the batch, which lie along `dim`, and return those held, of the shape given."""
        if self._rows is None:
            return draw(list(shape))
        whole = [*shape[:dim], self._whole, *shape[dim + 1 :]]
        numbers = draw(whole)
        return numbers.index_select(dim, torch.tensor(self._rows, device=numbers.device))


def standard_normals(shape: Sequence[int], generator: torch.Generator, like: Tensor) -> Tensor:
    """Return standard normals of a shape (B, ...), on the device and of the type of `like`."""

    def draw(size: list[int]) -> Tensor:
        return torch.randn(size, generator=generator, device=like.device, dtype=like.dtype)

    return draw_rows(draw, shape, generator)


def standard_uniforms(shape: Sequence[int], generator: torch.Generator, like: Tensor) -> Tensor:
    """Return numbers of U[0, 1) of a shape (B, ...), on the device and of the type of `like`."""

    def draw(size: list[int]) -> Tensor:
        return torch.rand(size, generator=generator, device=like.device, dtype=like.dtype)

    return draw_rows(draw, shape, generator)


def draw_rows(draw: Draw, shape: Sequence[int], generator: torch.Generator, dim: int = 0) -> Tensor:
    """Return `draw(shape)`, whose numbers come from `generator`; from a `RowGenerator`, the numbers of the rows that it
    holds, which lie along `dim`."""
    return generator.draw_rows(draw, shape, dim) if isinstance(generator, RowGenerator) else draw(list(shape))


@contextmanager
def seed_torch(seed: int, *purpose: Any) -> Iterator[None]:
    """Seed torch's global generator, which initial weights and dropout draw from, for one purpose of a run, and restore
    its state afterwards."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(derive_seed(seed, *purpose))
        yield


def generator(device: torch.device, seed: int, *purpose: Any) -> RowGenerator:
    """Return a generator on a device for one purpose of a run."""
    made = RowGenerator(device)
    made.manual_seed(derive_seed(seed, *purpose))
    return made


def derive_seed(seed: int, *purpose: Any) -> int:
    """Return a seed of 63 bits for one purpose of a run; seeds of different purposes are unrelated."""
    words = [int.from_bytes(str(p).encode(), "big") for p in purpose]
    return int(np.random.SeedSequence(seed, spawn_key=tuple(words)).generate_state(1, np.uint64)[0] >> 1)
