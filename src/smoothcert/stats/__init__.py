"""Certification statistics: counts in, proofs out. Pure functions of integers; nothing here imports torch."""

from smoothcert.stats.binomial import clopper_pearson
from smoothcert.stats.counts import ClassCounts
from smoothcert.stats.intervals import CertifiedAccuracy, average_certified_radius, certified_accuracy
from smoothcert.stats.procedures import (
    ABSTAIN,
    METHODS,
    Certificate,
    CertifiedCounts,
    PredictedCounts,
    Prediction,
    certify_counts,
    certify_with,
    predict_counts,
)
from smoothcert.stats.radius import (
    ProbabilityBounds,
    cohen_radius,
    gaussian_radius,
    lecuyer_radius,
    li_radius,
    linf_radius,
    max_radius,
)

__all__ = [
    "ABSTAIN",
    "METHODS",
    "Certificate",
    "CertifiedAccuracy",
    "CertifiedCounts",
    "ClassCounts",
    "PredictedCounts",
    "Prediction",
    "ProbabilityBounds",
    "average_certified_radius",
    "certified_accuracy",
    "certify_counts",
    "certify_with",
    "clopper_pearson",
    "cohen_radius",
    "gaussian_radius",
    "lecuyer_radius",
    "li_radius",
    "linf_radius",
    "max_radius",
    "predict_counts",
]
