"""The ascents that solve inner problems, and what follows from them: bounds, and the worst case that was found.

The bound gamma rho + mean phi_gamma of Yang et al. 2021 and Sinha et al. 2018 has two forms, which must not be mixed:

    inside    phi(x0) = E_z sup_x { l(x + z) - gamma ||x + z - x0||^2 } = sup_u { l(u) - gamma ||u - x0||^2 }
              is WRM's surrogate; rho bounds E ||u - x0||^2, which includes the noise in u
    outside   phi(x0) = sup_x { E_z l(x + z) - gamma ||x - x0||^2 }
              is what NAL descends; rho bounds E ||x - x0||^2, for adversaries that do not see the noise

An ascent finds a value below the supremum, so the bound is an `estimate`, unless the bracket is known to be strongly
concave and the ascent's residual is bounded: then it is a `certificate`. See `concavity`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from smoothcert.attacks import Ascent, attack_images, l2_norms
from smoothcert.attacks.loop import Problem, default_rows
from smoothcert.checks import (
    check_count,
    check_optional_positive,
    check_positive,
    check_probability,
    check_seed,
    check_weight,
)
from smoothcert.distributional.bounds import BoundTerms, Ends, SurrogateBound, WorstCase, bound_from
from smoothcert.distributional.concavity import Standing, inside_standing, outside_standing
from smoothcert.distributional.limits import check_gammas, check_rho
from smoothcert.distributional.losses import Batches, PointLoss, ceiling_of, check_losses, cross_entropy, sample_losses
from smoothcert.errors import InputError
from smoothcert.noise import Noise
from smoothcert.objectives.protocol import Model
from smoothcert.smoothing.protocols import check_ready
from smoothcert.smoothing.soft import draw_noise, freeze


@dataclass(frozen=True)
class Search:
    """Settings of the ascents that solve the inner problems.

    Memory grows with a batch's images times `draws`, of which `rows` pass through the network at once.

    Attributes:
        steps: the most steps, of size .5 / (gamma sqrt(t + 1)) each.
        draws: noisy copies an image at each step, drawn anew.
        tolerance: in units of the loss: an image is solved once ||gradient||^2 / (4 gamma) is at most this, with the
            gradient under a step's fresh noise.
        check: fresh noisy copies an image at the end point, by which it is judged.
        rows: at most this many noisy images in one pass; None is 128 on a CPU and 512 elsewhere.
    """

    steps: int = 100
    draws: int = 16
    tolerance: float = 1e-4
    check: int = 1000
    rows: int | None = None

    def __post_init__(self) -> None:
        check_count("steps", self.steps)
        check_count("draws", self.draws)
        check_positive("tolerance", self.tolerance)
        check_count("check", self.check)


@dataclass(frozen=True, eq=False)
class Solved:
    """The end of the ascent for B images.

    Attributes:
        moved: x_K, (B, *shape).
        loss: l_hat(x_K), (B,) float64, a mean over fresh noise.
        cost: ||x_K - x0||^2, (B,).
        slope: norm of the bracket's gradient at x_K, (B,), a mean over fresh noise (including its own error).
    """

    moved: Tensor
    loss: np.ndarray
    cost: np.ndarray
    slope: np.ndarray


def solve(
    model: Model, loss: PointLoss, images: Tensor, labels: Tensor, gamma: float, sigma: float | None, search: Search,
    generator: torch.Generator,
) -> Solved:
    """Ascend E_z l(x + z) - gamma ||x - x0||^2 from x0, z ~ N(0, sigma^2 I), or without noise if sigma is None.

    Raises InputError for a loss without gradient.
    """
    if loss.binary:
        raise InputError(f"the {loss.name} loss has no gradient to ascend: use a clipped cross-entropy here, or the "
                         f"closed certificate, which needs no ascent")
    ascent = Ascent(gamma, search.steps, loss.mean, decay=True, fresh=sigma, noise_in_cost=False,
                    tolerance=search.tolerance)
    copies = 1 if sigma is None else search.draws
    still = torch.zeros_like(images).unsqueeze(1).expand(-1, copies, *images.shape[1:])
    moved = attack_images(ascent, model, images, labels, still, generator=generator, bounds=None, rows=search.rows)
    return judge(model, loss, images, moved, labels, gamma, sigma, search, generator)


def judge(
    model: Model, loss: PointLoss, images: Tensor, moved: Tensor, labels: Tensor, gamma: float, sigma: float | None,
    search: Search, generator: torch.Generator,
) -> Solved:
    """Return loss and gradient at points `moved`, under `search.check` fresh draws of noise an image.

    Raises ModelError for losses that are not numbers.
    """
    total, gradient, copies = images.new_zeros(len(images), dtype=torch.float64), torch.zeros_like(images), 0
    everywhere = torch.full((len(images),), torch.inf, dtype=torch.float64, device=images.device)
    rows = search.rows or default_rows(images)
    wanted = 1 if sigma is None else search.check
    with freeze(model) as network:
        while copies < wanted:
            n = min(search.draws, wanted - copies)
            noise = torch.zeros_like(images).unsqueeze(1) if sigma is None else draw_noise(images, n, sigma, generator)
            problem = Problem(network, moved, labels, noise, everywhere, False, None, rows, generator)
            seen = problem.gradient(torch.zeros_like(images), loss.mean)
            total += loss.each(seen.logits.double(), labels).sum(dim=1)
            gradient += seen.gradient * n
            copies += n
    values = (total / copies).cpu().numpy()
    unit = 1.0 if loss.ceiling is None else loss.ceiling
    values = check_losses(loss, values / unit) * unit
    moves = moved.double() - images.double()
    slope = l2_norms(gradient.double() / copies - 2 * gamma * moves)
    return Solved(moved, values, l2_norms(moves).square().cpu().numpy(), slope.cpu().numpy())


def inside_bound(
    model: Model, loss: PointLoss, batches: Batches, gammas: float | list[float], *, seed: int, alpha: float = 0.001,
    smoothness: float | None = None, search: Search | None = None,
) -> SurrogateBound:
    """Return the bound with the supremum inside the expectation: WRM's, of the base classifier.

    Args:
        model: (N, *shape) -> (N, K) logits, in eval mode.
        loss: l >= 0; only a loss with a ceiling can give a certificate.
        batches: (images, labels) in pieces, read once; for a certificate independent draws of the law P0.
        gammas: prices of distance, chosen before the images were seen.
        seed: of every random number.
        alpha: failure probability of all certificates together.
        smoothness: a Lipschitz constant of x -> grad l(model(x), y), if one is known.
        search: how the inner problems are solved.
    Raises:
        InputError: values out of range, no images, or the 0-1 loss. ModelError: a network in train mode, or losses
            that are not numbers.
    """
    check_optional_positive("smoothness", smoothness)
    standings = [inside_standing(gamma, loss.ceiling, smoothness) for gamma in check_gammas(gammas)]
    return _bound(model, loss, batches, check_gammas(gammas), None, standings, seed, alpha, search)


def outside_bound(
    model: Model, loss: PointLoss, batches: Batches, gammas: float | list[float], noise: Noise, *, seed: int,
    alpha: float = 0.001, search: Search | None = None,
) -> SurrogateBound:
    """Return the bound with the supremum outside the expectation over the noise: that of the smoothed classifier.

    Arguments and errors are as for `inside_bound`; `noise` is that of certification, whose sigma the search uses too.
    If gamma makes the bound a certificate, `search.check` keyed noisy copies an image bound l_hat(x_K) and its
    gradient.
    """
    standings = [outside_standing(gamma, noise.sigma, loss.ceiling) for gamma in check_gammas(gammas)]
    return _bound(model, loss, batches, check_gammas(gammas), noise, standings, seed, alpha, search)


def find_ends(
    model: Model, loss: PointLoss, images: Tensor, labels: Tensor, gamma: float, noise: Noise | None,
    standing: Standing, search: Search, seed: int, generator: torch.Generator,
) -> Ends:
    """Ascend from inputs (B, *shape) at one gamma, and return where that ended.

    Args:
        noise: of the outside form; None for the inside form.
        standing: for a certificate of the outside form, `search.check` keyed noisy copies are drawn at the end too.
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
    for x, y, generator in read_batches(batches, seed):
        for parts, gamma, standing in zip(ends, gammas, standings, strict=True):
            parts.append(find_ends(model, loss, x, y, gamma, noise, standing, search, seed, generator))
        dimension = x[0].numel()
    if not dimension:
        raise InputError("there are no images to bound the loss of")
    terms = BoundTerms(loss.ceiling, None if noise is None else noise.sigma, dimension, alpha, search.tolerance)
    return bound_from(gammas, [Ends.join(parts) for parts in ends], standings, terms)


