"""An attack store as one of the runs of a table, a page or a picture."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from smoothcert.results.present import check_records
from smoothcert.results.unseen import unseen_classes
from smoothcert.store.store import Store


@dataclass(frozen=True)
class Attack:
    """An attack store, and its name in a table or on a page; those of one group attack one method's models."""

    store: Store
    name: str
    group: str = ""

    @classmethod
    def of(cls, store: Store, name: str) -> Self:
        """An attack store that has records, or StoreError."""
        check_records(store)
        return cls(store, name)

    @property
    def index(self) -> np.ndarray:
        """(M,): the images that were attacked, each once."""
        return np.unique(self.store.column("index"))

    @property
    def label(self) -> np.ndarray:
        """(M,): their classes."""
        return self.store.column("label")[np.unique(self.store.column("index"), return_index=True)[1]]

    @property
    def images(self) -> int:
        return len(self.index)

    @property
    def setting(self) -> dict[str, Any]:
        """Which data it is of."""
        return {"data": self.store.identity["data"]}

    @property
    def classes(self) -> tuple[str, ...] | None:
        return self.store.class_names

    @property
    def remarks(self) -> tuple[str, ...]:
        """Which classes its images do not show."""
        return unseen_classes(self.store.column("label"), self.store.class_names, self.store.column("index"))
