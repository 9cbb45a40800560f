"""Interleaved timing: every contender in every round, so that what slows the machine slows all of them alike."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Run = Callable[[], float]
"""Does some work and returns how much: samples, images, values."""


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest of a few figures."""

    median: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        return f"{self.median:{spec}} ({self.low:{spec}}, {self.high:{spec}})"


@dataclass
class Rates:
    """Work a second, contender by contender, one figure a round."""

    rounds: dict[str, list[float]] = field(default_factory=dict)

    def median(self, name: str) -> float:
        return statistics.median(self.rounds[name])

    def ratio(self, name: str, over: str) -> Spread:
        """How many times faster `name` is than `over`, each round by itself."""
        return spread([a / b for a, b in zip(self.rounds[name], self.rounds[over], strict=True)])


def spread(figures: Sequence[float]) -> Spread:
    return Spread(statistics.median(figures), min(figures), max(figures))


def seconds(run: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    """Seconds a call takes: by default of the processor, in this process, which other programs disturb the least.

    On an idle machine these are the seconds of a wall clock, since everything timed here has one thread.
    """
    started = clock()
    run()
    return clock() - started


def interleaved(
    contenders: dict[str, Run], rounds: int, clock: Callable[[], float] = time.process_time
) -> Rates:
    """Rates of contenders that have run once already; each round starts with another one."""
    rates = Rates({name: [] for name in contenders})
    names = list(contenders)
    for number in range(rounds):
        for name in names[number % len(names):] + names[:number % len(names)]:
            started = clock()
            amount = contenders[name]()
            rates.rounds[name].append(amount / (clock() - started))
    return rates
