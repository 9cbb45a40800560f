"""The asymmetry of a denoiser's Jacobian: its distance from a gradient field."""

from typing import Any

import torch
from torch import Tensor

from smoothcert.checks import check_count
from smoothcert.smoothing.sampling import denoise


def asymmetry(
    denoiser: Any, y: Tensor, probes: int, generator: torch.Generator, sigma: float | None = None
) -> Tensor:
    """Estimate ||J - J^T||_F / ||J||_F at each y, (N,), J the Jacobian of x_hat.

    The least-squares estimator is y - sigma^2 grad phi(y), with a symmetric Jacobian. An energy's Jacobian is symmetric
    too, so that this is 0 up to rounding; a direct network's need not be. The largest value is 2, for J = -J^T. It is
    estimated from `probes` random v ~ N(0, I): E||(J - J^T) v||^2 = ||J - J^T||_F^2 and
    E(||J v||^2 + ||J^T v||^2) / 2 = ||J||_F^2.

    Args:
        denoiser: (y, sigma) -> x_hat, in eval mode, so that a row does not depend on the others.
        y: (N, *shape).
        generator: on y's device.
        sigma: None is the denoiser's own.
    """
    level = denoiser.sigma if sigma is None else sigma
    difference, size = (torch.zeros(len(y), dtype=torch.float64, device=y.device) for _ in range(2))
    with torch.enable_grad():
        leaf = y.detach().requires_grad_()
        estimate = denoise(denoiser, leaf, level)
        for _ in range(check_count("probes", probes)):
            v = torch.randn(y.shape, generator=generator, device=y.device, dtype=y.dtype)
            u = torch.zeros_like(v, requires_grad=True)  # J v is the derivative of <J^T u, v> with respect to u
            (pulled,) = torch.autograd.grad(estimate, leaf, u, create_graph=True)
            (forward,) = torch.autograd.grad(pulled, u, v, retain_graph=True)
            (backward,) = torch.autograd.grad(estimate, leaf, v, retain_graph=True)
            difference += (forward - backward).double().square().flatten(1).sum(dim=1)
            size += (forward.double().square() + backward.double().square()).flatten(1).sum(dim=1) / 2
    return (difference / size).sqrt()
