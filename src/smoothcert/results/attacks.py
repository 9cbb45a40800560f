"""Attack stores: empirical accuracy and changed answers.

An abstention counts as wrong, but is no changed answer. Empirical accuracy is what one attack found on given images:
the accuracy that the worst perturbation leaves may be lower, and nothing here is a guarantee.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from smoothcert.checks import one_line
from smoothcert.errors import InputError
from smoothcert.results.base import (
    Measured,
    Points,
    StoreResult,
    check_kind,
    check_records,
    look_answers,
    unseen_classes,
)
from smoothcert.store.names import name_of
from smoothcert.store.store import Store


@dataclass(frozen=True)
class Outcome:
    """All images at one setting and one n; shares are fractions of `images`.

    Attributes:
        size: eps, or the multiple of each image's certified radius; 0 is no attack.
        m, steps: of the attack; m = 0 is the base classifier's.
        accuracy: answered with the label.
        changed: answered, with another class than without the attack (than the certified one, in multiples).
        l2, linf: mean norms of the perturbation.
        reached: answered with the class wanted; None where no class was.
    """

    size: float
    m: int
    steps: int
    n: int
    images: int
    accuracy: float
    changed: float
    abstained: float
    l2: float
    linf: float
    reached: float | None


@dataclass(frozen=True)
class EmpiricalCurve:
    """Empirical accuracy and its companions at `size` (eps, or multiples of the radius as `axis` says), all (P,)."""

    name: str
    axis: str
    size: np.ndarray
    accuracy: np.ndarray
    changed: np.ndarray
    abstained: np.ndarray
    m: int
    steps: int
    n: int


@dataclass(frozen=True, repr=False)
class AttackResult(StoreResult):
    """An attack store, and its name in a table or on a page; those of one group attack one method's models."""

    kind: ClassVar[str] = "attack"
    holds: ClassVar[str] = "attacks"
    is_on_pages: ClassVar[bool] = True

    store: Store
    name: str
    group: str = ""

    @classmethod
    def of(cls, store: Store, name: str | None = None) -> Self:
        """Return an attack store that has records, or raise StoreError."""
        check_kind(store, "attack")
        check_records(store)
        return cls(store, one_line(name or name_of(store.folder)))

    def in_group(self, group: str) -> Self:
        """Return the same store as one that attacks the models of the method `group`."""
        return replace(self, group=group)

    @property
    def path(self) -> str:
        return str(self.store.folder)

    @property
    def complete(self) -> bool:
        return self.store.complete

    @property
    def index(self) -> np.ndarray:
        """(M,): the images that were attacked, each once."""
        return np.unique(self.store.column("index"))

    @property
    def label(self) -> np.ndarray:
        """(M,): their classes."""
        return self.store.column("label")[np.unique(self.store.column("index"), return_index=True)[1]]

    @property
    def images(self) -> int:
        return len(self.index)

    @property
    def setting(self) -> dict[str, Any]:
        """The data set that its images are from."""
        return {"data": self.store.identity.data.raw}

    @property
    def classes(self) -> tuple[str, ...] | None:
        return self.store.class_names

    @property
    def remarks(self) -> tuple[str, ...]:
        """The classes that its images do not show."""
        return unseen_classes(self.store.column("label"), self.store.class_names, self.store.column("index"))

    @property
    def sigma(self) -> float:
        return self.store.identity.noise.sigma

    @property
    def count(self) -> int:
        """Images that the run is to attack, done or not."""
        return self.store.identity.images.count

    @property
    def attack(self) -> str:
        """The name of the attack."""
        return self.store.identity.attack.name

    @property
    def options(self) -> dict[str, Any]:
        """The options of the attack."""
        return self.store.identity.attack.options

    @property
    def target(self) -> int | str | None:
        """The class that the attack is to reach; None where it only leaves the right one."""
        return self.store.identity.attack.target

    @property
    def axis(self) -> str:
        return axis_of(self.store)

    @property
    def norm(self) -> str:
        return norm_of(self.store)

    @property
    def alpha(self) -> float | None:
        return alpha_of(self.store)

    @property
    def has_looks(self) -> bool:
        """Its images were answered at several n."""
        return isinstance(self.store.identity.procedure.n, list)

    @cached_property
    def outcomes(self) -> "list[Outcome]":
        return outcomes(self.store)

    def measurements(self, radii: Sequence[float]) -> list[Measured]:
        """Return a line for every m, T and n: accuracy by eps, or changed answers by multiples of the radius."""
        measure = "accuracy" if self.axis == "eps" else "changed"
        clean = {one.n: one for one in self.outcomes if one.size == 0}
        groups: dict[tuple[int, int, int], list[Outcome]] = {}
        for one in self.outcomes:
            if one.size:
                groups.setdefault((one.m, one.steps, one.n), []).append(one)
        lines = []
        for (m, steps, n), attacks in groups.items():
            points = [*([clean[n]] if n in clean else []), *attacks]
            lines.append(Measured(measure, f"m {m}, T {steps}, n {n:,}", tuple(one.size for one in points),
                                  tuple(getattr(one, measure) for one in points), attacks[0].images, axis=self.axis))
        return lines


