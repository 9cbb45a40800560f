"""Steepest directions and balls of the l2 and l_inf norms, batch-wise: tensors (B, ...), radii (B,)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from smoothcert.draws import standard_normals


def along(values: Tensor, like: Tensor) -> Tensor:
    """Return (B,) values shaped and typed to multiply `like` (B, ...)."""
    return values.to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))


def l2_norms(delta: Tensor) -> Tensor:
    """Return ||delta||_2 of each example, (B,) float64."""
    return torch.linalg.vector_norm(delta.flatten(1), dim=1, dtype=torch.float64)


def l2_direction(gradient: Tensor, generator: torch.Generator) -> Tensor:
    """Return gradient / ||gradient||_2, or a random unit direction where the gradient is zero."""
    gradient = _never_zero(gradient, generator)
    return gradient / along(l2_norms(gradient), gradient)


def linf_direction(gradient: Tensor, generator: torch.Generator) -> Tensor:
    """Return sign(gradient), or random signs where the gradient is zero."""
    return _never_zero(gradient, generator).sign()


def into_l2_ball(delta: Tensor, radius: Tensor) -> Tensor:
    """Return the nearest point of ||delta||_2 <= radius."""
    return delta * along((radius / l2_norms(delta)).clamp(max=1).nan_to_num(nan=0), delta)


def into_linf_ball(delta: Tensor, radius: Tensor) -> Tensor:
    """Return the nearest point of ||delta||_inf <= radius."""
    bound = along(radius, delta)
    return delta.clamp(-bound, bound)


def safe_radius(eps: Tensor, dimension: int, magnitude: float, norm: str, dtype: torch.dtype) -> Tensor:
    """Return a radius just below eps, such that x' = x + delta as rounded keeps ||x' - x|| <= eps exactly.

    Args:
        eps: (B,) float64.
        dimension: entries of one example; each is rounded by at most magnitude * 2^-24 in float32.
        magnitude: the largest |x'|.
        norm: "l2" or "linf".
        dtype: of the images.
    """
    unit = torch.finfo(dtype).eps
    rounding = magnitude * unit / 2 * (dimension**0.5 if norm == "l2" else 1.0)
    return (eps * (1 - 4 * unit) - rounding).clamp(min=0)


@dataclass(frozen=True)
class Norm:
    """A norm's steepest direction and its projection."""

    direction: Callable[[Tensor, torch.Generator], Tensor]
    project: Callable[[Tensor, Tensor], Tensor]


NORMS: dict[str, Norm] = {"l2": Norm(l2_direction, into_l2_ball), "linf": Norm(linf_direction, into_linf_ball)}


def _never_zero(gradient: Tensor, generator: torch.Generator) -> Tensor:
    zero = ~gradient.flatten(1).any(dim=1)
    if not zero.any():
        return gradient
    random = standard_normals(gradient.shape, generator, gradient)
    return torch.where(along(zero, gradient).bool(), random, gradient)
