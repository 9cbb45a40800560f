"""Labelled inputs in the columns of a table, however it is stored: images, or numbers and lists of numbers.

A table is read into memory as it is stored; images are decoded when they are used.
"""

import bisect
import io
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from smoothcert.checks import split_commas, suggestion
from smoothcert.data.arrays import (
    ArraySource,
    TensorSource,
    channels_first,
    find_faults,
    is_image_shape,
    list_faults,
)
from smoothcert.data.base import ImageData, PixelSource, resolve_classes
from smoothcert.data.columns import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    PATH_COLUMNS,
    SHAPE_COLUMN,
    class_names,
    is_encoded,
    is_list,
    is_number,
    is_string,
    label_array,
    number_array,
    pandas_index,
    pixel_array,
    storage,
)
from smoothcert.data.encoded import EncodedSource, survey
from smoothcert.data.reading import Reading
from smoothcert.data.targets import real_data
from smoothcert.data.tensor_types import tensor_type
from smoothcert.errors import ColumnsWarning, DataError, FileError
from smoothcert.limits import IMAGE_BYTES, open_bounded

_NUMBERING = re.compile(r"|Unnamed: \d+|__index_level_\d+__|index|(row_?)?id", re.IGNORECASE)
"""Names of a column that numbers the rows, given by pandas or by hand."""


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


@dataclass(frozen=True)
class TableColumns:
    """The columns of a table that are read.

    Attributes:
        inputs: one of images or of tensors, or several that are put together.
        labels: of the labels; several only where they are real values, or say of each of several labels if it is there.
        images: whether the one of `inputs` may hold images.
    """

    inputs: tuple[str, ...]
    labels: tuple[str, ...]
    images: bool

    @property
    def wanted(self) -> set[str]:
        """The names of the columns to read."""
        return {*self.inputs, *self.labels, *({SHAPE_COLUMN} if self.images else ())}


def choose_columns(schema: pa.Schema, file: str, reading: Reading) -> TableColumns:
    """Return the columns of inputs and labels: those that are asked for; else one of images or lists; else all that
    hold numbers.

    Raises DataError where they are not there, or are there twice; it names the columns of the table. Warns with
    ColumnsWarning of columns that are left out, though none was asked for.
    """
    listed = ", ".join(f"{field.name} ({field.type})" for field in schema)
    labels = () if reading.label is None else (reading.label,)
    if reading.real and reading.label is not None and reading.label not in schema.names:
        labels = tuple(split_commas(reading.label))
    asked = [*(reading.features or ()), *labels]
    if absent := [name for name in asked if name not in schema.names]:
        named = ", ".join(f"{name}{suggestion(name, schema.names)}" for name in absent)
        raise DataError(f"{file} has no column {named}; its columns: {listed}")
    if again := sorted({name for name in asked if asked.count(name) > 1}):
        raise DataError(f"{', '.join(again)}: give each column of the features and of the labels once")
    labels = labels or tuple(name for name in LABEL_COLUMNS if name in schema.names and name not in asked)[:1]
    if not labels:
        if used := [name for name in asked if name in LABEL_COLUMNS]:
            raise DataError(f"{file} has no label column beside the features, of which {used[0]} is one: leave it out "
                            f"of them, or name another, --label COLUMN; its columns: {listed}")
        raise DataError(f"{file} has no label column ({', '.join(LABEL_COLUMNS)}): name it, --label COLUMN; its "
                        f"columns: {listed}")
    fields = {field.name: field for field in schema if field.name not in labels}
    if reading.features:
        kind = storage(fields[reading.features[0]].type)
        alone = len(reading.features) == 1 and (is_encoded(kind) or is_string(kind))
        columns = TableColumns(tuple(reading.features), labels, alone)
    elif images := _image_columns(fields):
        if len(images) > 1 and images[0] not in IMAGE_COLUMNS:
            raise DataError(f"{file} has several columns that could be images ({', '.join(images)}): call the right "
                            f"one image, or name those to use, --features COLUMN,COLUMN; its columns: {listed}")
        columns = TableColumns((images[0],), labels, True)
    else:
        index = pandas_index(schema)
        numbers = tuple(name for name, field in fields.items()
                        if is_number(field.type) and not _NUMBERING.fullmatch(name) and name not in index)
        paths = tuple(name for name in PATH_COLUMNS if name in fields and is_string(storage(fields[name].type)))[:1]
        if not (numbers or paths):
            raise DataError(f"{file} has no image column (one of encoded bytes, of lists of pixels, or of paths, such "
                            f"as image or {PATH_COLUMNS[0]}) and no column of numbers beside the label: name the "
                            f"column of paths, --features COLUMN; its columns: {listed}")
        inputs, wanted = (numbers, "numbers") if numbers else (paths, "paths of images")
        if left_out := [name or "the unnamed column" for name in fields if name not in inputs]:
            warnings.warn(f"{file}: left out {', '.join(left_out)}, which hold no {wanted}, or number the rows; "
                          f"--features names the columns to use", ColumnsWarning, stacklevel=2)
        columns = TableColumns(inputs, labels, not numbers)
    if twice := [name for name in sorted(columns.wanted) if schema.names.count(name) > 1]:
        raise DataError(f"{file} has several columns {', '.join(twice)}: keep one of each")
    return columns


