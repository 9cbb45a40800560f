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
from dataclasses import dataclass

from scipy.special import stdtrit

from smoothcert.errors import InputError

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
