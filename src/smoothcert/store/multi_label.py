"""The certificates of a multi-label store: computed again from its votes, at its own level or at another."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from smoothcert.errors import EmptyStoreError, StoreError
from smoothcert.io.paths import Place
from smoothcert.stats import MultiLabelPlan
from smoothcert.stats.multi_label import LabelAnswers
from smoothcert.store.recertify import noise_of, write_again
from smoothcert.store.store import Store


@dataclass(frozen=True, eq=False)
class LabelVotes:
    """The votes of the N finished inputs of a multi-label store.

    Attributes:
        plan: what was sampled, and the level that it is judged at.
        index: (N,) the inputs. present: (N, L) bool, by the data.
        select, estimate: (N, L) votes of each stage for the label.
    """

    plan: MultiLabelPlan
    index: np.ndarray
    present: np.ndarray
    select: np.ndarray
    estimate: np.ndarray

    @classmethod
    def of(cls, store: Store) -> "LabelVotes":
        """Read the inputs of a store that have the records of all labels.

        Raises:
            StoreError: another kind of store. EmptyStoreError: no such input.
        """
        if store.kind != "multi-label":
            raise StoreError(f"{store.folder} is a {store.kind} store: labels are in the store of a multi-label run "
                             f"(certify --task multi-label)")
        labels = store.identity.multi_label.labels
        index, times = np.unique(store.column("index"), return_counts=True)
        if not (whole := np.isin(store.column("index"), index[times == labels])).any():
            raise EmptyStoreError(f"{store.folder} has no input with the records of all its labels yet: let its run "
                                  f"finish some")
        columns: list[Any] = [store.column("label") == 1,
                              *(store.counts(stage)[:, 1] for stage in ("select", "estimate"))]
        return cls(plan_of_labels(store), store.column("index")[whole][::labels],
                   *(column[whole].reshape(-1, labels) for column in columns))

    def at(self, alpha: float | None) -> "LabelVotes":
        """Return the same votes, to be judged at another level; None keeps it."""
        return self if alpha is None else replace(self, plan=replace(self.plan, alpha=alpha))

    def judge(self) -> LabelAnswers:
        return self.plan.judge(self.select, self.estimate)


def plan_of_labels(store: Store) -> MultiLabelPlan:
    """Return the plan of a multi-label store. Raises StoreError for values that no plan has."""
    procedure, labels = store.identity.procedure.raw, store.identity.multi_label.labels
    try:
        return MultiLabelPlan(labels, procedure["n0"], procedure["n"], procedure["alpha"], noise_of(store).radius)
    except (KeyError, ValueError) as error:
        raise StoreError(f"{store.folder}: its n0, n and alpha are those of no multi-label run: {error}") from None


def write_judged(folder: Place, store: Store, votes: LabelVotes) -> None:
    """Keep certificates that were computed again as a store of their own, with the votes they come from."""
    answers = votes.judge()
    write_again(folder, store, {"prediction": pa.array(answers.prediction.ravel()),
                                "radius": pa.array(answers.radius.ravel())}, procedure=votes.plan.identity())
