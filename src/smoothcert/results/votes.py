"""The votes behind a store's certificates, as arrays: what studies of the same counts are made from."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from smoothcert.errors import StoreError
from smoothcert.results.base import check_records
from smoothcert.stats.binomial import SAFETY, lower_limit
from smoothcert.store.records import dense_counts
from smoothcert.store.store import Store

_CHUNK = 8192


@dataclass(frozen=True)
class Votes:
    """Of each image (M,): the chosen class, its votes `n_a`, the largest rival's, and of how many samples `n`.

    n is 0 where the pilot of a sequential run settled the image.
    """

    chosen: np.ndarray
    n_a: np.ndarray
    rival: np.ndarray
    n: np.ndarray

    @property
    def share(self) -> np.ndarray:
        """N_A / n, the observed share; 0 where there are no samples."""
        return self.n_a / np.maximum(self.n, 1)

    def lower(self, alpha: float) -> tuple[np.ndarray, np.ndarray]:
        """(p, 1 - p): the one-sided Clopper-Pearson lower limit p of p_A at level `alpha`; 0 without samples."""
        n_a, trials, where = collapsed(self.n_a, np.maximum(self.n, 1))
        p, q = lower_limit(n_a, trials, alpha)
        return (p * (1 - SAFETY))[where], np.minimum(q * (1 + SAFETY), 1.0)[where]


def collapsed(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct pairs of two columns of counts, and which of them each row is: real runs repeat few."""
    base = int(second.max(initial=0)) + 1
    pairs, where = np.unique(first * base + second, return_inverse=True)
    return pairs // base, pairs % base, where


def votes_of(store: Store) -> Votes:
    """The votes of a `certify` store whose number of samples did not depend on the votes it bounds.

    Raises:
        StoreError: another kind of store; one without records or votes (a log); or a run that stopped when its radii
            were decided, whose counts at the end are no plain binomial sample.
    """
    if store.kind != "certify":
        raise StoreError(f"{store.folder} is a store of kind {store.kind}: this needs the counts of a certify store")
    check_records(store)
    design = store.identity["procedure"].get("design", "fixed")
    if design == "radii":
        raise StoreError(f"{store.folder} stopped sampling when its radii were decided, so its counts say nothing at "
                         f"another bound or n: take a run with a fixed n, or with --curve-loss")
    none = f"{store.folder} holds no votes, only answers: this needs the counts of a run"
    if "log" in store.provenance:  # before (M, K) counts: the classes of a log may be any numbers
        raise StoreError(none)
    first = "pilot" if design == "curve" else "select"
    tallies = store.records.column("tallies")
    parts = [_votes(tallies.slice(start, _CHUNK), first, store.num_classes)
             for start in range(0, len(tallies), _CHUNK)]
    votes = Votes(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    if not votes.n.any():
        raise StoreError(none)
    return votes


def _votes(tallies: pa.ChunkedArray, first: str, num_classes: int) -> tuple[np.ndarray, ...]:
    chosen = dense_counts(tallies, first, num_classes).argmax(axis=1)
    counts = dense_counts(tallies, "estimate", num_classes)
    rows = np.arange(len(chosen))
    n, n_a = counts.sum(axis=1), counts[rows, chosen]
    counts[rows, chosen] = -1
    return chosen, n_a, np.maximum(counts.max(axis=1), 0), n
