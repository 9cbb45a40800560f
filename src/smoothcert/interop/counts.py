"""Count files: the votes of a run as plain arrays in one `.npz`, from which its certificates are computed.

| array | shape | content |
|---|---|---|
| `label` | (M,) | true classes |
| `select`, `estimate` | (M, K) | votes that choose the class, and votes of fresh samples that bound it; or, instead: |
| `predict` | (M, K) | votes of PREDICT |
| `sigma` | () | noise level, in the data's units |
| `index` | (M,) | which images of the data set; 0, 1, 2, ... where absent |
| `alpha` | () | failure probability; 0.001 where absent |
| `method` | () | two-sided (where absent), cohen or t-certify |

Every image has as many votes as the others, in each stage: a sequential run's counts are not such a sample.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from smoothcert.checks import check_known, check_positive, check_probability
from smoothcert.errors import FileError, InputError, StoreError
from smoothcert.io.arrays import read_arrays
from smoothcert.io.files import make_folder, write_whole
from smoothcert.limits import CLASSES, VOTES, within
from smoothcert.stats import METHODS, certify_counts, predict_counts
from smoothcert.store.identity import Identity
from smoothcert.store.manifest import Provenance
from smoothcert.store.records import schema
from smoothcert.store.store import Store

ALPHA = 0.001
"""Taken where a count file does not say it."""

_CHUNK = 1 << 15

_STAGES = {"certify": ("select", "estimate"), "predict": ("predict",)}


def read_counts(path: Path, alpha: float | None = None) -> Store:
    """Read a count file as a store, and compute its answers from the votes.

    Args:
        alpha: failure probability of each answer, in place of the one in the file.
    Raises:
        FileError: no such file, or arrays missing, of other shapes, or with values that are not counts.
    """
    arrays = read_arrays(path)
    kind = "predict" if "predict" in arrays else "certify"
    if missing := [name for name in ("label", "sigma", *_STAGES[kind]) if name not in arrays]:
        raise FileError(f"{path} is not a count file: it has no array {', '.join(missing)}; it has {', '.join(arrays)}")
    label = _column(path, arrays, "label")
    index = _column(path, arrays, "index") if "index" in arrays else np.arange(len(label))
    stages = {stage: arrays[stage] for stage in _STAGES[kind]}
    for stage, counts in stages.items():
        _check_votes(path, stage, counts, len(label))
    k = within(f"{path}: the number of classes", next(iter(stages.values())).shape[1], CLASSES,
               "it is not a count file")
    told = {name: arrays[name] for name in ("sigma", "alpha", "method") if name in arrays}
    for name, value in told.items():
        if value.ndim:
            raise FileError(f"{path}: {name} must be one value, got an array of shape {value.shape}")
    if len(index) != len(label) or len(np.unique(index)) < len(index) or label.max(initial=0) >= k:
        raise FileError(f"{path}: index must name each of the {len(label)} images once, and labels lie below {k}")
    try:
        return _store(path, kind, index, label, stages, {name: one.item() for name, one in told.items()}, alpha)
    except InputError as error:
        raise FileError(f"{path}: {error}") from None


def write_counts(store: Store, path: Path) -> None:
    """Write the votes of a `certify` or `predict` store as a count file.

    Raises:
        StoreError: a store of another kind, without records, or without votes; or a sequential one.
    """
    if store.kind not in _STAGES or not store.num_records:
        raise StoreError(f"{store.folder} has no counts to write: it is a store of kind {store.kind} "
                         f"with {store.num_records} records")
    if store.provenance.log is not None:
        raise StoreError(f"{store.folder} is a log: it holds no votes, only answers")
    procedure = store.identity.procedure
    if procedure.design != "fixed":
        what = {"transfer": "was transferred from another run", "routed": "is composed of other runs"}.get(
            procedure.design, "is a sequential run")
        raise StoreError(f"{store.folder} {what}: a count file holds runs of one fixed n")
    stages = {stage: store.counts(stage) for stage in _STAGES[store.kind]}
    names = ("alpha", "method") if "estimate" in stages else ("alpha",)
    arrays: dict[str, Any] = {"index": store.column("index"), "label": store.column("label"), **stages,
                              "sigma": store.identity.noise.sigma, **{name: procedure.raw[name] for name in names}}
    make_folder(path.parent)

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)

    write_whole(path, write)


def _store(path: Path, kind: str, index: np.ndarray, label: np.ndarray, stages: dict[str, np.ndarray],
           told: dict[str, Any], alpha: float | None) -> Store:
    sigma = check_positive("sigma", told["sigma"])
    alpha = check_probability("alpha", told.get("alpha", ALPHA) if alpha is None else alpha)
    n = {stage: int(counts[0].sum()) if len(counts) else 0 for stage, counts in stages.items()}
    if "predict" in stages:
        answers = predict_counts(stages["predict"], alpha)
        prediction, value, procedure = answers.prediction, answers.p_value, {"method": "predict", "n": n["predict"]}
    else:
        method = check_known("method", told.get("method", next(iter(METHODS))), METHODS)
        certified = certify_counts(stages["select"], stages["estimate"], sigma, alpha, method)
        prediction, value = certified.prediction, certified.radius
        procedure = {"method": method, "n0": n["select"], "n": n["estimate"], "margin": None}
    table = pa.Table.from_arrays(
        [pa.array(index), pa.array(label), pa.array(prediction), pa.array(value), pa.array(np.zeros(len(index), bool)),
         _tallies(kind, stages)], schema=schema(kind))
    identity = Identity.parse({
        "kind": kind, "num_classes": next(iter(stages.values())).shape[1], "images": {"count": len(index)}, "data": {},
        "noise": {"kind": "gaussian", "sigma": sigma}, "procedure": {**procedure, "alpha": alpha},
    })
    return Store(path, identity, Provenance.model_validate({"counts": str(path)}), True, table)


def _tallies(kind: str, stages: dict[str, np.ndarray]) -> pa.ChunkedArray:
    """Return the `tallies` of records (see `records.schema`), some images at a time."""
    wanted = schema(kind).field("tallies").type
    images = len(next(iter(stages.values())))
    parts = [_some_tallies({name: votes[start : start + _CHUNK] for name, votes in stages.items()}).cast(wanted)
             for start in range(0, images, _CHUNK)]
    return pa.chunked_array(parts, type=wanted)


def _some_tallies(stages: dict[str, np.ndarray]) -> pa.Array:
    """Return the tallies of some images: each one's stages in order, without empty classes."""
    counts = np.stack(list(stages.values()), axis=1)  # (M, S, K)
    images, looks, k = counts.shape
    flat = counts.reshape(images * looks, k)
    offsets = pa.array(np.concatenate([[0], np.cumsum((flat > 0).sum(axis=1))]), pa.int32())
    rows, classes = np.nonzero(flat)
    struct = pa.StructArray.from_arrays(
        [pa.array(list(stages) * images, pa.string()), pa.array(flat.sum(axis=1)),
         pa.ListArray.from_arrays(offsets, pa.array(classes, pa.int32())),
         pa.ListArray.from_arrays(offsets, pa.array(flat[rows, classes]))], names=["stage", "n", "classes", "counts"])
    return pa.ListArray.from_arrays(pa.array(np.arange(images + 1) * looks, pa.int32()), struct)


def _column(path: Path, arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    values = arrays[name]
    if values.ndim != 1 or values.dtype.kind not in "iu" or (values < 0).any():
        raise FileError(f"{path}: {name} must hold whole numbers of at least 0, shape (M,), got {values.dtype} "
                        f"of shape {values.shape}")
    return values.astype(np.int64)


def _check_votes(path: Path, stage: str, counts: np.ndarray, images: int) -> None:
    if counts.ndim != 2 or len(counts) != images or counts.dtype.kind not in "iu" or (counts < 0).any():
        raise FileError(f"{path}: {stage} must hold whole numbers of at least 0, shape ({images}, K), "
                        f"got {counts.dtype} of shape {counts.shape}")
    within(f"{path}: the votes for one class in {stage}", int(counts.max(initial=0)), VOTES, "these are not counts")
    if images and len(np.unique(counts.sum(axis=1))) > 1:
        raise FileError(f"{path}: the images have different numbers of votes in {stage}: a count file holds runs of "
                        f"one fixed n")
