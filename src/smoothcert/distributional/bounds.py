"""The bound of Yang et al. 2021 and of Sinha et al. 2018: gamma rho + mean phi_gamma, in two forms never to be mixed.

    inside    phi(x0) = E_z sup_x { l(x + z) - gamma ||x + z - x0||^2 } = sup_u { l(u) - gamma ||u - x0||^2 }
              WRM's surrogate; rho bounds E ||u - x0||^2, the noise in u included
    outside   phi(x0) = sup_x { E_z l(x + z) - gamma ||x - x0||^2 }
              rho bounds E ||x - x0||^2, for adversaries that do not see the noise; what NAL descends

Ascent finds a value below the supremum, so the bound is an `estimate`, unless the bracket is known to be strongly
concave and the ascent's residual is bounded: then it is a `certificate`. See `concavity`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from smoothcert.checks import check_optional_positive, check_probability, check_seed
from smoothcert.distributional.concavity import Standing, gradient_error, inside_standing, outside_standing
from smoothcert.distributional.inner import Search, Solved, solve
from smoothcert.distributional.limits import check_gammas, check_rho, round_up
from smoothcert.distributional.losses import PointLoss
from smoothcert.distributional.sampling import Batches, LossMoments, ceiling_of, sample_losses
from smoothcert.errors import InputError
from smoothcert.noise import Noise
from smoothcert.objectives.protocol import Model
from smoothcert.smoothing.protocols import check_ready


@dataclass(frozen=True)
class Surrogate:
    """phi_gamma over a data set.

    Attributes:
        gamma: price of a unit of squared distance.
        value: what the bound adds to gamma rho: an upper limit of E phi_gamma, rounded up, for a certificate; else the
            estimate itself.
        estimate: mean of l_hat(x_K) - gamma ||x_K - x0||^2.
        label: "certificate" or "estimate".
        reason: why it is only an estimate.
        rho: mean of ||x_K - x0||^2, the transport cost of what the ascent found.
        loss: mean of l_hat(x_K), the expected loss there.
        residual: mean of ||gradient||^2 / (4 gamma) at x_K, measured with fresh noise.
        solved: share of the images whose residual is within the tolerance.
    """

    gamma: float
    value: float
    estimate: float
    label: str
    reason: str
    rho: float
    loss: float
    residual: float
    solved: float


@dataclass(frozen=True)
class BoundAt:
    """The bound at one rho: `label` is that of the surrogate whose gamma made it least."""

    rho: float
    value: float
    gamma: float
    label: str


@dataclass(frozen=True)
class SurrogateBound:
    """gamma rho + value(gamma) for a list of gammas. With probability 1 - alpha all its certificates hold at once.

    Attributes:
        form: "inside" or "outside".
        surrogates: one a gamma, in the order given.
        images: m.
        alpha: failure probability of its certificates.
        noise_cost: d sigma^2, what the noise adds to the cost inside; 0 where there is no noise.
    """

    form: str
    surrogates: tuple[Surrogate, ...]
    images: int
    alpha: float
    noise_cost: float = 0.0

    def at(self, rho: float) -> BoundAt:
        """The least bound over the gammas, with its label. Raises InputError for rho < 0."""
        return _least(check_rho(rho), self.surrogates)

    def certificate(self, rho: float) -> BoundAt:
        """The least bound that is a certificate. Raises InputError, with the reason, where there is none."""
        certified = [s for s in self.surrogates if s.label == "certificate"]
        if not certified:
            raise InputError(f"none of these bounds is a certificate: {max(self.surrogates, key=_gamma).reason}")
        return _least(check_rho(rho), certified)


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
    return _bound("inside", model, loss, batches, check_gammas(gammas), None, standings, seed, alpha, search)


def outside_bound(
    model: Model, loss: PointLoss, batches: Batches, gammas: float | list[float], noise: Noise, *, seed: int,
    alpha: float = 0.001, search: Search | None = None,
) -> SurrogateBound:
    """The bound with the supremum outside the expectation over the noise: of the smoothed classifier.

    Arguments and errors as for `inside_bound`; `noise` is that of certification, whose sigma the search uses too.
    Where gamma makes it a certificate, `search.check` keyed noisy copies an image bound l_hat(x_K) and its gradient.
    """
    standings = [outside_standing(gamma, noise.sigma, loss.ceiling) for gamma in check_gammas(gammas)]
    return _bound("outside", model, loss, batches, check_gammas(gammas), noise, standings, seed, alpha, search)


@dataclass(frozen=True)
class _Piece:
    """One batch at one gamma; for a certificate outside, with fresh keyed samples, and their slope at x_K."""

    solved: Solved
    moments: LossMoments | None = None
    slope: np.ndarray | None = None


def _bound(
    form: str, model: Model, loss: PointLoss, batches: Batches, gammas: tuple[float, ...], noise: Noise | None,
    standings: list[Standing], seed: int, alpha: float, search: Search | None,
) -> SurrogateBound:
    check_ready(model)
    search, alpha = search or Search(), check_probability("alpha", alpha)
    pieces: list[list[_Piece]] = [[] for _ in gammas]
    images, dimension = 0, 0
    for x, y, generator in seeded(batches, seed):
        for place, gamma, standing in zip(pieces, gammas, standings, strict=True):
            place.append(_piece(model, loss, x, y, gamma, noise, standing, search, seed, generator))
        images, dimension = images + len(x), x[0].numel()
    if not images:
        raise InputError("there are no images to bound the loss of")
    surrogates = tuple(_surrogate(place, loss, gamma, noise, standing, search, (images, len(gammas), alpha))
                       for place, gamma, standing in zip(pieces, gammas, standings, strict=True))
    return SurrogateBound(form, surrogates, images, alpha, 0.0 if noise is None else dimension * noise.sigma**2)


def seeded(batches: Batches, seed: int) -> Iterator[tuple[Tensor, Tensor, torch.Generator]]:
    """The non-empty batches, each with the one generator of the run, on the images' device."""
    check_seed(seed)
    generator = None
    for images, labels in batches:
        generator = generator or torch.Generator(images.device).manual_seed(seed % 2**63)
        if len(images):
            yield images, labels, generator


