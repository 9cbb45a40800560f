"""The bound of Yang et al. 2021 and of Sinha et al. 2018: gamma rho + mean phi_gamma, in two forms never to be mixed.

    inside    phi(x0) = E_z sup_x { l(x + z) - gamma ||x + z - x0||^2 } = sup_u { l(u) - gamma ||u - x0||^2 }
              WRM's surrogate; rho bounds E ||u - x0||^2, the noise in u included
    outside   phi(x0) = sup_x { E_z l(x + z) - gamma ||x - x0||^2 }
              rho bounds E ||x - x0||^2, for adversaries that do not see the noise; what NAL descends

Ascent finds a value below the supremum, so the bound is an `estimate`, unless the bracket is known to be strongly
concave and the ascent's residual is bounded: then it is a `certificate`. See `concavity`.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from smoothcert.checks import check_optional_positive, check_probability, check_seed
from smoothcert.distributional.concavity import Standing, inside_standing, outside_standing
from smoothcert.distributional.ends import Ends, SurrogateBound, Terms, bound_from
from smoothcert.distributional.inner import Search, solve
from smoothcert.distributional.limits import check_gammas
from smoothcert.distributional.losses import PointLoss
from smoothcert.distributional.sampling import Batches, ceiling_of, sample_losses
from smoothcert.errors import InputError
from smoothcert.noise import Noise
from smoothcert.objectives.protocol import Model
from smoothcert.smoothing.protocols import check_ready


def inside_bound(
    model: Model, loss: PointLoss, batches: Batches, gammas: float | list[float], *, seed: int, alpha: float = 0.001,
    smoothness: float | None = None, search: Search | None = None,
) -> SurrogateBound:
    """The bound with the supremum inside the expectation: WRM's, of the base classifier.

    Args:
        model: (N, C, H, W) -> (N, K) logits, in eval mode.
        loss: l >= 0; only one with a ceiling can become a certificate.
        batches: (images, labels) in pieces, read once; for a certificate independent draws of the law P0.
        gammas: prices of distance, chosen before the images were seen.
        seed: of every random number.
        alpha: failure probability of all certificates together.
        smoothness: a Lipschitz constant of x -> grad l(model(x), y), where one is known.
        search: how the inner problems are solved.
    Raises:
        InputError: values out of range, no images, or the 0-1 loss. ModelError: a network in train mode, or a loss
        that is not a number.
    """
    check_optional_positive("smoothness", smoothness)
    standings = [inside_standing(gamma, loss.ceiling, smoothness) for gamma in check_gammas(gammas)]
    return _bound(model, loss, batches, check_gammas(gammas), None, standings, seed, alpha, search)


def outside_bound(
    model: Model, loss: PointLoss, batches: Batches, gammas: float | list[float], noise: Noise, *, seed: int,
    alpha: float = 0.001, search: Search | None = None,
) -> SurrogateBound:
    """The bound with the supremum outside the expectation over the noise: of the smoothed classifier.

    Arguments and errors as for `inside_bound`; `noise` is that of certification, whose sigma the search uses too.
    Where gamma makes it a certificate, `search.check` keyed noisy copies an image bound l_hat(x_K) and its gradient.
    """
    standings = [outside_standing(gamma, noise.sigma, loss.ceiling) for gamma in check_gammas(gammas)]
    return _bound(model, loss, batches, check_gammas(gammas), noise, standings, seed, alpha, search)


def ends_of(
    model: Model, loss: PointLoss, images: Tensor, labels: Tensor, gamma: float, noise: Noise | None,
    standing: Standing, search: Search, seed: int, generator: torch.Generator,
) -> Ends:
    """Ascend from images (B, C, H, W) at one gamma, and look at where that ended.

    Args:
        noise: for the form outside; None inside.
        standing: where it is that of a certificate outside, `search.check` keyed noisy copies are drawn there too.
        generator: of all other randomness, on the images' device. The rest is as for `outside_bound`.
    """
    images = images if noise is None else images.float()
    found = solve(model, loss, images, labels, gamma, None if noise is None else noise.sigma, search, generator)
    if noise is None or standing.label == "estimate":
        return Ends(found.loss, found.cost, found.slope)
    moments = sample_losses(model, loss, found.moved, labels, noise, search.check, seed=seed, gradient=True,
                            rows=search.rows)
    moves = (found.moved.double() - images.double()).flatten(1).cpu().numpy()
    steep = np.linalg.norm(ceiling_of(loss) * np.asarray(moments.gradient) - 2 * gamma * moves, axis=1)
    return Ends(found.loss, found.cost, found.slope, moments, steep)


def _bound(
    model: Model, loss: PointLoss, batches: Batches, gammas: tuple[float, ...], noise: Noise | None,
    standings: list[Standing], seed: int, alpha: float, search: Search | None,
) -> SurrogateBound:
    check_ready(model)
    search, alpha = search or Search(), check_probability("alpha", alpha)
    ends: list[list[Ends]] = [[] for _ in gammas]
    dimension = 0
    for x, y, generator in seeded(batches, seed):
        for parts, gamma, standing in zip(ends, gammas, standings, strict=True):
            parts.append(ends_of(model, loss, x, y, gamma, noise, standing, search, seed, generator))
        dimension = x[0].numel()
    if not dimension:
        raise InputError("there are no images to bound the loss of")
    terms = Terms(loss.ceiling, None if noise is None else noise.sigma, dimension, alpha, search.tolerance)
    return bound_from(gammas, [Ends.joined(parts) for parts in ends], standings, terms)


def seeded(batches: Batches, seed: int) -> Iterator[tuple[Tensor, Tensor, torch.Generator]]:
    """The non-empty batches, each with the one generator of the run, on the images' device."""
    check_seed(seed)
    generator = None
    for images, labels in batches:
        generator = generator or torch.Generator(images.device).manual_seed(seed % 2**63)
        if len(images):
            yield images, labels, generator
