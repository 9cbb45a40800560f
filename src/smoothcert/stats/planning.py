"""Plans of a claim about new images: how many images, samples and how much alpha prove most for least, by a pilot.

Symbols: the claim is pi >= pi_L, with pi_L = (CP_lo(C, m, rho) - alpha) / (1 - alpha) (`intervals.population_bound`,
which has the proof). A pilot says, for each of its images, which probabilities its label may have; from these follow
theta, the share of images that a design claims, and the samples that an image takes, both exactly (`AtRadii.expect`).
C is then foreseen as Bin(m, t), with t of a beta law: the posterior of theta, from the pilot's number of images.

A plan chooses, and proves nothing: if the pilot misleads, the run proves less than was hoped for, and what it proves
holds all the same.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from scipy import special

from smoothcert.errors import InputError
from smoothcert.stats.at_radii import AtRadii
from smoothcert.stats.intervals import population_bound

ALPHAS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
"""The failure probabilities of each certificate that are tried."""
SIZES = (100, 200, 300, 500, 700, 1000, 1500, 2000, 3000, 5000, 7000, 10_000, 20_000, 50_000, 100_000)
"""The n_max that are tried."""

_LIKELY = 15  # equally likely probabilities that stand for what is known of an image
_SHARES = 49  # equally likely values of the share of images that are claimed
_GRID = 81  # probabilities at which a design is computed; it is interpolated between them

DesignOf = Callable[[int, float], AtRadii]
"""(n_max, alpha) -> the design, one-sided, at one radius and with labels known."""


def likely_probabilities(k: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return (M, 15) equally likely probabilities of the label of each image, from k of its n votes, (M,) each.

    They are quantiles of Beta(k + 1/2, n - k + 1/2), which is right also where the votes decided when to stop.
    """
    middle = (np.arange(_LIKELY) + 0.5) / _LIKELY
    return special.betaincinv(k[:, None] + 0.5, (n - k)[:, None] + 0.5, middle)


def find_votes(z: np.ndarray, n: int, alpha: float) -> np.ndarray:
    """Return the number of n votes, which need not be whole, whose one-sided lower limit is Phi(z); by bisection."""
    low, high = np.zeros_like(z), np.full_like(z, n)
    for _ in range(60):
        k = (low + high) / 2
        below = special.betainc(k, n - k + 1, special.ndtr(z)) > alpha
        low, high = np.where(below, k, low), np.where(below, high, k)
    return low


@dataclass(frozen=True)
class PlannedClaim:
    """A run that is expected to prove a claim.

    Attributes:
        images: m. n_max, alpha: of the design.
        samples: an image, on average. share: theta, the share of images that is expected to be claimed.
        claims: C that `bound` takes.
        bound: pi_L that the run reaches with at least the probability `chance`.
        expected: pi_L at the expected number of claims.
    """

    images: int
    n_max: int
    alpha: float
    samples: float
    share: float
    claims: int
    bound: float
    expected: float
    chance: float

    @property
    def all_samples(self) -> float:
        """The samples of the whole run that are expected."""
        return self.images * self.samples


