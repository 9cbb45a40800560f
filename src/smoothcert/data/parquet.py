"""Labelled images in parquet files: the hub's layout, raw bytes, or pixel arrays as lists.

The columns of images and labels are read into memory as they are stored; images are decoded when asked for.
"""

import bisect
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from smoothcert.data.arrays import ArraySource, channels_first
from smoothcert.data.base import ImageData, PixelSource, resolve_classes
from smoothcert.data.columns import SHAPE_COLUMN, choose_columns, class_names, is_encoded, label_array, pixel_array
from smoothcert.data.encoded import EncodedSource, survey
from smoothcert.data.preprocess import Preprocess
from smoothcert.errors import DataError, FileError, InputError
from smoothcert.limits import unfolds_to

_ROWS = 64  # read at a time: a few bytes of a file can stand for a long row, repeated


@dataclass(frozen=True)
class Rows:
    """A table, and the files its rows came from: file f holds the rows from starts[f] on."""

    table: pa.Table
    files: tuple[str, ...]
    starts: tuple[int, ...] = (0,)

    def where(self, index: int) -> str:
        """Row `index` as "row 5 of test.parquet", counted from 0 within its file."""
        file = bisect.bisect_right(self.starts, index) - 1
        return f"row {index - self.starts[file]} of {self.files[file]}"


class ParquetBlobs:
    """The encoded images of a column of bytes, or of the hub's structs {bytes, path}."""

    def __init__(self, column: pa.ChunkedArray, rows: Rows):
        is_struct = pa.types.is_struct(column.type)
        self._bytes: Any = pc.call_function("struct_field", [column], pc.StructFieldOptions(["bytes"])) \
            if is_struct else column
        self.where = rows.where

    def __len__(self) -> int:
        return len(self._bytes)

    def open(self, index: int) -> BinaryIO:
        """The encoded image in memory. Raises DataError where the row holds no bytes."""
        content = self._bytes[index].as_py()
        if content is None:
            raise DataError(f"{self.where(index)} holds no image bytes; a path alone is not followed")
        return io.BytesIO(content)


def load_parquet(path: Path, split: str, preprocess: Preprocess, num_classes: int | None) -> ImageData:
    """A parquet file, or the files of `split` in a folder.

    Raises FileError where nothing is there or a file is corrupt, InputError for a split that the folder lacks,
    DataError for content that cannot be used.
    """
    if not path.exists():
        raise FileError(f"{path} does not exist; parquet:PATH takes a .parquet file or a folder of them")
    files = [path] if path.is_file() else split_files(path, split) or split_files(path / "data", split)
    if not files:
        splits = sorted({file.stem.split("-")[0] for pattern in ("*.parquet", "data/*.parquet")
                         for file in path.glob(pattern)})
        if not splits:
            raise FileError(f"{path} holds no .parquet files, nor does its folder data")
        raise InputError(f"{path} has no split {split!r}; the splits found: {', '.join(splits)}")
    return parquet_data(read_rows(files), f"parquet:{path.resolve().name}", split, preprocess, num_classes)


def split_files(folder: Path, split: str) -> list[Path]:
    """The files of one split in one folder, sorted: `{split}.parquet`, else all `{split}-*.parquet`."""
    whole = folder / f"{split}.parquet"
    return [whole] if whole.is_file() else sorted(folder.glob(f"{split}-*.parquet"))


def read_rows(files: list[Path]) -> Rows:
    """The image, label and shape columns of the files, one after the other. Raises FileError, DataError."""
    tables: list[pa.Table] = []
    for file in files:
        try:
            with pq.ParquetFile(file) as stored:
                tables.append(_image_columns(file, stored))
        except (pa.ArrowException, OSError, ValueError, LookupError, TypeError, MemoryError) as error:
            raise FileError(f"{file} cannot be read as a parquet file: {error}") from error
    try:
        table = pa.concat_tables(tables)
    except pa.ArrowException as error:
        raise DataError(f"{files[0]} and the files after it differ in their columns: {error}") from error
    starts = np.cumsum([0, *(len(part) for part in tables[:-1])])
    return Rows(table, tuple(map(str, files)), tuple(starts.tolist()))


def _image_columns(file: Path, stored: pq.ParquetFile) -> pa.Table:
    """The image, label and shape columns of a file, read in parts, so that one that unfolds without end is stopped.

    The sizes that its footer claims are left alone: pyarrow ends the process over some that are wrong.
    """
    size, schema = file.stat().st_size, stored.schema_arrow
    wanted = {*choose_columns(schema, str(file)), SHAPE_COLUMN}
    if twice := [name for name in wanted if schema.names.count(name) > 1]:
        raise DataError(f"{file} has several columns {twice[0]}: keep one")
    batches, total = [], 0
    for batch in stored.iter_batches(_ROWS, columns=[name for name in schema.names if name in wanted]):
        total += batch.nbytes
        unfolds_to(file, size, total)
        batches.append(batch)
    return pa.Table.from_batches(batches, pa.schema([f for f in schema if f.name in wanted], schema.metadata))


def parquet_data(rows: Rows, name: str, split: str, preprocess: Preprocess, num_classes: int | None,
                 known_classes: tuple[str, ...] | None = None) -> ImageData:
    """The images and labels of a table; `known_classes` goes before the names that the table gives its classes.

    Raises DataError for content that cannot be used.
    """
    schema = rows.table.schema
    image_column, label_column = choose_columns(schema, rows.files[0])
    if len(rows.table) == 0:
        raise DataError(f"{rows.files[0]} holds no images")
    labels = label_array(rows.table.column(label_column), label_column, rows.where)
    named = known_classes or class_names(schema, label_column)
    names = resolve_classes(labels, named, num_classes, rows.where)
    source, stored_as = _pixel_source(rows, image_column, preprocess)
    return ImageData(name, split, labels, names, source,
                     f"{len(labels)} images, stored as {stored_as}; preprocessing: {source.preprocessing}",
                     named=named is not None)


def _pixel_source(rows: Rows, image_column: str, preprocess: Preprocess) -> tuple[PixelSource, str]:
    """The images of a column, and in words how they are stored."""
    column = rows.table.column(image_column)
    if is_encoded(column.type):
        blobs = ParquetBlobs(column, rows)
        found = survey(blobs)
        return EncodedSource(blobs, found, preprocess), "/".join(found.formats)
    values = channels_first(pixel_array(rows.table, image_column, rows.where), rows.where(0))
    return ArraySource(values, rows.where, preprocess=preprocess), f"arrays of {values.dtype}"
