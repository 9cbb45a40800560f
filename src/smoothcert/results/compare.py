"""Runs over the same images held against each other: two runs of one kind, or attacks and certificates."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from smoothcert.checks import check_probability
from smoothcert.errors import InputError, StoreError
from smoothcert.results.attacks import View, alpha_of, axis_of, norm_of, pick
from smoothcert.results.base import check_same_data, run_notes
from smoothcert.results.best import reach_notes
from smoothcert.results.certified import Result
from smoothcert.results.multi_label import CertifiedLabels
from smoothcert.results.paired import Difference, find_differences, shared_images
from smoothcert.results.predictions import Predicted
from smoothcert.stats import proved_level
from smoothcert.stats.binomial import tail
from smoothcert.store.recertify import check_certificates
from smoothcert.store.store import Store


@dataclass(frozen=True)
class Comparison:
    """`differences` of two runs over the `images` that they share; `left_out` are images of one of them only.

    `acr` are the average certified radii on the shared images, and `acr_error` the standard error of their difference,
    an estimate; None for predictions and labels. `networks` say which network each run is of; "" where a run does
    not tell.
    """

    names: tuple[str, str]
    images: int
    left_out: tuple[int, int]
    differences: tuple[Difference, ...]
    rho: float
    norm: str = "l2"
    acr: tuple[float, float] | None = None
    acr_error: float | None = None
    notes: tuple[str, ...] = ()
    networks: tuple[str, str] = ("", "")

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each difference, as for CSV."""
        return [one.to_dict() for one in self.differences]

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as plain values."""
        return {**asdict(self), "differences": self.rows()}


Comparable = Result | Predicted | CertifiedLabels
"""What is compared with another one of its kind."""


def compare(first: Comparable, second: Comparable, radii: Sequence[float], rho: float) -> Comparison:
    """Compare two runs of one kind image by image; answers of PREDICT are compared at no radius, labels by the images
    that have all of them right. Radii are those of their table where none are given.

    Raises:
        InputError: they are over different data sets, share no image, or are of different kinds.
    """
    check_probability("rho", rho)
    if first.kind != second.kind:
        raise InputError(f"{first.name} holds {first.holds}, and {second.name} holds {second.holds}: they cannot be "
                         f"compared")
    radii = list(radii) or type(first).default_radii([first, second])
    check_same_data([first, second])
    one, two = shared_images(first, second)
    places = ((first, one), (second, two))
    shared = [run if run.label is None else replace(run, label=run.label[where]) for run, where in places]
    differences = find_differences(first, second, first.comparison_points(radii), rho)
    acr, error = None, None
    credit = [run.credit[where] for run, where in places if run.credit is not None]
    if credit:
        acr = float(credit[0].mean()), float(credit[1].mean())
        error = float(np.std(credit[0] - credit[1], ddof=1) / math.sqrt(len(one))) if len(one) > 1 else None
    return Comparison(
        (first.name, second.name), len(one), (first.images - len(one), second.images - len(one)), differences,
        rho, first.norm, acr, error, (*run_notes(shared), *reach_notes([first, second], radii)),
        (first.network, second.network))


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


@dataclass(frozen=True)
class UnderAttack:
    """An attack store held against the certificates of its images.

    Attributes:
        name, path: of the store of the certificates.
        rows: certified beside empirical accuracy; none where images were attacked at multiples of their own radii.
        violations: changed answers inside certified radii.
    """

    name: str
    path: str
    rows: tuple[Beside, ...]
    violations: Violations

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as plain values."""
        return {"store": self.path, "rows": [asdict(row) for row in self.rows], "violations": asdict(self.violations)}


def under_attack(store: Store, certified: Store) -> UnderAttack:
    """Hold an attack store against a certify store; raises what `beside` and `violations` raise."""
    rows = () if axis_of(store) == "times" else tuple(beside(store, certified))
    return UnderAttack(certified.folder.name, str(certified.folder), rows, violations(store, certified))


def beside(store: Store, certified: Store) -> list[Beside]:
    """Return certified accuracy over the images of the attack beside the empirical one, at every setting and n.

    Under an l_inf attack an image counts as certified at eps where its l2 radius is at least eps sqrt(d).

    Raises:
        StoreError: the attack's bounds are multiples of radii, or `certified` is of another model, sigma or images.
    """
    view = View.of(store)
    if axis_of(store) != "eps":
        raise StoreError(f"{store.folder} attacked each image at multiples of its own radius: there is no curve over "
                         f"eps to set beside the certified one")
    radius, answer = _certificates(store, certified)
    is_right = answer == store.column("label")
    # an l_inf ball of radius 1 lies in the l2 ball of radius sqrt(d)
    l2_per_eps = math.sqrt(math.prod(store.identity.data.shape)) if norm_of(store) == "linf" else 1.0
    found = []
    for (size, m, steps), rows in view.settings.items():
        claimed = is_right[rows] & (radius[rows] >= size * l2_per_eps)
        for k, n in enumerate(view.looks):
            given, label = view.answers[rows, k], view.label[rows]
            found.append(Beside(size, m, steps, n, len(rows), float(claimed.mean()), float((given == label).mean()),
                                float((claimed & (given >= 0) & (given != label)).mean()),
                                float((claimed & (given < 0)).mean())))
    return found


def violations(store: Store, certified: Store, n: int | None = None) -> Violations:
    """Count changed answers inside certified radii over all settings of an attack store.

    Answers are judged at n, the largest if None.

    Raises:
        InputError: an n that the store does not have. StoreError: `certified` is of another model, sigma or images, or
        answers by softmax, which have no level.
    """
    view = View.of(store)
    if alpha_of(store) is None:
        raise StoreError(f"{store.folder} was answered by softmax, without a test: changed answers inside certified "
                         f"radii are counted where PREDICT answers (votes)")
    look = view.looks.index(pick("n", n, view.looks))
    radius, answer = _certificates(store, certified)
    inside = (store.column("eps") > 0) & (answer >= 0) & (store.column("l2") < radius)
    index, given = store.column("index")[inside], view.answers[inside, look]
    changed = (given >= 0) & (given != answer[inside])
    _, pairs = np.unique(index, return_counts=True)
    proved, answer_alpha = certified.identity.procedure.raw, store.identity.procedure.raw["alpha"]
    certificate = proved_level(proved["method"], proved["alpha"])
    images, most = certified.num_records, int(pairs.max(initial=0))
    expected = images * most * certificate + len(index) * answer_alpha
    images_changed = len(np.unique(index[changed]))
    chance = float(tail(images_changed, images, min(1.0, certificate + most * answer_alpha)))
    return Violations(len(index), int(changed.sum()), expected, len(pairs), images_changed, chance)


def _certificates(store: Store, certified: Store) -> tuple[np.ndarray, np.ndarray]:
    """Return (radius, class) of the image of every record; radius 0 and class -1 where it has no certificate."""
    index = store.column("index")
    check_certificates(certified, store.identity, np.unique(index), "the comparison with this attack")
    rows = certified.rows_of(index)
    if not np.array_equal(certified.column("label")[rows], store.column("label")):
        raise StoreError(f"{certified.folder} has other labels than {store.folder}: they are not of the same images")
    return certified.column("radius")[rows], certified.column("prediction")[rows]
