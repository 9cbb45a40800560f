"""The intervals of a regression store: read from its sketches, at its own radii and level or at others.

A sketch has every rank that the run's own intervals need, and others as far as n reaches. Other intervals end at the
next kept ranks that lie further out: they hold, and are at most a little wider than all n outputs would give.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from smoothcert.errors import EmptyStoreError, StoreError
from smoothcert.io.paths import Place
from smoothcert.stats import PercentilePlan
from smoothcert.store.identity import Identity
from smoothcert.store.recertify import write_again
from smoothcert.store.store import Store


@dataclass(frozen=True, eq=False)
class Sketches:
    """The order statistics that a regression store keeps of its N finished inputs.

    Attributes:
        plan: what was sampled, and the radii and the level that intervals are read at.
        ranks: (S,) int64: those that are kept, from 1 to n.
        index: (N,) the inputs. values: (N, M, S) their order statistics.
        target: (N, M) the real values that the data have for them; None where they have none.
    """

    plan: PercentilePlan
    ranks: np.ndarray
    index: np.ndarray
    values: np.ndarray
    target: np.ndarray | None

    @classmethod
    def of(cls, store: Store) -> "Sketches":
        """Read the inputs of a store that have the records of all outputs.

        Raises:
            StoreError: another kind of store, or sketches that are not of its ranks. EmptyStoreError: no such input.
        """
        if store.kind != "regression":
            raise StoreError(f"{store.folder} is a {store.kind} store: intervals are in the store of a regression "
                             f"(certify --task regression)")
        run = store.identity.regression
        index, times = np.unique(store.column("index"), return_counts=True)
        whole = index[times == run.outputs]
        if not len(whole):
            raise EmptyStoreError(f"{store.folder} has no input with the records of all its outputs yet: let its run "
                                  f"finish some")
        kept = np.isin(store.column("index"), whole)
        values = store.lists("sketch", len(run.ranks))[kept].reshape(len(whole), run.outputs, -1)
        target = store.column("target").astype(np.float64)[kept].reshape(len(whole), run.outputs)
        return cls(plan_of(store.identity), np.array(run.ranks), store.column("index")[kept][:: run.outputs], values,
                   None if np.isnan(target).any() else target)

    def at(self, radii: Sequence[float] | None = None, alpha: float | None = None) -> "Sketches":
        """Return the same sketches, to be read at other radii or at another level.

        Raises InputError for radii that n cannot give; the least n that can is named.
        """
        changes = {name: value for name, value in (("radii", radii and tuple(radii)), ("alpha", alpha))
                   if value is not None}
        return replace(self, plan=replace(self.plan, **changes))

    def read(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the estimates (N, M), and the lower and upper ends (N, M, R) of their intervals."""
        return self.plan.read(self.ranks, self.values)


def plan_of(identity: Identity) -> PercentilePlan:
    """Return the plan of a regression store. Raises StoreError for values that no plan has."""
    run, procedure = identity.regression, identity.procedure
    try:
        return PercentilePlan(identity.noise.sigma, tuple(run.radii), procedure.raw["n"], procedure.raw["alpha"],
                              run.percentile, run.outputs)
    except ValueError as error:
        raise StoreError(f"its radii, n and alpha are those of no regression: {error}") from None


def write_reread(folder: Place, store: Store, sketches: Sketches) -> None:
    """Keep intervals that were read again as a store of their own, with the sketches they come from."""
    plan = sketches.plan
    estimate, lower, upper = sketches.read()
    ends = {name: pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), len(plan.radii)).cast(
        pa.list_(pa.float32())) for name, values in (("lower", lower), ("upper", upper))}
    write_again(folder, store, {"estimate": pa.array(estimate.ravel()), **ends}, procedure=plan.identity(),
                regression={**store.identity.regression.raw, "radii": list(plan.radii)})
