"""What the columns of an image table mean: which hold images and labels, the class names, lists as arrays."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smoothcert.errors import DataError, FileError
from smoothcert.limits import from_json

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label", "y", "target")
SHAPE_COLUMN = "shape"


def is_encoded(kind: pa.DataType) -> bool:
    """Whether values of this type are encoded images: raw bytes, or the hub's struct of bytes and path."""
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def is_list(kind: pa.DataType) -> bool:
    """Whether values of this type are lists, of any sort, of fixed size or not."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def choose_columns(schema: pa.Schema, file: str) -> tuple[str, str]:
    """(image column, label column) of a table. Raises DataError naming the columns that are there."""
    labels = [name for name in LABEL_COLUMNS if name in schema.names]
    usable = [field.name for field in schema if field.name not in (*LABEL_COLUMNS, SHAPE_COLUMN)
              and (is_encoded(_storage(field.type)) or is_list(_storage(field.type)))]
    images = [name for name in IMAGE_COLUMNS if name in usable] or usable
    found = ", ".join(f"{field.name} ({field.type})" for field in schema)
    if not labels:
        raise DataError(f"{file} has no label column ({', '.join(LABEL_COLUMNS)}); its columns: {found}")
    if not images:
        raise DataError(f"{file} has no image column: one of encoded bytes or of lists of pixels; its columns: {found}")
    if len(images) > 1 and images[0] not in IMAGE_COLUMNS:
        raise DataError(f"{file} has several columns that could be images ({', '.join(images)}); "
                        f"call the right one image; its columns: {found}")
    return images[0], labels[0]


def class_names(schema: pa.Schema, label_column: str) -> tuple[str, ...] | None:
    """The names that the hub's schema metadata give the classes (its ClassLabel feature), None without any."""
    try:
        told = from_json((schema.metadata or {})[b"huggingface"], "the table's metadata")
        names = told["info"]["features"][label_column]["names"]
    except (KeyError, TypeError, FileError):
        return None
    return tuple(map(str, names)) if isinstance(names, list) else None


def label_array(column: pa.ChunkedArray, name: str, where: Callable[[int], str]) -> np.ndarray:
    """(N,) int64 labels. Raises DataError for a column of another type, or a missing label."""
    if not pa.types.is_integer(column.type):
        raise DataError(f"labels must be whole numbers; the column {name} has type {column.type}")
    if column.null_count:
        raise DataError(f"{where(_first_null(column))} has no label")
    return column.to_numpy().astype(np.int64)


def pixel_array(table: pa.Table, name: str, where: Callable[[int], str]) -> np.ndarray:
    """A column of lists as (N, H, W) or (N, H, W, C) or (N, C, H, W), whichever way it is stored.

    Flat lists take their shape from the column's type (Arrow's fixed-shape tensor), from "shape" in the metadata
    of its field, or from a `shape` column. Raises DataError where images differ in shape or flat ones have none.
    """
    values = nested_array(table.column(name), where)
    if values.ndim > 2:
        return values
    shape = _shape_hint(table, name, where)
    if shape is None:
        raise DataError(f"{where(0)}: the column {name} holds flat lists of {values.shape[1]} values; "
                        f"nest them, or add a column {SHAPE_COLUMN} such as [28, 28]")
    if math.prod(shape) != values.shape[1]:
        raise DataError(f"{where(0)}: the column {name} holds lists of {values.shape[1]} values, "
                        f"which cannot have shape {shape}")
    return values.reshape(len(values), *shape)


def nested_array(column: pa.ChunkedArray, where: Callable[[int], str]) -> np.ndarray:
    """A column of equally long (nested) lists of N rows as an (N, d1, ..., dk) array. Raises DataError."""
    chunks = [chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk for chunk in column.chunks]
    values = pa.chunked_array(chunks, type=_storage(column.type)).combine_chunks()
    shape = [len(values)]
    while is_list(values.type):
        _refuse_nulls(values, shape, where)
        lengths = pc.call_function("list_value_length", [values]).to_numpy(zero_copy_only=False)
        odd = np.flatnonzero(lengths != lengths[:1])
        if odd.size:
            raise DataError(f"{where(_row(odd[0], shape))}: a list of {lengths[odd[0]]} values among lists of "
                            f"{lengths[0]}; pixel arrays must all have one shape")
        shape.append(int(lengths[0]) if len(lengths) else 0)
        values = pc.call_function("list_flatten", [values])
    _refuse_nulls(values, shape, where)
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        raise DataError(f"{where(0)}: pixels must be numbers, these are {values.type}")
    return values.to_numpy(zero_copy_only=False).reshape(shape)


def _shape_hint(table: pa.Table, name: str, where: Callable[[int], str]) -> tuple[int, ...] | None:
    field = table.schema.field(name)
    if isinstance(field.type, pa.FixedShapeTensorType):
        return tuple(field.type.shape)
    if field.metadata and b"shape" in field.metadata:
        try:
            return _as_shape(from_json(field.metadata[b"shape"], "the shape"), where(0))
        except FileError as error:
            raise DataError(f"the field {name} has {field.metadata[b'shape']!r} as shape; write [28, 28]") from error
    if SHAPE_COLUMN not in table.column_names:
        return None
    shapes = nested_array(table.column(SHAPE_COLUMN), where)
    odd = np.flatnonzero((shapes != shapes[0]).any(axis=-1))
    if odd.size:
        raise DataError(f"{where(int(odd[0]))} has shape {shapes[odd[0]].tolist()}, the first image "
                        f"{shapes[0].tolist()}; pixel arrays must all have one shape")
    return _as_shape(shapes[0].tolist(), where(0))


def _as_shape(value: Any, where: str) -> tuple[int, ...]:
    if not (isinstance(value, list) and len(value) in (2, 3) and all(isinstance(n, int) and n > 0 for n in value)):
        raise DataError(f"{where}: the shape must be two or three whole numbers above 0, got {value!r}")
    return tuple(value)


def _storage(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _refuse_nulls(values: pa.Array, shape: list[int], where: Callable[[int], str]) -> None:
    if values.null_count:
        raise DataError(f"{where(_row(_first_null(values), shape))}: a missing value (null) in the image")


def _first_null(values: pa.Array | pa.ChunkedArray) -> int:
    return int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))


def _row(position: Any, shape: list[int]) -> int:
    """The row that the flat `position` at the current depth of nesting belongs to."""
    return int(position) // max(1, int(np.prod(shape[1:])))
