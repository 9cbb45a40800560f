"""A store as one parquet file for pandas, polars or DuckDB: a row a record, the votes in flat columns and as stored."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from smoothcert.errors import StoreError
from smoothcert.io.files import make_folder, write_whole
from smoothcert.store.store import Store


def write_flat(store: Store, path: Path) -> None:
    """Write the records of any kind of store, with columns that need no list to be taken apart.

    `correct` is whether the prediction is the label. Of each stage of sampling, `STAGE_n` is how many votes its last
    look has, `STAGE_top` the class with the most of them, and `STAGE_top_votes` their number; nothing where the stage
    drew none. The file's metadata hold the store's identity, as JSON under "smoothcert".
    Raises StoreError where there are no records.
    """
    if not store.num_records:
        raise StoreError(f"{store.folder} has no records to write")
    table = store.records.append_column("correct", pa.array(store.correct))
    for stage in _stages(store):
        counts = store.counts(stage)
        n, top = counts.sum(axis=1), counts.argmax(axis=1)
        votes = {"n": n, "top": top, "top_votes": counts.max(axis=1)}
        for name, values in votes.items():
            table = table.append_column(f"{stage}_{name}", pa.array(values, mask=n == 0))
    order = [*(name for name in table.column_names if name != "tallies"), "tallies"]
    table = table.select(order).replace_schema_metadata({"smoothcert": json.dumps(store.identity)})
    make_folder(path.parent)
    write_whole(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))


def _stages(store: Store) -> list[str]:
    """The stages of sampling that any record has, in the order in which they are met."""
    looks = store.records.column("tallies").combine_chunks().flatten()
    return looks.field("stage").unique().to_pylist() if len(looks) else []