def read_batches(batches: Batches, seed: int) -> Iterator[tuple[Tensor, Tensor, torch.Generator]]:
    """Yield the non-empty batches, each with the one generator of the run, on the images' device."""
    check_seed(seed)
    generator = None
    for images, labels in batches:
        generator = generator or torch.Generator(images.device).manual_seed(seed % 2**63)
        if len(images):
            yield images, labels, generator


def worst_case(
    model: Model, loss: PointLoss, batches: Batches, gammas: float | list[float], sigma: float | None, *, seed: int,
    search: Search | None = None,
) -> WorstCase:
    """Return the curve (rho, loss) over gammas, with the cost of the bound that it is to be compared with.

    Args:
        model, loss, batches, gammas, seed, search: as for `inside_bound`; a small gamma moves images far.
        sigma: noise level, for the cost of the outside form, ||x - x0||^2; None for the inside form, ||u - x0||^2.
    Raises:
        InputError: values out of range, no images, or the 0-1 loss.
    """
    prices, search = check_gammas(gammas), search or Search()
    check_optional_positive("sigma", sigma)
    sums, images = np.zeros((2, len(prices))), 0
    for x, y, generator in read_batches(batches, seed):
        for k, gamma in enumerate(prices):
            solved = solve(model, loss, x, y, gamma, sigma, search, generator)
            sums[:, k] += solved.cost.sum(), solved.loss.sum()
        images += len(x)
    if not images:
        raise InputError("there are no images to attack")
    return WorstCase(np.array(prices), *sums / images)


