"""The images that training draws from: endless passes over a set, each in its own order, read ahead of their use."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from smoothcert.data import ImageData
from smoothcert.draws import derive_seed

Item = TypeVar("Item")
Content = TypeVar("Content")


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Images that training draws from, with their labels and the weight of their loss.

    Attributes:
        name: "" for the labelled images; any other name prefixes the names of the set's figures, and keys its
            random numbers.
        data: the data set; its own labels are not used.
        labels: (N,) int64, a label for every image of `data` that is drawn.
        indices: (M,) int64, the images that are drawn.
        weight: weight of their mean loss in a step.
    """

    name: str
    data: ImageData
    labels: np.ndarray
    indices: np.ndarray
    weight: float = 1.0

    @property
    def key(self) -> tuple[str, ...]:
        """The part of a seed's purpose that keeps this set's random numbers apart from those of the labelled images."""
        return (self.name,) if self.name else ()

    def name_figure(self, name: str) -> str:
        """Return the name of this set's figure among those of all sets."""
        return f"{self.name}_{name}" if self.name else name

    def batches(self, seed: int, epoch: int, sizes: Sequence[int], images_per_epoch: int) -> list[list[int]]:
        """Return the images of an epoch (from 0) in batches of these sizes; the next epoch continues where it ends.

        Every image comes once before any comes twice, however many images make an epoch.
        """
        order = shuffle_passes(self.indices, seed, (*self.key, "order"), epoch * images_per_epoch, sum(sizes))
        return [part.tolist() for part in np.split(order, np.cumsum(sizes)[:-1])]

    def read(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Return inputs (B, *shape) and their labels (B,)."""
        return torch.from_numpy(self.data.batch(indices)), torch.from_numpy(self.labels[indices])


def shuffle_passes(indices: np.ndarray, seed: int, purpose: Sequence[str], start: int, count: int) -> np.ndarray:
    """Return positions start .. start + count - 1 of an endless list: passes over `indices`, each in its own order.

    A pure function, so there is nothing to save and nothing to restore.

    >>> endless = shuffle_passes(np.arange(3), 0, ["order"], 0, 9)
    >>> [sorted(part.tolist()) for part in np.split(endless, 3)]
    [[0, 1, 2], [0, 1, 2], [0, 1, 2]]
    >>> bool((shuffle_passes(np.arange(3), 0, ["order"], 4, 3) == endless[4:7]).all())
    True
    """
    size = len(indices)
    first, last = start // size, (start + count - 1) // size
    passes = [np.random.default_rng(derive_seed(seed, *purpose, k)).permutation(indices)
              for k in range(first, last + 1)]
    return np.concatenate(passes)[start - first * size :][:count]


def batch_sizes(images: int, batch_size: int) -> list[int]:
    """Return the sizes of an epoch's batches. A single image left over joins the batch before it, since BatchNorm
    cannot train on a single row.

    >>> batch_sizes(10, 4), batch_sizes(9, 4)
    ([4, 4, 2], [4, 5])
    """
    sizes = [min(batch_size, images - begin) for begin in range(0, images, batch_size)]
    if batch_size > 1 and len(sizes) > 1 and sizes[-1] == 1:
        sizes[-2:] = [batch_size + 1]
    return sizes


def read_ahead(items: Sequence[Item], read: Callable[[Item], Content]) -> Iterator[Content]:
    """Yield read(item) for each item; a thread reads the next one while the caller works on this one."""
    with ThreadPoolExecutor(1) as reader:
        upcoming = [reader.submit(read, item) for item in items[:1]]
        for following in range(1, len(items) + 1):
            content = upcoming.pop().result()
            upcoming += [reader.submit(read, item) for item in items[following : following + 1]]
            yield content
