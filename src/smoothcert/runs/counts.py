"""The certificate of the 0-1 loss, from the counts of a certify store alone: no model, no torch."""


import numpy as np

from smoothcert.distributional.certificates import errors_of
from smoothcert.errors import StoreError
from smoothcert.store.store import Store


def errors_in(store: Store) -> tuple[np.ndarray, np.ndarray]:
    """Return (errors, n), (m,) each: the votes of each image's estimate that are not for its label, and all of them.

    An image that the pilot of a sequential run settled has none, and counts as one error of one.

    Raises:
        StoreError: no certify store (nor the counts of one), no records, no votes, or a run that stopped when its radii
            were decided: its last counts are no plain sample.
    """
    distributional = store.identity.distributional_or_none
    if store.kind != "certify" and (distributional is None or distributional.loss != "0-1"):
        raise StoreError(f"{store.folder} is a {store.kind} store: the certificate of the 0-1 loss needs the "
                         f"counts of a certify store")
    if not len(store.column("index")):
        raise StoreError(f"{store.folder} has no records yet: let its run finish some images")
    if store.identity.procedure.design == "radii":
        raise StoreError(f"{store.folder} stopped sampling when its radii were decided, and this certificate needs an "
                         f"n that was fixed beforehand: take a run with --n or with --curve-loss")
    errors, n = errors_of(store.counts("estimate"), store.column("label"))
    if not n.any():
        raise StoreError(f"{store.folder} holds no votes, only answers: this needs the counts of a run")
    return np.where(n, errors, 1), np.maximum(n, 1)
