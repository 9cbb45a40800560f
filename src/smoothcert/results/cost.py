"""Forecasts of the time and price of a run from images, samples, rate and machines. Estimates, no guarantees.

With N images in blocks of b, handed out to P = machines x workers as these become free, w = s / r seconds an image (s
samples at r samples/s of one worker), blocks of d = b w seconds, start S and a preemption of each machine every M
seconds on average:

    time  = S + f w (images of the busiest worker)
    f     = M exp(S/M) (exp(d/M) - 1) / d            by which preemptions lengthen a block; 1 without them
    price = machines x time x price of a machine-hour

A preempted worker loses its block, starts again and begins the block anew, until it gets through: with exponential
times between preemptions that takes M exp(S/M) (exp(d/M) - 1) seconds on average (Daly 2006, the time of a segment).
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
from scipy.special import stdtrit

from smoothcert.checks import check_count, check_optional_positive, check_weight
from smoothcert.config.sampling import BLOCK
from smoothcert.errors import ConfigError, InputError, StoreError
from smoothcert.interop.logs import seconds_of
from smoothcert.results.base import check_kind, check_records
from smoothcert.stats.histories import count_samples
from smoothcert.store.store import Store

LEVEL = 0.95
"""Confidence level of a forecast from a pilot."""

HOUR = 3600.0

HELD = 2
"""Blocks that a worker has at a time: one in work, and one that waits."""


@dataclass(frozen=True)
class Work:
    """One image on one worker.

    Attributes:
        samples: an image, on average. rate: samples/s.
        spread: standard deviation of an image's seconds over the images of a pilot; None where there was none, or of
            one image alone.
        pilot: images of the pilot.
    """

    samples: float
    rate: float
    spread: float | None = None
    pilot: int = 0

    @property
    def seconds(self) -> float:
        return self.samples / self.rate

    def mean_of(self, images: int) -> tuple[float, float] | None:
        """Return the limits of the mean seconds of `images` new images, with probability `LEVEL` if seconds are normal.

        They are w -+ t sd sqrt(1/m + 1/N), with t the quantile of Student's law at m - 1 degrees of freedom.
        """
        if self.spread is None:
            return None
        half = float(stdtrit(self.pilot - 1, (1 + LEVEL) / 2)) * self.spread * math.sqrt(1 / self.pilot + 1 / images)
        return max(self.seconds - half, 0.0), self.seconds + half


@dataclass(frozen=True)
class Fleet:
    """Machines, each with so many workers; the last three are of one machine.

    Attributes:
        startup: seconds before a worker's first sample, also after a preemption.
        preemptions: an hour.
        price: an hour, in any currency; None where unknown.
    """

    machines: int = 1
    workers: int = 1
    startup: float = 0.0
    preemptions: float = 0.0
    price: float | None = None

    @property
    def all_workers(self) -> int:
        return self.machines * self.workers

    def stretch(self, block: float) -> float:
        """Return f, by which preemptions lengthen blocks of that many seconds.

        Raises:
            InputError: hardly any block would get through.
        """
        if not self.preemptions or not block:
            return 1.0
        between = HOUR / self.preemptions
        try:
            return between * math.exp(self.startup / between) * math.expm1(block / between) / block
        except OverflowError:
            raise InputError(f"a block takes {block / HOUR:.3g} h and a machine lives {between / HOUR:.3g} h: hardly "
                             f"any block would be finished; give a smaller --block") from None

    def cost_of(self, seconds: float) -> float | None:
        return None if self.price is None else self.machines * seconds / HOUR * self.price


@dataclass(frozen=True)
class Forecast:
    """Seconds of a run, in parts that add up to them.

    Attributes:
        work: what each worker has to do if all end together. tail: how much later the last one ends.
        redone: lost to preemptions, with the starts after them.
        low, high: the run takes what lies between, at `LEVEL`; None without a pilot's spread.
    """

    startup: float
    work: float
    tail: float
    redone: float
    low: float | None = None
    high: float | None = None

    @property
    def seconds(self) -> float:
        return self.startup + self.work + self.tail + self.redone


def forecast(images: int, work: Work, fleet: Fleet, block: int = 1) -> Forecast:
    """Forecast a run over `images`, handed out `block` at a time.

    The interval takes that of the mean image (`Work.mean_of`), and what handing out blocks one after the other can come
    to: from all workers ending together, to one of them just starting the longest block, with another one waiting, when
    none are left (Graham 1969: (1 - 1/P) of both on top of an equal share). The longest of B blocks is taken as
    b w + sd sqrt(2 b ln B), near the largest of so many normal sums.
    """
    crew, block = fleet.all_workers, min(block, images)
    share, most = images / crew * work.seconds, busiest(images, crew, block) * work.seconds
    factor = fleet.stretch(block * work.seconds)
    low = high = None
    if (between := work.mean_of(images)) and work.spread is not None:
        longest = block * between[1] + work.spread * math.sqrt(2 * block * math.log(math.ceil(images / block)))
        low = fleet.startup + factor * max(images / crew, block) * between[0]
        high = fleet.startup + factor * (images / crew * between[1] + (1 - 1 / crew) * HELD * longest)
    return Forecast(fleet.startup, share, most - share, (factor - 1) * most, low, high)


def busiest(images: int, workers: int, block: int) -> int:
    """Return the images of the worker that gets most, where all are equally fast; all blocks but the last are full.

    >>> busiest(1000, 1, 256), busiest(1000, 3, 256), busiest(1000, 4, 256)
    (1000, 488, 256)
    """
    blocks = math.ceil(images / block)
    rounds, rest = divmod(blocks - 1, workers)
    return rounds * block + (block if rest else images - (blocks - 1) * block)


FEW = 100
"""Images of a sequential run's pilot below which its interval holds too seldom (docs/results/cost.md)."""

N0 = 100
"""Samples that choose the class, on top of n, where no pilot says."""


@dataclass(frozen=True)
class Pilot:
    """Samples and one worker's seconds of each image of a run, (M,) each; 0 where the seconds are unknown."""

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
        if store.identity.transferred_from is not None:
            raise StoreError(f"{store.folder} was transferred, and most of its votes are another run's: give the store "
                             f"of a certify or predict run as a pilot")
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
    """Return (M,) samples drawn for each record; see `count_samples`."""
    column = store.records.column("tallies").combine_chunks()
    tallies, ends = column.flatten(), np.cumsum([0, *column.value_lengths().to_pylist()])
    stages, n = tallies.field("stage").to_pylist(), tallies.field("n").to_pylist()
    return np.array([count_samples(zip(stages[low:high], n[low:high], strict=True)) for low, high in pairwise(ends)])


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
