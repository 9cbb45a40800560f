"""A store of many records with random votes, made from count files: record by record it would take too long."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from smoothcert.interop import read_counts
from smoothcert.io.files import sha256
from smoothcert.store.identity import Identity
from smoothcert.store.manifest import Manifest, Provenance, ShardEntry
from smoothcert.store.store import SHARD, shard_name

CLASSES, N0, N, SIGMA = 10, 100, 100_000, 0.5
_PART = 256 * SHARD


def write_many(folder: Path, images: int) -> None:
    """A finished certify store, as a run would have left it."""
    folder.mkdir()
    rng, shards = np.random.default_rng(0), list[ShardEntry]()
    for start in range(0, images, _PART):
        records = certified(folder / "part.npz", np.arange(start, min(start + _PART, images)), rng)
        for first in range(0, len(records), SHARD):
            path, part = folder / shard_name(len(shards)), records.slice(first, SHARD)
            pq.write_table(part, path, compression="zstd")
            shards.append(ShardEntry.model_validate(
                {"name": path.name, "records": len(part), "sha256": sha256(path)}))
    identity = {
        "kind": "certify", "model": {"by": "module", "sha256": ""}, "num_classes": CLASSES,
        "data": {"name": "random", "split": "test", "shape": [3, 32, 32], "sha256": ""},
        "images": {"count": images, "start": 0, "every": 1}, "seed": 0,
        "noise": {"kind": "grid", "format": "sfc64-v1", "sigma": SIGMA, "levels": 255, "exponent": 12, "reach": 1.0},
        "procedure": {"alpha": 0.001, "method": "two-sided", "n0": N0, "n": N, "margin": None},
        "space": "pixels", "engine": "eager", "precision": "float32", "device": "cpu",
    }
    Manifest(Identity.parse(identity), Provenance.model_validate({"versions": {}}), shards, complete=True).write(folder)


def certified(file: Path, index: np.ndarray, rng: np.random.Generator) -> pa.Table:
    """The records of images `index`, from votes that favour the label, some more, some less."""
    label = rng.integers(0, CLASSES, len(index))
    p = rng.dirichlet(np.full(CLASSES, 1 / 8), len(index))
    p[np.arange(len(index)), label] += rng.exponential(2, len(index))
    p /= p.sum(axis=1, keepdims=True)
    np.savez(file, index=index, label=label, select=rng.multinomial(N0, p), estimate=rng.multinomial(N, p),
             sigma=SIGMA)
    records = read_counts(file).records
    file.unlink()
    return records
