"""Looks made by hand, and images of known class probabilities taken through a plan."""

from collections.abc import Sequence

import numpy as np

from smoothcert.stats import History, Look, Plan


def looks(stage: str, *counts: Sequence[int]) -> History:
    return [Look(stage, np.array(c)) for c in counts]


def drive(plan: Plan, p: np.ndarray, seed: int | np.random.Generator = 0, label: int | None = None) -> list[History]:
    """Take images of class probabilities p (M, K) through a plan; their histories. `label` is that of all of them."""
    rng = np.random.default_rng(seed)
    histories: list[History] = [[] for _ in p]
    active = list(range(len(p)))
    while active:
        draws = plan.next([histories[i] for i in active])
        for i, draw in zip(active, draws, strict=True):
            if draw is None:
                continue
            if draw.stage == "label":
                histories[i].append(Look("label", np.eye(len(p[i]), dtype=np.int64)[label]))
                continue
            same = [look.counts for look in histories[i] if look.stage == draw.stage]
            counts = rng.multinomial(draw.n, p[i])
            histories[i].append(Look(draw.stage, counts + same[-1] if same else counts))
        active = [i for i, draw in zip(active, draws, strict=True) if draw is not None]
    return histories
