"""What a sample of losses says of their mean: moments, upper limits, and the closed certificate made from them."""

from dataclasses import dataclass

import numpy as np

from smoothcert.distributional.closed import ClosedCertificate, certificate_from_limits
from smoothcert.distributional.limits import upper_mean
from smoothcert.stats.binomial import clopper_pearson


@dataclass(frozen=True, eq=False)
class LossMoments:
    """Of n losses of each image's noisy copies, in units of the ceiling.

    Attributes:
        n: noisy copies an image.
        mean, variance: (B,) float64, the variance unbiased (0 at n = 1).
        gradient: (B, d) Stein's estimate of grad l_hat, (1/n) sum_j (l_j - 1/2) z_j / sigma^2, where asked for.
    """

    n: int
    mean: np.ndarray
    variance: np.ndarray
    gradient: np.ndarray | None = None

    def limits(self, alpha: float, binary: bool = False) -> np.ndarray:
        """Upper limits (B,) of l_hat / ceiling, each at level alpha; exact (Clopper-Pearson) for losses 0 and 1."""
        if binary:
            return np.asarray(clopper_pearson(np.rint(self.mean * self.n), self.n, alpha, "upper"))
        return upper_mean(self.mean, self.variance, self.n, alpha)


def certificate_from_moments(
    moments: LossMoments, sigma: float, ceiling: float, alpha: float, binary: bool = False
) -> ClosedCertificate:
    """The closed certificate from the moments of m images' losses, each image's limit at level alpha / (2 m).

    Raises InputError for no images, and for sigma, ceiling or alpha out of range.
    """
    limits = moments.limits(alpha / (2 * max(len(moments.mean), 1)), binary)
    return certificate_from_limits(np.minimum(np.nextafter(limits * ceiling, np.inf), ceiling), sigma, ceiling, alpha)
