"""The protocol of results, which every kind of store follows, and the checks and notes on several of them."""

from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from smoothcert.checks import one_line
from smoothcert.classes import places_of
from smoothcert.display import Displayed
from smoothcert.errors import EmptyStoreError, InputError, StoreError
from smoothcert.stats import FixedPredict
from smoothcert.store.identity import Identity
from smoothcert.store.names import few, group_by_words
from smoothcert.store.store import SHARD, Store

ASSUMED_ALPHA = 0.001
"""The alpha that bounds are computed with where a log does not say its own: the papers' value."""


@dataclass(frozen=True)
class Points:
    """The points at which figures are wanted.

    Attributes:
        radii: where there are none, a result takes points of its own. A bound on the expected loss takes a radius r as
            the transport cost r^2.
        rho: failure probability of each data-set interval.
        envelopes: whether the best of all runs of a method is wanted too.
        intervals: "one" lower bound beside certified accuracy, or "all" of them, where people read it.
        paired: whether each run's difference from the first one is wanted, with its paired interval.
        one_pass: whether the accuracy with one noisy copy is wanted, of runs that were opened for it.
    """

    radii: tuple[float, ...] = ()
    rho: float = 0.05
    envelopes: bool = False
    intervals: str = "one"
    paired: bool = False
    one_pass: bool = False


@dataclass(frozen=True)
class Measured:
    """One line of figures of a result, as a recipe sets them beside those of a paper.

    Attributes:
        measure: "accuracy" and "changed" are shares of the images, "bound" is a bound on the expected loss.
        setting: tells apart the lines of one store; "" where it has one.
        at: radii (certify), eps or multiples of the radius (attack; 0 is no attack), or transport costs.
        values: one for each point.
        out_of_reach: whether no sample of the run could have proved the point; none is where it is empty.
        is_comparable: whether the figures that a paper prints for the store are of this line.
        axis: what `at` is.
    """

    measure: str
    setting: str
    at: tuple[float, ...]
    values: tuple[float, ...]
    images: int
    out_of_reach: tuple[bool, ...] = ()
    acr: float | None = None
    abstained: float | None = None
    is_comparable: bool = True
    axis: str = "radius"


class StoreResult(Displayed):
    """The figures of one store, log or count file; each kind has a subclass, found in `results.gather.RESULTS`.

    Attributes:
        kind: the kind of store.
        holds: its records in words, for messages.
        takes_radii, is_certified, is_on_pages, has_own_page, is_comparable: whether it can be asked at radii, holds a
            certified radius of each image, has a place on the HTML page of certificates, or on one of its kind alone,
            and can be compared with another one image by image.
        name: how tables and legends call it.
    """

    kind: ClassVar[str]
    holds: ClassVar[str]
    takes_radii: ClassVar[bool] = False
    is_certified: ClassVar[bool] = False
    is_on_pages: ClassVar[bool] = False
    has_own_page: ClassVar[bool] = False
    is_comparable: ClassVar[bool] = False
    name: str

    def display_facts(self) -> dict[str, Any]:
        """Return the single values, without the arrays of all images."""
        plain = {name: value for name, value in super().display_facts().items()
                 if isinstance(value, str | int | float) and value != ""} if is_dataclass(self) else {}
        return {**plain, **({"images": len(index)} if (index := getattr(self, "index", None)) is not None else {})}

    @classmethod
    def of(cls, store: Store, name: str | None = None) -> Self:
        """Read a store, or raise StoreError where it is of another kind or has no records."""
        raise NotImplementedError

    @classmethod
    def default_radii(cls, results: Sequence[Any]) -> list[float]:
        """Return the radii at which several results are shown where none are asked for; none without radii."""
        return []

    def in_group(self, group: str) -> Self:
        """Return the same figures as those of a run of the method `group`, where methods play a part."""
        return self

    def in_norm(self, norm: str, dimension: int | None = None) -> Self:
        """Return the same figures for balls of `norm`, or raise InputError where it has no radii."""
        if norm != "l2":
            raise InputError(f"{self.name} is a store of kind {self.kind}: --norm {norm} is for the radii of certify "
                             f"stores and logs: leave it out")
        return self

    def is_decided(self, radius: Any) -> bool:
        """Return whether the claims at `radius` are settled, rather than a lower bound."""
        return True

    def is_out_of_reach(self, radius: Any) -> bool:
        """Return whether its samples could not have proved `radius`, and no right image claims it.

        A share of 0 at such a radius says nothing.
        """
        return False

    def reach_note(self, radii: Sequence[float]) -> str:
        """Return what its samples could have proved, "" where they could have proved all of `radii`."""
        return ""

    def measurements(self, radii: Sequence[float]) -> list[Measured]:
        """Return its figures, line by line; certificates are read at `radii`, the others at points of their own."""
        raise NotImplementedError