def rho_of_eps(eps: float) -> float:
    """Return rho = eps^2, the most that moving every image by at most eps can cost. Raises InputError for eps < 0.

    >>> rho_of_eps(0.5)
    0.25
    """
    return check_weight("eps", eps) ** 2


def eps_of_rho(rho: float) -> float:
    """Return eps = sqrt(rho), how far every image may be moved at that cost. Raises InputError for rho < 0."""
    return math.sqrt(check_rho(rho))


def eps_equivalent(
    model: Model, batches: Batches, gamma: float, sigma: float | None, *, seed: int, loss: PointLoss = cross_entropy,
    steps: int = 15, draws: int = 4,
) -> float:
    """Estimate the eps that a gamma stands for (Yang et al., Table 1): sqrt(mean ||x_K - x0||^2) after NAL's ascent.

    Unlike in NAL's own ascent, the noise is in the loss alone, and neither in the cost nor in the norm, where it would
    add d sigma^2. `steps` and `draws` are the ascent's K and s; sigma = None is without noise.
    """
    total, images = 0.0, 0
    for x, y, generator in read_batches(batches, seed):
        moved = move_equivalently(model, x, y, gamma, sigma, generator, loss=loss, steps=steps, draws=draws)
        total += float(l2_norms(moved - x).square().sum())
        images += len(x)
    if not images:
        raise InputError("there are no images to attack")
    return math.sqrt(total / images)


def move_equivalently(
    model: Model, images: Tensor, labels: Tensor, gamma: float, sigma: float | None, generator: torch.Generator, *,
    loss: PointLoss = cross_entropy, steps: int = 15, draws: int = 4,
) -> Tensor:
    """Return the inputs (B, *shape) after the ascent of `eps_equivalent`."""
    ascent = Ascent(check_gammas(gamma)[0], check_count("steps", steps), loss.mean, noise_in_cost=False,
                    fresh=check_optional_positive("sigma", sigma))
    still = draw_noise(images, check_count("draws", draws) if sigma else 1, 0.0, generator)
    return attack_images(ascent, model, images, labels, still, generator=generator, bounds=None)
