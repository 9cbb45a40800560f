"""The columns of a table: labels, classes, and numbers, lists and Arrow's tensors as arrays."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smoothcert.classes import ClassWarning
from smoothcert.data.arrays import class_indices
from smoothcert.data.tensor_types import TensorType, tensor_type
from smoothcert.errors import DataError, FileError
from smoothcert.limits import from_json

IMAGE_COLUMNS = ("image", "img")
PATH_COLUMNS = ("file_name", "filename", "file_path", "filepath", "image_path", "img_path", "path", "file")
"""Names of a column of the paths of images, in a table that has no other inputs."""
LABEL_COLUMNS = ("label", "labels", "fine_label", "y", "target", "class")
SHAPE_COLUMN = "shape"


def storage(kind: pa.DataType) -> pa.DataType:
    """Return the type in which values of an extension type or of a dictionary are stored."""
    if isinstance(kind, pa.BaseExtensionType):
        return storage(kind.storage_type)
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_encoded(kind: pa.DataType) -> bool:
    """Tell if values of this type are encoded images: raw bytes, or the hub's struct of bytes, a path or both."""
    kind = storage(kind)
    parts = {part.name: storage(part.type) for part in _fields(kind) if part.name in ("bytes", "path")}
    if parts:
        return _is_binary(parts.get("bytes", pa.null())) and is_string(parts.get("path", pa.null()))
    return _is_binary(kind)


def is_string(kind: pa.DataType) -> bool:
    """Tell if values of this type are text, or all missing."""
    return _is_one_of(kind, "string", "large_string", "string_view", "null")


def is_list(kind: pa.DataType) -> bool:
    """Tell if values of this type are lists of any sort, of fixed size or not."""
    return _is_one_of(kind, "list", "large_list", "fixed_size_list", "list_view", "large_list_view")


def _is_binary(kind: pa.DataType) -> bool:
    return _is_one_of(kind, "binary", "large_binary", "binary_view", "null")


def _is_one_of(kind: pa.DataType, *names: str) -> bool:
    """Tell if a type has one of the names in pyarrow's `types`; older versions lack the functions of views."""
    return any(getattr(pa.types, f"is_{name}", lambda _: False)(kind) for name in names)


def class_names(schema: pa.Schema, label_column: str) -> tuple[str, ...] | None:
    """Return the names of the classes in the hub's schema metadata (its ClassLabel feature), None if there are none."""
    feature = _hub_feature(schema, label_column)
    names = feature.get("names") if isinstance(feature, dict) else None
    return tuple(map(str, names)) if isinstance(names, list) else None


def _hub_feature(schema: pa.Schema, name: str) -> Any:
    """Return what the hub's metadata of a table say of a column, None where they say nothing."""
    try:
        metadata = from_json((schema.metadata or {})[b"huggingface"], "the table's metadata")
        return metadata["info"]["features"][name]
    except (KeyError, TypeError, FileError):
        return None


def pandas_index(schema: pa.Schema) -> frozenset[str]:
    """Return the columns in which pandas stored the index of a table, and not its content."""
    return frozenset(name for name in _pandas_notes(schema, "index_columns") if isinstance(name, str))


def _pandas_notes(schema: pa.Schema, name: str) -> list[Any]:
    """Return a list in the metadata that pandas leaves in a table, empty where there is none."""
    try:
        found = from_json((schema.metadata or {})[b"pandas"], "the table's metadata")[name]
    except (KeyError, TypeError, FileError):
        return []
    return found if isinstance(found, list) else []