def _image_columns(fields: dict[str, pa.Field]) -> list[str]:
    """Return the columns that may hold images: those with the name of one, else all of lists or encoded images."""
    found = [name for name, field in fields.items()
             if name not in (*LABEL_COLUMNS, SHAPE_COLUMN) and _may_be_images(field)]
    return [name for name in IMAGE_COLUMNS if name in found] or found


def _may_be_images(field: pa.Field) -> bool:
    kind = storage(field.type)
    if pa.types.is_null(field.type):
        return False
    text = is_string(kind) and field.name in IMAGE_COLUMNS
    return text or is_encoded(kind) or is_list(kind) or tensor_type(field) is not None


def table_data(rows: StoredRows, name: str, split: str, reading: Reading, num_classes: int | None,
               known_classes: tuple[str, ...] | None = None) -> ImageData:
    """Return the inputs and labels of a table; `known_classes` replaces the names that the table gives its classes.

    Raises DataError for content that cannot be used, with all columns that cannot.
    """
    schema = rows.table.schema
    columns = choose_columns(schema, rows.files[0], reading)
    if len(rows.table) == 0:
        raise DataError(f"{rows.files[0]} holds no images or other inputs")
    read_inputs = _one_column if columns.images else _stacked
    if reading.real and known_classes is None:
        return real_data(name, split, _targets(rows, columns.labels), *read_inputs(rows, columns, reading))
    (label,) = columns.labels
    known = known_classes or class_names(schema, label)
    labels, found = label_array(rows.table, label, rows.where, known)
    named = known or found
    names = resolve_classes(labels, named, num_classes, rows.where)
    source, stored_as = read_inputs(rows, columns, reading)
    return ImageData(name, split, labels, names, source,
                     f"{len(labels)} inputs, stored as {stored_as}; preprocessing: {source.preprocessing}",
                     named=named is not None)


def _targets(rows: StoredRows, names: tuple[str, ...]) -> np.ndarray:
    """Return the real values (N,) or (N, M) of one column, or (N, M) of M columns of numbers."""
    arrays = [number_array(rows.table, name, rows.where) for name in names]
    if len(arrays) == 1:
        return arrays[0]
    if lists := [name for name, array in zip(names, arrays, strict=True) if array.ndim > 1]:
        raise DataError(f"{', '.join(lists)}: several label columns must hold a number a row, and these hold lists: "
                        f"give one column of lists alone, or columns of numbers")
    return np.stack(arrays, axis=1)


def _one_column(rows: StoredRows, columns: TableColumns, reading: Reading) -> tuple[PixelSource, str]:
    """Return the images or tensors of a column, and how they are stored in words."""
    name = columns.inputs[0]
    column = rows.table.column(name)
    if is_encoded(column.type) or is_string(storage(column.type)):
        reading.refuse(("resize", "crop", "features", "label"), f"the column {name} of encoded images")
        blobs = ColumnBlobs(column, rows)
        found = survey(blobs)
        return EncodedSource(blobs, found, reading.preprocess), "/".join(found.formats)
    values = pixel_array(rows.table, name, rows.where)
    is_image = name in IMAGE_COLUMNS or is_image_shape(values.shape[1:])
    if not (is_image and reading.may_be_images):
        return TensorSource(values, rows.where, reading), f"arrays of {values.dtype}"
    images = channels_first(values, rows.where(0))
    return (ArraySource(images, rows.where, levels=reading.levels or 255, preprocess=reading.preprocess),
            f"arrays of {values.dtype}")


def _stacked(rows: StoredRows, columns: TableColumns, reading: Reading) -> tuple[PixelSource, str]:
    """Return the tensors that columns make together, and how they are stored in words.

    One column of lists is taken as it is stored; several columns, of numbers or of lists of one shape, become the first
    axis of the inputs.
    """
    arrays: dict[str, np.ndarray] = {}
    faults: list[str] = []
    for name in columns.inputs:
        try:
            arrays[name] = number_array(rows.table, name, rows.where)
        except DataError as error:
            faults.append(f"{name}: {error}")
    shapes = {array.shape[1:]: name for name, array in arrays.items()}
    if len(shapes) > 1:
        told = (f"{name} holds {f'lists of shape {shape}' if shape else 'numbers'}" for shape, name in shapes.items())
        faults.append(f"columns that are used together must hold numbers, or lists of one shape: {', '.join(told)}")
    if faults:
        faults += [f"{name}: {fault}" for name, array in arrays.items()
                   for fault in find_faults(array, rows.where, reading.tensor_bounds)]
        raise DataError(list_faults(f"columns of {rows.files[0]}", faults))
    alone = len(shapes) == len(arrays) == 1 and () not in shapes
    values = arrays[columns.inputs[0]] if alone else np.stack(list(arrays.values()), axis=1)
    source = TensorSource(values, rows.where, reading, () if alone else columns.inputs)
    return source, f"the columns {', '.join(columns.inputs)}"


class ColumnBlobs:
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
            stored = stored.get("bytes") or stored.get("path")
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
                            f"table: move that up, or store the images' bytes")
        return Path(self._rows.file(index)).parent / path
