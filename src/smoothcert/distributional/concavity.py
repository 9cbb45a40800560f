"""The smoothness of a smoothed loss: the constants behind strong concavity, and the worth of a search's residual.

For 0 <= l <= M and l_hat(x) = E l(x + z), z ~ N(0, sigma^2 I), phi the normal density: grad l_hat is Lipschitz with
constant 2 phi(1) M / sigma^2 = .48394 M / sigma^2, attained by l = M 1[|u_1| > sigma]. So
l_hat(x) - gamma ||x - x0||^2 is strongly concave for every such l exactly where gamma > phi(1) M / sigma^2.

This differs from Yang et al. 2021, whose constant 2 M does not depend on sigma and is too small for sigma < .492.
"""

import math
from dataclasses import dataclass

from smoothcert.checks import check_positive
from smoothcert.distributional.limits import CLIP_IT

_DENSITY_AT_1 = math.exp(-0.5) / math.sqrt(2 * math.pi)
_SAFETY = 1 + 2.0**-48


def smoothness(ceiling: float, sigma: float) -> float:
    """Return the Lipschitz constant of grad l_hat for 0 <= l <= ceiling: 2 phi(1) ceiling / sigma^2, rounded up.

    >>> round(smoothness(1.0, 1.0), 5)
    0.48394
    """
    return 2 * concavity_threshold(ceiling, sigma)


def concavity_threshold(ceiling: float, sigma: float) -> float:
    """Return the gamma above which the inner problem is strongly concave: phi(1) ceiling / sigma^2, rounded up.

    >>> round(concavity_threshold(1.0, 0.05), 1)
    96.8
    """
    return check_positive("ceiling", ceiling) / check_positive("sigma", sigma) ** 2 * _DENSITY_AT_1 * _SAFETY


def gradient_error(dimension: int, n: int, ceiling: float, sigma: float, alpha: float) -> float:
    """Bound ||(1/n) sum_j (l(x + z_j) - ceiling/2) z_j / sigma^2 - grad l_hat(x)||, except with probability alpha.

    The bound is ceiling/sigma sqrt((d + 2 sqrt(d t) + 2 t) / n), t = ln(1/alpha). By symmetrisation a term less its
    mean has E exp<v, .> <= E cosh(ceiling <v, z> / sigma^2) <= exp(ceiling^2 ||v||^2 / (2 sigma^2)); the norm of such a
    vector is bounded by Hsu, Kakade & Zhang 2012, Theorem 1.
    """
    t = math.log(1 / alpha)
    return ceiling / sigma * math.sqrt((dimension + 2 * math.sqrt(dimension * t) + 2 * t) / n) * _SAFETY


@dataclass(frozen=True)
class Standing:
    """The worth of a search at one gamma: the label "certificate", or "estimate" with the reason.

    `curvature` bounds the supremum: sup <= value + ||gradient||^2 / (2 curvature).
    """

    label: str
    reason: str = ""
    curvature: float = 0.0


def outside_standing(gamma: float, sigma: float, ceiling: float | None) -> Standing:
    """Return the worth of a search in the outside form.

    A certificate needs a ceiling M and gamma > phi(1) M / sigma^2: then every local maximum is the maximum.
    """
    if ceiling is None:
        return Standing("estimate", f"the loss has no ceiling: {CLIP_IT}")
    threshold = concavity_threshold(ceiling, sigma)
    if gamma <= threshold:
        return Standing("estimate", f"gamma = {gamma:g} is not above phi(1) M / sigma^2 = {threshold:.4g}: the inner "
                                    f"problem need not be concave, and an ascent may end below its supremum")
    return Standing("certificate", curvature=2 * (gamma - threshold))


def inside_standing(gamma: float, ceiling: float | None, known: float | None) -> Standing:
    """Return the worth of a search in the inside form.

    A certificate needs a ceiling and a known smoothness L < 2 gamma of the loss itself, before smoothing.
    """
    if ceiling is None:
        return Standing("estimate", f"the loss has no ceiling: {CLIP_IT}")
    if known is None:
        return Standing("estimate", "how smooth the loss itself is, before smoothing, is not known")
    if 2 * gamma <= known:
        return Standing("estimate", f"2 gamma = {2 * gamma:g} is not above the loss's smoothness {known:g}: the inner "
                                    f"problem need not be concave, and an ascent may end below its supremum")
    return Standing("certificate", curvature=2 * gamma - known)