def label_array(table: pa.Table, name: str, where: Callable[[int], str], known: Sequence[str] | None = None
                ) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Return ((N,) int64 labels, the names of the classes or None); `known` are names that are known already.

    Raises DataError for a column of another type, or a missing label.
    """
    column = table.column(name)
    kind = storage(column.type)
    values = pa.chunked_array([_unwrap(chunk) for chunk in column.chunks], type=kind)
    if values.null_count:
        raise DataError(f"{where(_first_null(values))} has no label")
    if is_list(kind):
        return class_indices(list_array(values, where), where)
    if is_string(kind):
        return class_indices(np.array(values.to_pylist(), dtype=object), where, known or _read_categories(table, name))
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise DataError(f"labels must be whole numbers or names; the column {name} has type {column.type}")
    return class_indices(values.to_numpy(), where)


def _read_categories(table: pa.Table, name: str) -> tuple[str, ...] | None:
    """Return the classes of a categorical column that has an order of its own, as pandas and the enums of polars do.

    Return None for other columns, and if the order is that in which the names occur. A file may lack some categories of
    another; if two files have them in different orders, there is no order, with a ClassWarning.
    """
    column, field = table.column(name), table.schema.field(name)
    if not pa.types.is_dictionary(column.type) or not column.num_chunks:
        return None
    categorical = [one.get("name") for one in _pandas_notes(table.schema, "columns")
                   if isinstance(one, dict) and one.get("pandas_type") == "categorical"]
    if not (column.type.ordered or name in categorical
            or any(key.startswith(b"_PL_ENUM") for key in field.metadata or {})):
        return None
    orders = {tuple(chunk.dictionary.drop_null().to_pylist()) for chunk in column.chunks}
    longest = max(orders, key=len)
    if all(tuple(one for one in longest if one in order) == order for order in orders):
        return longest
    shown = " and ".join(", ".join(order[:4]) + ", ..." * (len(order) > 4) for order in sorted(orders)[:2])
    warnings.warn(f"the categories of {name} differ between files ({shown}): the classes are put in the order of "
                  f"their names", ClassWarning, stacklevel=2)
    return None


def pixel_array(table: pa.Table, name: str, where: Callable[[int], str]) -> np.ndarray:
    """Return a column of lists as (N, H, W), (N, H, W, C) or (N, C, H, W), whichever way it is stored; or of any other
    shape (N, ...), which is that of no images.

    Tensors of Arrow are put in the order that their type describes. Flat lists take their shape from "shape" in the
    metadata of the column's field, or from a `shape` column. Raises DataError if inputs differ in shape, or if flat
    ones that are called images have none.
    """
    column, tensors = table.column(name), tensor_type(table.schema.field(name))
    if tensors:
        values = _read_tensors(column, tensors, where)
        if values.ndim not in (3, 4):
            return _in_stored_order(values, tensors, name)
        axes = tensors.image_axes(values.shape[1:], where(0))
        return values.transpose(0, *(1 + axis for axis in axes))
    values = list_array(column, where)
    _check_declared(table.schema, name, values.shape[1:])
    if values.ndim > 2:
        return values
    shape = _shape_hint(table, name, where)
    if shape is None and name in IMAGE_COLUMNS:
        raise DataError(f"{where(0)}: the column {name} holds flat lists of {values.shape[1]} values; "
                        f"nest them, or add a column {SHAPE_COLUMN} such as [28, 28]")
    return values if shape is None else _reshape(values, shape, where)


def number_array(table: pa.Table, name: str, where: Callable[[int], str]) -> np.ndarray:
    """Return a column of numbers (N,), NaN where one is missing; or of lists or tensors of numbers, (N, ...) as stored.

    Raises DataError for other values, for lists with missing values, and for lists that differ in shape.
    """
    column, field = table.column(name), table.schema.field(name)
    if tensors := tensor_type(field):
        return _in_stored_order(_read_tensors(column, tensors, where), tensors, name)
    if is_list(storage(field.type)):
        values = list_array(column, where)
        _check_declared(table.schema, name, values.shape[1:])
        return values
    if not is_number(field.type) and not pa.types.is_boolean(field.type):
        raise DataError(_no_number(column, where))
    return column.cast(pa.float64(), safe=False).to_numpy()


def is_number(kind: pa.DataType) -> bool:
    """Tell if values of this type are numbers; truth values are none."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _no_number(column: pa.ChunkedArray, where: Callable[[int], str]) -> str:
    """Return what a column holds in place of numbers."""
    if is_string(storage(column.type)):
        for row, text in enumerate(column.to_pylist()):
            try:
                float(text)
            except (TypeError, ValueError):
                return f"{where(row)} holds {text!r:.60}, which is not a number"
    return f"its values are {column.type}, not numbers"