@dataclass(frozen=True)
class AttackRuns:
    """Attack stores, each shown by itself."""

    kind: ClassVar[str] = "attack"

    results: Sequence[AttackResult]

    @classmethod
    def of(cls, results: Sequence[AttackResult], points: Points) -> Self:
        """Show attack stores; they have settings of their own, and take no points."""
        return cls(results)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each outcome."""
        return [{"run": one.name, "sizes": one.axis, **asdict(outcome)} for one in self.results
                for outcome in one.outcomes]

    def to_json(self) -> list[dict[str, Any]]:
        """Return an object for each store."""
        return [{"store": one.path, "kind": self.kind, "name": one.name, "images": one.count,
                 "complete": one.complete, "sigma": one.sigma, "alpha": one.alpha, "attack": one.attack,
                 "options": one.options, "target": one.target, "sizes": one.axis,
                 "outcomes": [asdict(outcome) for outcome in one.outcomes], "notes": list(one.remarks)}
                for one in self.results]


def outcomes(store: Store) -> list[Outcome]:
    """Return every setting at every n, over the images done so far, without attack first.

    Raises:
        StoreError: a store of another kind, or without records.
    """
    view = View.of(store)
    found = []
    for setting, rows in view.settings.items():
        l2, linf = view.norms[rows].mean(axis=0).tolist()
        for n, answer, before in zip(view.looks, view.answers[rows].T, view.unattacked[rows].T, strict=True):
            changed = (answer >= 0) & (before >= 0) & (answer != before)
            reached = float((answer == view.attacked[rows]).mean()) if view.is_targeted else None
            found.append(Outcome(*setting, n, len(rows), float((answer == view.label[rows]).mean()),
                                 float(changed.mean()), float((answer < 0).mean()), l2, linf, reached))
    return found


def empirical_curve(
    store: Store, m: int | None = None, steps: int | None = None, n: int | None = None, name: str | None = None
) -> EmpiricalCurve:
    """Return accuracy against the size of the attack; m, steps or n of None is the largest in the store.

    Raises:
        InputError: an m, steps or n that the store does not have.
    """
    attack, looks = store.identity.attack, View.of(store).looks
    chosen = {"m": pick("m", m, attack.m), "steps": pick("steps", steps, attack.steps), "n": pick("n", n, looks)}
    points = [one for one in outcomes(store) if one.n == chosen["n"]
              and (one.size == 0 or (one.m, one.steps) == (chosen["m"], chosen["steps"]))]
    size, accuracy, changed, abstained = (
        np.array([getattr(one, field) for one in points]) for field in ("size", "accuracy", "changed", "abstained"))
    return EmpiricalCurve(name or store.folder.name, axis_of(store), size, accuracy, changed, abstained, **chosen)


def pick(name: str, value: int | None, known: Sequence[int]) -> int:
    """Return a value among those a store has, the largest for None, or raise InputError."""
    if value is None:
        return max(known)
    if value not in known:
        raise InputError(f"{name} = {value} is none of the store's: {', '.join(map(str, known))}")
    return value


def axis_of(store: Store) -> str:
    """Return what the sizes of its attacks are: "eps", or "times" the certified radius."""
    return "eps" if store.identity.attack.times is None else "times"


def alpha_of(store: Store) -> float | None:
    """Return the level of its answers; None where they come from a mean softmax, without a test."""
    return store.identity.procedure.alpha


def norm_of(store: Store) -> str:
    """Return the norm that bounds its attacks."""
    return str(store.identity.attack.options.get("norm", "l2"))


@dataclass(frozen=True)
class View:
    """An attack store as arrays.

    Attributes:
        looks: sizes n of the looks. answers: (M, L) of every record at each look.
        label, attacked: (M,) true classes, and the classes that were attacked.
        unattacked: (M, L) the answer to each record's image without attack (the certified class, where that was
            attacked); -1 where that is an abstention or not done yet.
        is_targeted: whether the attack was to reach a class.
        norms: (M, 2) l2 and l_inf norms of the perturbations.
        settings: the rows of each (size, m, steps), without attack first.
    """

    looks: tuple[int, ...]
    answers: np.ndarray
    label: np.ndarray
    unattacked: np.ndarray
    attacked: np.ndarray
    is_targeted: bool
    norms: np.ndarray
    settings: dict[tuple[float, int, int], np.ndarray]

    @classmethod
    def of(cls, store: Store) -> Self:
        """Read an attack store, or raise StoreError for another kind or one without records."""
        check_kind(store, "attack")
        check_records(store)
        alpha = alpha_of(store)
        if alpha is None:
            looks, answers = (store.identity.procedure.raw["n"],), store.column("prediction")[:, None]
        else:
            looks, answers = look_answers(store, alpha)
        size, m, steps, index = (store.column(name) for name in (axis_of(store), "m", "steps", "index"))
        rows: dict[tuple[float, int, int], list[int]] = {}
        for row, key in enumerate(zip(size.tolist(), m.tolist(), steps.tolist(), strict=True)):
            rows.setdefault(key, []).append(row)
        if axis_of(store) == "times":
            unattacked = np.repeat(store.column("attacked")[:, None], answers.shape[1], axis=1)
        else:
            clean, unattacked = np.flatnonzero(size == 0), np.full_like(answers, -1)
            row_of = dict(zip(index[clean].tolist(), clean.tolist(), strict=True))
            found = np.array([row_of.get(i, -1) for i in index.tolist()])
            unattacked[found >= 0] = answers[found[found >= 0]]
        return cls(looks, answers, store.column("label"), unattacked, store.column("attacked"),
                   store.identity.attack.target is not None,
                   np.stack([store.column("l2"), store.column("linf")], axis=1),
                   {key: np.array(rows[key]) for key in sorted(rows)})
