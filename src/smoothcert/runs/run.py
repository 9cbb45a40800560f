"""What a run is to those who fill a store from it: tasks to hand out, and records that come of them."""

import platform
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from smoothcert.classes import ClassWarning
from smoothcert.config.sampling import RunConfig
from smoothcert.errors import AdaptedWarning, EngineWarning, SmoothcertError
from smoothcert.store.records import Record
from smoothcert.store.sameness import differences

Task = tuple[int, ...]
"""Positions in the run's list of records that one process works on together."""

BLOCK = 16
"""Records that a cluster hands out together, or more where one task has more."""

Done = tuple[int, Record, float]
"""Position, record, seconds."""


class Run(Protocol):
    """A run that is ready to work; `config` has the seed and the engine that were resolved."""

    @property
    def config(self) -> RunConfig: ...

    @property
    def identity(self) -> dict[str, Any]:
        """The identity of its store."""
        ...

    @property
    def told(self) -> dict[str, Any]:
        """What its store's provenance says of model and data."""
        ...

    @property
    def most(self) -> int:
        """The most samples that one record can take; 0 where its tallies do not say."""
        ...

    @property
    def reopen(self) -> Callable[[], "Run"]:
        """Prepares the same run in another process; it can be pickled."""
        ...

    def tasks(self, pending: Sequence[int]) -> list[Task]:
        """The pending positions as tasks, in order. Records do not depend on which of their task's are pending."""
        ...

    def records(self, tasks: Iterable[Task]) -> Iterator[Done]:
        """The records of all tasks, as they are done; a task is taken when there is room for it."""
        ...


def reopened(reopen: Callable[[], Run], identity: dict[str, Any]) -> Run:
    """A run prepared again in another process, or SmoothcertError where it is not the driver's."""
    with warnings.catch_warnings():
        for said in (AdaptedWarning, ClassWarning, EngineWarning):  # which the driver has given already
            warnings.simplefilter("ignore", said)
        run = reopen()
    if fields := differences(identity, run.identity):
        raise SmoothcertError(f"the worker on {platform.node()} prepared another run than its driver (they differ in "
                              f"{', '.join(fields)}): has it the same model and data, and the same kind of device?")
    return run