def _in_stored_order(values: np.ndarray, tensors: TensorType, name: str) -> np.ndarray:
    """Return Arrow's tensors as they are stored. Raises DataError if their type orders their axes otherwise."""
    if tensors.permutation and tensors.permutation != tuple(range(values.ndim - 1)):
        raise DataError(f"the tensors of {name} have the permutation {list(tensors.permutation)}, which libraries read "
                        f"in two ways: store them row-major, without a permutation")
    return values


def _check_declared(schema: pa.Schema, name: str, shape: tuple[int, ...]) -> None:
    """Raise DataError if the hub's metadata declare another shape (Array2D, Array3D, ...) than the lists have.

    The hub's `datasets` reads such lists row by row into the shape that is declared, which scrambles them.
    """
    feature = _hub_feature(schema, name)
    declared = feature.get("shape") if isinstance(feature, dict) else None
    if isinstance(declared, list) and not (len(declared) == len(shape) and all(
            size in (None, found) for size, found in zip(declared, shape, strict=True))):
        raise DataError(f"the column {name} is declared as {feature.get('_type')} of shape {tuple(declared)}, but its "
                        f"lists have shape {shape}: store them in the layout that is declared, or declare the one that "
                        f"they have")


def _read_tensors(column: pa.ChunkedArray, tensors: TensorType, where: Callable[[int], str]) -> np.ndarray:
    """Return the values of a column of Arrow's tensors, in the order in which they are stored."""
    if tensors.shape is not None:
        return _reshape(list_array(column, where), tensors.shape, where)
    stored = pa.chunked_array([_unwrap(chunk) for chunk in column.chunks], type=storage(column.type))
    if not {"data", "shape"} <= {part.name for part in _fields(stored.type)}:
        raise DataError(f"{where(0)}: tensors must be stored as a struct of data and shape, these are {stored.type}")
    data, shapes = (pc.call_function("struct_field", [stored], pc.StructFieldOptions([part]))
                    for part in ("data", "shape"))
    return _reshape(list_array(data, where), _common_shape(list_array(shapes, where), where), where)


def _reshape(values: np.ndarray, shape: tuple[int, ...], where: Callable[[int], str]) -> np.ndarray:
    """Return lists of flat values (N, D) as (N, *shape). Raises DataError if D is not the size of that shape."""
    if values.ndim != 2 or math.prod(shape) != values.shape[1]:
        raise DataError(f"{where(0)}: lists of shape {values.shape[1:]} cannot have shape {shape}")
    return values.reshape(len(values), *shape)


def list_array(column: pa.ChunkedArray, where: Callable[[int], str]) -> np.ndarray:
    """Return a column of N equally long (nested) lists as an (N, d1, ..., dk) array. Raises DataError."""
    values = pa.chunked_array([_unwrap(chunk) for chunk in column.chunks], type=storage(column.type)).combine_chunks()
    shape = [len(values)]
    while is_list(values.type):
        _refuse_nulls(values, shape, where)
        lengths = pc.call_function("list_value_length", [values]).to_numpy(zero_copy_only=False)
        odd = np.flatnonzero(lengths != lengths[:1])
        if odd.size:
            raise DataError(f"{where(_row(odd[0], shape))}: a list of {lengths[odd[0]]} values among lists of "
                            f"{lengths[0]}; inputs must all have one shape")
        shape.append(int(lengths[0]) if len(lengths) else 0)
        values = pc.call_function("list_flatten", [values])
    _refuse_nulls(values, shape, where)
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        raise DataError(f"{where(0)}: lists must hold numbers, these are {values.type}")
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
    return _common_shape(list_array(table.column(SHAPE_COLUMN), where), where)


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
        raise DataError(f"{where(_row(_first_null(values), shape))}: a missing value (null) in the list")


def _first_null(values: pa.Array | pa.ChunkedArray) -> int:
    return int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))


def _row(position: Any, shape: list[int]) -> int:
    """Return the row to which the flat `position` at the current depth of nesting belongs."""
    return int(position) // max(1, int(np.prod(shape[1:])))
