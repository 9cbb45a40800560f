"""A call of `SmoothedClassifier.predict` or `certify`: the plan that its arguments name, and the answers it returns.

A plan is given itself, or as parts of which the rest have defaults.
"""

from functools import partial
from typing import Any

import numpy as np

from smoothcert.errors import InputError
from smoothcert.noise import Noise
from smoothcert.smoothing.voters import Finished
from smoothcert.stats import (
    AtRadii,
    Certificate,
    CertifyPlan,
    ClassCounts,
    Curve,
    FixedN,
    FixedPredict,
    Prediction,
    PredictPlan,
    Sequential,
    certify_plan,
    predict_plan,
)
from smoothcert.stats.histories import LABEL
from smoothcert.stats.plans import with_noise


def choose_predict_plan(plan: Any, **parts: Any) -> PredictPlan:
    """Return the plan that was given; or `n`, in its place or by name, with the other parts, `alpha` and `n_max`.

    Raises:
        InputError: parts that make no plan, or a plan and parts.
    """
    if isinstance(plan, FixedPredict | Sequential):
        _check_alone(plan, parts)
        return plan
    return predict_plan(**{**parts, "n": _either("n", plan, parts["n"], "predict takes FixedPredict or Sequential")})


def choose_certify_plan(noise: Noise, plan: Any, labels_known: bool, **parts: Any) -> CertifyPlan:
    """Return the plan that was given, under a noise; or `n0`, in its place or by name, with the other parts.

    Args:
        labels_known: whether the parts come with the images' labels.
        parts: those of `smoothcert.stats.certify_plan`, each None where it is not given.
    Raises:
        InputError: parts that make no plan, or a plan and parts.
    """
    if isinstance(plan, FixedN | AtRadii | Curve):
        _check_alone(plan, parts)
        return with_noise(plan, noise.radius)
    n0 = _either("n0", plan, parts["n0"], "certify takes FixedN, AtRadii or Curve")
    return certify_plan(partial(noise.radius, margin=parts["margin"]), **{**parts, "n0": n0}, labels_known=labels_known)


def make_prediction(done: Finished, plan: PredictPlan) -> Prediction:
    """Return the answer of PREDICT at one image."""
    return Prediction(_class_or_none(done.prediction), done.values["p_value"], ClassCounts(done.history[-1].counts),
                      plan.alpha)


def make_certificate(done: Finished, plan: CertifyPlan, sigma: float, num_classes: int) -> Certificate:
    """Return the certificate of one image."""
    looks = tuple(ClassCounts(look.counts) for look in done.history if look.stage == "estimate")
    before = [look.counts for look in done.history if look.stage not in ("estimate", LABEL)]
    selection = ClassCounts(before[0] if before else np.zeros(num_classes, dtype=np.int64))
    return Certificate(_class_or_none(done.prediction), done.values["radius"], selection, looks, sigma, plan.alpha,
                       plan.method, plan.margin, done.off_grid)


def _check_alone(plan: CertifyPlan | PredictPlan, parts: dict[str, Any]) -> None:
    """Raise InputError where parts of a plan are given beside a plan."""
    if beside := [name for name, value in parts.items() if value is not None]:
        raise InputError(f"{type(plan).__name__} holds the whole procedure: give {', '.join(beside)} to it, or leave "
                         f"the plan out")


def _either(name: str, positional: Any, named: int | None, expected: str) -> int | None:
    """Return the number of samples that stands in the place of a plan, or the one given by name."""
    if positional is None:
        return named
    if hasattr(positional, "judge") or isinstance(positional, str):
        raise InputError(f"{expected}, got {positional!r}")
    if named is not None:
        raise InputError(f"{name} is given twice, as {positional!r} and as {named!r}")
    return positional


def _class_or_none(prediction: Any) -> int | None:
    return None if prediction < 0 else int(prediction)
