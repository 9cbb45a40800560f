"""Certificates of a router and of the classifiers that it chooses among, composed into those of one classifier.

A smoothed classifier g_0, the router, says which of the smoothed classifiers g_0', g_1', ... answers: the composed
classifier is f(x) = g'_l(x) with l = g_0(x). They may have any sigmas and networks. Let g_0 be certified at x with the
class l, radius R_0 and level alpha_0, and g'_l with the class c, radius R_l and level alpha_l. Then f = c within
min(R_0, R_l) of x, except with probability alpha_0 + alpha_l at most.

Proof. Where both certificates hold, every x' nearer than R_0 has g_0(x') = l, and every one nearer than R_l has
g'_l(x') = c. The router's certificate fails with probability alpha_0 at most. Where it does not fail, l is g_0(x),
which depends on no sample, so that only the certificate of this one classifier can fail besides: the events need not be
independent, the same noise may serve all, and only one of the classifiers counts. Where g_0 or g'_l abstains, so does
f.

Here the class l of the router is the number of a classifier; classes beyond them are abstentions.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from smoothcert.errors import InputError, StoreError
from smoothcert.io.files import write_json
from smoothcert.io.paths import Place
from smoothcert.stats import ABSTAIN, proved_level
from smoothcert.store.identity import Identity
from smoothcert.store.recertify import check_certified
from smoothcert.store.records import Record
from smoothcert.store.source import describe_source, read_source, write_source
from smoothcert.store.store import Store, read_store, write_store

DESIGNS = ("fixed", "radii", "curve")
"""The designs whose certificates can be composed."""


def route(router: Store, classifiers: Sequence[Store], folder: Place) -> Store:
    """Write the composed certificates as a store of their own, and return it.

    Args:
        router: a certify store of the router, over the same images; its labels do not count.
        classifiers: a certify store of each classifier, in the order of the router's classes.
    Raises:
        StoreError: stores over other images, or of other designs, or unfinished. InputError: more classifiers than the
            router has classes, or fewer than two.
    """
    identity, notes = _compose_identity(router, classifiers)
    index, label, off_grid = (classifiers[0].column(name) for name in ("index", "label", "off_grid"))
    route_of, radius_0 = (_of_images(router, name, index) for name in ("prediction", "radius"))
    known = (route_of >= 0) & (route_of < len(classifiers))
    chosen = np.where(known, route_of, 0), np.arange(len(index))
    prediction, radius = (np.stack([_of_images(one, name, index) for one in classifiers])[chosen]
                          for name in ("prediction", "radius"))
    certified = known & (radius > 0) & (radius_0 > 0)
    radius = np.where(certified, np.minimum(radius_0, radius), 0.0)
    prediction = np.where(certified, prediction, ABSTAIN)
    records = [Record(int(i), int(y), int(c), {"radius": float(r)}, bool(off))
               for i, y, c, r, off in zip(index, label, prediction, radius, off_grid, strict=True)]
    shares = ", ".join(f"{int((route_of == k).sum())} to {name_network(one)}" for k, one in enumerate(classifiers))
    notes.append(f"routed by {name_network(router)}: {shares}, {int((~known).sum())} to none; sigma is the largest")
    provenance = {"model": f"router of {', '.join(map(name_network, classifiers))}", "notes": notes,
                  **({"classes": list(names)} if (names := classifiers[0].class_names) else {})}
    write_store(folder, identity, provenance, records)
    if source := read_source(classifiers[0].folder):
        write_source(folder, source)
    return read_store(folder)


def name_network(store: Store) -> str:
    """Return how notes call the network of a store: its name and sigma."""
    return f"{store.provenance.model or store.folder.name} (sigma {store.identity.noise.sigma:g})"


def label_best(stores: Sequence[Store], file: Place) -> list[int]:
    """Write which classifier certifies each image furthest, as labels for `labels:FILE`, and return each one's number.

    An image that none certifies as its label is left out. Of equals the first one is taken.

    Raises:
        StoreError: stores over other images, or of other designs, or unfinished. InputError: fewer than two, or more
            than there are classes: the router is trained on as many classes as the data have; or nothing is certified.
    """
    _check_several(stores)
    _check_together(stores)
    if len({one.folder for one in stores}) < len(stores):
        raise InputError("a store is given twice, and a router learns to choose among different classifiers")
    num_classes = stores[0].num_classes
    if len(stores) > num_classes:
        raise InputError(f"{len(stores)} classifiers need as many classes of the router, and these data have "
                         f"{num_classes}: give {num_classes} at most")
    index = np.sort(stores[0].column("index"))
    credit = np.stack([np.where(one.correct, one.column("radius"), 0.0)[one.rows_of(index)] for one in stores])
    kept = np.flatnonzero(credit.max(axis=0) > 0)
    if not len(kept):
        raise InputError("none of the classifiers certifies any of these images: there is nothing to learn")
    best = credit.argmax(axis=0)[kept]
    content = {"version": 1, **describe_source(stores[0]), "classifiers": [name_network(one) for one in stores],
               "indices": index[kept].tolist(), "labels": best.tolist()}
    write_json(file, content)
    return np.bincount(best, minlength=len(stores)).tolist()


def _check_several(classifiers: Sequence[Store]) -> None:
    if len(classifiers) < 2:
        raise InputError(f"give two classifiers or more to choose among, got {len(classifiers)}")


def _check_together(stores: Sequence[Store]) -> None:
    """Raise an error unless the stores hold certificates that can be set beside each other, image by image."""
    first = stores[0]
    for one in stores:
        check_certified(one, "routing")
        design, norm = one.identity.procedure.design, one.identity.norm or "l2"
        one.check_complete()
        if design not in DESIGNS:
            raise StoreError(f"{one.folder} is of the design {design}: routing takes {', '.join(DESIGNS)}")
        if norm != "l2":
            raise StoreError(f"{one.folder} has {norm} radii: routing takes l2 radii")
        for what, told, expected in zip(("design", "radii", "curve up to"), _design(one), _design(first), strict=True):
            if told != expected:
                raise StoreError(f"{one.folder} is of another design than {first.folder}: {what} {told} and "
                                 f"{expected}; certify both alike")
        data, other = (store.identity.data_or_none.raw for store in (one, first))
        differing = [name for name in ("name", "split", "shape") if data.get(name) != other.get(name)]
        index, expected = (np.sort(store.column("index")) for store in (one, first))
        if differing or not np.array_equal(index, expected):
            told = ", ".join(f"{name} {data.get(name)} and {other.get(name)}" for name in differing)
            raise StoreError(f"{one.folder} and {first.folder} are over other images: {told or 'other indices'}; "
                             f"certify the same ones")


def _design(store: Store) -> tuple[Any, ...]:
    procedure = store.identity.procedure
    return procedure.design, procedure.radii, procedure.to


def _of_images(store: Store, name: str, index: np.ndarray) -> np.ndarray:
    """Return the values of a column for these images, (M,)."""
    return store.column(name)[store.rows_of(index)]


def _compose_identity(router: Store, classifiers: Sequence[Store]) -> tuple[Identity, list[str]]:
    """Return the identity of the composed store, and the notes of its parts. Raises what `route` raises."""
    if len(classifiers) > router.num_classes:
        raise InputError(f"{router.folder} has {router.num_classes} classes, and {len(classifiers)} classifiers are to "
                         f"be chosen among")
    _check_several(classifiers)
    _check_together([*classifiers, router])
    if router.identity.procedure.raw.get("labels_known"):
        raise StoreError(f"{router.folder} judged the images' labels and no other class, and a router answers with the "
                         f"number of a classifier: certify it without labels-known")
    first = classifiers[0].identity
    for one in classifiers[1:]:
        if not np.array_equal(_of_images(one, "label", classifiers[0].column("index")), classifiers[0].column("label")):
            raise StoreError(f"{one.folder} has other labels than {classifiers[0].folder}: certify the same data")
    parts = [one.identity.procedure for one in (router, *classifiers)]
    levels = [proved_level(part.method or "", part.alpha or 0.0) for part in parts]
    n = max(max(part.n) if isinstance(part.n, list) else part.n or part.n_max or 0 for part in parts)
    procedure = {"design": "routed", "method": "routed", "alpha": levels[0] + max(levels[1:]), "n": n, "margin": None}
    procedure |= {name: value for name, value in zip(("radii", "to"), _design(classifiers[0])[1:], strict=True)
                  if value is not None}
    if any(part.raw.get("labels_known") for part in parts):
        procedure["labels_known"] = True
    if not all(part.decided for part in parts):
        procedure["decided"] = False
    widest = max((one.identity for one in classifiers), key=lambda one: one.noise.sigma)
    told = {"kind": "certify", "num_classes": first.num_classes, "images": first.images.raw,
            "data": first.data_or_none.raw, "procedure": procedure,
            "noise": {"kind": widest.noise.kind, "sigma": widest.noise.sigma}, "printed": any(
                one.identity.printed for one in (router, *classifiers)),
            "routed_from": {"router": router.identity.digest,
                            "classifiers": [one.identity.digest for one in classifiers]}}
    return Identity.parse(told), [note for one in (router, *classifiers) for note in one.provenance.notes]
