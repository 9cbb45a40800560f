"""Records: what is known of each image after sampling, and their form in parquet and in the journal.

A record is an image's, or, in an attack store, that of an image and one of the settings it was attacked with.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from smoothcert.errors import StoreError
from smoothcert.stats import History, Look

VALUES: dict[str, dict[str, pa.DataType]] = {
    "certify": {"radius": pa.float64()},
    "predict": {"p_value": pa.float64()},
    "attack": {
        "eps": pa.float64(), "times": pa.float64(), "m": pa.int64(), "steps": pa.int64(), "attacked": pa.int64(),
        "l2": pa.float64(), "linf": pa.float64(), "p_value": pa.float64(),
    },
}
"""What each kind of store keeps beside the prediction."""

_TALLY = pa.struct([
    ("stage", pa.string()), ("n", pa.int64()), ("classes", pa.list_(pa.int32())), ("counts", pa.list_(pa.int64())),
])


@dataclass(frozen=True)
class Tally:
    """The votes at one look of a stage (all so far), sparse: classes with at least one vote, and their counts."""

    stage: str
    n: int
    classes: list[int]
    counts: list[int]

    @classmethod
    def of(cls, stage: str, counts: Any) -> Self:
        dense = np.asarray(counts)
        classes = np.flatnonzero(dense)
        return cls(stage, int(dense.sum()), classes.tolist(), dense[classes].tolist())


@dataclass(frozen=True)
class Record:
    """One image: its index and label, the answer (-1 = abstain) with its `values`, and the tallies behind it.

    `values` are those of `VALUES`; None where a kind's value does not apply.
    """

    index: int
    label: int
    prediction: int
    values: dict[str, Any]
    off_grid: bool
    tallies: list[Tally] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        return {
            "index": self.index, "label": self.label, "prediction": self.prediction, **self.values,
            "off_grid": self.off_grid, "tallies": [vars(tally) for tally in self.tallies],
        }

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Self:
        rest = dict(row)
        tallies = [Tally(**tally) for tally in rest.pop("tallies")]
        fixed = {name: rest.pop(name) for name in ("index", "label", "prediction", "off_grid")}
        return cls(values=rest, tallies=tallies, **fixed)


def schema(kind: str) -> pa.Schema:
    """Columns of a shard: index, label, prediction, the kind's values, off_grid, tallies."""
    return pa.schema([
        ("index", pa.int64()), ("label", pa.int64()), ("prediction", pa.int64()),
        *VALUES[kind].items(),
        ("off_grid", pa.bool_()), ("tallies", pa.list_(_TALLY)),
    ])


def write_shard(path: Path, kind: str, records: list[Record]) -> None:
    """One parquet file, the same bytes for the same records."""
    table = pa.Table.from_pylist([record.row() for record in records], schema=schema(kind))
    pq.write_table(table, path, compression="zstd")


def read_shard(path: Path, kind: str) -> pa.Table:
    """The table of a shard, or StoreError where it is corrupt or of other columns."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"the shard {path} is missing or corrupt: {error}") from None
    if not table.schema.equals(schema(kind)):
        raise StoreError(f"the shard {path} has other columns than a {kind} store: {table.schema.names}")
    return table


def dense_counts(tallies: pa.ChunkedArray, stage: str, num_classes: int) -> np.ndarray:
    """Counts (M, K) int64 of the last look of `stage` in each record of a table's `tallies` column; 0 where none."""
    owner, stages, counts = _dense(tallies, num_classes)
    table = np.zeros((len(tallies), num_classes), dtype=np.int64)
    wanted = stages == stage
    table[owner[wanted]] = counts[wanted]  # in order, so that the last one stays
    return table


def histories(tallies: pa.ChunkedArray, num_classes: int) -> list[History]:
    """The looks of each record of a table's `tallies` column."""
    owner, stages, counts = _dense(tallies, num_classes)
    found: list[History] = [[] for _ in range(len(tallies))]
    for record, stage, votes in zip(owner, stages, counts, strict=True):
        found[record].append(Look(stage, votes))
    return found


def _dense(tallies: pa.ChunkedArray, num_classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every tally: its record (T,), its stage (T,) and its counts (T, K)."""
    flat = tallies.combine_chunks()
    owner = np.repeat(np.arange(len(flat)), np.diff(flat.offsets.to_numpy()))
    every = flat.flatten()
    classes, counts = every.field("classes"), every.field("counts")
    lengths = np.diff(classes.offsets.to_numpy())
    columns, votes = classes.flatten().to_numpy(), counts.flatten().to_numpy()
    if len(columns) != len(votes) or (len(columns) and not 0 <= columns.min() <= columns.max() < num_classes):
        raise StoreError(f"the tallies of these records name classes outside [0, {num_classes})")
    dense = np.zeros((len(every), num_classes), dtype=np.int64)
    dense[np.repeat(np.arange(len(every)), lengths), columns] = votes
    if not np.array_equal(dense.sum(axis=1), every.field("n").to_numpy()):
        raise StoreError("the tallies of these records do not add up to their n")
    return owner, np.asarray(every.field("stage").to_pylist(), dtype=object), dense
