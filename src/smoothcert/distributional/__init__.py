"""Distributional robustness: the worst expected loss over all data laws near the one at hand.

For laws P within squared-distance transport cost rho of P0, and l_hat(x) = E l(x + z) with z ~ N(0, sigma^2 I):
a certificate that needs no inner optimisation (`closed`), the bound of Yang et al. 2021 with its two forms (`bounds`),
and the worst case that an adversary finds (`curves`). Parts load on first use: `closed`, `moments`, `ends`,
`beside`, `limits` and `concavity` are pure statistics and need no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smoothcert.distributional.beside import SideBySide, side_by_side
    from smoothcert.distributional.bounds import inside_bound, outside_bound
    from smoothcert.distributional.closed import (
        ClosedCertificate,
        RobustLoss,
        certificate_from_counts,
        certificate_from_limits,
        errors_of,
        surrogate,
    )
    from smoothcert.distributional.concavity import concavity_threshold, smoothness
    from smoothcert.distributional.curves import eps_equivalent, eps_of_rho, rho_of_eps, worst_case
    from smoothcert.distributional.ends import BoundAt, Surrogate, SurrogateBound, WorstCase
    from smoothcert.distributional.inner import Search
    from smoothcert.distributional.losses import PointLoss, clipped_cross_entropy, cross_entropy, zero_one
    from smoothcert.distributional.moments import LossMoments, certificate_from_moments
    from smoothcert.distributional.sampling import certify_losses, sample_losses

_HOMES = {
    "beside": ("SideBySide", "side_by_side"),
    "bounds": ("inside_bound", "outside_bound"),
    "closed": ("ClosedCertificate", "RobustLoss", "certificate_from_counts", "certificate_from_limits", "errors_of",
               "surrogate"),
    "curves": ("eps_equivalent", "eps_of_rho", "rho_of_eps", "worst_case"),
    "ends": ("BoundAt", "Surrogate", "SurrogateBound", "WorstCase"),
    "inner": ("Search",),
    "losses": ("PointLoss", "clipped_cross_entropy", "cross_entropy", "zero_one"),
    "moments": ("LossMoments", "certificate_from_moments"),
    "sampling": ("certify_losses", "sample_losses"),
    "concavity": ("concavity_threshold", "smoothness"),
}

__all__ = [
    "BoundAt", "ClosedCertificate", "LossMoments", "PointLoss", "RobustLoss", "Search", "SideBySide", "Surrogate",
    "SurrogateBound", "WorstCase", "certificate_from_counts", "certificate_from_limits",
    "certificate_from_moments", "certify_losses",
    "clipped_cross_entropy", "concavity_threshold", "cross_entropy", "eps_equivalent", "eps_of_rho", "errors_of",
    "inside_bound", "outside_bound", "rho_of_eps", "sample_losses", "side_by_side", "smoothness", "surrogate",
    "worst_case", "zero_one",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"smoothcert.distributional.{home}"), name)
    raise AttributeError(f"module 'smoothcert.distributional' has no attribute {name!r}")
