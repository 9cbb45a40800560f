"""Distributional robustness: the worst expected loss over all data laws near the one at hand.

For laws P within squared-distance transport cost rho of P0, and l_hat(x) = E l(x + z) with z ~ N(0, sigma^2 I), there
are a certificate that needs no inner optimisation (`certificates`), the bound of Yang et al. 2021 with its two forms
and the worst case that an adversary finds (`search`, `bounds`). Modules load on first use: `certificates`, `bounds`,
`limits` and `concavity` are pure statistics and need no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smoothcert.distributional.bounds import (
        BoundAt,
        SideBySide,
        Surrogate,
        SurrogateBound,
        WorstCase,
        side_by_side,
    )
    from smoothcert.distributional.certificates import (
        ClosedCertificate,
        LossMoments,
        RobustLoss,
        certificate_from_counts,
        certificate_from_limits,
        certificate_from_moments,
        errors_of,
        surrogate,
    )
    from smoothcert.distributional.concavity import concavity_threshold, smoothness
    from smoothcert.distributional.losses import (
        PointLoss,
        certify_losses,
        clipped_cross_entropy,
        cross_entropy,
        sample_losses,
        zero_one,
    )
    from smoothcert.distributional.search import (
        Search,
        eps_equivalent,
        eps_of_rho,
        inside_bound,
        outside_bound,
        rho_of_eps,
        worst_case,
    )

_HOMES = {
    "bounds": ("BoundAt", "SideBySide", "Surrogate", "SurrogateBound", "WorstCase", "side_by_side"),
    "certificates": ("ClosedCertificate", "LossMoments", "RobustLoss", "certificate_from_counts",
                     "certificate_from_limits", "certificate_from_moments", "errors_of", "surrogate"),
    "concavity": ("concavity_threshold", "smoothness"),
    "losses": ("PointLoss", "certify_losses", "clipped_cross_entropy", "cross_entropy", "sample_losses", "zero_one"),
    "search": ("Search", "eps_equivalent", "eps_of_rho", "inside_bound", "outside_bound", "rho_of_eps", "worst_case"),
}

__all__ = [
    "BoundAt", "ClosedCertificate", "LossMoments", "PointLoss", "RobustLoss", "Search", "SideBySide", "Surrogate",
    "SurrogateBound", "WorstCase", "certificate_from_counts", "certificate_from_limits", "certificate_from_moments",
    "certify_losses", "clipped_cross_entropy", "concavity_threshold", "cross_entropy", "eps_equivalent", "eps_of_rho",
    "errors_of", "inside_bound", "outside_bound", "rho_of_eps", "sample_losses", "side_by_side", "smoothness",
    "surrogate", "worst_case", "zero_one",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"smoothcert.distributional.{home}"), name)
    raise AttributeError(f"module 'smoothcert.distributional' has no attribute {name!r}")
