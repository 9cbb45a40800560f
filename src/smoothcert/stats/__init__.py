"""Certification statistics: counts in, proofs out. Pure functions of integers; nothing here imports torch."""

from smoothcert.stats.at_radii import AtRadii
from smoothcert.stats.binomial import clopper_pearson
from smoothcert.stats.certify_plans import Curve, FixedN, default_pilot
from smoothcert.stats.claimed import certify_claim
from smoothcert.stats.claims import Claim, Costs, Groups, TopK
from smoothcert.stats.histories import Answers, ClassCounts, Draw, History, Look, Plan
from smoothcert.stats.intervals import (
    AccuracyBounds,
    acr_limit,
    average_certified_radius,
    certified_accuracy,
    paired_interval,
)
from smoothcert.stats.multi_label import MultiLabelPlan
from smoothcert.stats.one_pass import OnePass, one_pass_accuracy
from smoothcert.stats.percentiles import PercentilePlan
from smoothcert.stats.plans import CertifyPlan, certify_plan, plan_from, predict_plan, reread
from smoothcert.stats.predict_plans import FixedPredict, PredictPlan, Sequential
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
    proved_level,
)
from smoothcert.stats.radius import (
    ProbabilityBounds,
    cohen_radius,
    gaussian_radius,
    is_same,
    lecuyer_radius,
    li_radius,
    linf_radius,
    max_radius,
)
from smoothcert.stats.top_k import top_k_radius

FixedCertify = FixedN  # the plans by the names that they had before
RadiiCertify = AtRadii
CurveCertify = Curve
SequentialPredict = Sequential

__all__ = [
    "ABSTAIN",
    "METHODS",
    "AccuracyBounds",
    "Answers",
    "AtRadii",
    "Certificate",
    "CertifiedCounts",
    "CertifyPlan",
    "Claim",
    "ClassCounts",
    "Costs",
    "Curve",
    "CurveCertify",
    "Draw",
    "FixedCertify",
    "FixedN",
    "FixedPredict",
    "Groups",
    "History",
    "Look",
    "MultiLabelPlan",
    "OnePass",
    "PercentilePlan",
    "Plan",
    "PredictPlan",
    "PredictedCounts",
    "Prediction",
    "ProbabilityBounds",
    "RadiiCertify",
    "Sequential",
    "SequentialPredict",
    "TopK",
    "acr_limit",
    "average_certified_radius",
    "certified_accuracy",
    "certify_claim",
    "certify_counts",
    "certify_plan",
    "certify_with",
    "clopper_pearson",
    "cohen_radius",
    "default_pilot",
    "gaussian_radius",
    "is_same",
    "lecuyer_radius",
    "li_radius",
    "linf_radius",
    "max_radius",
    "one_pass_accuracy",
    "paired_interval",
    "plan_from",
    "predict_counts",
    "predict_plan",
    "proved_level",
    "reread",
    "top_k_radius",
]
