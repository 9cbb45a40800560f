"""Certificates of single images: of a certify store, of a log with radii, or of a count file."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np

from smoothcert.checks import one_line
from smoothcert.errors import CardWarning, InputError, StoreError
from smoothcert.results.base import (
    ASSUMED_ALPHA,
    Measured,
    StoreResult,
    alpha_caution,
    check_records,
    setting_of,
    unseen_classes,
)
from smoothcert.results.figures import reach_words
from smoothcert.results.networks import describe_network, transfer_notes
from smoothcert.stats import (
    AccuracyBounds,
    Claim,
    average_certified_radius,
    certified_accuracy,
    linf_radius,
    max_radius,
    proved_level,
)
from smoothcert.stats.claims import is_right
from smoothcert.stats.intervals import accuracy_of_counts, check_radii, claims
from smoothcert.stats.one_pass import LabelLimits, OnePass, bound_one_pass
from smoothcert.stats.procedures import agreement_level
from smoothcert.store.identity_parts import claim_of
from smoothcert.store.manifest import describe_cards
from smoothcert.store.names import name_of
from smoothcert.store.recertify import limit_labels_of
from smoothcert.store.store import Store

_LABELS_KNOWN = ("labels were known: no class but the label could be certified, so what counts as abstained is every "
                 "image that is not certified as its label")


@dataclass(frozen=True, repr=False)
class Result(StoreResult):
    """Certificates of the images of one run.

    Attributes:
        name: how tables and legends call it.
        index, radius, correct, abstained: (M,) per image; radius is 0 where abstained.
        sigma, alpha, method, n, margin: what they were certified with; n is the most samples an image could take.
            A log may not state them: then sigma is NaN and the others are None.
        decided: radii that a sequential run was asked to decide: its claims there are what n samples would give, and
            everything between is a lower bound. None where every radius counts as it is.
        asked_to: the radius up to which its curve was asked for; beyond it, the curve is a lower bound. None: no end.
        setting: the store's identity without what tells its images apart; runs can be merged where it is equal.
        complete: whether the run has finished.
        label: (M,) true classes, where known.
        group: runs of one group are one method at several sigma.
        norm: that of the radii: "l2", "linf", or whatever else a log says they are of.
        printed: whether the radii were read as a log printed them, so that they may be rounded up.
        notes: what a log or a store says that a reader of its figures has to know besides; `remarks` has all of it.
        classes: the names of the classes, where known.
        path: the store that holds them; "" where none does.
        network: which network they are of, in words; "" where it is not told.
        claim: what the radii claim; None for plain ones.
        label_limits: of the probability of each image's label under noise, where they were asked for.
        cards: the kinds of GPU that the votes were computed on; none where it was a CPU, or is not told.
    """

    kind: ClassVar[str] = "certify"
    holds: ClassVar[str] = "certificates"
    takes_radii: ClassVar[bool] = True
    is_certified: ClassVar[bool] = True
    is_on_pages: ClassVar[bool] = True
    is_comparable: ClassVar[bool] = True

    name: str
    index: np.ndarray
    radius: np.ndarray
    correct: np.ndarray
    abstained: np.ndarray
    sigma: float
    alpha: float | None
    method: str | None
    n: int | None
    margin: float | None = None
    decided: tuple[float, ...] | None = None
    asked_to: float | None = None
    setting: dict[str, Any] = field(default_factory=dict)
    complete: bool = True
    label: np.ndarray | None = None
    group: str = ""
    norm: str = "l2"
    printed: bool = False
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    path: str = ""
    network: str = ""
    claim: Claim | None = None
    label_limits: LabelLimits | None = None
    cards: tuple[str, ...] = ()

    @classmethod
    def of(cls, store: Store, name: str | None = None) -> Self:
        """Return the certificates of a store, as they were certified."""
        return cls.build(store, name, store.identity.procedure.raw, store.column("prediction"),
                         store.column("radius") if store.kind == "certify" else None)

    @classmethod
    def build(cls, store: Store, name: str | None, procedure: dict[str, Any], prediction: np.ndarray,
              radius: np.ndarray | None, path: str | None = None) -> Self:
        """Return certificates for the images of a store, such as recomputed ones; `path` is where these are kept."""
        if radius is None:
            raise StoreError(f"{store.folder} is a store of kind {store.kind} and has no radii: this needs a "
                             f"certify store; `smoothcert info` says what it holds")
        check_records(store)
        label, method = store.column("label"), procedure["method"]
        decided, notes = None, [one_line(note) for note in store.provenance.notes]
        if procedure.get("radii") is not None:
            decided = tuple(procedure["radii"]) if procedure.get("decided", True) else ()
            notes += [_LABELS_KNOWN] if procedure.get("labels_known") else []
        elif store.identity.procedure.source is not None and store.identity.procedure.source.get("design") == "radii":
            decided = ()  # the original's looks had stopped
        if (claim := claim_of(procedure)) is not None:
            count = claim.count_limits(method)
            limits = "one limit holds" if count == 1 else f"{count} limits hold together"
            notes.append(f"{claim.words}: {claim.meaning}; {limits} at alpha {procedure['alpha']:g}")
            notes += [_LABELS_KNOWN] if procedure["claim"].get("labels_known") else []
        asked_to = procedure.get("to")
        if asked_to is not None and not procedure.get("decided", True):
            asked_to = 0.0  # it was sized by other rules
        return cls(one_line(name or name_of(store.folder)), store.column("index"), np.asarray(radius),
                   is_right(claim, prediction, label), prediction < 0, store.identity.noise.sigma, procedure["alpha"],
                   method and one_line(method), procedure.get("n") or procedure["n_max"], procedure["margin"], decided,
                   asked_to, setting_of(store.identity.replace(procedure=procedure)), store.complete, label,
                   norm=store.identity.norm or "l2", printed=store.identity.printed,
                   notes=(*notes, *transfer_notes(store)), classes=store.class_names,
                   path=str(store.folder) if path is None else path, network=describe_network(store),
                   claim=claim, cards=tuple(map(one_line, store.provenance.cards)))

    @classmethod
    def default_radii(cls, results: Sequence[Any]) -> list[float]:
        """Return `default_radii` of certified runs."""
        return default_radii(results)

    @property
    def is_lower_bound(self) -> bool:
        """Its curve and its ACR are lower bounds of what the same samples without early stopping would give."""
        return self.decided is not None or self.asked_to is not None

    @property
    def credit(self) -> np.ndarray:
        """(M,) what each image adds to the ACR: its radius, 0 where it is wrong."""
        return np.where(self.correct, self.radius, 0.0)

    def class_name(self, number: int) -> str:
        """Return the name of a class, or its number where names are not known."""
        return one_line(self.classes[number]) if self.classes and 0 <= number < len(self.classes) else str(number)

    def comparison_points(self, radii: Sequence[float]) -> list[float]:
        """Return the radii at which it is compared with another run."""
        return list(radii)

    def is_right(self, radius: float) -> np.ndarray:
        """Return (M,) bool: right and certified at `radius`."""
        return self.correct & (self.radius >= radius)

    def is_decided(self, radius: float) -> bool:
        """Return whether the claims at `radius` are settled, rather than a lower bound."""
        if self.asked_to is not None:
            return radius <= self.asked_to
        return self.decided is None or radius in self.decided

    @property
    def remarks(self) -> tuple[str, ...]:
        """Its notes, and which classes its images do not show."""
        return (*self.notes, *unseen_classes(self.label, self.classes))

    @property
    def cautions(self) -> tuple[str, ...]:
        """Warnings of what its bounds and radii rest on; "" where there is nothing to warn of."""
        return ("radii as logs printed them, possibly rounded up" if self.printed else "",
                "t-certify is proved at 2 alpha, and so are its lower bounds" if self.method == "t-certify" else "",
                alpha_caution(self.alpha))

    @property
    def images(self) -> int:
        return len(self.radius)

    @property
    def acr(self) -> float:
        """Average certified radius."""
        return average_certified_radius(self.radius, self.correct)

    @property
    def level(self) -> float:
        """The failure probability of each certificate, as far as it is proved; its bounds rest on it."""
        alpha = ASSUMED_ALPHA if self.alpha is None else self.alpha
        return alpha if self.method is None else proved_level(self.method, alpha)

    def at(self, radii: Any, rho: float) -> AccuracyBounds:
        """Return certified accuracy at `radii` with its intervals, which rest on the certificates' proved level."""
        return certified_accuracy(self.radius, self.correct, radii, self.level, rho)

    def with_label_limits(self, store: Store) -> Self:
        """Return the same certificates with the limits for one noisy copy. Raises what `limit_labels_of` raises."""
        return replace(self, label_limits=limit_labels_of(store))

    def one_pass(self, radii: Sequence[float], rho: float) -> OnePass:
        """Return the accuracy with one noisy copy at `radii`. Raises InputError without the limits of the labels."""
        if self.label_limits is None:
            raise InputError(f"{self.name} was read without the votes for its labels: the accuracy with one noisy copy "
                             f"is computed from these")
        if self.norm != "l2":
            raise InputError(f"the accuracy with one noisy copy is known for l2 radii, not for {self.norm}: leave "
                             f"--norm or --one-pass out")
        return bound_one_pass(self.label_limits, radii, self.sigma, rho)

    def in_group(self, group: str) -> Self:
        """Return the same certificates as those of a run of the method `group`."""
        return replace(self, group=group)

    def in_norm(self, norm: str, dimension: int | None = None) -> Self:
        """Return the same certificates as radii of `norm`, "l2" or "linf" (see `in_linf`).

        Raises:
            StoreError: they are radii of another kind.
        """
        if self.norm == norm:
            return self
        if self.norm == "l2":
            return self.in_linf(dimension)
        raise StoreError(f"the radii of {self.name} are not {norm}, but {self.norm}: leave it out, or, if it is a log "
                         f"that has {norm} radii too, name their column with --radius-column")

    def in_linf(self, dimension: int | None = None) -> Self:
        """Return the same certificates as radii of the l_inf balls inside the l2 balls: R / sqrt(d).

        See Salman et al. 2019, section 4.

        Args:
            dimension: d = C H W, where the run does not state its images' shape.
        Raises:
            InputError: neither states it, or they differ.
        """
        shape = self.setting.get("data", {}).get("shape")
        known = math.prod(shape) if shape else None
        if known is None and dimension is None:
            raise InputError(f"{self.name} does not say how large its images are: give --dimension, the number of "
                             f"values of an image, such as 3072 for 3 x 32 x 32")
        if known and dimension not in (None, known):
            raise InputError(f"the images of {self.name} have {known} values ({shape}), and --dimension is {dimension}")
        d = known or dimension or 1
        decided = None if self.decided is None else tuple(float(linf_radius(r, d)) for r in self.decided)
        asked_to = None if self.asked_to is None else float(linf_radius(self.asked_to, d))
        return replace(self, radius=np.asarray(linf_radius(self.radius, d)), decided=decided, asked_to=asked_to,
                       norm="linf", setting={**self.setting, "dimension": d})

    @property
    def ceiling(self) -> float | None:
        """r_max: the largest radius that its samples could have proved; None where too little is known of them."""
        if self.n is None or self.alpha is None or math.isnan(self.sigma):
            return None
        if self.norm != "l2" and "dimension" not in self.setting:
            return None
        level = self.alpha if self.method is None else agreement_level(self.method, self.alpha)
        ceiling = (float(max_radius(self.n, level, self.sigma)) if self.claim is None
                   else self.claim.widest(self.n, self.alpha, self.sigma))
        return ceiling if self.norm == "l2" else float(linf_radius(ceiling, self.setting["dimension"]))

    def is_out_of_reach(self, radius: float) -> bool:
        """Return whether its samples could not have proved `radius`, and no right image claims it.

        A share of 0 at such a radius says nothing.
        """
        return self.ceiling is not None and radius > self.ceiling and not np.any(self.correct & (self.radius >= radius))

    @property
    def widest(self) -> float:
        """The largest radius that its curve can reach: r_max where it is known, else its largest radius."""
        ceiling = self.ceiling
        return float(self.radius.max()) if ceiling is None else ceiling

    def reach_note(self, radii: Sequence[float]) -> str:
        """Return what its samples could have proved, "" where they could have proved all of `radii`."""
        if self.ceiling is None or not any(map(self.is_out_of_reach, radii)):
            return ""
        return reach_words(self.ceiling, self.n, self.alpha, self.sigma)

    def measurements(self, radii: Sequence[float]) -> list[Measured]:
        """Return its certified accuracy at `radii`, with its ACR and abstentions."""
        at = self.at(radii, 0.05).accuracy.tolist()
        return [Measured(measure="accuracy", setting="", at=tuple(radii), values=tuple(at), images=self.images,
                         out_of_reach=tuple(map(self.is_out_of_reach, radii)), acr=self.acr,
                         abstained=float(self.abstained.mean()))]


