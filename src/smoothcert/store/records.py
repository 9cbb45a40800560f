"""Records: what is known of each image after sampling, and their form in parquet and in the journal.

A record is an image's, or, in other stores than those of `certify` and `predict`, that of an image and one of the run's
settings or outputs.
"""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pyarrow as pa

from smoothcert.errors import StoreError
from smoothcert.limits import CLASSES, VOTES, within
from smoothcert.stats import History, Look
from smoothcert.stats.histories import LABEL, count_samples

VALUES: dict[str, dict[str, pa.DataType]] = {
    "certify": {"radius": pa.float64()},
    "predict": {"p_value": pa.float64()},
    "attack": {
        "eps": pa.float64(), "times": pa.float64(), "m": pa.int64(), "steps": pa.int64(), "attacked": pa.int64(),
        "l2": pa.float64(), "linf": pa.float64(), "p_value": pa.float64(),
    },
    "distributional": {
        "form": pa.string(), "gamma": pa.float64(), "loss": pa.float64(), "cost": pa.float64(), "slope": pa.float64(),
        "mean": pa.float64(), "variance": pa.float64(), "steep": pa.float64(),
    },
    "multi-label": {"output": pa.int64(), "radius": pa.float64()},
    "regression": {
        "output": pa.int64(), "target": pa.float64(), "estimate": pa.float32(), "lower": pa.list_(pa.float32()),
        "upper": pa.list_(pa.float32()), "sketch": pa.list_(pa.float32()),
    },
}
"""The values that each kind of store keeps beside the prediction."""

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

    @property
    def samples(self) -> int:
        """The samples that were drawn: tallies are cumulative within a stage."""
        return count_samples((tally.stage, tally.n) for tally in self.tallies)

    def row(self) -> dict[str, Any]:
        """Return the record as a row of its shard."""
        return {
            "index": self.index, "label": self.label, "prediction": self.prediction, **self.values,
            "off_grid": self.off_grid, "tallies": [vars(tally) for tally in self.tallies],
        }

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Self:
        """Return the record of what `row` gives. Raises StoreError for anything else."""
        try:
            rest = dict(row)
            tallies = [Tally(**tally) for tally in rest.pop("tallies")]
            fixed = {name: rest.pop(name) for name in ("index", "label", "prediction", "off_grid")}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StoreError(f"a record is damaged ({type(error).__name__}: {error})") from None
        whole = [*(fixed[name] for name in ("index", "label", "prediction")),
                 *(number for tally in tallies for number in (tally.n, *_list(tally.classes), *_list(tally.counts)))]
        if not (all(type(number) is int and abs(number) < 2**53 for number in whole)
                and isinstance(fixed["off_grid"], bool) and all(isinstance(tally.stage, str) for tally in tallies)
                and set(rest) in map(set, VALUES.values())
                and all(value is None or type(value) in (int, float, str) or _are_floats(value)
                        for value in rest.values())):
            raise StoreError("a record is damaged: its values are of other types than a record's")
        return cls(values=rest, tallies=tallies, **fixed)


def _are_floats(value: Any) -> bool:
    return isinstance(value, list) and all(type(number) is float for number in value)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [None]


def schema(kind: str) -> pa.Schema:
    """Return the columns of a shard: index, label, prediction, the kind's values, off_grid, tallies."""
    return pa.schema([
        ("index", pa.int64()), ("label", pa.int64()), ("prediction", pa.int64()),
        *VALUES[kind].items(),
        ("off_grid", pa.bool_()), ("tallies", pa.list_(_TALLY)),
    ])


def dense_counts(tallies: pa.ChunkedArray, stage: str, num_classes: int) -> np.ndarray:
    """Return counts (M, K) int64 of the last look of `stage` in each record of a `tallies` column; 0 where none."""
    owner, looks = _looks(tallies)
    stages = looks.field("stage").dictionary_encode()
    wanted = np.flatnonzero(np.asarray(stages.dictionary.to_pylist(), dtype=object)[stages.indices.to_numpy()] == stage)
    votes = _votes(looks.take(pa.array(wanted)), num_classes)
    table = np.zeros((len(tallies), num_classes), dtype=np.int64)
    table[owner[wanted]] = votes  # in order, so that the last one stays
    return table


