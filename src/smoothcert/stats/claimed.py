"""Counts, and the looks of plans, judged for another claim than the plain radius."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from smoothcert.checks import check_flag, check_known, check_positive, check_probability
from smoothcert.errors import InputError
from smoothcert.stats.at_radii import AtRadii
from smoothcert.stats.certify_plans import ProvingPlan
from smoothcert.stats.claims import Claim
from smoothcert.stats.histories import LABEL, Answers, Draw, History, Look, check_counts
from smoothcert.stats.procedures import METHODS, CertifiedCounts, proved_level
from smoothcert.stats.radius import gaussian_radius
from smoothcert.stats.transfer import Transfer


@dataclass(frozen=True, repr=False)
class Claimed(ProvingPlan):
    """A plan whose looks are judged for a claim; what is drawn, and when, is the plan's own.

    With `labels_known` the label's class is judged in place of the one that the first votes chose, and the label is the
    first look. It is fixed before any vote, so every bound holds for it as well.

    Raises:
        InputError: a plan whose looks do not prove the claim.
    """

    kind = "certify"
    plan: Any
    claim: Claim
    labels_known: bool = False

    def __post_init__(self) -> None:
        check_flag("labels_known", self.labels_known)
        self.claim.check_plan(self.plan)
        if self.labels_known and isinstance(self.plan, Transfer):
            raise InputError("these certificates were transferred, and flips were counted for the chosen class alone: "
                             "leave labels_known out, or certify the network itself")

    @property
    def method(self) -> str:
        return self.plan.method

    @property
    def margin(self) -> float | None:
        return self.plan.margin

    def with_plan(self, plan: Any) -> Self:
        """Return the same claim of another plan."""
        return replace(self, plan=plan)

    def identity(self) -> dict[str, Any]:
        plan = self.plan
        return {**plan.identity(), "claim": {
            **self.claim.identity(), "limits": self.claim.count_limits(plan.method),
            "level": proved_level(plan.method, plan.alpha), "labels_known": self.labels_known}}

    def most(self) -> int:
        return self.plan.most()

    def next(self, histories: Sequence[History]) -> list[Draw | None]:
        if not self.labels_known:
            return self.plan.next(histories)
        draws = self.plan.next([history[1:] for history in histories])
        return [draw if history else Draw(LABEL, 1) for history, draw in zip(histories, draws, strict=True)]

    def judge(self, histories: Sequence[History]) -> Answers:
        if not self.labels_known:
            return self.claim.judge(self.plan, histories)
        if any([look.stage for look in history[:1]] != [LABEL] for history in histories):
            raise InputError("the label is the first look where labels are known")
        return self.claim.judge(*judge_labels(self.plan, histories))


def add_labels(histories: Sequence[History], labels: np.ndarray, num_classes: int) -> list[History]:
    """Return the looks with the labels (M,) as the first one."""
    votes = (np.arange(num_classes) == labels[:, None]).astype(np.int64)
    return [[Look(LABEL, vote), *history] for vote, history in zip(votes, histories, strict=True)]


def judge_labels(plan: Any, histories: Sequence[History]) -> tuple[Any, list[History]]:
    """Return a plan and looks that prove bounds of the labels' classes, from a plan and its looks after the label."""
    if isinstance(plan, AtRadii):
        skip = 1 if plan.first is None else 2
        known = replace(plan, n0=0, labels_known=True)
        return known, [[history[0], *history[skip:]] for history in histories]
    # The label has the one vote of the stage that chooses.
    return plan, [[Look(history[1].stage, history[0].counts), *history[2:]] for history in histories]


def certify_claim(
    claim: Claim, selection: npt.ArrayLike, estimation: npt.ArrayLike, sigma: float, alpha: float = 0.001,
    method: str = "two-sided",
) -> CertifiedCounts:
    """Return the classes and radii of a claim, from counts as `certify_counts` takes them.

    Args:
        claim: `TopK`, `Groups` or `Costs`.
        selection: counts that choose the class (or group), (K,) or (M, K); one vote for the label judges the label.
        estimation: counts of fresh samples, of the same shape.
        sigma, alpha, method: as for `certify_counts`; "t-certify" for groups alone.
    Raises:
        InputError: values outside these, or a claim that so many classes do not allow.

    >>> from smoothcert.stats import Costs, Groups, TopK
    >>> select, estimate = [40, 35, 20, 5], [4100, 3700, 1700, 500]
    >>> [round(float(certify_claim(TopK(k), select, estimate, sigma=0.5).radius), 3) for k in (1, 2, 3)]
    [0.004, 0.157, 0.323]
    >>> round(float(certify_claim(Groups({"low": [0, 1], "high": [2, 3]}), select, estimate, 0.5).radius), 3)
    0.364
    >>> round(float(certify_claim(Costs({0: [3]}), select, estimate, sigma=0.5).radius), 3)
    0.325
    """
    alpha, sigma = check_probability("alpha", alpha), check_positive("sigma", sigma)
    check_known("method", method, METHODS)
    selection = check_counts("selection", selection, least_total=1)
    estimation = check_counts("estimation", estimation, least_total=1)
    if selection.shape != estimation.shape:
        raise InputError(f"selection has shape {selection.shape} and estimation {estimation.shape}: give equal shapes")
    shape, classes = selection.shape[:-1], selection.shape[-1]
    claim.check(classes)
    found = claim.certify(selection.reshape(-1, classes), estimation.reshape(-1, classes),
                          partial(gaussian_radius, sigma=sigma), alpha, method)
    return CertifiedCounts(found.prediction.reshape(shape)[()], found.radius.reshape(shape)[()])
