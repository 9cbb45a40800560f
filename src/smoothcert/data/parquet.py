"""Labelled inputs in parquet files: the hub's layout of images, raw bytes, lists of numbers, or columns of numbers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from smoothcert.data.base import ImageData
from smoothcert.data.reading import Reading
from smoothcert.data.splits import find_split
from smoothcert.data.tables import StoredRows, choose_columns, table_data
from smoothcert.errors import DataError, FileError
from smoothcert.limits import check_unpacked_size

_ROWS = 64  # read at a time: a few bytes of a file can stand for a long row, repeated


def load_parquet(path: Path, split: str, reading: Reading, num_classes: int | None) -> ImageData:
    """Return the inputs of a parquet file, or of the files of `split` in a folder.

    Raises FileError if nothing is there or a file is corrupt, InputError for a split that the folder lacks,
    DataError for content that cannot be used.
    """
    found = find_split(path, split, ".parquet")
    data = table_data(read_rows(found.files, reading), f"parquet:{path.resolve().name}", split, reading, num_classes)
    return replace(data, divided=found.divided)


def read_rows(files: list[Path], reading: Reading = Reading()) -> StoredRows:  # noqa: B008
    """Return the columns that are wanted of the files, one after the other. Raises FileError, DataError."""
    tables: list[pa.Table] = []
    for file in files:
        try:
            with pq.ParquetFile(file) as stored:
                tables.append(_read_columns(file, stored, reading))
        except (pa.ArrowException, OSError, ValueError, LookupError, TypeError, MemoryError) as error:
            raise FileError(f"{file} cannot be read as a parquet file: {error}") from error
    return join_rows(tables, files)


def join_rows(tables: list[pa.Table], files: list[Path]) -> StoredRows:
    """Return the tables of several files as one. Raises DataError if they differ in their columns."""
    try:
        table = pa.concat_tables(tables)
    except pa.ArrowException as error:
        raise DataError(f"{files[0]} and the files after it differ in their columns: {error}") from error
    starts = np.cumsum([0, *(len(part) for part in tables[:-1])])
    return StoredRows(table, tuple(map(str, files)), tuple(starts.tolist()))


def _read_columns(file: Path, stored: pq.ParquetFile, reading: Reading) -> pa.Table:
    """Return the columns that are wanted of a file, read in parts, so that endless unpacking is stopped.

    The sizes that its footer claims are not used: pyarrow ends the process over some that are wrong.
    """
    size, schema = file.stat().st_size, stored.schema_arrow
    wanted = choose_columns(schema, str(file), reading).wanted
    batches, total = [], 0
    for batch in stored.iter_batches(_ROWS, columns=[name for name in schema.names if name in wanted]):
        total += batch.nbytes
        check_unpacked_size(file, size, total)
        batches.append(batch)
    return pa.Table.from_batches(batches, pa.schema([f for f in schema if f.name in wanted], schema.metadata))
