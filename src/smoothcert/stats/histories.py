"""The protocol of a procedure: draws to make, looks taken, answers given.

A caller keeps a history for each image, asks `Plan.next` for the next draw, appends what came of it, and calls `judge`
once `next` says None. Plans hold no state: a run may stop and resume anywhere, and stored histories be judged again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from smoothcert.errors import InputError

RadiusOf = Callable[..., np.ndarray]
"""ProbabilityBounds (M,) -> certified radii (M,): `partial(noise.radius, margin=margin)`."""


@dataclass(frozen=True)
class Draw:
    """Draw `n` more samples of this stage for this image."""

    stage: str
    n: int


@dataclass(frozen=True)
class Look:
    """The state after a draw: the cumulative counts (K,) int64 of its stage."""

    stage: str
    counts: np.ndarray


History = list[Look]
"""The looks at one image, in order of drawing."""


@dataclass(frozen=True)
class Answers:
    """`prediction` int64 (M,), -1 = abstain; `values` float64 (M,): "radius" (0 where abstained) or "p_value"."""

    prediction: np.ndarray
    values: dict[str, np.ndarray]


class Plan(Protocol):
    """A procedure: which samples it needs, and what their counts mean."""

    @property
    def kind(self) -> str:
        """The kind of its stores: "certify" or "predict"."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return the procedure's part of a store's identity, JSON-able; `plan_from` rebuilds the plan from it."""
        ...

    def most(self) -> int:
        """Return the most samples that one image can take, all stages together."""
        ...

    def next(self, histories: Sequence[History]) -> list[Draw | None]:
        """Return the next draw of each image, after each completed one; None: done. An empty history gets the first."""
        ...

    def judge(self, histories: Sequence[History]) -> Answers:
        """Return the answers that the counts support. They hold wherever the drawing stopped."""
        ...


def check_stages(histories: Sequence[History], first: str, then: str, most: int | None = None) -> None:
    """Raise InputError unless each history is a look of stage `first`, then at most `most` of stage `then`."""
    for history in histories:
        stages = [look.stage for look in history]
        rest = len(stages) - 1 if most is None else most
        if stages[:1] != [first] or len(stages) > 1 + rest or any(stage != then for stage in stages[1:]):
            follow = f", then {'any' if most is None else most} of stage {then}" if most != 0 else ""
            raise InputError(f"an image needs a look of stage {first}{follow}, got {stages or 'no look'}")


def flat_looks(
    histories: Sequence[History], skip: int, sizes: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (owner (T,), number of the look (T,), counts (T, K)) of all looks after the first `skip` of each history.

    Raises InputError where the counts add up to none of `sizes`, the samples at each look, or not to ascending ones.
    """
    counts = np.array([look.counts for history in histories for look in history[skip:]], dtype=np.int64)
    owner = np.repeat(np.arange(len(histories)), [len(history) - skip for history in histories])
    if not len(owner):
        return owner, owner, counts
    n = counts.sum(axis=1)
    look = np.minimum(np.searchsorted(sizes, n), len(sizes) - 1)
    if wrong := n[np.asarray(sizes)[look] != n].tolist():
        raise InputError(f"a look at {wrong[0]} samples is none of this plan's, {', '.join(map(str, sizes))}")
    if np.any((owner[1:] == owner[:-1]) & (look[1:] <= look[:-1])):
        raise InputError("the looks at an image must come in order, each once")
    return owner, look, counts
