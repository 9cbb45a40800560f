"""The base of all runs: tasks to hand out, the records that come of them, and the store that they fill."""

import platform
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from smoothcert.classes import ClassWarning
from smoothcert.config.sampling import RunConfig
from smoothcert.errors import AdaptedWarning, EngineWarning, RandomWeightsWarning, SmoothcertError
from smoothcert.progress import Progress
from smoothcert.store.comparison import differences
from smoothcert.store.identity import Identity
from smoothcert.store.provenance import provenance
from smoothcert.store.records import Record
from smoothcert.store.source import Source, write_source
from smoothcert.store.store import Store, open_store, read_store

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
        most_samples: the most samples that one record can take; 0 where its tallies do not say.
        sample_cost: what a sample costs beyond one forward pass, in words.
    """

    config: RunConfig
    identity: Identity
    provenance: dict[str, Any]
    source: Source | None = None
    most_samples: int = 0
    sample_cost: str | None = None

    @abstractmethod
    def reopen(self) -> Callable[[], Self]:
        """Return a function, which can be pickled, that prepares the same run in another process."""

    @abstractmethod
    def records(self, tasks: Iterable[Task]) -> Iterator[Done]:
        """Yield the records of all tasks as they are done; a task is taken when there is room for it."""

    def tasks(self, pending: Sequence[int]) -> list[Task]:
        """Return the pending positions as tasks, in order: one each, unless records are made together.

        A record does not depend on which others of its task are pending.
        """
        return [(position,) for position in pending]

    def fill(self, progress: Progress, execute: "Executor") -> Store:
        """Do what is left of the run, keep each record as it is done, and return the finished store.

        Args:
            execute: who does it: see `executors`.
        """
        with open_store(self.config.out, self.identity, provenance(**self.provenance)) as store:
            if self.source is not None:
                write_source(self.config.out, self.source)
            pending = store.pending()
            total = self.identity.record_count
            before = total - len(pending)
            progress(before, total, f"resumed, {before} were done" if before else "sampling")
            drawn = 0
            for finished, (position, record, seconds) in enumerate(execute(self, pending), start=1):
                store.add(position, record, seconds)
                drawn += record.samples
                progress(before + finished, total, self._describe_samples(drawn, finished))
            store.finish()
        return read_store(self.config.out)

    def _describe_samples(self, drawn: int, records: int) -> str:
        most = records * self.most_samples
        if not most:
            return ""
        saved = f", {1 - drawn / most:.0%} saved by stopping early" if drawn < most else ""
        cost = f", {self.sample_cost} each" if self.sample_cost else ""
        for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
            if drawn >= size:
                return f"{drawn / size:.3g}{letter} samples{saved}{cost}"
        return f"{drawn} samples{saved}{cost}"


Executor = Callable[[Run, Sequence[int]], Iterator[Done]]
"""Works on a run's pending positions, and yields every record in the order in which they are done."""


def open_again(reopen: Callable[[], Run], identity: Identity) -> Run:
    """Prepare a run again in another process. Raises SmoothcertError where it is not the driver's."""
    with warnings.catch_warnings():
        for given in (AdaptedWarning, ClassWarning, EngineWarning, RandomWeightsWarning):  # by the driver already
            warnings.simplefilter("ignore", given)
        run = reopen()
    if fields := differences(identity.raw, run.identity.raw):
        raise SmoothcertError(f"the worker on {platform.node()} prepared another run than its driver (they differ in "
                              f"{', '.join(fields)}): has it the same model and data, and the same kind of device?")
    return run