class Runs(Protocol):
    """Results of one kind, read at the same points and held against each other."""

    kind: ClassVar[str]

    @classmethod
    def of(cls, results: Sequence[Any], points: Points) -> Self:
        """Read `results` at `points`; what was not asked for is settled by all of them."""
        ...

    def rows(self) -> list[dict[str, Any]]:
        """Return one row for each line of a CSV file, shares as fractions in full precision."""
        ...

    def to_json(self) -> list[dict[str, Any]]:
        """Return one object of plain values for each result."""
        ...


class OverImages(Protocol):
    """A run over single images, which can be held against others.

    `index` (M,) are its images, each once; `label` (M,) their classes or (M, L) their labels, where known; `classes`
    the names of the classes, where known; `setting` says under "data" which data set they are of.
    """

    @property
    def name(self) -> str: ...
    @property
    def images(self) -> int: ...
    @property
    def index(self) -> np.ndarray: ...
    @property
    def label(self) -> np.ndarray | None: ...
    @property
    def classes(self) -> tuple[str, ...] | None: ...
    @property
    def setting(self) -> dict[str, Any]: ...


class Noted(OverImages, Protocol):
    """A run over images with notes on its figures.

    `cautions` are as many for all runs of a kind, "" where one does not apply; `remarks` are the run's own;
    `reach_note` is what its samples could have proved, "" where they could have proved all radii.
    """

    @property
    def cautions(self) -> tuple[str, ...]: ...
    @property
    def remarks(self) -> tuple[str, ...]: ...
    def reach_note(self, radii: Sequence[float]) -> str: ...


def check_records(store: Store) -> None:
    """Raise EmptyStoreError unless a store, log or count file has a record (an unfinished store may have one later)."""
    if not store.num_records:
        raise EmptyStoreError(
            f"{store.folder} has no records: there is nothing to show" if is_foreign(store) else
            f"{store.folder} has no records yet: let its run finish some images")


def check_kind(store: Store, *kinds: str, why: str = "") -> None:
    """Raise StoreError unless a store is of one of `kinds`; `why` is added to the message."""
    if store.kind not in kinds:
        raise StoreError(f"{store.folder} is a store of kind {store.kind}; one of kind {' or '.join(kinds)} was "
                         f"expected{why}")


def is_foreign(store: Store) -> bool:
    """Return whether it was read from a log or a count file, which say little of how they were made."""
    return bool({"log", "counts"} & store.provenance.raw.keys())


def setting_of(identity: Identity) -> dict[str, Any]:
    """Return an identity without the images it names, and without the seed, which independent streams may share."""
    data = {name: value for name, value in identity.raw.get("data", {}).items() if name != "sha256"}
    return {name: value for name, value in {**identity.raw, "data": data}.items()
            if name not in ("images", "seed", "recertified_from")}


def look_answers(store: Store, alpha: float) -> tuple[tuple[int, ...], np.ndarray]:
    """Return the sizes n of the looks that a run took at one sample, and the answers of PREDICT at each, (M, L) int64.

    An answer is -1 where PREDICT abstains.
    """
    plan, parts = FixedPredict(store.identity.procedure.raw["n"], alpha), []
    for start in range(0, store.num_records, SHARD):
        histories = store.histories(start, SHARD)
        parts.append(np.stack([plan.judge([history[: k + 1] for history in histories]).prediction
                               for k in range(len(plan.looks))], axis=1))
    return plan.looks, np.concatenate(parts)


