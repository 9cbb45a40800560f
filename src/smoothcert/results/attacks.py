"""What an `attack` store says: empirical accuracy, changed answers, and how they stand to certificates.

An abstention counts as wrong, but is no changed answer. Empirical accuracy is what one attack found on given images:
the accuracy that the worst perturbation leaves may be lower, and nothing here is a guarantee.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from smoothcert.errors import InputError, StoreError
from smoothcert.results.looks import look_answers
from smoothcert.results.present import check_records
from smoothcert.stats import proved_level
from smoothcert.stats.binomial import tail
from smoothcert.store.certificates import check_certificates
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


@dataclass(frozen=True)
class Beside:
    """Certified beside empirical accuracy on the same images at one setting, as fractions.

    Attributes:
        certified: right, and certified at this eps or more.
        empirical: right under attack.
        lost_answers: certified right at this eps, yet answered otherwise under attack: a false certificate or a false
            answer of PREDICT.
        lost_abstentions: certified right at this eps, and abstained on under attack: n is too small.
    """

    size: float
    m: int
    steps: int
    n: int
    images: int
    certified: float
    empirical: float
    lost_answers: float
    lost_abstentions: float


@dataclass(frozen=True)
class Violations:
    """Attacked images that lie inside a certified radius, and those among them that were answered otherwise.

    An answer changes only where the certificate is false (with probability alpha, the `proved_level` of its method, for
    each image that was certified, found to have a radius or not) or where PREDICT errs (its alpha', for each attacked
    image). Attacks on one image share its certificate and its noise; images share nothing. So with N images, k attacks
    on one inside its radius at the most:

    Attributes:
        pairs: (image, attack) with ||delta||_2 below the image's certified radius. changed: those answered otherwise.
        expected: N k alpha + pairs alpha': `changed` is at most this on average.
        images: with at least one pair. images_changed: those with a changed one.
        chance: P(Bin(N, alpha + k alpha') >= images_changed), which bounds the probability of so many by chance.
    """

    pairs: int
    changed: int
    expected: float
    images: int
    images_changed: int
    chance: float


def outcomes(store: Store) -> list[Outcome]:
    """Every setting at every n, over the images done so far; first without attack.

    Raises:
        StoreError: a store of another kind, or without records.
    """
    view = _view(store)
    return [_outcome(view, rows, setting, k) for setting, rows in view.settings.items() for k in range(len(view.looks))]


def empirical_curve(
    store: Store, m: int | None = None, steps: int | None = None, n: int | None = None, name: str | None = None
) -> EmpiricalCurve:
    """Accuracy against the size of the attack; what is None is the largest in the store.

    Raises:
        InputError: an m, steps or n that the store does not have.
    """
    told, looks = store.identity["attack"], _view(store).looks
    chosen = {"m": _picked("m", m, told["m"]), "steps": _picked("steps", steps, told["steps"]),
              "n": _picked("n", n, looks)}
    points = [o for o in outcomes(store) if o.n == chosen["n"]
              and (o.size == 0 or (o.m, o.steps) == (chosen["m"], chosen["steps"]))]
    size, accuracy, changed, abstained = (
        np.array([getattr(o, field) for o in points]) for field in ("size", "accuracy", "changed", "abstained"))
    return EmpiricalCurve(name or store.folder.name, axis_of(store), size, accuracy, changed, abstained, **chosen)


def beside(store: Store, certified: Store) -> list[Beside]:
    """Certified accuracy, over the images of the attack, beside the empirical at every setting and n.

    Under an l_inf attack an image counts as certified at eps where its l2 radius is at least eps sqrt(d).

    Raises:
        StoreError: the attack's bounds are multiples of radii, or `certified` is of another model, sigma or images.
    """
    view = _view(store)
    if axis_of(store) != "eps":
        raise StoreError(f"{store.folder} attacked each image at multiples of its own radius: there is no curve over "
                         f"eps to set beside the certified one")
    radius, answer = _certificates(store, certified)
    right = answer == store.column("label")
    found = []
    for (size, m, steps), rows in view.settings.items():
        claimed = right[rows] & (radius[rows] >= size * _l2_per_eps(store))
        for k, n in enumerate(view.looks):
            given, label = view.answers[rows, k], view.label[rows]
            found.append(Beside(size, m, steps, n, len(rows), float(claimed.mean()), float((given == label).mean()),
                                float((claimed & (given >= 0) & (given != label)).mean()),
                                float((claimed & (given < 0)).mean())))
    return found


def violations(store: Store, certified: Store, n: int | None = None) -> Violations:
    """Changed answers inside certified radii, over all settings of an attack store, judged at n (the largest if None).

    Raises:
        InputError: an n that the store does not have. StoreError: `certified` is of another model, sigma or images, or
        answers by softmax, which have no level.
    """
    view = _view(store)
    if alpha_of(store) is None:
        raise StoreError(f"{store.folder} was answered by softmax, without a test: changed answers inside certified "
                         f"radii are counted where PREDICT answers (votes)")
    look = view.looks.index(_picked("n", n, view.looks))
    radius, answer = _certificates(store, certified)
    inside = (store.column("eps") > 0) & (answer >= 0) & (store.column("l2") < radius)
    index, given = store.column("index")[inside], view.answers[inside, look]
    changed = (given >= 0) & (given != answer[inside])
    _, pairs = np.unique(index, return_counts=True)
    proved, answer_alpha = certified.identity["procedure"], store.identity["procedure"]["alpha"]
    certificate = proved_level(proved["method"], proved["alpha"])
    images, most = certified.num_records, int(pairs.max(initial=0))
    expected = images * most * certificate + len(index) * answer_alpha
    images_changed = len(np.unique(index[changed]))
    chance = float(tail(images_changed, images, min(1.0, certificate + most * answer_alpha)))
    return Violations(len(index), int(changed.sum()), expected, len(pairs), images_changed, chance)


@dataclass(frozen=True)
class _View:
    """A store as arrays: answers (M, L) at each look; the rows of each (size, m, steps), clean first."""

    looks: tuple[int, ...]
    answers: np.ndarray
    label: np.ndarray
    unattacked: np.ndarray
    attacked: np.ndarray
    targeted: bool
    norms: np.ndarray
    settings: dict[tuple[float, int, int], np.ndarray]


def _view(store: Store) -> _View:
    if store.kind != "attack":
        raise StoreError(f"{store.folder} is no attack store, but one of kind {store.kind}")
    check_records(store)
    looks, answers = _answers(store)
    size, m, steps = (store.column(name) for name in (axis_of(store), "m", "steps"))
    keys = list(zip(size.tolist(), m.tolist(), steps.tolist(), strict=True))
    rows: dict[tuple[float, int, int], list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    ordered = {key: np.array(rows[key]) for key in sorted(rows)}
    targeted = store.identity["attack"]["target"] is not None
    return _View(looks, answers, store.column("label"), _unattacked(store, answers, size == 0),
                 store.column("attacked"), targeted, np.stack([store.column("l2"), store.column("linf")], axis=1),
                 ordered)


def _answers(store: Store) -> tuple[tuple[int, ...], np.ndarray]:
    """The looks, and the answer of every record at every look, (M, L)."""
    procedure, alpha = store.identity["procedure"], alpha_of(store)
    if alpha is None:
        return (procedure["n"],), store.column("prediction")[:, None]
    return look_answers(store, alpha)


def _unattacked(store: Store, answers: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """(M, L): what each record's image is answered without attack: the certified class, where that was attacked; -1
    where that is an abstention or not done yet."""
    if axis_of(store) == "times":
        return np.repeat(store.column("attacked")[:, None], answers.shape[1], axis=1)
    index = store.column("index")
    known = {int(i): row for row, i in zip(np.flatnonzero(clean).tolist(), index[clean], strict=True)}
    found = np.full_like(answers, -1)
    rows = np.array([known.get(int(i), -1) for i in index])
    found[rows >= 0] = answers[rows[rows >= 0]]
    return found


def _outcome(view: _View, rows: np.ndarray, setting: tuple[float, int, int], look: int) -> Outcome:
    answer, before = view.answers[rows, look], view.unattacked[rows, look]
    l2, linf = view.norms[rows].mean(axis=0).tolist()
    changed = (answer >= 0) & (before >= 0) & (answer != before)
    reached = float((answer == view.attacked[rows]).mean()) if view.targeted else None
    return Outcome(*setting, view.looks[look], len(rows), float((answer == view.label[rows]).mean()),
                   float(changed.mean()), float((answer < 0).mean()), l2, linf, reached)


def _certificates(store: Store, certified: Store) -> tuple[np.ndarray, np.ndarray]:
    """(radius, class) of the image of every record; radius 0 and class -1 where it has no certificate."""
    index = store.column("index")
    check_certificates(certified, store.identity, np.unique(index), "the comparison with this attack")
    order = np.argsort(certified.column("index"))
    rows = order[np.searchsorted(certified.column("index"), index, sorter=order)]
    if not np.array_equal(certified.column("label")[rows], store.column("label")):
        raise StoreError(f"{certified.folder} has other labels than {store.folder}: they are not of the same images")
    return certified.column("radius")[rows], certified.column("prediction")[rows]


def _picked(name: str, value: int | None, known: Any) -> int:
    if value is None:
        return max(known)
    if value not in known:
        raise InputError(f"{name} = {value} is none of the store's: {', '.join(map(str, known))}")
    return value


def axis_of(store: Store) -> str:
    """What the sizes of its attacks are: "eps", or "times" the certified radius."""
    return "times" if "times" in store.identity["attack"] else "eps"


def alpha_of(store: Store) -> float | None:
    """The level of its answers; None where they come from a mean softmax, without a test."""
    return store.identity["procedure"].get("alpha")


def norm_of(store: Store) -> str:
    """The norm that bounds its attacks."""
    return store.identity["attack"]["options"].get("norm", "l2")


def _l2_per_eps(store: Store) -> float:
    """The l2 radius of the smallest ball around the attack's ball of radius 1."""
    return math.sqrt(math.prod(store.identity["data"]["shape"])) if norm_of(store) == "linf" else 1.0
