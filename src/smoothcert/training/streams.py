"""Where training images come from: endless passes over a set, each in an order of its own, read ahead of their use."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from smoothcert.data import ImageData
from smoothcert.draws import derive_seed

Item = TypeVar("Item")
Content = TypeVar("Content")


@dataclass(frozen=True, eq=False)
class Stream:
    """Images that training draws from, and what their loss counts.

    Attributes:
        name: "" for the labelled images; another goes before the names of its figures, and keys its randomness.
        data: the set; its own labels are not looked at.
        labels: (N,) int64, the label of every image of `data` that is drawn.
        indices: (M,) int64, the images that are drawn.
        weight: of their mean loss in a step.
    """

    name: str
    data: ImageData
    labels: np.ndarray
    indices: np.ndarray
    weight: float = 1.0

    @property
    def key(self) -> tuple[str, ...]:
        """What tells its random numbers from those of the labelled images."""
        return (self.name,) if self.name else ()

    def titled(self, name: str) -> str:
        """A figure's name among those of all streams."""
        return f"{self.name}_{name}" if self.name else name

    def batches(self, seed: int, epoch: int, sizes: Sequence[int], images_per_epoch: int) -> list[list[int]]:
        """The images of an epoch (from 0) in batches of these sizes; the next epoch goes on where it ends.

        Every image comes once before one comes twice, however many of them make an epoch.
        """
        drawn = shuffled(self.indices, seed, (*self.key, "order"), epoch * images_per_epoch, sum(sizes))
        return [part.tolist() for part in np.split(drawn, np.cumsum(sizes)[:-1])]


def shuffled(indices: np.ndarray, seed: int, purpose: Sequence[str], start: int, count: int) -> np.ndarray:
    """Places start .. start + count - 1 of an endless list: passes over `indices`, each in an order of its own.

    A pure function: nothing to save, nothing to restore.

    >>> endless = shuffled(np.arange(3), 0, ["order"], 0, 9)
    >>> [sorted(part.tolist()) for part in np.split(endless, 3)]
    [[0, 1, 2], [0, 1, 2], [0, 1, 2]]
    >>> bool((shuffled(np.arange(3), 0, ["order"], 4, 3) == endless[4:7]).all())
    True
    """
    size = len(indices)
    first, last = start // size, (start + count - 1) // size
    passes = [np.random.default_rng(derive_seed(seed, *purpose, k)).permutation(indices)
              for k in range(first, last + 1)]
    return np.concatenate(passes)[start - first * size :][:count]


def batch_sizes(images: int, batch_size: int) -> list[int]:
    """Return the sizes of an epoch's batches. A last image that would be alone joins the batch before it, since
    BatchNorm cannot train on a single row.

    >>> batch_sizes(10, 4), batch_sizes(9, 4)
    ([4, 4, 2], [4, 5])
    """
    sizes = [min(batch_size, images - begin) for begin in range(0, images, batch_size)]
    if batch_size > 1 and len(sizes) > 1 and sizes[-1] == 1:
        sizes[-2:] = [batch_size + 1]
    return sizes


def read_ahead(items: Sequence[Item], read: Callable[[Item], Content]) -> Iterator[Content]:
    """What `read` gives for each item, the next one read in a thread while this one is worked on."""
    with ThreadPoolExecutor(1) as reader:
        upcoming = [reader.submit(read, item) for item in items[:1]]
        for following in range(1, len(items) + 1):
            content = upcoming.pop().result()
            upcoming += [reader.submit(read, item) for item in items[following : following + 1]]
            yield content
