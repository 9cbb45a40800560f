"""Gradients that can be repeated: of a random classifier under one draw."""

from typing import Any

import torch
from torch import Tensor

from smoothcert.smoothing.protocols import is_random


def fix_normals(model: Any, random: torch.Generator) -> Any:
    """Return the base classifier as gradients are taken of it: a random one gets its normals from `random`."""
    if not is_random(model):
        return model

    def normals(t: int, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=random, device=like.device, dtype=like.dtype)

    return lambda images: model(images, normals)
