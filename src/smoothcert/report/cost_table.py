"""A forecast of time and price as it is asked for: which figures were measured, which were given, and what follows."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from smoothcert.checks import check_count, check_optional_positive, check_weight
from smoothcert.errors import ConfigError, InputError
from smoothcert.report.tables import aligned
from smoothcert.results.cost import HOUR, LEVEL, Fleet, Forecast, Work, forecast
from smoothcert.results.pilots import Pilot
from smoothcert.runs.cluster import BLOCK
from smoothcert.store.store import Store

FEW = 100
"""Images of a sequential run's pilot below which its interval holds too seldom (docs/results/cost.md)."""

N0 = 100
"""Samples that choose the class, on top of n, where no pilot says."""

_GIVEN = "An estimate: machines that are busier or slower than those measured take longer."
_PILOTED = (f"An estimate. The interval ({LEVEL:.0%}) has the spread over the pilot's images and the ways that blocks "
            f"can fall to workers; machines that are busier or slower than the pilot's take longer.")


@dataclass(frozen=True)
class Asked:
    """What is to be forecast; None is measured in the pilot, or a default.

    Attributes:
        n, samples: samples an image: a fixed n with n0 on top, or a mean of any design. rate: samples/s of a worker.
        block: images handed out together: 1 on one machine, `BLOCK` on several, unless given.
        machines, workers, startup, preemptions, price: see `Fleet`.
    Raises:
        ConfigError: everything that is wrong with them.
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
        problems = [problem for check, name, value in checks if (problem := _refusal(check, name, value))]
        if self.n is not None and self.samples is not None:
            problems.append("n and samples-per-image both say how many samples an image takes: give one")
        if problems:
            raise ConfigError(problems, "what was asked")

    @property
    def fleet(self) -> Fleet:
        return Fleet(self.machines, self.workers, self.startup, self.preemptions, self.price)

    @property
    def is_measured(self) -> bool:
        """Whether the samples an image are to come from a pilot."""
        return self.n is None and self.samples is None

    @property
    def handed_out(self) -> int:
        """Images of a block."""
        return self.block or (1 if self.machines == 1 else BLOCK)


@dataclass(frozen=True)
class Costing:
    """A forecast, what it is of, and where each of its figures comes from: (name, value, source)."""

    work: Work
    fleet: Fleet
    forecast: Forecast
    sources: tuple[tuple[str, float | None, str], ...]
    notes: tuple[str, ...]


def costing(asked: Asked, store: Store | None = None) -> Costing:
    """The forecast, from a pilot's store where there is one; what was asked goes before what was measured.

    Raises:
        ConfigError: without a pilot, samples and rate must be given. StoreError: see `Pilot`.
    """
    pilot = None if store is None else Pilot.of(store)
    n0 = N0 if store is None else store.identity["procedure"].get("n0") or 0
    samples = asked.samples if asked.n is None else float(asked.n + n0)
    both_given = samples is not None and asked.rate is not None
    work = _given(samples, asked.rate) if pilot is None or both_given else pilot.work(samples, asked.rate)
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
    told = forecast(asked.images, work, asked.fleet, asked.handed_out)
    return Costing(work, asked.fleet, told, sources, tuple(_notes(asked, work, store)))


def costing_content(told: Costing) -> dict[str, Any]:
    """The forecast as plain values, for programs; times in seconds."""
    found = told.forecast
    return {"seconds": found.seconds, **asdict(found), "level": LEVEL,
            **{name: _price(told.fleet, seconds) for name, seconds in (
                ("price", found.seconds), ("price_low", found.low), ("price_high", found.high))},
            "inputs": [{"name": name, "value": value, "from": source} for name, value, source in told.sources],
            "spread_of_seconds": told.work.spread, "notes": list(told.notes)}


def costing_text(told: Costing) -> str:
    """The same for people: what it takes, its parts, and what went in."""
    found, fleet = told.forecast, told.fleet
    ends = (found.seconds, found.low, found.high)
    lines = ["time   " + _between(*(None if s is None else duration(s) for s in ends))]
    if fleet.price is not None:
        lines.append("price  " + _between(*(None if s is None else f"{_price(fleet, s):,.2f}" for s in ends)))
    parts = [("startup", found.startup), (f"work, shared by {fleet.all_workers:,}", found.work),
             ("tail: the last block", found.tail), ("redone after preemptions", found.redone)]
    shown = [["part", "time"], *([name, duration(seconds)] for name, seconds in parts if seconds)]
    inputs = [["input", "value", "  from"],
              *([name, _figure(value), f"  {source}"] for name, value, source in told.sources)]
    return "\n".join([*lines, "", aligned(shown), "", _listed(inputs), "",
                      *(f"note: {note}" for note in told.notes), _GIVEN if found.low is None else _PILOTED])


def duration(seconds: float) -> str:
    """Seconds in a unit that suits them, to three digits.

    >>> duration(0.5), duration(75), duration(5000), duration(1e6)
    ('0.5 s', '75 s', '1.39 h', '11.6 days')
    """
    for size, unit in ((86400.0, "days"), (HOUR, "h"), (60.0, "min")):
        if seconds >= 2 * size or (unit == "h" and seconds >= size):
            return f"{_three(seconds / size)} {unit}"
    return f"{seconds:.3g} s"


def _three(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _given(samples: float | None, rate: float | None) -> Work:
    missing = {"n or samples-per-image, samples an image": samples, "rate, samples/s of one worker": rate}
    if problems := [f"give {name}, or a pilot's STORE that tells" for name, value in missing.items() if value is None]:
        raise ConfigError(problems, "what was asked")
    return Work(float(samples or 0), float(rate or 0))


def _notes(asked: Asked, work: Work, store: Store | None) -> list[str]:
    notes, blocks = [], -(-asked.images // asked.handed_out)
    if blocks < asked.fleet.all_workers:
        notes.append(f"{blocks:,} blocks for {asked.fleet.all_workers:,} workers: the others get none; give a smaller "
                     f"--block")
    if work.pilot == 1:
        notes.append("a pilot of one image shows no spread: there is no interval")
    elif store is not None and asked.is_measured and _stops_early(store) and work.pilot < FEW:
        notes.append(f"a few hard images take most samples of a sequential run, and a pilot of {work.pilot} may have "
                     f"none of them: take {FEW} images or more")
    return notes


def _stops_early(store: Store) -> bool:
    """Whether each image takes samples until it is decided: those near a decision take most of all."""
    return store.identity["procedure"].get("design") in ("radii", "sequential")


def _refusal(check: Callable[[str, Any], Any], name: str, value: Any) -> str:
    try:
        check(name, value)
    except InputError as error:
        return str(error)
    return ""


def _price(fleet: Fleet, seconds: float | None) -> float | None:
    return None if seconds is None else fleet.cost_of(seconds)


def _between(value: str | None, low: str | None, high: str | None) -> str:
    return f"{value}" if low is None else f"{value}  ({low} to {high})"


def _listed(rows: list[list[str]]) -> str:
    """`aligned` for all columns but the last, which is words."""
    first = aligned([row[:-1] for row in rows]).splitlines()
    return "\n".join(line + row[-1] for line, row in zip(first, rows, strict=True))


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.4g}"
