"""Claims about new images: planned by a pilot, fixed before the run, and read when it is done.

A claim is a radius, the share of new images that are to be certified there, and rho; `smoothcert.stats.planning`
chooses the run for it. The run has the claim in its identity, beside its images and its design.
"""

import shlex
from collections.abc import Callable, Sequence, Sized
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import yaml

from smoothcert.checks import check_count, check_optional_positive, check_probability, check_seed, check_weight
from smoothcert.errors import InputError, StoreError
from smoothcert.io.files import sha256
from smoothcert.results.base import ASSUMED_ALPHA, check_kind, check_records
from smoothcert.results.certified import Result
from smoothcert.results.cost import HOUR, Pilot, samples_of
from smoothcert.results.figures import percent
from smoothcert.stats import AtRadii
from smoothcert.stats.histories import LABEL
from smoothcert.stats.planning import (
    ALPHAS,
    PlannedClaim,
    cheapest,
    find_votes,
    foresee,
    highest,
    likely_probabilities,
)
from smoothcert.store.recertify import iterate_histories, noise_of
from smoothcert.store.source import describe_source
from smoothcert.store.store import Store

ASSUMED_N = 100_000
"""The samples an image of a log that does not state them: the papers' value."""
ABSTAINED = 0.45
"""The label's probability of an image that a log abstained from, which no log tells."""


@dataclass(frozen=True)
class ClaimRequest:
    """A claim that is wanted, or what it may cost.

    Attributes:
        radius: in the units of sigma.
        accuracy: the share of new images that are to be certified at it; or one of the budgets, which buy the highest:
            samples, minutes at `rate` samples/s, or money at `price` for an hour.
        rho: failure probability of the claim. chance: with which the run is to prove it, as the pilot foresees.
        alpha: failure probability of each certificate; None lets it be chosen.
        images: of the data set, the pilot's among them; None looks there.
        rate: samples/s; None takes the pilot's.
        seed: of the random choice of images.
    """

    radius: float
    accuracy: float | None = None
    samples: float | None = None
    minutes: float | None = None
    money: float | None = None
    price: float | None = None
    rate: float | None = None
    rho: float = 0.05
    chance: float = 0.8
    alpha: float | None = None
    images: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_weight("radius", self.radius)
        wanted = [name for name in ("accuracy", "samples", "minutes", "money") if getattr(self, name) is not None]
        if len(wanted) != 1:
            raise InputError(f"give one of accuracy, the claim that is wanted, and the budgets samples, minutes and "
                             f"money; got {' and '.join(wanted) or 'none'}")
        for name in ("accuracy", "rho", "chance", "alpha"):
            if getattr(self, name) is not None:
                check_probability(name, getattr(self, name))
        for name in ("samples", "minutes", "money", "price", "rate"):
            check_optional_positive(name, getattr(self, name))
        if self.money is not None and self.price is None:
            raise InputError("money buys hours of a machine: give price, that of a machine-hour")
        if self.images is not None:
            check_count("images", self.images)
        check_seed(self.seed)


@dataclass(frozen=True)
class ClaimPlan:
    """A run that is expected to prove a claim: its design, its images, its cost, and the options to run it with.

    Attributes:
        pilot: the name of the pilot. piloted: its images.
        model: the name of its model. options: of `smoothcert certify`, all but the model and the store.
        rate: samples/s; None where it is unknown.
    """

    asked: ClaimRequest
    chosen: PlannedClaim
    pilot: str
    piloted: int
    model: str
    rate: float | None
    options: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def seconds(self) -> float | None:
        """The seconds that the run is expected to take."""
        return None if self.rate is None else self.chosen.all_samples / self.rate

    @property
    def cost(self) -> float | None:
        """The price of the run."""
        return None if self.seconds is None or self.asked.price is None else self.seconds / HOUR * self.asked.price

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return {"asked": asdict(self.asked), **asdict(self.chosen), "all_samples": self.chosen.all_samples,
                "samples/s": self.rate, "seconds": self.seconds, "cost": self.cost, "pilot": self.pilot,
                "options": self.options, "notes": list(self.notes)}

    def to_yaml(self) -> str:
        """Return the options as a file for `smoothcert certify --config`."""
        listed = {name.replace("_", "-"): ",".join(map(str, value)) if isinstance(value, list) else value
                  for name, value in self.options.items()}
        return yaml.safe_dump(listed, sort_keys=False, allow_unicode=True, width=10**9)

    def command(self, file: Path) -> str:
        """Return the command that runs the plan, kept in `file`."""
        return f"smoothcert certify {shlex.quote(self.model or 'MODEL')} --config {shlex.quote(str(file))} -o run"


