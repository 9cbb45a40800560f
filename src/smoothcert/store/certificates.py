"""Checks that a certify store holds the certificates which another run needs."""

from typing import Any

import numpy as np

from smoothcert.errors import StoreError
from smoothcert.store.comparison import differences, without_unrecorded
from smoothcert.store.identity import Identity
from smoothcert.store.store import Store


def check_certified(store: Store, wanted: str) -> None:
    """Raise StoreError unless `store` is a certify store, which `wanted` needs."""
    if store.kind != "certify":
        raise StoreError(f"{store.folder} is a store of kind {store.kind}: {wanted} needs the store of a "
                         f"`smoothcert certify` run")


def check_certificates(store: Store, identity: Identity, indices: np.ndarray, wanted: str) -> None:
    """Raise StoreError unless `store` holds certificates of the smoothed classifier and the images of a run.

    Args:
        identity: the run's. indices: (M,) its images, all of which need a certificate.
        wanted: what the store is for, for the message.
    """
    check_certified(store, wanted)
    if not store.complete:
        raise StoreError(f"{store.folder} is not complete: finish its run first (the same command resumes it)")
    theirs, ours = (_classifier_and_data(one) for one in (store.identity, identity))
    found = without_unrecorded(differences(theirs, ours), store.identity.raw)
    if found:
        raise StoreError(f"{store.folder} holds certificates of something else, so {wanted} cannot use it:\n"
                         + "\n".join(f"  - {name}: there {there!r}, here {here!r}"
                                     for name, (there, here) in found.items()))
    if len(missing := np.setdiff1d(indices, store.column("index"))):
        raise StoreError(f"{store.folder} has no certificates for {len(missing)} of the {len(indices)} images "
                         f"(image {missing[0]} is the first), so {wanted} cannot use it: certify the same images")


def _classifier_and_data(identity: Identity) -> dict[str, Any]:
    """Return what an identity says of the classifier and of the images, with which certificates can be compared."""
    data = {name: identity.data.raw.get(name) for name in ("name", "split", "shape")}
    return {"model": identity.model.raw, "num_classes": identity.num_classes,
            "noise": {"sigma": identity.noise.sigma}, "data": data}
