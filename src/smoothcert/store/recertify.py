"""Certificates of stores: computed again from their counts at another alpha, method or margin, with no model and no
torch, and checked to be those that another run needs."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from smoothcert.distributional.certificates import errors_of
from smoothcert.errors import InputError, StoreError
from smoothcert.io.paths import Place
from smoothcert.noise import NOISES, Noise, build_noise
from smoothcert.stats import CertifiedCounts, Claim, TopK, plan_from, reread
from smoothcert.stats.claimed import Claimed, add_labels
from smoothcert.stats.histories import History
from smoothcert.stats.one_pass import LabelLimits, limit_labels
from smoothcert.stats.plans import AnyPlan
from smoothcert.store.comparison import differences, without_unrecorded
from smoothcert.store.identity import Identity
from smoothcert.store.identity_parts import Procedure
from smoothcert.store.provenance import provenance
from smoothcert.store.records import add_label_looks
from smoothcert.store.source import read_source, write_source
from smoothcert.store.store import Store, write_table

_VOTES_AT_ONCE = 1 << 21


def check_certified(store: Store, wanted: str) -> None:
    """Raise StoreError unless `store` is a certify store of plain radii, which `wanted` needs."""
    if store.kind != "certify":
        raise StoreError(f"{store.folder} is a store of kind {store.kind}: {wanted} needs the store of a "
                         f"`smoothcert certify` run")
    if store.identity.routed_from is not None:
        raise StoreError(f"{store.folder} is composed of other stores: {wanted} needs the store of a single classifier")
    if (claim := store.identity.procedure.claim) is not None:
        raise StoreError(f"{store.folder} holds radii of another claim ({claim.words}): {wanted} needs plain ones, so "
                         f"give the store that they were made from")


def check_certificates(store: Store, identity: Identity, indices: np.ndarray, wanted: str) -> None:
    """Raise StoreError unless `store` holds certificates of the smoothed classifier and the images of a run.

    Args:
        identity: the run's. indices: (M,) its images, all of which need a certificate.
        wanted: what the store is for, for the message.
    """
    check_certified(store, wanted)
    store.check_complete()
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


def recertify(
    store: Store, alpha: float | None = None, method: str | None = None,
    margin: float | Literal["stored"] | None = "stored", noise: Any = None, claim: Claim | None = None,
    labels_known: bool = False,
) -> tuple[CertifiedCounts, dict[str, Any]]:
    """Certify the images of a `certify` store again from their counts.

    An alpha or method of None and a margin of "stored" stay as they were; a margin of None drops it. Choose alpha
    without looking at the counts: a certificate's failure probability holds for an alpha fixed beforehand. The design
    (fixed, radii or curve) stays: it is what the looks were taken by (see `smoothcert.stats.reread`).

    A noise of the user's own code has to be given (see `noise_of`).

    Args:
        claim: what the new radii are to claim, such as `TopK(3)`; None keeps what the stored ones claim.
        labels_known: judge the label's class, or its group, in place of the chosen one; for a claim alone.
    Returns:
        The answers, and the procedure as a store's identity has it.
    Raises:
        StoreError: a store of another kind, or without records. InputError: values that no procedure takes.
    """
    if store.kind != "certify":
        raise StoreError(f"{store.folder} is a store of kind {store.kind}: only certify stores can be certified again")
    if not store.num_records:
        raise StoreError(f"{store.folder} has no records yet")
    if store.identity.routed_from is not None:
        raise StoreError(f"{store.folder} is composed of other stores and has no votes: recertify those, and route "
                         f"again")
    stored = store.identity.procedure
    plan = reread(rebuild_plan(stored, noise_of(store, noise)), alpha, method, margin)
    had_labels = isinstance(plan, Claimed) and plan.labels_known
    if claim is not None:
        plan = _make_claim(store, plan, claim, labels_known)
    elif labels_known and not had_labels:
        raise InputError("labels_known judges the label's class for a claim: give one too (top_k = 1 is the plain "
                         "radius)")
    adds_labels = isinstance(plan, Claimed) and plan.labels_known and not had_labels
    parts = [plan.judge(add_labels(looks, labels, store.num_classes) if adds_labels else looks)
             for looks, labels in iterate_histories(store)]
    answers = CertifiedCounts(np.concatenate([part.prediction for part in parts]),
                              np.concatenate([part.values["radius"] for part in parts]))
    procedure = plan.identity()
    stops = procedure.get("design") == "radii" or procedure.get("to") is not None
    if stops and procedure != _design(stored):
        procedure["decided"] = False  # it stopped sampling by other rules: what it claims is a lower bound everywhere
    return answers, procedure


def _make_claim(store: Store, plan: AnyPlan, claim: Claim, labels_known: bool) -> Claimed:
    """Return the plan with this claim in place of any other; labels stay known where they were."""
    before = plan if isinstance(plan, Claimed) else None
    plain = plan if before is None else before.plan
    claim.check(store.num_classes)
    if isinstance(claim, TopK) and claim.k > 1:
        _check_gaussian(store, "top-k radii beyond k = 1 rest")
    known = labels_known or (before is not None and before.labels_known)
    return Claimed(plain, claim, known and not getattr(plain, "labels_known", False))


def has_votes(store: Store) -> bool:
    """Return whether a store has the votes of a certify run: logs and composed stores have answers alone."""
    return store.kind == "certify" and store.provenance.log is None and store.identity.routed_from is None


def limit_labels_of(store: Store, noise: Any = None) -> LabelLimits:
    """Return the lower limits of the labels' probabilities under noise, at the level of a certify store.

    Raises:
        StoreError: another kind of store, or one without votes. InputError: a noise of the user's own code.
    """
    if not has_votes(store):
        raise StoreError(f"{store.folder} holds no votes of a certify run: the accuracy with one noisy copy is "
                         f"computed from the votes for the labels")
    _check_gaussian(store, "the accuracy with one noisy copy rests")
    plan = rebuild_plan(store.identity.procedure, noise_of(store, noise))
    skip = 1 if isinstance(plan, Claimed) and plan.labels_known else 0
    plain = plan.plan if isinstance(plan, Claimed) else plan
    parts = [limit_labels(plain, [history[skip:] for history in looks], labels, store.num_classes)
             for looks, labels in iterate_histories(store)]
    return LabelLimits(np.concatenate([part.p for part in parts]), np.concatenate([part.q for part in parts]),
                       plain.alpha)


def _check_gaussian(store: Store, wanted: str) -> None:
    """Raise InputError for a noise of a user's own code, of which only the plain radius is known."""
    if store.identity.noise.sources:
        raise InputError(f"{wanted} on the theorem of Gaussian noise, and {store.folder} was made with noise of a "
                         f"user's own code, {store.identity.noise.kind}, of which the plain radius alone is known")


