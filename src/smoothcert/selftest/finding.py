"""Checks and their findings, and the levels that keep chance out of their verdicts.

A check of random draws tests several statistics, each with a p-value that is right or too large under a right
installation. It is red where the smallest of m p-values is at most level / m, and the levels of all such checks add up
to `FALSE_ALARM`: by the union bound that is the most that chance alone can do, however the statistics depend on each
other.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import torch
from scipy import special

from smoothcert.noise import Noise, build_noise
from smoothcert.smoothing import OpenVoter, Sampling, open_voter

FALSE_ALARM = 1e-6
"""The probability that a right installation gets a red check, over a whole selftest."""


@dataclass(frozen=True)
class Sizes:
    """Numbers of draws.

    Attributes:
        copies: noisy copies of 784 pixels in each of eight streams.
        votes: samples an image of the vote checks.
        certified: images that are certified, with `n` samples each.
    """

    copies: int
    votes: int
    certified: int
    n: int


FULL = Sizes(640, 20_000, 1000, 600)
QUICK = Sizes(160, 4000, 300, 400)


@dataclass(frozen=True)
class Setting:
    """The setting under test: device, precision, noise and its format, and the seed of all draws."""

    device: torch.device
    precision: str
    noise_kind: str
    noise_format: str
    batch_size: int | None
    seed: int
    sizes: Sizes
    sigma: float = 0.25

    @cached_property
    def noise(self) -> Noise:
        return build_noise(self.noise_kind, self.sigma)

    def voter(
        self, model: torch.nn.Module | Callable, num_classes: int, shape: tuple[int, ...], engine: str,
        batch_size: int | None = None,
    ) -> OpenVoter:
        """Return the library's voter for a model on inputs of a shape, in pixels."""
        how = Sampling(engine, "pixels", self.precision, self.noise_format, batch_size or self.batch_size, self.device)
        return open_voter(model, self.noise, num_classes, shape, self.seed, None, how)


@dataclass(frozen=True)
class Finding:
    """A measurement, its allowed range, and whether it passed; `passed` None means skipped, and `measured` says why."""

    passed: bool | None
    measured: str
    allowed: str = ""


@dataclass(frozen=True)
class Planned:
    """A check to run: level -> Finding. `random`: it uses its level."""

    group: str
    name: str
    run: Callable[[float], Finding] = field(repr=False)
    random: bool = False

    @classmethod
    def certain(cls, group: str, name: str, run: Callable[..., Finding], *given: object) -> "Planned":
        """Return a check without chance, `run(*given)`."""
        return cls(group, name, lambda level: run(*given))

    @classmethod
    def chance(cls, group: str, name: str, run: Callable[..., Finding], *given: object) -> "Planned":
        """Return a check of random draws, `run(*given, level)`."""
        return cls(group, name, partial(run, *given), random=True)


def by_chance(p_values: Mapping[str, float], level: float, measured: str = "") -> Finding:
    """Return a finding that is red where the smallest p-value, which it names, is at most level / their number.

    NaN is red.
    """
    name, smallest = min(p_values.items(), key=lambda item: (not np.isnan(item[1]), item[1]))
    limit = level / len(p_values)
    words = f"smallest of {len(p_values)} p {smallest:.2g} ({name})" if len(p_values) > 1 else f"p {smallest:.2g}"
    return Finding(bool(smallest > limit), f"{measured}; {words}" if measured else words, f"p above {limit:.1g}")


def two_sided(z: float) -> float:
    """Return the two-sided p-value of a standard normal."""
    return float(2 * special.ndtr(-abs(z)))


def nearly_normal(z: float) -> float:
    """Return the same for a sum that is nearly normal: four times it.

    The factor covers what skewness adds at z = 6 to sums of at least 100,000 terms of skewness 8 (Cramer's series:
    exp(z^3 skewness / (6 sqrt(n))) = 2.5).
    """
    return min(1.0, 4 * two_sided(z))


def binomial_p(k: int, n: int, p: float, q: float) -> float:
    """Return the two-sided p-value of k successes among n at probability p = 1 - q: twice SciPy's smaller tail."""
    at_least = special.betainc(k, n - k + 1, p) if k > 0 else 1.0
    at_most = special.betainc(n - k, k + 1, q) if k < n else 1.0
    return float(min(1.0, 2 * min(at_least, at_most)))
