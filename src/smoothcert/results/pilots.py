"""A pilot: what a run that was done says of the samples and the seconds that an image takes."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np

from smoothcert.errors import StoreError
from smoothcert.interop.logs import seconds_of
from smoothcert.results.cost import Work
from smoothcert.results.present import check_records
from smoothcert.store.store import Store


@dataclass(frozen=True)
class Pilot:
    """What each image of a run took: samples and one worker's seconds, (M,) each; 0 where the seconds are unknown."""

    name: str
    samples: np.ndarray
    seconds: np.ndarray

    @classmethod
    def of(cls, store: Store) -> Self:
        """The images that a `certify` or `predict` store has done, of a run that may still go on.

        Raises:
            StoreError: a store of another kind, or without records.
        """
        if store.kind not in ("certify", "predict"):
            raise StoreError(f"{store.folder} is a store of kind {store.kind}: a pilot is one of certify or predict, "
                             f"whose records tell all samples that were drawn")
        check_records(store)
        return cls(store.folder.name, samples_of(store), np.array(seconds_of(store)))

    def work(self, samples: float | None = None, rate: float | None = None) -> Work:
        """What an image takes, with given samples or samples/s in place of the measured ones.

        Seconds an image are (its or the given samples) x (its seconds / its samples, or 1 / the given rate); the rate
        is mean samples / mean seconds.

        Raises:
            StoreError: there are no samples; or no times, and no rate was given.
        """
        kept = (self.samples > 0) & ((self.seconds > 0) | (rate is not None))
        if not kept.any():
            raise StoreError(f"{self.name} has no image whose samples and seconds (times.jsonl) are both known: give "
                             f"--rate, samples/s of one worker")
        drawn = self.samples[kept] if samples is None else np.full(int(kept.sum()), float(samples))
        took = drawn * (self.seconds[kept] / self.samples[kept] if rate is None else 1 / rate)
        mean = float(took.mean())
        return Work(float(drawn.mean()), float(drawn.mean()) / mean,
                    float(took.std(ddof=1)) if len(took) > 1 else None, len(took))


def samples_of(store: Store) -> np.ndarray:
    """(M,) samples drawn for each record: tallies are cumulative within a stage, so the last of each counts."""
    column = store.records.column("tallies").combine_chunks()
    tallies, ends = column.flatten(), np.cumsum([0, *column.value_lengths().to_pylist()])
    stages, n = tallies.field("stage").to_pylist(), tallies.field("n").to_pylist()
    return np.array([sum(dict(zip(stages[low:high], n[low:high], strict=True)).values())
                     for low, high in pairwise(ends)])
