"""The figures of a run so far, for loggers."""

import time
from collections.abc import Callable, Sequence

from smoothcert.loggers import Figures, Log
from smoothcert.runs.run import Run, Watch
from smoothcert.store.manifest import is_store
from smoothcert.store.records import Record
from smoothcert.store.store import read_store

EVERY = 1.0
"""Seconds between two steps; the last one always comes."""


class RunFigures:
    """Counts the records of a run, those of an earlier start included, and logs what they come to.

    They are shares and means of the images done so far, in the order in which they were done: estimates, to watch a run
    by. The step is the number of images done.

    Args:
        kind: of the run; names the figures. total: how many records it ends with.
        radii: at which certified accuracy is logged.
    """

    def __init__(self, log: Figures, kind: str, total: int, radii: Sequence[float] = (),
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._log, self._kind, self._total, self._radii, self._clock = log, kind, total, radii, clock
        self._done = self._right = self._abstained = self._samples = 0
        self._credit = 0.0
        self._certified = [0] * len(radii)
        self._started = self._last = clock()

    def add(self, record: Record) -> None:
        """Count a record that has just been done."""
        self.count(record.prediction, record.label, record.values.get("radius") or 0.0)
        self._samples += record.samples or 0
        if self._done == self._total or self._clock() - self._last >= EVERY:
            self._last = self._clock()
            self._log(self._done, {f"{self._kind}/{name}": value for name, value in self.values().items()})

    def values(self) -> dict[str, float]:
        """Return the figures so far, by name."""
        found = {"accuracy": self._right / self._done, "abstained": self._abstained / self._done}
        if self._kind == "certify":
            found["acr"] = self._credit / self._done
            found |= {f"certified_accuracy_{radius:g}": count / self._done
                      for radius, count in zip(self._radii, self._certified, strict=True)}
        elapsed = self._clock() - self._started
        return {**found, "samples_per_second": self._samples / elapsed if elapsed else 0.0}

    def count(self, prediction: int, label: int, radius: float) -> None:
        """Count an answer, without logging."""
        right = prediction == label
        self._done += 1
        self._right += right
        self._abstained += prediction < 0
        self._credit += radius if right else 0.0
        for place, least in enumerate(self._radii):
            self._certified[place] += right and radius >= least


def watch_figures(run: Run, log: Log, radii: Sequence[float] = ()) -> Watch | None:
    """Return what logs the figures of a run, which begin with the records that its store has already; None where nobody
    wants them."""
    if not log:
        return None
    figures = RunFigures(log, run.identity.kind, run.identity.record_count, radii)
    if is_store(run.config.out):
        store = read_store(run.config.out)
        radius = store.column("radius").tolist() if run.identity.kind == "certify" else [0.0] * store.num_records
        for answer in zip(store.column("prediction").tolist(), store.column("label").tolist(), radius, strict=True):
            figures.count(*answer)
    return figures.add