def plan_claim(
    store: Store, asked: ClaimRequest, images_of: Callable[[Store], Sized], where: dict[str, Any] | None = None
) -> ClaimPlan:
    """Plan a run for a claim from a pilot: a store of certify or predict, a count file, or a log of certificates.

    Args:
        images_of: the data set of a store, asked where the request does not say how many images it has.
        where: options of `certify` that say where the images are, in place of the store's own.
    Raises:
        InputError: no run can prove the claim, or buy one; the message has the best that can be had. StoreError: a
            pilot that tells too little.
    """
    check_kind(store, "certify", "predict", why=": a pilot tells the votes for each image's label")
    check_records(store)
    if store.identity.transferred_from is not None:
        raise StoreError(f"{store.folder} was transferred: its votes are another network's; give a certify store")
    if store.identity.norm not in (None, "l2"):
        raise StoreError(f"{store.folder} has {store.identity.norm} radii: a plan needs a pilot of l2 radii")
    noise, is_log = noise_of(store), store.provenance.log is not None
    votes, notes = (_votes_of_log if is_log else _votes_of_store)(store)
    pilot = np.unique(store.column("index"))
    if asked.images is None and (is_log or not store.identity.data_or_none.raw):
        raise InputError(f"{store.folder} does not say how many images its data set has: give images")
    if not store.complete:
        notes = [*notes, f"{store.folder.name} is not finished: leave it so, since what it has left may be images of "
                         f"this plan"]
    count = len(images_of(store)) if asked.images is None else asked.images
    if pilot[-1] >= count:
        raise InputError(f"{store.folder} has image {pilot[-1]}, so its data set has more than {count:,} images: give "
                         f"the number of all of them, the pilot's among them")
    free = np.setdiff1d(np.arange(count), pilot)
    if not len(free):
        raise InputError(f"all {count:,} images are the pilot's, which are no part of a claim: plan by fewer")

    def design(n_max: int, alpha: float) -> AtRadii:
        return AtRadii(n_max=n_max, radii=(asked.radius,), alpha=alpha, method="cohen", labels_known=True,
                       radius_of=partial(noise.radius, margin=None))

    designs = foresee(design, likely_probabilities(*votes), asked.rho,
                      ALPHAS if asked.alpha is None else (asked.alpha,))
    rate = _rate_of(store) if asked.rate is None else asked.rate
    if asked.accuracy is None:
        chosen = highest(designs, asked.chance, len(free), _budget(asked, rate))
    elif (found := cheapest(designs, asked.accuracy, asked.chance, len(free))) is not None:
        chosen = found
    else:
        best = highest(designs, asked.chance, len(free))
        raise InputError(
            f"no run proves that {asked.accuracy:.2%} of new images are certified at {asked.radius:g} with a chance of "
            f"{asked.chance:g}: the best is {percent(best.bound)}%, with {best.images:,} images and n_max "
            f"{best.n_max:,} ({percent(best.share)}% are expected to be certified). Ask for less, or allow a "
            f"smaller chance; a larger pilot leaves less open")
    accuracy = chosen.bound if asked.accuracy is None else asked.accuracy
    claim = {"radius": asked.radius, "accuracy": accuracy, "rho": asked.rho, "pilot": _digest_of(store)}
    indices = np.sort(np.random.default_rng(asked.seed).permutation(free)[: chosen.images]).tolist()
    options = {**describe_source(store), **(where or {}), "sigma": noise.sigma,
               **({} if noise.kind == "grid" else {"noise": noise.kind}), "radii": [asked.radius],
               "n_max": chosen.n_max, "alpha": chosen.alpha, "method": "cohen", "labels_known": True, "claim": claim,
               "indices": indices}
    return ClaimPlan(asked, chosen, store.folder.name, len(pilot), store.provenance.model, rate, options, tuple(notes))


