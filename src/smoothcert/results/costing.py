"""A forecast as it is asked for: which figures a pilot measured, which were given, and what follows from them."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np

from smoothcert.checks import check_count, check_optional_positive, check_weight
from smoothcert.config.sampling import BLOCK
from smoothcert.errors import ConfigError, InputError, StoreError
from smoothcert.interop.logs import seconds_of
from smoothcert.results.base import check_kind, check_records
from smoothcert.results.cost import LEVEL, Fleet, Forecast, Work, forecast
from smoothcert.store.store import Store

FEW = 100
"""Images of a sequential run's pilot below which its interval holds too seldom (docs/results/cost.md)."""

N0 = 100
"""Samples that choose the class, on top of n, where no pilot says."""


@dataclass(frozen=True)
class Pilot:
    """The samples and one worker's seconds that each image of a run took, (M,) each; 0 where seconds are unknown."""

    name: str
    samples: np.ndarray
    seconds: np.ndarray

    @classmethod
    def of(cls, store: Store) -> Self:
        """Return the images that a `certify` or `predict` store has done, of a run that may still go on.

        Raises:
            StoreError: a store of another kind, or without records.
        """
        check_kind(store, "certify", "predict", why=": the records of a pilot tell all samples that were drawn")
        check_records(store)
        return cls(store.folder.name, samples_of(store), np.array(seconds_of(store)))

    def work(self, samples: float | None = None, rate: float | None = None) -> Work:
        """Return what an image takes, with given samples or samples/s in place of the measured ones.

        Seconds an image are (its or the given samples) x (its seconds / its samples, or 1 / the given rate); the rate
        is mean samples / mean seconds.

        Raises:
            StoreError: there are no samples; or no times, and no rate was given.
        """
        kept = (self.samples > 0) & ((self.seconds > 0) | (rate is not None))
        if not kept.any():
            raise StoreError(f"{self.name} has no image whose samples and seconds (times.jsonl) are both known: give "
                             f"--rate, samples/s of one worker")
        drawn = self.samples[kept] if samples is None else np.full(int(kept.sum()), float(samples))
        took = drawn * (self.seconds[kept] / self.samples[kept] if rate is None else 1 / rate)
        mean = float(took.mean())
        return Work(float(drawn.mean()), float(drawn.mean()) / mean,
                    float(took.std(ddof=1)) if len(took) > 1 else None, len(took))


def samples_of(store: Store) -> np.ndarray:
    """Return (M,) samples drawn for each record: tallies are cumulative within a stage, so the last of each counts."""
    column = store.records.column("tallies").combine_chunks()
    tallies, ends = column.flatten(), np.cumsum([0, *column.value_lengths().to_pylist()])
    stages, n = tallies.field("stage").to_pylist(), tallies.field("n").to_pylist()
    return np.array([sum(dict(zip(stages[low:high], n[low:high], strict=True)).values())
                     for low, high in pairwise(ends)])


@dataclass(frozen=True)
class CostRequest:
    """A run to be forecast; what is None is measured in the pilot, or a default.

    Attributes:
        n, samples: samples an image: a fixed n with n0 on top, or a mean of any design. rate: samples/s of a worker.
        block: images handed out together: 1 on one machine, `BLOCK` on several, unless given.
        machines, workers, startup, preemptions, price: see `Fleet`.
    Raises:
        ConfigError: with everything that is wrong with them.
    """

    images: int
    n: int | None = None
    samples: float | None = None
    rate: float | None = None
    machines: int = 1
    workers: int = 1
    block: int | None = None
    startup: float = 0.0
    preemptions: float = 0.0
    price: float | None = None

    def __post_init__(self) -> None:
        checks: list[tuple[Callable[[str, Any], Any], str, Any]] = [
            (check_count, "images", self.images), (check_count, "n", 1 if self.n is None else self.n),
            (check_optional_positive, "samples-per-image", self.samples), (check_optional_positive, "rate", self.rate),
            (check_count, "machines", self.machines), (check_count, "workers-per-machine", self.workers),
            (check_count, "block", 1 if self.block is None else self.block), (check_weight, "startup", self.startup),
            (check_weight, "preemptions-per-hour", self.preemptions), (check_optional_positive, "price", self.price)]
        problems = []
        for check, name, value in checks:
            try:
                check(name, value)
            except InputError as error:
                problems.append(str(error))
        if self.n is not None and self.samples is not None:
            problems.append("n and samples-per-image both say how many samples an image takes: give one")
        if problems:
            raise ConfigError(problems, "what was asked")

    @property
    def fleet(self) -> Fleet:
        return Fleet(self.machines, self.workers, self.startup, self.preemptions, self.price)

    @property
    def is_measured(self) -> bool:
        """The samples an image are to come from a pilot."""
        return self.n is None and self.samples is None

    @property
    def handed_out(self) -> int:
        """Images of a block."""
        return self.block or (1 if self.machines == 1 else BLOCK)