def histories(tallies: pa.ChunkedArray, num_classes: int) -> list[History]:
    """Return the looks of each record of a table's `tallies` column."""
    owner, looks = _looks(tallies)
    found: list[History] = [[] for _ in range(len(tallies))]
    for record, stage, votes in zip(owner, looks.field("stage").to_pylist(), _votes(looks, num_classes), strict=True):
        found[record].append(Look(stage, votes))
    return found


def add_label_looks(tallies: pa.ChunkedArray, labels: np.ndarray) -> pa.ChunkedArray:
    """Return a `tallies` column in which the label of each record, (M,), is its first look."""
    parts, start = [], 0
    for chunk in tallies.chunks:
        m, looks = len(chunk), chunk.flatten()
        offsets = chunk.offsets.to_numpy().astype(np.int64) - chunk.offsets[0].as_py()
        ones = pa.array(np.arange(m + 1), pa.int32())
        first = pa.StructArray.from_arrays([
            pa.array([LABEL] * m, pa.string()), pa.array(np.ones(m, np.int64)),
            pa.ListArray.from_arrays(ones, pa.array(labels[start : start + m], pa.int32())),
            pa.ListArray.from_arrays(ones, pa.array(np.ones(m, np.int64)))], fields=list(_TALLY))
        ends = offsets + np.arange(m + 1)
        order = np.full(ends[-1], -1)
        order[ends[:-1]] = np.arange(m)
        order[order < 0] = m + np.arange(len(looks))
        every = pa.concat_arrays([first, looks]).take(pa.array(order))
        parts.append(pa.ListArray.from_arrays(pa.array(ends, pa.int32()), every, type=tallies.type))
        start += m
    return pa.chunked_array(parts, type=tallies.type)


def _looks(tallies: pa.ChunkedArray) -> tuple[np.ndarray, pa.StructArray]:
    """Return (T,) the record of each tally of a column, and all tallies in a row. Raises StoreError for a gap."""
    flat = tallies.combine_chunks()
    looks = flat.flatten()
    if flat.null_count or looks.null_count or any(looks.field(name).null_count for name in looks.type.names):
        raise StoreError("the tallies of these records have gaps (null)")
    return np.repeat(np.arange(len(flat)), np.diff(flat.offsets.to_numpy())), looks


def _votes(looks: pa.StructArray, num_classes: int) -> np.ndarray:
    """Return counts (T, K) int64 of tallies. Raises StoreError where they contradict themselves."""
    within("the number of classes of these records", num_classes, CLASSES, "the store is damaged", StoreError)
    classes, counts = looks.field("classes"), looks.field("counts")
    lengths = np.diff(classes.offsets.to_numpy())
    named, given = classes.flatten(), counts.flatten()
    if named.null_count or given.null_count or not np.array_equal(lengths, np.diff(counts.offsets.to_numpy())):
        raise StoreError("the tallies of these records do not have one count for each class")
    columns, votes = named.to_numpy(), given.to_numpy()
    if len(columns) and not (0 <= columns.min() <= columns.max() < num_classes
                             and 0 <= votes.min() <= votes.max() <= VOTES):
        raise StoreError(f"the tallies of these records name classes outside [0, {num_classes}) or counts outside "
                         f"[0, {VOTES:,}]")
    dense = np.zeros((len(looks), num_classes), dtype=np.int64)
    dense[np.repeat(np.arange(len(looks)), lengths), columns] = votes
    if not np.array_equal(dense.sum(axis=1), looks.field("n").to_numpy()):
        raise StoreError("the tallies of these records do not add up to their n")
    return dense
