"""A crew: workers that do a run's tasks, whether they are processes of this machine or of a Ray cluster.

The driver writes the store. Results are equal to one process's, because noise and votes belong to the image. A worker
that is lost costs what it held, which is given out again. How a worker is started, spoken to and ended is its
transport's business: `workers` has pipes, `cluster` has Ray.

A GPU's round has room for thousands of images, so that the first worker to ask would take a whole run. Therefore the
workers begin together, and none holds more than half its even share of what is left: the other half is for whoever
turns out to be faster, or to have the easier images.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from time import monotonic
from typing import Any, Protocol

from smoothcert.errors import SmoothcertError
from smoothcert.progress import count_passes
from smoothcert.runs.run import Done, Run, Task

DEATHS = 3
"""How often all workers may be lost without one record finished, before the run gives up."""

Load = list[Task]
"""Tasks that are handed to a worker together."""


@dataclass(eq=False)
class Worker:
    """One worker, by what its transport knows it by.

    Attributes:
        handle: the transport's own.
        held: the positions that were handed to it and have no record yet.
        wants: how many loads it has asked for and not been given.
        dismissed: whether it was told that there is nothing more; it finishes what it holds.
        drawn: the samples that it has drawn of records that it has not delivered.
    """

    handle: Any
    held: set[int] = field(default_factory=set)
    wants: int = 0
    dismissed: bool = False
    drawn: int = 0


@dataclass(frozen=True)
class HasRoom:
    """A worker has room for so many loads more."""

    loads: int = 1


@dataclass(frozen=True)
class Drew:
    """A worker has drawn so many samples more, of records that it still works on."""

    samples: int


@dataclass(frozen=True)
class Delivered:
    """A worker has finished these records."""

    records: Sequence[Done]


@dataclass(frozen=True)
class Failed:
    """A worker met what another would meet as well."""

    error: SmoothcertError


@dataclass(frozen=True)
class Lost:
    """A worker has gone; `why` completes the sentence that its loss may end."""

    why: str


@dataclass(frozen=True)
class Ended:
    """A worker that was dismissed has finished, and is gone."""


Event = HasRoom | Drew | Delivered | Failed | Lost | Ended


class Transport(Protocol):
    """The means by which a crew starts its workers and speaks to them.

    Attributes:
        keeps_idle: whether a worker waits for more when there is nothing; else it is answered at once, and dismissed
            once nothing is left.
        patience: seconds for which the first worker that is ready waits for the others at the start.
    """

    keeps_idle: bool
    patience: float

    def loads(self, run: Run, pending: Sequence[int]) -> list[Load]:
        """Return the pending positions as loads."""
        ...

    def count_missing(self, waiting: int, workers: int) -> int:
        """Return how many workers more to start now, with so many loads waiting and workers there."""
        ...

    def start(self, place: int) -> Worker:
        """Start a worker in one of the crew's places, which are counted from 0."""
        ...

    def send(self, worker: Worker, load: Load | None) -> None:
        """Hand a worker a load: an empty one where it is to do what it holds, None where there is nothing more."""
        ...

    def events(self, workers: Sequence[Worker]) -> Iterator[tuple[Worker, Event]]:
        """Wait until some workers have something to say, or for a moment, and yield it."""
        ...

    def close(self, workers: Sequence[Worker]) -> None:
        """End the workers that are left."""
        ...


def by_crew(run: Run, pending: Sequence[int], transport: Transport) -> Iterator[Done]:
    """Do a run's pending records by a crew, and yield them in the order they are done.

    Raises:
        SmoothcertError: a worker found an error, or workers are lost again and again.
    """
    run.release()
    waiting = deque(transport.loads(run, pending))
    workers: dict[int, Worker] = {}
    deaths = most = 0
    begun, until = False, float("inf")
    try:
        while waiting or any(worker.held for worker in workers.values()):
            missing = transport.count_missing(len(waiting), len(workers))
            for place in islice((place for place in count() if place not in workers), max(missing, 0)):
                workers[place] = transport.start(place)
            most = max(most, len(workers))
            for worker, event in transport.events(list(workers.values())):
                if isinstance(event, Failed):
                    raise event.error
                if isinstance(event, HasRoom):
                    worker.wants += event.loads
                elif isinstance(event, Drew):
                    worker.drawn += event.samples
                    count_passes(event.samples)
                elif isinstance(event, Delivered):
                    worker.held.difference_update(position for position, _, _ in event.records)
                    taken = sum(run.passes(position, record) for position, record, _ in event.records)
                    worker.drawn = max(worker.drawn - taken, 0)
                    deaths = 0 if event.records else deaths
                    yield from event.records
                else:
                    workers = {place: other for place, other in workers.items() if other is not worker}
                if isinstance(event, Lost):
                    count_passes(-worker.drawn)
                    deaths += 1
                    if deaths >= DEATHS * most:
                        raise SmoothcertError(f"workers keep dying without finishing a record: {event.why}")
                    waiting.extendleft(reversed(transport.loads(run, sorted(worker.held))))
            ready = [worker for worker in workers.values() if worker.wants]
            until = min(until, monotonic() + transport.patience) if ready else until
            begun = begun or len(ready) == len(workers) or monotonic() >= until
            if begun:
                _hand_out(waiting, list(workers.values()), transport)
    finally:
        transport.close(list(workers.values()))


def _hand_out(waiting: deque[Load], workers: Sequence[Worker], transport: Transport) -> None:
    """Hand loads to the workers that asked for them, first to those that hold least, and to each at most half its even
    share of what is left."""
    staying = [worker for worker in workers if not worker.dismissed]
    left = sum(len(task) for load in waiting for task in load) + sum(len(worker.held) for worker in staying)
    while waiting and (asking := [worker for worker in staying if worker.wants]):
        worker = min(asking, key=lambda worker: len(worker.held))
        if 2 * len(worker.held) * len(staying) > left:
            break
        load = waiting.popleft()
        worker.wants -= 1
        worker.held.update(position for task in load for position in task)
        transport.send(worker, load)
    for worker in staying:
        if worker.wants and not transport.keeps_idle:
            worker.dismissed, worker.wants = not waiting, 0
            transport.send(worker, [] if waiting else None)
