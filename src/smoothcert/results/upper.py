"""How robust the images of an attack store can be at most: what its successful attacks prove."""

from dataclasses import dataclass

import numpy as np

from smoothcert.errors import InputError
from smoothcert.results.attacks import norm_of
from smoothcert.results.base import check_records
from smoothcert.store.store import Store


@dataclass(frozen=True)
class Upper:
    """Empirical upper bound on robust accuracy: the share of images, `accuracy` (P,), of which no attack of l2 norm at
    most `radius` (P,) succeeded; a step curve that ends with the largest norm tried."""

    name: str
    radius: np.ndarray
    accuracy: np.ndarray


def upper_bound(store: Store, name: str) -> Upper:
    """Return, of every image, the smallest perturbation that was answered with another class, over all settings.

    It is 0 where the image itself is. An abstention is no such answer: it contradicts no certificate.

    Raises:
        InputError: attacks in another norm than l2. StoreError: a store of another kind, or without records.
    """
    check_records(store)
    if norm_of(store) != "l2":
        raise InputError(f"{name} attacks in norm {norm_of(store)}: an upper bound beside certified radii takes l2")
    answer = store.column("prediction")
    lost = np.where((answer == store.column("label")) | (answer < 0), np.inf, store.column("l2"))
    images, row = np.unique(store.column("index"), return_inverse=True)
    distance = np.full(len(images), np.inf)
    np.minimum.at(distance, row, lost)
    steps = np.unique(distance[np.isfinite(distance)])
    last = float(store.column("l2").max())
    radius = np.unique(np.concatenate([[0.0], steps, [last]]))
    return Upper(name, radius, (distance > radius[:, None]).mean(axis=1))
