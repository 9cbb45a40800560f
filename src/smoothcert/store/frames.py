"""The records of a store as flat tables: of Arrow, pandas and polars."""

import json
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from smoothcert.errors import MissingExtraError

if TYPE_CHECKING:
    from smoothcert.store.store import Store

TALLIES = "tallies"
"""The column of nested votes."""


def flat_table(store: "Store") -> pa.Table:
    """Return a row for each record, without nested columns.

    The columns are those of the records (`index`, `label`, `prediction`, which is -1 for an abstention, and the values
    of the kind, such as `radius`), `correct` (the prediction is the label), and for each stage of sampling `STAGE_n`,
    the number of votes of its last look, `STAGE_top`, the class with the most of them, and `STAGE_top_votes`, their
    number; these are empty where the stage drew none. The metadata hold the store's identity, as JSON under
    "smoothcert".

    Of a regression, each end of the intervals has a column for each radius, such as `lower_0.25`, and the sketches are
    left out.

    Raises StoreError where the records are damaged.
    """
    table = store.records.drop_columns([TALLIES])
    table = _flat_ends(store, table) if store.kind == "regression" else table
    table = table.append_column("correct", pa.array(store.correct))
    looks = store.records.column(TALLIES).combine_chunks().flatten()
    for stage in looks.field("stage").unique().to_pylist() if len(looks) else []:
        counts = store.counts(stage)
        n, top = counts.sum(axis=1), counts.argmax(axis=1)
        votes = {"n": n, "top": top, "top_votes": counts.max(axis=1)}
        for name, values in votes.items():
            table = table.append_column(f"{stage}_{name}", pa.array(values, mask=n == 0))
    return table.replace_schema_metadata({"smoothcert": json.dumps(store.identity.raw)})


def _flat_ends(store: "Store", table: pa.Table) -> pa.Table:
    """Return a table with a column in place of each place in its lists of ends, and without sketches."""
    radii = store.identity.regression.radii
    for name in ("lower", "upper"):
        for radius, ends in zip(radii, store.lists(name, len(radii)).T, strict=True):
            table = table.append_column(f"{name}_{radius:g}", pa.array(ends))
    return table.drop_columns(["lower", "upper", "sketch"])


def to_pandas(store: "Store") -> Any:
    """Return `flat_table` as a pandas DataFrame. Raises MissingExtraError without pandas."""
    _need("pandas", "to_pandas")
    return flat_table(store).to_pandas()


def to_polars(store: "Store") -> Any:
    """Return `flat_table` as a polars DataFrame. Raises MissingExtraError without polars."""
    return _need("polars", "to_polars").from_arrow(flat_table(store))


def _need(package: str, method: str) -> Any:
    try:
        return import_module(package)
    except ImportError as error:
        raise MissingExtraError(package, "frames", f"{method}()") from error
