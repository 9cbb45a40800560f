"""The columns of an image table: which of them hold images and labels, and lists and Arrow's tensors as arrays."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smoothcert.data.arrays import class_indices
from smoothcert.errors import DataError, FileError
from smoothcert.limits import from_json

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label", "y", "target")
SHAPE_COLUMN = "shape"

_FIXED, _VARIABLE = "arrow.fixed_shape_tensor", "arrow.variable_shape_tensor"
_ROLES = {**dict.fromkeys(("c", "channel", "channels"), "c"), **dict.fromkeys(("h", "height", "y", "rows"), "h"),
          **dict.fromkeys(("w", "width", "x", "cols", "columns"), "w")}

_TEXT = re.compile(r"extension<arrow\.variable_shape_tensor\[value_type=[^,\[\]]+, ndim=\d+"
                   r"(?:, permutation=\[([\d,]*)\])?(?:, dim_names=\[([^\[\]]*)\])?"
                   r"(?:, uniform_shape=\[[^\[\]]*\])?\]>")


@dataclass(frozen=True)
class TensorType:
    """The layout of the tensors of a column, as its type describes it.

    Attributes:
        shape: as they are stored, row-major; None if every row has its own.
        permutation: stored axis number permutation[i] is axis i of the tensor that is meant; empty for none.
        names: of the stored axes, as h, w and c; empty if there are none, or others.
    """

    shape: tuple[int, ...] | None
    permutation: tuple[int, ...] = ()
    names: tuple[str, ...] = ()

    def image_axes(self, shape: tuple[int, ...], where: str) -> tuple[int, ...]:
        """Return the order in which stored axes of these sizes make an image, (H, W), (H, W, C) or (C, H, W).

        Arrow specifies that names belong to the stored axes and how a permutation is meant, but pyarrow's
        `from_numpy_ndarray` writes the names of the tensor that is meant, and the inverse permutation. So both readings
        are tried, and the one that is an image is taken. Raises DataError if none is, or if they are different images.
        """
        if len(shape) != len(self.permutation or shape) or len(shape) != len(self.names or shape):
            raise DataError(f"{where}: a tensor of shape {list(shape)}, but its permutation is "
                            f"{list(self.permutation)} and its dim_names are those of {len(self.names)} axes")
        ends = (2,) if self.names else (0, 2)  # where channels may be
        found = set()
        for axes in self._readings(len(shape)):
            sizes = [shape[axis] for axis in axes]
            if len(sizes) == 2 or (len(sizes) == 3 and any(sizes[end] in (1, 3) for end in ends)):
                found.add(axes)
        if len(found) == 1:
            return found.pop()
        tensor = (f"{where}: a tensor of shape {list(shape)} with permutation {list(self.permutation)} and dim_names "
                  f"{list(self.names)}")
        if found:
            raise DataError(f"{tensor} can be read as different images: store it row-major, without a permutation")
        raise DataError(f"{tensor} is not an image: (H, W), (H, W, C) or (C, H, W) with 1 or 3 channels")

    def _readings(self, rank: int) -> Iterator[tuple[int, ...]]:
        stored = tuple(range(rank))
        meant = self.permutation or stored
        orders = (meant, tuple(meant.index(axis) for axis in stored))
        if not self.names:
            yield from orders
            return
        for order in (stored, *orders):
            yield tuple(order[self.names.index(role)] for role in "hwc" if role in self.names)


def tensor_type(field: pa.Field) -> TensorType | None:
    """Return the layout of a column of tensors, from its type or its field's metadata; None for other columns.

    Raises DataError if it cannot be understood.
    """
    metadata = field.metadata or {}
    name = getattr(field.type, "extension_name", None) or metadata.get(b"ARROW:extension:name", b"").decode()
    if name not in (_FIXED, _VARIABLE):
        return None
    if not isinstance(field.type, pa.BaseExtensionType):
        try:
            layout = from_json(metadata.get(b"ARROW:extension:metadata") or b"{}", f"the type of {field.name}")
        except FileError as error:
            raise DataError(str(error)) from error
    elif name == _FIXED:
        layout = {key: getattr(field.type, key) for key in ("shape", "permutation", "dim_names")}
        layout = {key: None if value is None else list(value) for key, value in layout.items()}
    else:  # pyarrow gives a type of variable shape as a text alone
        described = _TEXT.fullmatch(str(field.type))
        if described is None:
            raise DataError(f"{field.name} has the type {field.type}, whose order of axes is not known: store it as "
                            f"arrow.fixed_shape_tensor")
        axes, names = ([part for part in (text or "").split(",") if part] for text in described.groups())
        layout = {"permutation": [int(axis) for axis in axes], "dim_names": names}
    shape, order, names = layout.get("shape"), layout.get("permutation") or [], layout.get("dim_names") or []
    if name == _FIXED and not (isinstance(shape, list) and all(isinstance(size, int) and size > 0 for size in shape)):
        raise DataError(f"the tensors of {field.name} must have a shape of whole numbers above 0, got {shape!r}")
    rank = len(shape or order)
    if not isinstance(order, list) or (order and sorted(map(str, order)) != sorted(map(str, range(rank)))):
        raise DataError(f"the tensors of {field.name} have {rank} axes; their permutation cannot be {order!r}")
    roles = tuple(_ROLES.get(str(name).lower(), "") for name in names) if isinstance(names, list) else ()
    return TensorType(tuple(shape) if name == _FIXED and shape is not None else None, tuple(order),
                      roles if sorted(roles) in (["h", "w"], ["c", "h", "w"]) else ())


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


def choose_columns(schema: pa.Schema, file: str) -> tuple[str, str]:
    """Return (image column, label column) of a table. Raises DataError naming the columns that are there."""
    labels = [name for name in LABEL_COLUMNS if name in schema.names]
    usable = []
    for field in schema:
        kind, is_image_column = storage(field.type), field.name in IMAGE_COLUMNS
        if field.name in (*LABEL_COLUMNS, SHAPE_COLUMN) or pa.types.is_null(field.type):
            continue
        if (is_string(kind) and is_image_column) or is_encoded(kind) or is_list(kind) or tensor_type(field):
            usable.append(field.name)
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


def class_names(schema: pa.Schema, label_column: str) -> tuple[str, ...] | None:
    """Return the names of the classes in the hub's schema metadata (its ClassLabel feature), None if there are none."""
    try:
        metadata = from_json((schema.metadata or {})[b"huggingface"], "the table's metadata")
        names = metadata["info"]["features"][label_column]["names"]
    except (KeyError, TypeError, FileError):
        return None
    return tuple(map(str, names)) if isinstance(names, list) else None


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

    Return None for other columns, and if the order is that in which the names occur.
    """
    column, field = table.column(name), table.schema.field(name)
    if not pa.types.is_dictionary(column.type) or not column.num_chunks:
        return None
    try:
        metadata = from_json((table.schema.metadata or {})[b"pandas"], "the table's metadata")["columns"]
        categorical = [one["name"] for one in metadata if one["pandas_type"] == "categorical"]
    except (KeyError, TypeError, FileError):
        categorical = []
    if not (column.type.ordered or name in categorical
            or any(key.startswith(b"_PL_ENUM") for key in field.metadata or {})):
        return None
    orders = {tuple(chunk.dictionary.drop_null().to_pylist()) for chunk in column.chunks}
    return orders.pop() if len(orders) == 1 else None


def pixel_array(table: pa.Table, name: str, where: Callable[[int], str]) -> np.ndarray:
    """Return a column of lists as (N, H, W), (N, H, W, C) or (N, C, H, W), whichever way it is stored.

    Tensors of Arrow are put in the order that their type describes. Flat lists take their shape from "shape" in the
    metadata of the column's field, or from a `shape` column. Raises DataError if images differ in shape, or if flat
    ones have none.
    """
    column, tensors = table.column(name), tensor_type(table.schema.field(name))
    if tensors:
        values = _read_tensors(column, tensors, where)
        axes = tensors.image_axes(values.shape[1:], where(0))
        return values.transpose(0, *(1 + axis for axis in axes))
    values = list_array(column, where)
    if values.ndim > 2:
        return values
    shape = _shape_hint(table, name, where)
    if shape is None:
        raise DataError(f"{where(0)}: the column {name} holds flat lists of {values.shape[1]} values; "
                        f"nest them, or add a column {SHAPE_COLUMN} such as [28, 28]")
    return _reshape(values, shape, where)


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
        raise DataError(f"{where(_row(_first_null(values), shape))}: a missing value (null) in the image")


def _first_null(values: pa.Array | pa.ChunkedArray) -> int:
    return int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))


def _row(position: Any, shape: list[int]) -> int:
    """Return the row to which the flat `position` at the current depth of nesting belongs."""
    return int(position) // max(1, int(np.prod(shape[1:])))
