"""Run any number of images through a model that takes batches of certain sizes only."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class BatchSizes:
    """The numbers of rows that a model takes: least, least + step, least + 2 step, ..., up to most (None: no limit).

    `alone`: each image is judged in a batch of its own, with zeros for company.
    """

    least: int = 1
    most: int | None = None
    step: int = 1
    alone: bool = False

    @property
    def free(self) -> bool:
        """True where the model takes any number of rows."""
        return self.least <= 1 and self.most is None and self.step == 1 and not self.alone

    def up_from(self, n: int) -> int:
        """Return the smallest size of at least n rows, for n <= most.

        >>> BatchSizes(least=8, step=8).up_from(20)
        24
        """
        return self.least + max(0, -(-(n - self.least) // self.step)) * self.step


ANY_BATCH, ONE_ROW = BatchSizes(), BatchSizes(1, 1)


def in_batches(run: Callable[[Tensor], Tensor], images: Tensor, sizes: BatchSizes) -> Tensor:
    """Return run(images), computed in batches of those sizes, the short ones filled up with zeros.

    inputs (N, *shape) -> (N, K), for a `run` that judges each image alone; the rows of the filling are dropped.

    >>> in_batches(lambda batch: batch.reshape(4, 1) + 1, torch.arange(6.), BatchSizes(4, 4)).flatten()
    tensor([1., 2., 3., 4., 5., 6.])
    """
    most = 1 if sizes.alone else sizes.most
    if most is None or len(images) <= most:
        return _fill_up(run, images, sizes)
    return torch.cat([_fill_up(run, batch, sizes) for batch in images.split(most)])


def _fill_up(run: Callable[[Tensor], Tensor], batch: Tensor, sizes: BatchSizes) -> Tensor:
    missing = 0 if sizes.free else sizes.up_from(len(batch)) - len(batch)
    if missing == 0:
        return run(batch)
    return run(torch.cat([batch, batch.new_zeros(missing, *batch.shape[1:])]))[: len(batch)]
