"""Any number of images through a model that takes batches of certain sizes only."""

from collections.abc import Callable

import torch
from torch import Tensor


def in_batches(run: Callable[[Tensor], Tensor], images: Tensor, least: int, most: int | None) -> Tensor:
    """run(images), in batches of least..most images (most = None: no limit), the short one filled up with zeros.

    images (N, C, H, W) -> (N, K), for a `run` that judges each image alone; the rows of the filling are dropped.

    >>> in_batches(lambda batch: batch.reshape(4, 1) + 1, torch.arange(6.), least=4, most=4).flatten()
    tensor([1., 2., 3., 4., 5., 6.])
    """
    batches = (images,) if most is None else images.split(most)
    return torch.cat([_filled(run, batch, least) for batch in batches])


def _filled(run: Callable[[Tensor], Tensor], batch: Tensor, least: int) -> Tensor:
    missing = least - len(batch)
    if missing <= 0:
        return run(batch)
    return run(torch.cat([batch, batch.new_zeros(missing, *batch.shape[1:])]))[: len(batch)]
