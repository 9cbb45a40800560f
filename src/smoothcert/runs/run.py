"""The base of all runs: tasks to hand out, the records that come of them, and the store that they fill."""

import gc
import platform
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch

from smoothcert.classes import ClassWarning
from smoothcert.config.sampling import RunConfig
from smoothcert.errors import (
    AdaptedWarning,
    EngineWarning,
    ProcessorWarning,
    RandomWeightsWarning,
    SmoothcertError,
)
from smoothcert.progress import Kept, Meter, Workload, announce, keep, metering
from smoothcert.store.comparison import differences
from smoothcert.store.identity import Identity
from smoothcert.store.provenance import provenance
from smoothcert.store.records import Record
from smoothcert.store.source import Source, write_source
from smoothcert.store.store import Store, StoreWriter, open_store, read_store

Task = tuple[int, ...]
"""Positions in the run's list of records that one process works on together."""

Done = tuple[int, Record, float]
"""Position, record, seconds."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Run(ABC):
    """A run that is ready to work: its options are checked, and its model and data are loaded.

    Attributes:
        config: the options, with the seed and the engine that were resolved.
        identity: that of its store.
        provenance: what its store's provenance says of model and data.
        source: where its images lie; None where they lie in no file.
        most_samples: the most samples that one record's tallies can hold; 0 where they do not say.
        exact: whether every record takes as many samples, whatever they show.
        sample_cost: what a sample costs beyond one forward pass, in words.
        networks: the names of the fields that only `records` and `forecast` need.
    """

    networks: ClassVar[tuple[str, ...]] = ()

    config: RunConfig
    identity: Identity
    provenance: dict[str, Any]
    source: Source | None = None
    most_samples: int = 0
    exact: bool = True
    sample_cost: str | None = None

    @abstractmethod
    def reopen(self) -> Callable[[], Self]:
        """Return a function, which can be pickled, that prepares the same run in another process."""

    @abstractmethod
    def records(self, tasks: Iterable[Task]) -> Iterator[Done]:
        """Yield the records of all tasks as they are done; a task is taken when there is room for it.

        An iterator of tasks may stop and later go on, while some of those that it gave are not done.
        """

    def release(self) -> None:
        """Let go of the networks, where other processes make the records: the memory of a GPU is theirs."""
        for name in self.networks:
            vars(self).pop(name, None)
        if torch.cuda.is_initialized():
            gc.collect()
            torch.cuda.empty_cache()

    def tasks(self, pending: Sequence[int]) -> list[Task]:
        """Return the pending positions as tasks, in order: one each, unless records are made together.

        A record does not depend on which others of its task are pending.
        """
        return [(position,) for position in pending]

    def fill(self, execute: "Executor", watch: "Watch | None" = None) -> Store:
        """Do what is left of the run, keep each record as it is done, and return the finished store.

        Args:
            execute: who does it: see `executors`.
            watch: is called with every record that was kept.
        """
        with open_store(self.config.out, self.identity, provenance(**self.provenance)) as store:
            if self.source is not None:
                write_source(self.config.out, self.source)
            pending = store.pending()
            keep(lambda: self._kept(store))
            for line in self.forecast(pending):
                announce(line)
            with self.meter(pending) as meter:
                for position, record, seconds in execute(self, pending):
                    store.add(position, record, seconds)
                    meter.finish(self.passes(position), self.passes(position, record))
                    if watch is not None:
                        watch(record)
            store.finish()
        return read_store(self.config.out)

    def _kept(self, store: StoreWriter) -> Kept:
        """Return what an interruption would leave in the store."""
        total = self.identity.record_count
        words = f"{total - len(store.pending())} of {total} {self.unit} are done and kept in {self.config.out}"
        if not store.needs_name:
            return Kept(words)
        return Kept(f"{words}, whose model is known by its answers alone", ("--model-id", "NAME"))

    @property
    def unit(self) -> str:
        """The plural of what a record is of."""
        return "images" if self.identity.records_per_image == 1 else "records"

    def passes(self, position: int, record: Record | None = None) -> int:
        """Return the samples that a record takes at most, or those that it took."""
        return record.samples if record is not None and record.samples else self.most_samples

    def meter(self, pending: Sequence[int], name: str | None = None) -> AbstractContextManager[Meter]:
        """Return a context in which the pending records are sampled, and which shows how far they are.

        Args:
            name: of a phase of these records alone; None is the run's own, of which others may be done.
        """
        most = sum(map(self.passes, pending))
        records = self.identity.record_count if name is None else len(pending)
        work = Workload(records, len(pending), self.unit, most, self.exact, self.sample_cost)
        return metering(name or "sampling", work)

    def forecast(self, pending: Sequence[int]) -> Iterator[str]:
        """Yield what there is to say before the pending records are sampled."""
        done = self.identity.record_count - len(pending)
        if pending:
            resumed = f"{done} of {self.identity.record_count} are done; " if done else ""
            yield f"{resumed}{len(pending)} {self.unit} to do"


Watch = Callable[[Record], None]
"""Is called with every record once it is kept."""

Executor = Callable[[Run, Sequence[int]], Iterator[Done]]
"""Works on a run's pending positions, and yields every record in the order in which they are done."""


def open_again(reopen: Callable[[], Run], identity: Identity) -> Run:
    """Prepare a run again in another process. Raises SmoothcertError where it is not the driver's."""
    with warnings.catch_warnings():
        for given in (AdaptedWarning, ClassWarning, EngineWarning, ProcessorWarning, RandomWeightsWarning):
            warnings.simplefilter("ignore", given)
        run = reopen()
    if fields := differences(identity.raw, run.identity.raw):
        raise SmoothcertError(f"the worker on {platform.node()} prepared another run than its driver (they differ in "
                              f"{', '.join(fields)}): has it the same model and data, and the same kind of device?")
    return run