def accuracies(results: Sequence[Result], radii: Any, rho: float) -> list[AccuracyBounds]:
    """Return `Result.at` of each of `results`; those of as many images and one alpha are computed together."""
    grid = check_radii(radii)
    found: dict[int, AccuracyBounds] = {}
    together: dict[tuple[int, float], list[int]] = {}
    for number, result in enumerate(results):
        together.setdefault((result.images, result.level), []).append(number)
    for (images, alpha), numbers in together.items():
        claimed = np.stack([claims(results[k].radius, results[k].correct, grid) for k in numbers])
        every, where = np.unique(claimed, return_inverse=True)
        at = accuracy_of_counts(grid, every, images, alpha, rho)
        for number, rows in zip(numbers, where.reshape(claimed.shape), strict=True):
            found[number] = AccuracyBounds(grid, at.claimed[rows], images, at.accuracy[rows], at.test_set[rows],
                                              at.bernstein[rows], at.population[rows], at.all_radii[rows])
    return [found[number] for number in range(len(results))]


def merge_runs(results: Sequence[Result]) -> Result:
    """Return one result from runs over different images of one data set, certified alike.

    Raises:
        InputError: they differ in how they were certified, or share images.
    """
    first = results[0]
    for other in results[1:]:
        differing = [name for name in {**first.setting, **other.setting}
                     if first.setting.get(name) != other.setting.get(name)]
        if differing:
            raise InputError(f"{other.name} cannot be merged with {first.name}: they differ in {', '.join(differing)}")
    index = np.concatenate([r.index for r in results])
    if len(np.unique(index)) < len(index):
        raise InputError("these stores cannot be merged: they hold some of the same images")
    order = np.argsort(index)
    named = ["index", "radius", "correct", "abstained"] + ["label"] * all(r.label is not None for r in results)
    fields: dict[str, Any] = {name: np.concatenate([getattr(r, name) for r in results])[order] for name in named}
    if limits := [r.label_limits for r in results if r.label_limits is not None]:
        p, q = (np.concatenate([getattr(one, part) for one in limits])[order] for part in ("p", "q"))
        fields["label_limits"] = replace(limits[0], p=p, q=q)
    cards = tuple(dict.fromkeys(card for r in results for card in r.cards))
    if len(cards) > 1:
        warnings.warn(f"the merged run {describe_cards(cards)}", CardWarning, stacklevel=2)
    return replace(first, name="+".join(r.name for r in results), path="", complete=all(r.complete for r in results),
                   cards=cards, notes=tuple(dict.fromkeys(note for r in results for note in r.notes)), **fields)


def default_radii(results: Sequence[Result], most: int = 12) -> list[float]:
    """Return the radii that the runs decided; else 0, step, 2 step, ... up to the largest that they could certify.

    Args:
        most: there are at most so many.
    """
    if decided := sorted({radius for result in results for radius in result.decided or ()}):
        return decided
    widest = max(r.widest for r in results)
    if results[0].norm == "linf":
        return [k / 255 for k in range(min(int(widest * 255), most - 1) + 1)]
    step = next(s for s in (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, widest) if widest / s < most)
    return [round(step * k, 10) for k in range(int(widest / step) + 1)]