@dataclass(frozen=True)
class ClaimOutcome:
    """The claim of a run that is done.

    Attributes:
        wanted: the share that was planned for. bound: the share of new images, at least, with probability 1 - rho.
        claims: images that are right and certified at `radius`, of `images`.
        samples: those that the run took.
    """

    name: str
    radius: float
    rho: float
    wanted: float
    bound: float
    claims: int
    images: int
    alpha: float
    samples: int

    @property
    def is_reached(self) -> bool:
        """True where the run proved what was wanted."""
        return self.bound >= self.wanted

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as plain values."""
        return {**asdict(self), "is_reached": self.is_reached}

    @classmethod
    def of(cls, store: Store, pilot: Store | None = None) -> Self:
        """Return what became of the claim that a run was planned for.

        Args:
            pilot: that of its plan, to check that the two have no image in common.
        Raises:
            StoreError: no such run, or one that is not finished, or was certified again; or another pilot.
        """
        check_kind(store, "certify")
        claim, procedure = store.identity.claim, store.identity.procedure
        if claim is None:
            raise StoreError(f"{store.folder} has no claim: its run was not planned with `smoothcert plan`")
        if store.identity.recertified_from is not None:
            raise StoreError(f"{store.folder} was certified again, and a claim is of the alpha and the method that "
                             f"were fixed before its run: give the run's own store")
        store.check_complete()
        if pilot is not None:
            if _digest_of(pilot) != claim.pilot:
                raise StoreError(f"{pilot.folder} is not the pilot that {store.folder} was planned by")
            if len(shared := np.intersect1d(store.column("index"), pilot.column("index"))):
                raise StoreError(f"{store.folder} has {len(shared)} images of its pilot (image {shared[0]} is the "
                                 f"first): the claim does not hold")
        result = Result.of(store)
        found = result.at([claim.radius], claim.rho)
        return cls(result.name, claim.radius, claim.rho, claim.accuracy, float(found.population[0]),
                   int(found.claimed[0]), result.images, procedure.alpha or result.level, int(samples_of(store).sum()))


def _votes_of_store(store: Store) -> tuple[tuple[np.ndarray, np.ndarray], Sequence[str]]:
    """Return the votes for each image's label and all of its votes, (M,) each, over all stages."""
    votes, total = [], []
    for histories, labels in iterate_histories(store):
        for history, label in zip(histories, labels, strict=True):
            last = [counts for stage, counts in {look.stage: look.counts for look in history}.items() if stage != LABEL]
            votes.append(sum(int(counts[label]) for counts in last))
            total.append(sum(int(counts.sum()) for counts in last))
    if not all(total):
        raise StoreError(f"{store.folder} has images without votes: a pilot needs the votes of each")
    return (np.array(votes), np.array(total)), ()


def _votes_of_log(store: Store) -> tuple[tuple[np.ndarray, np.ndarray], Sequence[str]]:
    """Return the same from the radii of a log, as far as they tell: the votes that would give each, one-sided."""
    check_kind(store, "certify", why=": a log of PREDICT has no radii, from which votes could be found")
    told, notes = store.identity.procedure, []
    n = told.n if isinstance(told.n, int) else told.n_max
    if n is None or told.alpha is None:
        notes.append(f"the log does not say all of how it was made: n {n or ASSUMED_N:,} and alpha "
                     f"{told.alpha or ASSUMED_ALPHA:g} are assumed")
    n = n or ASSUMED_N
    found = find_votes(store.column("radius") / store.identity.noise.sigma, n, told.alpha or ASSUMED_ALPHA)
    abstained = store.column("prediction") < 0
    votes = np.where(abstained, ABSTAINED * n, np.where(store.correct, found, n - found))
    notes.append("a log has no votes: they are those that give its radii, a wrong class leaves the label all others, "
                 f"and an abstention leaves it {ABSTAINED:.0%}")
    return (votes, np.full(len(votes), n)), notes


def _rate_of(store: Store) -> float | None:
    """Return the samples/s of a pilot, None where its times are unknown."""
    if store.provenance.log is None:
        with suppress(StoreError):
            return Pilot.of(store).work().rate
    return None


def _budget(asked: ClaimRequest, rate: float | None) -> float:
    """Return the samples that the budget buys."""
    if asked.samples is not None:
        return asked.samples
    if rate is None:
        raise InputError("the pilot does not tell its samples/s: give rate")
    if asked.minutes is not None:
        return asked.minutes * 60 * rate
    return (asked.money or 0) / (asked.price or 1) * HOUR * rate


def _digest_of(store: Store) -> str:
    """Return what a claim calls its pilot by: the digest of a store's identity, or the SHA-256 of a file."""
    return sha256(store.folder) if store.folder.is_file() else store.identity.digest