@dataclass(frozen=True)
class Costing:
    """A forecast with its inputs; `sources` says where each comes from: (name, value, source)."""

    work: Work
    fleet: Fleet
    forecast: Forecast
    sources: tuple[tuple[str, float | None, str], ...]
    notes: tuple[str, ...]

    def price(self, seconds: float | None) -> float | None:
        """Return the price of so many seconds; None where it is unknown."""
        return None if seconds is None else self.fleet.cost_of(seconds)

    def to_json(self) -> dict[str, Any]:
        """Return the forecast as plain values; times in seconds."""
        found = self.forecast
        return {"seconds": found.seconds, **asdict(found), "level": LEVEL, "price": self.price(found.seconds),
                "price_low": self.price(found.low), "price_high": self.price(found.high),
                "inputs": [{"name": name, "value": value, "from": source} for name, value, source in self.sources],
                "spread_of_seconds": self.work.spread, "notes": list(self.notes)}


def estimate_cost(asked: CostRequest, store: Store | None = None) -> Costing:
    """Return a forecast, from a pilot's store where there is one; what was given replaces what was measured.

    Raises:
        ConfigError: without a pilot, samples and rate must be given. StoreError: see `Pilot`.
    """
    pilot = None if store is None else Pilot.of(store)
    n0 = N0 if store is None else store.identity.procedure.n0 or 0
    samples = asked.samples if asked.n is None else float(asked.n + n0)
    both_given = samples is not None and asked.rate is not None
    if pilot is not None and not both_given:
        work = pilot.work(samples, asked.rate)
    else:
        needed = {"n or samples-per-image, samples an image": samples, "rate, samples/s of one worker": asked.rate}
        if problems := [f"give {name}, or a pilot's STORE that tells" for name, given in needed.items()
                        if given is None]:
            raise ConfigError(problems, "what was asked")
        work = Work(float(samples or 0), float(asked.rate or 0))
    measured = "" if pilot is None else f"measured: {work.pilot:,} images of {pilot.name}"
    how_many = f"given: n {asked.n:,}, and {n0:,} that choose the class" if asked.n is not None and n0 else "given"
    sources = (
        ("images", float(asked.images), "given"),
        ("samples an image", work.samples, measured if samples is None else how_many),
        ("samples/s, one worker", work.rate, measured if asked.rate is None else "given"),
        ("machines", float(asked.machines), "given" if asked.machines != 1 else "default"),
        ("workers a machine", float(asked.workers), "given" if asked.workers != 1 else "default"),
        ("images a block", float(asked.handed_out), "default" if asked.block is None else "given"),
        ("startup, s", asked.startup, "given" if asked.startup else "default"),
        ("preemptions, a machine-hour", asked.preemptions, "given" if asked.preemptions else "default"),
        ("price, a machine-hour", asked.price, "not given" if asked.price is None else "given"),
    )
    found = forecast(asked.images, work, asked.fleet, asked.handed_out)
    return Costing(work, asked.fleet, found, sources, tuple(_notes(asked, work, store)))


def _notes(asked: CostRequest, work: Work, store: Store | None) -> list[str]:
    notes, blocks = [], -(-asked.images // asked.handed_out)
    if blocks < asked.fleet.all_workers:
        notes.append(f"{blocks:,} blocks for {asked.fleet.all_workers:,} workers: the others get none; give a smaller "
                     f"--block")
    if work.pilot == 1:
        notes.append("a pilot of one image shows no spread: there is no interval")
    elif (store is not None and asked.is_measured and work.pilot < FEW
          and store.identity.procedure.design in ("radii", "sequential")):
        notes.append(f"a few hard images take most samples of a sequential run, and a pilot of {work.pilot} may have "
                     f"none of them: take {FEW} images or more")
    return notes
