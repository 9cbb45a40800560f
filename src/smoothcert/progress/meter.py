"""The progress of a run whose records take many samples each: samples move it, in whatever process they are drawn."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from smoothcert.progress.pace import Pace, describe_count
from smoothcert.progress.reports import Bound, Phase, counting, phase

_TYPICAL = 5
"""Finished records by which those to come are estimated."""


@dataclass(frozen=True)
class Workload:
    """A run's records, and those that are left.

    Attributes:
        records: how many there are in all. pending: how many are left. unit: their plural.
        most: the most samples that all those left can take; 0 where it is not known.
        exact: whether they take as many whatever they show.
        cost: what a sample costs beyond one forward pass, in words.
    """

    records: int
    pending: int
    unit: str
    most: int = 0
    exact: bool = True
    cost: str | None = None


class Meter:
    """Counts samples and records, and estimates the time that is left of a phase.

    A fixed design takes all its samples: what is left is known. One that stops early takes at most so many; once some
    records are finished, the others are expected to take the same share of their most.
    """

    def __init__(self, work: Workload, going: Phase):
        self._work, self._phase, self._pace = work, going, Pace(going.clock)
        self._drawn = self._used = self._spared = self._finished = 0
        self._lock = threading.Lock()

    def add(self, samples: int) -> None:
        """Count samples as drawn; fewer than 0 where those of a lost worker will be drawn again."""
        with self._lock:
            self._drawn += samples
        if self._phase.is_due():
            self._report()

    def finish(self, most: int, used: int) -> None:
        """Count a record as finished, which could have taken `most` samples and took `used`."""
        self._finished += 1
        self._used += used
        self._spared += most - used
        self._drawn = max(self._drawn, self._used)  # some kinds of work count nothing before a record is done
        self._phase.done += 1
        if self._phase.is_due():
            self._report()

    @property
    def estimate(self) -> tuple[float | None, Bound]:
        """The seconds that are left, and how sure that is."""
        if not (rate := self._pace.rate):
            return None, ""
        work = self._work
        if not work.most:
            return (work.pending - self._finished) / rate, ""
        left = work.most - self._spared - self._drawn
        if work.exact:
            return max(left, 0) / rate, ""
        if self._finished < _TYPICAL:
            return max(left, 0) / rate, "at most"
        usual = self._used / max(self._used + self._spared, 1)
        flying = self._drawn - self._used
        return max(usual * (left + flying) - flying, 0) / rate, "about"

    def words(self) -> str:
        """Return the samples drawn, and their pace."""
        if not self._work.most:
            return ""
        possible = self._used + self._spared
        saved = f", {self._spared / possible:.0%} saved by stopping early" if self._spared and possible else ""
        cost = f", {self._work.cost} each" if self._work.cost else ""
        rate = f", {describe_count(self._pace.rate)}/s" if self._pace.rate else ""
        return f"{describe_count(self._drawn)} samples{saved}{cost}{rate}"

    @property
    def share(self) -> float:
        """The part of all records that is done, with what is in work."""
        work, done = self._work, float(self._finished)
        if work.most and work.pending > self._finished:
            each = (work.most - self._spared - self._used) / (work.pending - self._finished)
            done = min(done + max(self._drawn - self._used, 0) / max(each, 1), work.pending)
        return (work.records - work.pending + done) / max(work.records, 1)

    def _report(self) -> None:
        self._pace.add(self._drawn if self._work.most else self._finished)
        self._phase.words = self.words()
        left, bound = self.estimate
        self._phase.report(share=self.share, left=left, bound=bound)


@contextmanager
def metering(name: str, work: Workload) -> Iterator[Meter]:
    """Do a run's work within, as a phase whose samples `count_passes` counts."""
    with phase(name, work.records, work.unit, work.records - work.pending) as going:
        meter = Meter(work, going)
        with counting(meter.add):
            yield meter
        going.words = meter.words()
