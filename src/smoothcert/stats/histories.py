"""Counts, and the protocol of a procedure: draws to make, looks taken, answers given.

A caller keeps a history for each image, asks `Plan.next` for the next draw, appends what came of it, and calls `judge`
once `next` says None. Plans hold no state: a run may stop and resume anywhere, and stored histories be judged again.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from smoothcert.errors import InputError


class ClassCounts:
    """Counts of the classes predicted for n noisy copies: (K,) or, for M images, (M, K).

    Immutable int64. `a + b` merges two disjoint sets of samples of the same images.

    >>> ClassCounts([3, 90, 7]) + ClassCounts([0, 100, 0])
    ClassCounts([3, 190, 7])
    """

    __slots__ = ("_values",)

    def __init__(self, values: npt.ArrayLike) -> None:
        self._values = check_counts("counts", values)
        self._values.flags.writeable = False

    @property
    def n(self) -> Any:
        """The number of samples: an int for one image, int64 (M,) for M images."""
        total = self._values.sum(axis=-1)
        return int(total) if self._values.ndim == 1 else total

    @property
    def num_classes(self) -> int:
        return self._values.shape[-1]

    @property
    def top(self) -> Any:
        """The most frequent class (the lowest index among equals): an int, or int64 (M,)."""
        top = self._values.argmax(axis=-1)
        return int(top) if self._values.ndim == 1 else top

    def __add__(self, other: "ClassCounts") -> "ClassCounts":
        if not isinstance(other, ClassCounts):
            return NotImplemented
        if other._values.shape != self._values.shape:
            raise InputError(f"counts of shape {self._values.shape} cannot be merged with {other._values.shape}")
        return ClassCounts(self._values + other._values)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ClassCounts):
            return NotImplemented
        return np.array_equal(self._values, other._values)

    def __hash__(self) -> int:
        return hash((self._values.shape, self._values.tobytes()))

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, item: Any) -> Any:
        return self._values[item]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._values, dtype=dtype)

    def tolist(self) -> list[Any]:
        return self._values.tolist()

    def __repr__(self) -> str:
        return f"ClassCounts({self._values.tolist()})"


def check_counts(name: str, values: npt.ArrayLike, least_total: int = 0) -> np.ndarray:
    """Return `values` as a fresh int64 array (K,) or (M, K), or raise InputError.

    Refused: fewer than two classes, other ranks, fractions, negative counts, totals below `least_total`.
    """
    array = np.asarray(values)
    if array.ndim not in (1, 2):
        raise InputError(f"{name} must have shape (K,) or (M, K), got shape {array.shape}")
    if array.shape[-1] < 2:
        raise InputError(f"{name} must hold at least two classes, got shape {array.shape}")
    if array.dtype.kind not in "iu":
        raise InputError(f"{name} must be integers, got dtype {array.dtype}")
    if array.size and array.min() < 0:
        raise InputError(f"{name} must not be negative, got {array.min()}")
    array = array.astype(np.int64)
    if least_total and array.size and (least := array.sum(axis=-1).min()) < least_total:
        raise InputError(f"{name} must add up to at least {least_total} sample(s), got {least}")
    return array


RadiusOf = Callable[..., np.ndarray]
"""ProbabilityBounds (M,) -> certified radii (M,): `partial(noise.radius, margin=margin)`."""


LABEL = "label"
"""The stage of which an image's label is the one vote: it is given, and no sample is drawn for it."""


@dataclass(frozen=True)
class Draw:
    """Draw `n` more samples of this stage for this image, or, of the stage `LABEL`, take its label."""

    stage: str
    n: int


@dataclass(frozen=True)
class Look:
    """The state after a draw: the cumulative counts (K,) int64 of its stage."""

    stage: str
    counts: np.ndarray


History = list[Look]
"""The looks at one image, in order of drawing."""


def count_samples(taken: Iterable[tuple[str, int]]) -> int:
    """Return the samples behind (stage, n) of looks in order, which are cumulative within a stage; a label is none."""
    return sum({stage: n for stage, n in taken if stage != LABEL}.values())


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