def unseen_classes(
    label: np.ndarray | None, classes: Sequence[str] | None, index: np.ndarray | None = None
) -> tuple[str, ...]:
    """Return a note where the images of some records show fewer than all K classes.

    There is no note where labels or names of classes are unknown. Classes are named, and more images advised, only
    where as many images could show more of them.

    Args:
        label: (M,) of each record.
        index: (M,) of its image, where an image has several records.

    >>> unseen_classes(np.array([0, 0, 1]), ["cat", "dog"])
    ()
    >>> unseen_classes(np.array([1, 1, 1]), ["cat", "dog", "owl"])[0]
    '3 images show 1 of the 3 classes (dog), and the figures speak of no other; --every, or more images, may show more'
    >>> unseen_classes(np.array([1, 0]), ["cat", "dog", "owl"])[0]
    '2 images show 2 of the 3 classes, and the figures speak of no other'
    """
    if label is None or not classes:
        return ()
    images, count = len(label) if index is None else len(np.unique(index)), len(classes)
    is_seen = np.isin(np.arange(count), label)
    seen = int(is_seen.sum())
    if seen == count:
        return ()
    words = f"{images:,} image{' shows' if images == 1 else 's show'} {seen:,} of the {count:,} classes"
    if seen == images:
        return (f"{words}, and the figures speak of no other",)
    named = is_seen if 2 * seen <= count else ~is_seen
    names = few([one_line(str(name)) for name, is_named in zip(classes, named, strict=True) if is_named])
    return (f"{words} ({'' if 2 * seen <= count else 'not '}{names}), and the figures speak of no other; --every, or "
            f"more images, may show more",)


def check_same_data(runs: Sequence[OverImages]) -> None:
    """Raise InputError where runs are over different data sets.

    Data sets differ by name, split or shape, where runs say these, or by the labels of shared images, which are
    compared by name where models order their classes differently.
    """
    stated = [(run.name, run.setting["data"]) for run in runs if run.setting.get("data")]
    for name, data in stated[1:]:
        if any(data.get(field) != stated[0][1].get(field) for field in ("name", "split", "shape")):
            here, there = (f"{one.get('name')} ({one.get('split')})" for one in (data, stated[0][1]))
            raise InputError(f"{name} is over {here} and {stated[0][0]} over {there}: only runs over one data set can "
                             f"be compared image by image")
    first = runs[0]
    for other in runs[1:]:
        if first.label is None or other.label is None:
            continue
        shared, one, two = np.intersect1d(first.index, other.index, assume_unique=True, return_indices=True)
        differ = first.label[one] != _translate_labels(other, first)[two]
        bad = np.flatnonzero(differ.any(axis=tuple(range(1, differ.ndim))))
        if len(bad):
            where = bad[0]
            raise InputError(
                f"{first.name} and {other.name} are over different data sets: image {shared[where]} has label "
                f"{first.label[one[where]]} in the one and {other.label[two[where]]} in the other"
                + (f", and {len(bad) - 1} more differ" if len(bad) > 1 else ""))


def _translate_labels(run: OverImages, to: OverImages) -> np.ndarray:
    """Return the labels of a run as indices of another one's classes; unchanged where these lack one or have no names.
    """
    label = np.asarray(run.label)
    names: tuple[str, ...] = () if run.classes is None else run.classes
    used, inverse = np.unique(label, return_inverse=True)
    if not to.classes or names == to.classes or used.min(initial=0) < 0 or used.max(initial=0) >= len(names):
        return label
    places = places_of(to.classes, tuple(str(names[k]) for k in used.tolist()))
    return label if places is None else np.array(places)[inverse]


def why_not_side_by_side(runs: Sequence[OverImages]) -> tuple[str, list[str]]:
    """Return why the figures of runs do not belong side by side, "" where they do; and which images which run lacks."""
    try:
        check_same_data(runs)
    except InputError as error:
        return str(error), []
    if len(runs) == 1:  # of a million images the sets below take seconds
        return "", []
    every = np.unique(np.concatenate([run.index for run in runs]))
    lacking = []
    for run in runs:
        if len(missing := np.setdiff1d(every, run.index)):
            words = (f"image {missing[0]} is" if len(missing) == 1 else
                     f"{len(missing)} (from image {missing[0]} to {missing[-1]}) are")
            lacking.append((run.name, f"{run.images} of the {len(every)} images: {words} missing"))
    notes = [f"{few(names)} {'has' if len(names) == 1 else 'have'} {words}" for names, words in group_by_words(lacking)]
    return "the runs are over different images" if notes else "", notes


def run_notes(runs: Sequence[Noted]) -> list[str]:
    """Return what a reader has to know of the figures of runs of one kind; notes that several share stand once."""
    told = [(run.name, note) for notes in zip(*(run.cautions for run in runs), strict=True)
            for run, note in zip(runs, notes, strict=True) if note]
    told += [(run.name, note) for run in runs for note in run.remarks]
    return [f"{few(names)}: {note}" for names, note in group_by_words(told)]


def alpha_caution(alpha: float | None) -> str:
    """Return the caution on an alpha that a log does not state."""
    return f"alpha is not told, so bounds take {ASSUMED_ALPHA:g}; --alpha says another" if alpha is None else ""