def _piece(
    model: Model, loss: PointLoss, images: Tensor, labels: Tensor, gamma: float, noise: Noise | None,
    standing: Standing, search: Search, seed: int, generator: torch.Generator,
) -> _Piece:
    if noise is None:
        return _Piece(solve(model, loss, images, labels, gamma, None, search, generator))
    if standing.label == "estimate":
        return _Piece(solve(model, loss, images, labels, gamma, noise.sigma, search, generator))
    images = images.float()
    solved = solve(model, loss, images, labels, gamma, noise.sigma, search, generator)
    moments = sample_losses(model, loss, solved.moved, labels, noise, search.check, seed=seed, gradient=True,
                            rows=search.rows)
    moves = (solved.moved.double() - images.double()).flatten(1).cpu().numpy()
    slope = np.linalg.norm(ceiling_of(loss) * np.asarray(moments.gradient) - 2 * gamma * moves, axis=1)
    return _Piece(solved, moments, slope)


def _surrogate(
    pieces: list[_Piece], loss: PointLoss, gamma: float, noise: Noise | None, standing: Standing, search: Search,
    count: tuple[int, int, float],
) -> Surrogate:
    found, cost, slope = (np.concatenate([getattr(p.solved, name) for p in pieces])
                          for name in ("loss", "cost", "slope"))
    residual = slope**2 / (4 * gamma)
    estimate = float(np.mean(found - gamma * cost))
    value = estimate
    if standing.label == "certificate":
        ceiling, (m, several, alpha) = ceiling_of(loss), count
        if noise is None:
            phi, share = found - gamma * cost + slope**2 / (2 * standing.curvature), alpha
        else:
            tops = [_top(p, gamma, noise, ceiling, standing, alpha / (4 * m * several)) for p in pieces]
            phi, share = np.concatenate(tops), alpha / 2
        mean = float(np.mean(np.clip(phi, 0.0, ceiling)))
        value = min(round_up(mean + ceiling * math.sqrt(math.log(several / share) / (2 * m))), ceiling)
    return Surrogate(gamma, value, estimate, standing.label, standing.reason, float(cost.mean()), float(found.mean()),
                     float(residual.mean()), float(np.mean(residual <= search.tolerance)))


def _top(
    piece: _Piece, gamma: float, noise: Noise, ceiling: float, standing: Standing, alpha: float
) -> np.ndarray:
    """Upper limits (B,) of phi, each at level 2 alpha: the value at x_K, and what a strongly concave top adds."""
    moments, slope = piece.moments, piece.slope
    if moments is None or slope is None:
        raise ValueError("a certificate needs fresh samples")
    steep = slope + gradient_error(piece.solved.moved[0].numel(), moments.n, ceiling, noise.sigma, alpha)
    return ceiling * moments.limits(alpha) - gamma * piece.solved.cost + steep**2 / (2 * standing.curvature)


def _least(rho: float, surrogates: tuple[Surrogate, ...] | list[Surrogate]) -> BoundAt:
    values = [s.gamma * rho + s.value for s in surrogates]
    best = int(np.argmin(values))
    chosen = surrogates[best]
    value = round_up(values[best]) if chosen.label == "certificate" else values[best]
    return BoundAt(rho, value, chosen.gamma, chosen.label)


def _gamma(surrogate: Surrogate) -> float:
    return surrogate.gamma