@dataclass(frozen=True)
class Foreseen:
    """A pilot's forecast of one design.

    Attributes:
        shares: (49,) equally likely values of theta. rho: of the claim.
    """

    n_max: int
    alpha: float
    samples: float
    share: float
    shares: np.ndarray
    rho: float

    def chance(self, claims: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Return P(C >= claims) for m = images, (...,) each."""
        reached = special.betainc(np.maximum(claims, 1)[..., None], (images - claims + 1).clip(1)[..., None],
                                  self.shares).mean(axis=-1)
        return np.where(claims <= 0, 1.0, np.where(claims > images, 0.0, reached))

    def claims_for(self, bound: float, images: np.ndarray) -> np.ndarray:
        """Return the least C with pi_L >= bound for each m, (...,) int64; m + 1 where there is none."""
        least = bound * (1 - self.alpha) + self.alpha
        near = np.ceil(special.bdtrik(1 - self.rho, images.astype(float), least)).astype(np.int64)
        found = images + 1
        for claims in (near + 2, near + 1, near):
            known = np.clip(claims, 0, images)
            enough = (claims <= images) & (population_bound(known, images, self.alpha, self.rho) >= bound)
            found = np.where(enough, claims, found)
        return found

    def claim(self, images: int, claims: int) -> PlannedClaim:
        """Return the claim of so many images that `claims` of them would prove."""
        bound, expected = (float(population_bound(c, images, self.alpha, self.rho))
                           for c in (claims, int(self.share * images)))
        return PlannedClaim(images, self.n_max, self.alpha, self.samples, self.share, claims, bound, expected,
                            float(self.chance(np.array(claims), np.array(images))))

    def reach(self, bound: float, chance: float, most: int) -> PlannedClaim | None:
        """Return the claim of the fewest images, up to `most`, that prove `bound` with this chance; None for none."""
        grid = np.unique(np.geomspace(1, most, 2 + int(np.log(most) / 0.02)).astype(np.int64))
        reached = np.flatnonzero(self.chance(self.claims_for(bound, grid), grid) >= chance)
        if not len(reached):
            return None
        at = int(reached[0])
        images = np.arange(int(grid[max(at - 1, 0)]), int(grid[at]) + 1)
        claims = self.claims_for(bound, images)
        first = int(np.flatnonzero(self.chance(claims, images) >= chance)[0])
        return self.claim(int(images[first]), int(claims[first]))

    def prove_most(self, images: int, chance: float) -> PlannedClaim:
        """Return the highest claim that so many images prove with this chance."""
        low, high = 0, images + 1
        while high - low > 1:
            middle = (low + high) // 2
            enough = self.chance(np.array(middle), np.array(images)) >= chance
            low, high = (middle, high) if enough else (low, middle)
        return self.claim(images, low)


def foresee(
    design_of: DesignOf, likely: np.ndarray, rho: float, alphas: Iterable[float] = ALPHAS,
    sizes: Iterable[int] = SIZES,
) -> list[Foreseen]:
    """Return a pilot's forecast of each design that can prove the radius.

    Args:
        likely: (M, J) of the pilot's images, as from `likely_probabilities`.
    """
    found, images, place = [], len(likely), special.ndtri(likely.ravel())
    middle = (np.arange(_SHARES) + 0.5) / _SHARES
    for alpha in alphas:
        for n_max in sizes:
            design = design_of(n_max, alpha)
            if not design.reachable.any():
                continue
            test = design.quantiles[0]
            wide = np.arcsinh(8 * n_max**0.5)
            z = test + np.sinh(np.linspace(-wide, wide, _GRID)) / n_max**0.5
            claimed, samples = (np.interp(place, z, values).reshape(likely.shape).mean()
                                for values in design.expect(special.ndtr(z)))
            shares = special.betaincinv(images * claimed + 0.5, images * (1 - claimed) + 0.5, middle)
            found.append(Foreseen(n_max, alpha, float(samples), float(claimed), shares, rho))
    return found


def cheapest(designs: Iterable[Foreseen], bound: float, chance: float, most: int) -> PlannedClaim | None:
    """Return the claim of `bound` that takes the fewest samples, over up to `most` images; None where none reaches it.
    """
    best = None
    for design in designs:
        affordable = most if best is None else min(most, int(best.all_samples / design.samples))
        found = design.reach(bound, chance, affordable) if affordable else None
        if found is not None and (best is None or found.all_samples < best.all_samples):
            best = found
    return best


def highest(designs: Iterable[Foreseen], chance: float, most: int, samples: float = np.inf) -> PlannedClaim:
    """Return the highest claim that so many samples can prove, over up to `most` images.

    Raises:
        InputError: no design reaches the radius, or the samples do not suffice for one image.
    """
    claims = [design.prove_most(int(min(most, samples / design.samples)), chance) for design in designs
              if samples >= design.samples]
    if not claims:
        raise InputError(f"no design proves this radius with {samples:,.0f} samples: allow more, or ask for a smaller "
                         f"radius" if np.isfinite(samples) else
                         "no design proves this radius, not even 100,000 unanimous votes: ask for a smaller one")
    return max(claims, key=lambda one: (one.bound, -one.all_samples))
