"""Plans whose looks are judged for another claim than the plain radius."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from smoothcert.checks import check_flag
from smoothcert.errors import InputError
from smoothcert.stats.at_radii import AtRadii
from smoothcert.stats.certify_plans import ProvingPlan
from smoothcert.stats.claims import Claim
from smoothcert.stats.histories import LABEL, Answers, Draw, History, Look
from smoothcert.stats.procedures import proved_level
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
