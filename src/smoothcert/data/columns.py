"""What the columns of an image table mean: which hold images and labels, and lists as arrays."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smoothcert.data.labels import class_indices
from smoothcert.data.tensors import TensorType, tensor_type
from smoothcert.errors import DataError, FileError
from smoothcert.io.limits import from_json

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label", "y", "target")
SHAPE_COLUMN = "shape"


def storage(kind: pa.DataType) -> pa.DataType:
    """The type that values of an extension type or of a dictionary are stored as."""
    if isinstance(kind, pa.BaseExtensionType):
        return storage(kind.storage_type)
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_encoded(kind: pa.DataType) -> bool:
    """Whether values of this type are encoded images: raw bytes, or the hub's struct of bytes and a path, or either."""
    kind = storage(kind)
    parts = {part.name: storage(part.type) for part in _fields(kind) if part.name in ("bytes", "path")}
    if parts:
        return _is_binary(parts.get("bytes", pa.null())) and is_string(parts.get("path", pa.null()))
    return _is_binary(kind)


def is_string(kind: pa.DataType) -> bool:
    """Whether values of this type are text, or nothing at all."""
    return _is_one_of(kind, "string", "large_string", "string_view", "null")


def is_list(kind: pa.DataType) -> bool:
    """Whether values of this type are lists, of any sort, of fixed size or not."""
    return _is_one_of(kind, "list", "large_list", "fixed_size_list", "list_view", "large_list_view")


def _is_binary(kind: pa.DataType) -> bool:
    return _is_one_of(kind, "binary", "large_binary", "binary_view", "null")


def _is_one_of(kind: pa.DataType, *names: str) -> bool:
    """By the functions of pyarrow's `types`, of which older versions lack those of views."""
    return any(getattr(pa.types, f"is_{name}", lambda _: False)(kind) for name in names)


def choose_columns(schema: pa.Schema, file: str) -> tuple[str, str]:
    """(image column, label column) of a table. Raises DataError naming the columns that are there."""
    labels = [name for name in LABEL_COLUMNS if name in schema.names]
    usable = [field.name for field in schema if field.name not in (*LABEL_COLUMNS, SHAPE_COLUMN)
              and not pa.types.is_null(field.type) and _may_be_images(field)]
    images = [name for name in IMAGE_COLUMNS if name in usable] or usable
    found = ", ".join(f"{field.name} ({field.type})" for field in schema)
    if not labels:
        raise DataError(f"{file} has no label column ({', '.join(LABEL_COLUMNS)}); its columns: {found}")
    if not images:
        raise DataError(f"{file} has no image column: one of encoded bytes, of paths (called image), or of lists of "
                        f"pixels; its columns: {found}")
    if len(images) > 1 and images[0] not in IMAGE_COLUMNS:
        raise DataError(f"{file} has several columns that could be images ({', '.join(images)}); "
                        f"call the right one image; its columns: {found}")
    return images[0], labels[0]


def _may_be_images(field: pa.Field) -> bool:
    kind = storage(field.type)
    is_path = is_string(kind) and field.name in IMAGE_COLUMNS
    return is_path or is_encoded(kind) or is_list(kind) or tensor_type(field) is not None


def class_names(schema: pa.Schema, label_column: str) -> tuple[str, ...] | None:
    """The names that the hub's schema metadata give the classes (its ClassLabel feature), None without any."""
    try:
        told = from_json((schema.metadata or {})[b"huggingface"], "the table's metadata")
        names = told["info"]["features"][label_column]["names"]
    except (KeyError, TypeError, FileError):
        return None
    return tuple(map(str, names)) if isinstance(names, list) else None


def label_array(table: pa.Table, name: str, where: Callable[[int], str], known: Sequence[str] | None = None
                ) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """((N,) int64 labels, the names of the classes or None), where `known` are the names that are known already.

    Raises DataError for a column of another type, or a missing label.
    """
    column = table.column(name)
    kind = storage(column.type)
    values = pa.chunked_array([_unwrap(chunk) for chunk in column.chunks], type=kind)
    if values.null_count:
        raise DataError(f"{where(_first_null(values))} has no label")
    if is_list(kind):
        return class_indices(nested_array(values, where), where)
    if is_string(kind):
        return class_indices(np.array(values.to_pylist(), dtype=object), where, known or _read_categories(table, name))
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise DataError(f"labels must be whole numbers or names; the column {name} has type {column.type}")
    return class_indices(values.to_numpy(), where)


def _read_categories(table: pa.Table, name: str) -> tuple[str, ...] | None:
    """The classes of a categorical column in an order of their own, as pandas and the enums of polars give them; None
    where there is none, or the order is that in which the names were met."""
    column, field = table.column(name), table.schema.field(name)
    if not pa.types.is_dictionary(column.type) or not column.num_chunks:
        return None
    if not (column.type.ordered or name in _pandas_categoricals(table.schema)
            or any(key.startswith(b"_PL_ENUM") for key in field.metadata or {})):
        return None
    orders = {tuple(chunk.dictionary.drop_null().to_pylist()) for chunk in column.chunks}
    return orders.pop() if len(orders) == 1 else None


