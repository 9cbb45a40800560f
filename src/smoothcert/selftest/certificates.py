"""Certificates of a linear classifier, whose true radius is known: they hold, and give nothing away."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import special

from smoothcert.selftest.bounds import Claims, claim_holds
from smoothcert.selftest.finding import Finding, Planned, Setting, by_chance
from smoothcert.selftest.known import image_at, positions
from smoothcert.selftest.votes import EngineVotes
from smoothcert.smoothing import Finished, run_plan
from smoothcert.stats import METHODS, FixedCertify, proved_level, reread

ALPHA = 0.05
"""Failure probability of each certificate: large, so that failures can be counted."""

_N0 = 100
_NEAREST, _FARTHEST = 1.0, 3.3  # |u| / sigma: at 1 the class is chosen wrongly from 100 samples in 1 of 10^16 cases
_USED = 0.9  # of alpha, by p_A of the method two-sided
_SLACK = {"float32": 1e-4, "tf32": 2.0**-8, "bf16": 2.0**-5}
"""Share of the true radius by which that of the network in a precision may be another."""


@dataclass(eq=False)
class Certificates:
    """A certificate each of many images, at both sides of the boundary, through an engine."""

    votes: EngineVotes

    @property
    def setting(self) -> Setting:
        return self.votes.setting

    @cached_property
    def images(self) -> list[np.ndarray]:
        count, sigma = self.setting.sizes.certified, self.setting.sigma
        return [image_at((1, -1)[k % 2] * sigma * z, 0) for k, z in
                enumerate(np.linspace(_NEAREST, _FARTHEST, count).tolist())]

    @cached_property
    def truth(self) -> np.ndarray:
        """(M,) u of each image: its class is 1 where u > 0, and |u| its true radius."""
        return np.array([positions(image)[0] for image in self.images])

    @property
    def plan(self) -> FixedCertify:
        return FixedCertify(_N0, self.setting.sizes.n, ALPHA, "two-sided", None, self.setting.noise.radius)

    @cached_property
    def done(self) -> list[Finished]:
        tagged = ((tag, image, tag) for tag, image in enumerate(self.images))
        return sorted(run_plan(self.plan, self.votes.linear, tagged, 2), key=lambda finished: finished.tag)

    def planned(self) -> list[Planned]:
        """The checks of this group."""
        name = f"engine {self.votes.engine}"
        return [Planned.fixed(name, "radii follow from their votes", self.derived),
                Planned.chance(name, "radii above the truth", self.covered),
                Planned.chance(name, "size of the radii", self.powerful)]

    def derived(self) -> Finding:
        """Every radius against long arithmetic: as large as its votes allow, and not larger."""
        told, n = Claims(), self.setting.sizes.n
        for votes, radius in sorted({(int(one.history[-1].counts.max()), one.values["radius"]) for one in self.done}):
            told.expect(claim_holds(votes, n, radius, "two-sided", ALPHA, self.setting.sigma),
                        f"{votes} of {n} votes: radius {radius!r}")
        return told.finding("within 1e-10 of the exact ones, never above them")

    def covered(self, level: float) -> Finding:
        """False certificates are at most Bin(M, alpha), in every method: a wrong class, or a radius beyond |u|."""
        wrong, slack = {}, 1 + _SLACK[self.setting.precision]
        for method in METHODS:
            answers = reread(self.plan, method=method).judge([one.history for one in self.done])
            other = (answers.prediction >= 0) & (answers.prediction != (self.truth > 0))
            wrong[method] = int((other | (answers.values["radius"] > np.abs(self.truth) * slack)).sum())
        count = len(self.done)
        tests = {method: float(special.betainc(k, count - k + 1, proved_level(method, ALPHA))) if k else 1.0
                 for method, k in wrong.items()}
        words = ", ".join(f"{k} ({method})" for method, k in wrong.items())
        return by_chance(tests, level, f"of {count:,} at alpha {ALPHA:g}: {words}")

    def powerful(self, level: float) -> Finding:
        """The mean radius is what n votes of the known law give, by SciPy's quantiles: neither more nor less.

        By Chernoff's bound: P(sum >= s) <= exp(K(t) - t s) for every t > 0, K the logarithm of E exp(t sum).
        """
        found = np.array([one.values["radius"] for one in self.done])
        n, sigma = self.setting.sizes.n, self.setting.sigma
        k = np.arange(n + 1)
        limit = np.concatenate([[0.0], special.betaincinv(k[1:], n - k[1:] + 1, _USED * ALPHA)])
        radius = sigma * np.maximum(special.ndtri(limit), 0)
        laws = _binomial(n, np.abs(self.truth) / sigma)
        mean = float((laws @ radius).mean())
        miss = float(found.sum()) - mean * len(found)
        exponents = [float(np.log(laws @ np.exp(t * (radius - mean))).sum()) - t * miss
                     for t in np.sign(miss) * np.geomspace(1, 300, 60) / sigma]
        words = f"mean {found.mean():.5f}, expected {mean:.5f}, true {np.abs(self.truth).mean():.5f}"
        return by_chance({"mean radius": min(1.0, 2 * float(np.exp(min(exponents))))}, level, words)


def _binomial(n: int, z: np.ndarray) -> np.ndarray:
    """(M, n + 1) the law of Bin(n, Phi(z))."""
    k = np.arange(n + 1)
    ways = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    return np.exp(ways + np.outer(special.log_ndtr(z), k) + np.outer(special.log_ndtr(-z), n - k))
