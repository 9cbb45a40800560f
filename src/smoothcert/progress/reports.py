"""The events by which work reports its progress, and the reporter that hands them to a callback.

The reporter is kept for each context, as a logger is for the process: what works deep below (a hash, a trial of an
engine, a batch of samples) needs no argument for it. Without one nobody is told, which costs next to nothing.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, Protocol

from smoothcert.progress.pace import Pace

EVERY = 0.1
"""Seconds between two events of a phase; its first and last event always come."""

HANDED_ON = 0.5
"""Seconds between two messages of a worker on how many samples it has drawn."""

Bound = Literal["", "about", "at most"]

_log = logging.getLogger("smoothcert")


@dataclass(frozen=True)
class Event:
    """How far a phase of the work is, or a line about the whole of it.

    Attributes:
        phase: the name of the phase, such as "loading the data" or "sampling".
        done: units that are finished. total: units in all; None where that is not known.
        unit: the plural of what is counted.
        share: the part of the phase that is done, in [0, 1], with what is in work; None where it is not known.
        words: anything else there is to say.
        left: estimated seconds until the phase ends; None as long as nothing was measured.
        bound: "about" or "at most" where a design stops early, so that `left` is an estimate or a bound.
        seconds: how long the phase has taken so far.
        ended: True in the last event of a phase.
        line: a sentence that stays on display, such as a forecast; the other values then mean nothing.
    """

    phase: str
    done: int = 0
    total: int | None = None
    unit: str = ""
    share: float | None = None
    words: str = ""
    left: float | None = None
    bound: Bound = ""
    seconds: float = 0.0
    ended: bool = False
    line: str = ""


class Progress(Protocol):
    """A callback that is given every event, about ten a second at most. What it raises ends the work."""

    def __call__(self, event: Event) -> None: ...


def silent(event: Event) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Kept:
    """The work that an interruption would leave.

    Attributes:
        words: what is kept, as a sentence.
        more: the options that the command needs beside its own to go on from there, such as ("--model-id", "NAME").
    """

    words: str
    more: tuple[str, ...] = ()


class Reporter:
    """Hands events to a callback, and knows what an interruption would leave.

    Attributes:
        count: receives the numbers of samples that are drawn, while a phase waits for them.
    """

    def __init__(self, progress: Progress = silent, clock: Callable[[], float] = time.monotonic):
        self.progress, self.clock = progress, clock
        self.count: Callable[[int], None] | None = None
        self._kept: Callable[[], Kept | None] = lambda: None

    def keep(self, kept: Callable[[], Kept | None]) -> None:
        """Say from now on by this function what an interruption would leave."""
        self._kept = kept

    def kept(self) -> Kept | None:
        """Return what an interruption would leave; None for nothing."""
        return self._kept()


_NOBODY = Reporter()
_current: ContextVar[Reporter] = ContextVar("smoothcert_reporter", default=_NOBODY)


@contextmanager
def reporting(progress: Progress | None = None, verbose: bool = False) -> Iterator[Reporter]:
    """Report the work within to a callback, and with `verbose` in a bar; without either, to whoever listens already.

    A KeyboardInterrupt that passes gets a note that says what is kept.
    """
    if progress is None and not verbose and _current.get() is not _NOBODY:
        yield _current.get()
        return
    with ExitStack() as stack:
        calls = [] if progress is None else [progress]
        if verbose:
            from smoothcert.progress.bars import show  # brings rich

            calls.append(stack.enter_context(show()))

        def tell(event: Event) -> None:
            for call in calls:
                call(event)

        reporter = Reporter(tell)
        token = _current.set(reporter)
        try:
            yield reporter
        except KeyboardInterrupt as stop:
            if kept := reporter.kept():
                stop.add_note(kept.words)
            raise
        finally:
            _current.reset(token)


class Phase:
    """A phase that is going on; `phase` makes it."""

    def __init__(self, reporter: Reporter, name: str, total: int | None, unit: str, done: int = 0):
        self.name, self.total, self.unit, self.done, self.words = name, total, unit, done, ""
        self._reporter, self.clock = reporter, reporter.clock
        self.started = self._last = self.clock()
        self._pace = Pace(self.clock)
        self._pace.add(done)

    def advance(self, units: int = 1, words: str | None = None) -> None:
        """Count units as finished."""
        self.done += units
        self.words = self.words if words is None else words
        if self.is_due():
            self._report_pace()

    def say(self, words: str) -> None:
        """Say something at once, such as what is done next."""
        self.words = words
        self._report_pace()

    def _report_pace(self) -> None:
        self._pace.add(self.done)
        rate = self._pace.rate
        self.report(left=(self.total - self.done) / rate if rate and self.total is not None else None)

    def is_due(self) -> bool:
        """Tell whether it is time for the next event."""
        return self.clock() - self._last >= EVERY

    def report(
        self, *, share: float | None = None, left: float | None = None, bound: Bound = "", ended: bool = False
    ) -> None:
        """Report how far the phase is now."""
        now = self._last = self.clock()
        if share is None and self.total:
            share = min(self.done / self.total, 1.0)
        self._reporter.progress(Event(self.name, self.done, self.total, self.unit, share, self.words, left, bound,
                                      now - self.started, ended))


@contextmanager
def phase(name: str, total: int | None = None, unit: str = "", done: int = 0) -> Iterator[Phase]:
    """Do a named phase of the work within, and log how long it took.

    >>> names = []
    >>> with reporting(lambda event: names.append((event.phase, event.done, event.ended))):
    ...     with phase("hashing", 2, "images") as hashing:
    ...         hashing.advance(2)
    >>> names
    [('hashing', 0, False), ('hashing', 2, True)]
    """
    going = Phase(_current.get(), name, total, unit, done)
    going.report()
    yield going
    going.report(ended=True)
    counted = f", {going.done - done:,} {unit}" if going.done > done and unit else ""
    _log.info("%s: %.2f s%s", name, going.clock() - going.started, counted)


def announce(line: str) -> None:
    """Report a sentence that stays on display."""
    _current.get().progress(Event("", line=line))
    _log.debug("%s", line)


def relay(event: Event) -> None:
    """Report an event of another process."""
    _current.get().progress(event)


def count_passes(number: int) -> None:
    """Count samples as drawn, towards the phase that waits for them; nothing happens where none does."""
    if (count := _current.get().count) is not None:
        count(number)


@contextmanager
def counting(count: Callable[[int], None]) -> Iterator[None]:
    """Receive what is counted within by `count_passes`."""
    reporter = _current.get()
    before, reporter.count = reporter.count, count
    try:
        yield
    finally:
        reporter.count = before


class SampleRelay:
    """Samples that another process waits to hear of, handed on together.

    Args:
        send: is given how many there are.
    """

    def __init__(self, send: Callable[[int], None], clock: Callable[[], float] = time.monotonic):
        self._send, self._clock, self._last, self._held = send, clock, clock(), 0

    def add(self, number: int) -> None:
        """Count samples as drawn, and hand them on if it is time."""
        self._held += number
        if self._clock() - self._last >= HANDED_ON:
            self.flush()

    def flush(self) -> None:
        """Hand on all that are held."""
        if self._held:
            self._send(self._held)
        self._held, self._last = 0, self._clock()


def keep(kept: Callable[[], Kept | None]) -> None:
    """Say from now on by this function what an interruption would leave."""
    _current.get().keep(kept)
