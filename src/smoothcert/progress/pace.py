"""The pace of work, by which the time that is left is estimated; and times and numbers in words."""

import math
import time
from collections import deque
from collections.abc import Callable

_LEAST = 1.0  # seconds that must have been measured


class Pace:
    """Units a second, over the latter half of what was measured, so that a slow start is forgotten in time.

    >>> seconds = iter([0.0, 1.0, 2.0])
    >>> pace = Pace(lambda: next(seconds))
    >>> for done in (0, 300, 600):
    ...     pace.add(done)
    >>> pace.rate
    300.0
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._marks: deque[tuple[float, float]] = deque()
        self._first = 0.0
        self._now: tuple[float, float] | None = None

    def add(self, done: float) -> None:
        """Note how much is done now, at a time in which it has just grown."""
        now = self._clock()
        if self._now is None:
            self._first = now
        self._now = (now, done)
        elapsed = now - self._first
        if not self._marks or now - self._marks[-1][0] >= elapsed / 100:
            self._marks.append(self._now)
        while len(self._marks) > 1 and self._marks[1][0] <= now - elapsed / 2:
            self._marks.popleft()

    @property
    def rate(self) -> float | None:
        """Units a second; None before a second has been measured, or where nothing was done in it."""
        if self._now is None or self._now[0] - self._first < _LEAST:
            return None
        seconds, done = self._now[0] - self._marks[0][0], self._now[1] - self._marks[0][1]
        return done / seconds if seconds > 0 and done > 0 else None


def describe_seconds(seconds: float) -> str:
    """Return a time as people say it; seconds are rounded up.

    >>> describe_seconds(8.2), describe_seconds(95), describe_seconds(9000), describe_seconds(200_000)
    ('9 s', '1 min 35 s', '2 h 30 min', '2 d 7 h')
    """
    whole = max(math.ceil(seconds), 1) if seconds < 60 else round(seconds)
    for size, name, part, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {name}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def describe_count(count: float) -> str:
    """Return a number to three figures.

    >>> describe_count(950), describe_count(5500), describe_count(5_005_000), describe_count(0.42)
    ('950', '5.5k', '5M', '0.42')
    """
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return f"{count:.3g}"
