"""Gradients that can be repeated: of a random classifier under one draw, by one processor thread."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from smoothcert.smoothing.precision import tf32
from smoothcert.smoothing.protocols import is_random


def fix_normals(model: Any, random: torch.Generator) -> Any:
    """Return the base classifier as gradients are taken of it: a random one gets its normals from `random`."""
    if not is_random(model):
        return model

    def normals(t: int, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=random, device=like.device, dtype=like.dtype)

    return lambda images: model(images, normals)


@contextmanager
def repeatable() -> Iterator[None]:
    """Give the same gradients at every call on one machine: one processor thread, cuDNN's repeatable kernels, and all
    bits of float32, since `torch.backends.cudnn.flags` allows TF32 unless it is told otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.backends.cudnn.flags(enabled=True, deterministic=True), tf32(False):
            yield
    finally:
        torch.set_num_threads(before)
