"""Labelled images in parquet files: the hub's layout, raw bytes, or pixel arrays as lists.

The columns of images and labels are read into memory as they are stored; images are decoded when they are used.
"""

import bisect
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from smoothcert.data.arrays import ArraySource, channels_first
from smoothcert.data.base import ImageData, PixelSource, resolve_classes
from smoothcert.data.columns import (
    SHAPE_COLUMN,
    choose_columns,
    class_names,
    is_encoded,
    is_string,
    label_array,
    pixel_array,
    storage,
)
from smoothcert.data.encoded import EncodedSource, survey
from smoothcert.data.preprocess import Preprocess
from smoothcert.errors import DataError, FileError, InputError
from smoothcert.limits import IMAGE_BYTES, check_unpacked_size, open_bounded

_ROWS = 64  # read at a time: a few bytes of a file can stand for a long row, repeated


@dataclass(frozen=True)
class StoredRows:
    """A table, and the files that its rows came from: file f holds the rows from starts[f] on."""

    table: pa.Table
    files: tuple[str, ...]
    starts: tuple[int, ...] = (0,)

    def where(self, index: int) -> str:
        """Return row `index` as "row 5 of test.parquet", counted from 0 within its file."""
        return f"row {index - self.starts[self._place(index)]} of {self.file(index)}"

    def file(self, index: int) -> str:
        """Return the file that row `index` came from."""
        return self.files[self._place(index)]

    def _place(self, index: int) -> int:
        return bisect.bisect_right(self.starts, index) - 1


class ParquetBlobs:
    """The encoded images of a column: bytes, paths, or the hub's structs {bytes, path}, bytes preferred."""

    def __init__(self, column: pa.ChunkedArray, rows: StoredRows) -> None:
        self._column = column
        self._rows = rows
        self.where = rows.where

    def __len__(self) -> int:
        return len(self._column)

    def open(self, index: int) -> BinaryIO:
        """Return the encoded image, from memory or from the file that its path names.

        Raises DataError if the row holds neither bytes nor a path that may be followed, FileError if the file cannot be
        read.
        """
        stored: Any = self._column[index].as_py()
        if isinstance(stored, dict):
            stored = stored.get("path") if stored.get("bytes") is None else stored["bytes"]
        if stored is None or stored == "":
            raise DataError(f"{self.where(index)} holds no image: neither bytes nor a path")
        if isinstance(stored, bytes):
            return io.BytesIO(stored)
        try:
            return open_bounded(self._follow(stored, index), IMAGE_BYTES)
        except FileError as error:
            raise FileError(f"{self.where(index)} holds no image bytes, but a path: {error}") from None

    def _follow(self, path: str, index: int) -> Path:
        """Return the file that a row's path names: a relative path is in the parquet file's folder."""
        if "://" in path:
            raise DataError(f"{self.where(index)} holds the address {path!r} and no image bytes: only files are read; "
                            f"download the images, or store their bytes")
        if os.path.normpath(path).split(os.sep)[0] == os.pardir:
            raise DataError(f"{self.where(index)} holds the path {path!r}, which leads out of the folder of its "
                            f"parquet file: move that up, or store the images' bytes")
        return Path(self._rows.file(index)).parent / path


def load_parquet(path: Path, split: str, preprocess: Preprocess, num_classes: int | None) -> ImageData:
    """Return the images of a parquet file, or of the files of `split` in a folder.

    Raises FileError if nothing is there or a file is corrupt, InputError for a split that the folder lacks,
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
    """Return the files of one split in one folder, sorted: `{split}.parquet`, else all `{split}-*.parquet`."""
    whole = folder / f"{split}.parquet"
    return [whole] if whole.is_file() else sorted(folder.glob(f"{split}-*.parquet"))


def read_rows(files: list[Path]) -> StoredRows:
    """Return the image, label and shape columns of the files, one after the other. Raises FileError, DataError."""
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
    return StoredRows(table, tuple(map(str, files)), tuple(starts.tolist()))


def _image_columns(file: Path, stored: pq.ParquetFile) -> pa.Table:
    """Return the image, label and shape columns of a file, read in parts, so that endless unpacking is stopped.

    The sizes that its footer claims are not used: pyarrow ends the process over some that are wrong.
    """
    size, schema = file.stat().st_size, stored.schema_arrow
    wanted = {*choose_columns(schema, str(file)), SHAPE_COLUMN}
    if twice := [name for name in wanted if schema.names.count(name) > 1]:
        raise DataError(f"{file} has several columns {twice[0]}: keep one")
    batches, total = [], 0
    for batch in stored.iter_batches(_ROWS, columns=[name for name in schema.names if name in wanted]):
        total += batch.nbytes
        check_unpacked_size(file, size, total)
        batches.append(batch)
    return pa.Table.from_batches(batches, pa.schema([f for f in schema if f.name in wanted], schema.metadata))


def parquet_data(rows: StoredRows, name: str, split: str, preprocess: Preprocess, num_classes: int | None,
                 known_classes: tuple[str, ...] | None = None) -> ImageData:
    """Return the images and labels of a table; `known_classes` replaces the names that the table gives its classes.

    Raises DataError for content that cannot be used.
    """
    schema = rows.table.schema
    image_column, label_column = choose_columns(schema, rows.files[0])
    if len(rows.table) == 0:
        raise DataError(f"{rows.files[0]} holds no images")
    known = known_classes or class_names(schema, label_column)
    labels, found = label_array(rows.table, label_column, rows.where, known)
    named = known or found
    names = resolve_classes(labels, named, num_classes, rows.where)
    source, stored_as = _pixel_source(rows, image_column, preprocess)
    return ImageData(name, split, labels, names, source,
                     f"{len(labels)} images, stored as {stored_as}; preprocessing: {source.preprocessing}",
                     named=named is not None)


def _pixel_source(rows: StoredRows, image_column: str, preprocess: Preprocess) -> tuple[PixelSource, str]:
    """Return the images of a column, and how they are stored in words."""
    column = rows.table.column(image_column)
    if is_encoded(column.type) or is_string(storage(column.type)):
        blobs = ParquetBlobs(column, rows)
        found = survey(blobs)
        return EncodedSource(blobs, found, preprocess), "/".join(found.formats)
    values = channels_first(pixel_array(rows.table, image_column, rows.where), rows.where(0))
    return ArraySource(values, rows.where, preprocess=preprocess), f"arrays of {values.dtype}"
