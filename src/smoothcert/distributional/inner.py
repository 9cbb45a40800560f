"""The inner problem of the paper's bound, solved by ascent and then looked at with fresh noise."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from smoothcert.attacks import attacked, draw_noise, l2_norms
from smoothcert.attacks.frozen import frozen
from smoothcert.attacks.problem import Problem
from smoothcert.checks import check_count, check_positive
from smoothcert.distributional.losses import PointLoss
from smoothcert.distributional.sampling import in_range
from smoothcert.errors import InputError, ModelError
from smoothcert.objectives.nal import Ascent
from smoothcert.objectives.protocol import Model


@dataclass(frozen=True)
class Search:
    """How inner problems are solved. Memory: a batch's images times `draws`, and `rows` of them in the network.

    Attributes:
        steps: at most so many steps, of size .5 / (gamma sqrt(t + 1)).
        draws: noisy copies an image at each step, drawn anew.
        tolerance: in units of the loss: an image is solved once ||gradient||^2 / (4 gamma) is at most this, the
            gradient measured with a step's fresh noise.
        check: fresh noisy copies an image with which the end point is judged.
        rows: at most this many noisy images in one pass; None is 128 on a CPU and 512 elsewhere.
    """

    steps: int = 100
    draws: int = 16
    tolerance: float = 1e-4
    check: int = 1000
    rows: int | None = None

    def __post_init__(self):
        check_count("steps", self.steps)
        check_count("draws", self.draws)
        check_positive("tolerance", self.tolerance)
        check_count("check", self.check)


@dataclass(frozen=True, eq=False)
class Solved:
    """Where the ascent ended for B images.

    Attributes:
        moved: x_K, (B, C, H, W).
        loss: l_hat(x_K), (B,) float64, a mean over fresh noise.
        cost: ||x_K - x0||^2, (B,).
        slope: norm of the bracket's gradient at x_K, (B,), a mean over fresh noise (its own error included).
    """

    moved: Tensor
    loss: np.ndarray
    cost: np.ndarray
    slope: np.ndarray


def solve(
    model: Model, loss: PointLoss, images: Tensor, labels: Tensor, gamma: float, sigma: float | None, search: Search,
    generator: torch.Generator,
) -> Solved:
    """Ascend E_z l(x + z) - gamma ||x - x0||^2 from x0, z ~ N(0, sigma^2 I); sigma = None: no noise.

    Raises InputError for a loss without gradient.
    """
    if loss.binary:
        raise InputError(f"the {loss.name} loss has no gradient to ascend: take a clipped cross-entropy here, or the "
                         f"closed certificate, which needs no ascent")
    ascent = Ascent(gamma, search.steps, loss.mean, decay=True, fresh=sigma, noise_in_cost=False,
                    tolerance=search.tolerance)
    copies = 1 if sigma is None else search.draws
    still = torch.zeros_like(images).unsqueeze(1).expand(-1, copies, -1, -1, -1)
    moved = attacked(ascent, model, images, labels, still, generator=generator, bounds=None, rows=search.rows)
    return judged(model, loss, images, moved, labels, gamma, sigma, search, generator)


def judged(
    model: Model, loss: PointLoss, images: Tensor, moved: Tensor, labels: Tensor, gamma: float, sigma: float | None,
    search: Search, generator: torch.Generator,
) -> Solved:
    """Loss and gradient at points `moved`, under `search.check` fresh draws of noise an image."""
    total, gradient, copies = images.new_zeros(len(images), dtype=torch.float64), torch.zeros_like(images), 0
    everywhere = torch.full((len(images),), torch.inf, dtype=torch.float64, device=images.device)
    rows = search.rows or (128 if images.device.type == "cpu" else 512)
    wanted = 1 if sigma is None else search.check
    with frozen(model) as network:
        while copies < wanted:
            n = min(search.draws, wanted - copies)
            noise = torch.zeros_like(images).unsqueeze(1) if sigma is None else draw_noise(images, n, sigma, generator)
            problem = Problem(network, moved, labels, noise, everywhere, False, None, rows, generator)
            seen = problem.gradient(torch.zeros_like(images), loss.mean)
            total += loss.each(seen.logits.double(), labels).sum(dim=1)
            gradient += seen.gradient * n
            copies += n
    moves = moved.double() - images.double()
    return Solved(moved, _checked(loss, (total / copies).cpu().numpy()), _array(l2_norms(moves).square()),
                  _array(l2_norms(gradient.double() / copies - 2 * gamma * moves)))


def _array(values: Tensor) -> np.ndarray:
    return values.cpu().numpy()


def _checked(loss: PointLoss, values: np.ndarray) -> np.ndarray:
    if loss.ceiling is not None:
        return in_range(loss, values / loss.ceiling) * loss.ceiling
    if np.isnan(values).any():
        raise ModelError("the base classifier's losses are NaN: check its weights and its input scale")
    return values
