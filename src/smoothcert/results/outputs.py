"""The base of the figures of runs over a function's outputs: of regressions and of multi-label runs."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from smoothcert.checks import one_line
from smoothcert.results.base import StoreResult, setting_of
from smoothcert.results.networks import describe_network
from smoothcert.store.names import name_of
from smoothcert.store.store import Store


@dataclass(frozen=True, repr=False, kw_only=True)
class OutputResult(StoreResult):
    """The figures of one run over a function's outputs.

    Attributes:
        name: how tables and legends call it.
        index: (N,) the inputs.
        sigma, alpha, n: what they were certified with; alpha is that of an input.
        setting: the store's identity without what tells its inputs apart.
        complete: whether the run has finished.
        notes: what the store says that a reader has to know.
        path: the store that holds them. network: which one they are of, in words.
    """

    takes_radii: ClassVar[bool] = True
    has_own_page: ClassVar[bool] = True

    name: str
    index: np.ndarray
    sigma: float
    alpha: float
    n: int
    setting: dict[str, Any] = field(default_factory=dict)
    complete: bool = True
    notes: tuple[str, ...] = ()
    path: str = ""
    network: str = ""

    @property
    def images(self) -> int:
        return len(self.index)


def describe_run(store: Store, name: str | None, path: str | None) -> dict[str, Any]:
    """Return the attributes of `OutputResult` that a store tells whatever it holds; `path` is where it is kept."""
    return {"name": one_line(name or name_of(store.folder)), "sigma": store.identity.noise.sigma,
            "setting": setting_of(store.identity), "complete": store.complete,
            "notes": tuple(map(one_line, store.provenance.notes)),
            "path": str(store.folder) if path is None else path, "network": describe_network(store)}