def iterate_histories(store: Store) -> Iterator[tuple[list[History], np.ndarray]]:
    """Yield the looks and the labels of many records at a time: equal votes are judged once, and memory is bounded."""
    tallies, labels = store.records.column("tallies"), store.column("label")
    looks = sum(len(chunk.flatten()) for chunk in tallies.chunks) / max(len(tallies), 1)
    step = max(int(_VOTES_AT_ONCE / (max(looks, 1) * store.num_classes)), 1)
    for start in range(0, store.num_records, step):
        yield store.histories(start, step), labels[start : start + step]


def rebuild_plan(procedure: Procedure, noise: Noise) -> AnyPlan:
    """Return the plan of a certify or predict procedure, as a store's identity has it."""
    told = _design(procedure)
    if told["method"] == "predict":
        return plan_from("predict", told)
    return plan_from("certify", told, partial(noise.radius, margin=told["margin"]))


def _design(procedure: Procedure) -> dict[str, Any]:
    """Return a stored procedure without what recertification noted in it."""
    return {name: value for name, value in procedure.raw.items() if name != "decided"}


def write_recertified(folder: Place, store: Store, answers: CertifiedCounts, procedure: dict[str, Any]) -> None:
    """Keep recomputed certificates as a store of their own, with the counts they come from."""
    columns = {"prediction": pa.array(answers.prediction), "radius": pa.array(answers.radius)}
    if _knows_labels(procedure) and not _knows_labels(store.identity.procedure.raw):
        columns["tallies"] = add_label_looks(store.records.column("tallies"), store.column("label"))
    write_again(folder, store, columns, procedure=procedure)


def write_again(folder: Place, store: Store, columns: Mapping[str, Any], **changes: Any) -> None:
    """Keep a store's records with other answers, computed again from what they hold, as a store of their own.

    Args:
        columns: the columns of the records that take the place of the stored ones. changes: of the identity.
    Raises:
        StoreError: the store is not complete.
    """
    if not store.complete:
        raise StoreError(f"{store.folder} is not complete: finish its run first, or leave out -o to look at what is "
                         f"there")
    records = store.records
    for name, values in columns.items():
        records = records.set_column(records.schema.get_field_index(name), records.schema.field(name), values)
    write_table(folder, store.identity.replace(**changes, recertified_from=store.identity.digest),
                {**store.provenance.raw, "recertified_with": provenance()["versions"]}, records)
    if source := read_source(store.folder):
        write_source(folder, source)


def _knows_labels(procedure: dict[str, Any]) -> bool:
    """Return whether the label is the first look of a claim's records."""
    return bool((procedure.get("claim") or {}).get("labels_known"))


def noise_of(store: Store, part: Any = None) -> Noise:
    """Return the noise that a store's counts were drawn with.

    Args:
        part: the noise's class, or the place of its code, where it is the user's own; not needed where the user has
            named it in this process already. Code that a store alone names is never run.
    Raises:
        InputError: it is needed and missing, or is another one than the store's.
    """
    told = store.identity.noise
    part = NOISES.given(told.kind) if part is None and told.sources else part
    if part is None and told.sources and told.kind not in NOISES:
        raise InputError(f"{store.folder} was made with noise of a user's own code, {told.kind}: give the place of "
                         f"that code as noise, FILE.py:NAME or package.module:NAME")
    if part is None:
        NOISES.registered(told.kind)
    chosen = told.kind if part is None else part
    if NOISES.label(chosen) != told.kind or NOISES.identify(chosen).get("sources", {}) != told.sources:
        raise InputError(f"{store.folder} was made with noise {told.kind}, and {NOISES.label(chosen)} here is another "
                         f"one, or its code has changed since")
    return build_noise(chosen, told.sigma, told.raw.get("levels", 255), told.reach or 1.0)


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
    if store.identity.transferred_from is not None:
        raise StoreError(f"{store.folder} was transferred: its votes are of the original network, and no sample of its "
                         f"own: certify the network itself")
    if store.identity.procedure.design == "radii":
        raise StoreError(f"{store.folder} stopped sampling when its radii were decided, and this certificate needs an "
                         f"n that was fixed beforehand: take a run with --n or with --curve-loss")
    errors, n = errors_of(store.counts("estimate"), store.column("label"))
    if not n.any():
        raise StoreError(f"{store.folder} holds no votes, only answers: this needs the counts of a run")
    return np.where(n, errors, 1), np.maximum(n, 1)