def _pandas_categoricals(schema: pa.Schema) -> list[str]:
    try:
        told = from_json((schema.metadata or {})[b"pandas"], "the table's metadata")["columns"]
        return [one["name"] for one in told if one["pandas_type"] == "categorical"]
    except (KeyError, TypeError, FileError):
        return []


def pixel_array(table: pa.Table, name: str, where: Callable[[int], str]) -> np.ndarray:
    """A column of lists as (N, H, W) or (N, H, W, C) or (N, C, H, W), whichever way it is stored.

    Tensors of Arrow are put in the order that their type asks for. Flat lists take their shape from "shape" in the
    metadata of the column's field, or from a `shape` column. Raises DataError where images differ in shape or flat
    ones have none.
    """
    column, tensors = table.column(name), tensor_type(table.schema.field(name))
    if tensors:
        values = _read_tensors(column, tensors, where)
        axes = tensors.image_axes(values.shape[1:], where(0))
        return values.transpose(0, *(1 + axis for axis in axes))
    values = nested_array(column, where)
    if values.ndim > 2:
        return values
    shape = _shape_hint(table, name, where)
    if shape is None:
        raise DataError(f"{where(0)}: the column {name} holds flat lists of {values.shape[1]} values; "
                        f"nest them, or add a column {SHAPE_COLUMN} such as [28, 28]")
    return _reshape(values, shape, where)


def _read_tensors(column: pa.ChunkedArray, tensors: TensorType, where: Callable[[int], str]) -> np.ndarray:
    """The values of a column of Arrow's tensors, in the order they are stored in."""
    if tensors.shape is not None:
        return _reshape(nested_array(column, where), tensors.shape, where)
    stored = pa.chunked_array([_unwrap(chunk) for chunk in column.chunks], type=storage(column.type))
    if not {"data", "shape"} <= {part.name for part in _fields(stored.type)}:
        raise DataError(f"{where(0)}: tensors must be stored as a struct of data and shape, these are {stored.type}")
    data, shapes = (pc.call_function("struct_field", [stored], pc.StructFieldOptions([part]))
                    for part in ("data", "shape"))
    return _reshape(nested_array(data, where), _common_shape(nested_array(shapes, where), where), where)


def _reshape(values: np.ndarray, shape: tuple[int, ...], where: Callable[[int], str]) -> np.ndarray:
    """Lists of flat values (N, D) as (N, *shape). Raises DataError where they have another number of values."""
    if values.ndim != 2 or math.prod(shape) != values.shape[1]:
        raise DataError(f"{where(0)}: lists of shape {values.shape[1:]} cannot have shape {shape}")
    return values.reshape(len(values), *shape)


def nested_array(column: pa.ChunkedArray, where: Callable[[int], str]) -> np.ndarray:
    """A column of equally long (nested) lists of N rows as an (N, d1, ..., dk) array. Raises DataError."""
    values = pa.chunked_array([_unwrap(chunk) for chunk in column.chunks], type=storage(column.type)).combine_chunks()
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
    if field.metadata and b"shape" in field.metadata:
        try:
            return _as_shape(from_json(field.metadata[b"shape"], "the shape"), where(0))
        except FileError as error:
            raise DataError(f"the field {name} has {field.metadata[b'shape']!r} as shape; write [28, 28]") from error
    if SHAPE_COLUMN not in table.column_names:
        return None
    return _common_shape(nested_array(table.column(SHAPE_COLUMN), where), where)


def _common_shape(shapes: np.ndarray, where: Callable[[int], str]) -> tuple[int, ...]:
    odd = np.flatnonzero((shapes != shapes[0]).any(axis=-1))
    if odd.size:
        raise DataError(f"{where(int(odd[0]))} has shape {shapes[odd[0]].tolist()}, the first image "
                        f"{shapes[0].tolist()}; pixel arrays must all have one shape")
    return _as_shape(shapes[0].tolist(), where(0))


def _as_shape(value: Any, where: str) -> tuple[int, ...]:
    if not (isinstance(value, list) and len(value) in (2, 3) and all(isinstance(n, int) and n > 0 for n in value)):
        raise DataError(f"{where}: the shape must be two or three whole numbers above 0, got {value!r}")
    return tuple(value)


def _fields(kind: pa.DataType) -> list[pa.Field]:
    return [kind.field(place) for place in range(kind.num_fields)] if pa.types.is_struct(kind) else []


def _unwrap(chunk: pa.Array) -> pa.Array:
    if isinstance(chunk, pa.ExtensionArray):
        return _unwrap(chunk.storage)
    return chunk.dictionary_decode() if isinstance(chunk, pa.DictionaryArray) else chunk


def _refuse_nulls(values: pa.Array, shape: list[int], where: Callable[[int], str]) -> None:
    if values.null_count:
        raise DataError(f"{where(_row(_first_null(values), shape))}: a missing value (null) in the image")


def _first_null(values: pa.Array | pa.ChunkedArray) -> int:
    return int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))


def _row(position: Any, shape: list[int]) -> int:
    """The row that the flat `position` at the current depth of nesting belongs to."""
    return int(position) // max(1, int(np.prod(shape[1:])))
