"""Arrow's tensor columns as images: their shape, and the order of axes that a permutation and names of axes ask for."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from smoothcert.errors import DataError, FileError
from smoothcert.io.limits import from_json

_FIXED, _VARIABLE = "arrow.fixed_shape_tensor", "arrow.variable_shape_tensor"
_ROLES = {**dict.fromkeys(("c", "channel", "channels"), "c"), **dict.fromkeys(("h", "height", "y", "rows"), "h"),
          **dict.fromkeys(("w", "width", "x", "cols", "columns"), "w")}

_TEXT = re.compile(r"extension<arrow\.variable_shape_tensor\[value_type=[^,\[\]]+, ndim=\d+"
                   r"(?:, permutation=\[([\d,]*)\])?(?:, dim_names=\[([^\[\]]*)\])?"
                   r"(?:, uniform_shape=\[[^\[\]]*\])?\]>")


@dataclass(frozen=True)
class TensorType:
    """What a column's type says of its tensors.

    Attributes:
        shape: as they are stored, row-major; None where every row says its own.
        permutation: stored axis number permutation[i] is axis i of the tensor that is meant; empty for none.
        names: of the stored axes, as h, w and c; empty where they are not given, or others.
    """

    shape: tuple[int, ...] | None
    permutation: tuple[int, ...] = ()
    names: tuple[str, ...] = ()

    def image_axes(self, shape: tuple[int, ...], where: str) -> tuple[int, ...]:
        """Return the order in which stored axes of these sizes make an image, (H, W), (H, W, C) or (C, H, W).

        Arrow says that names belong to the stored axes and how a permutation is meant, but pyarrow's
        `from_numpy_ndarray` writes the names of the tensor that is meant, and the inverse permutation. So both
        readings are tried, and the one that is an image is taken.
        Raises DataError where none is, or where they are different images.
        """
        if len(shape) != len(self.permutation or shape) or len(shape) != len(self.names or shape):
            raise DataError(f"{where}: a tensor of shape {list(shape)}, but its permutation is "
                            f"{list(self.permutation)} and its dim_names are those of {len(self.names)} axes")
        ends = (2,) if self.names else (0, 2)  # where channels may be
        found = {axes for axes in self._readings(len(shape)) if _is_image([shape[axis] for axis in axes], ends)}
        if len(found) == 1:
            return found.pop()
        told = (f"{where}: a tensor of shape {list(shape)} with permutation {list(self.permutation)} and dim_names "
                f"{list(self.names)}")
        if found:
            raise DataError(f"{told} can be read as different images: store it row-major, without a permutation")
        raise DataError(f"{told} is no image: (H, W), (H, W, C) or (C, H, W) with 1 or 3 channels")

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
    """Return what the type of a column of tensors says, from the type or from the field's metadata; None of others.

    Raises DataError where it cannot be understood.
    """
    metadata = field.metadata or {}
    name = getattr(field.type, "extension_name", None) or metadata.get(b"ARROW:extension:name", b"").decode()
    if name not in (_FIXED, _VARIABLE):
        return None
    if isinstance(field.type, pa.BaseExtensionType):
        told = _read_attributes(field) if name == _FIXED else _read_text(field)
    else:
        try:
            told = from_json(metadata.get(b"ARROW:extension:metadata") or b"{}", f"the type of {field.name}")
        except FileError as error:
            raise DataError(str(error)) from error
    permutation, names = _read_permutation(field, told), told.get("dim_names") or []
    roles = tuple(_ROLES.get(str(name).lower(), "") for name in names) if isinstance(names, list) else ()
    return TensorType(_read_shape(field, told) if name == _FIXED else None, permutation,
                      roles if sorted(roles) in (["h", "w"], ["c", "h", "w"]) else ())


def _read_attributes(field: pa.Field) -> dict[str, Any]:
    told = {key: getattr(field.type, key) for key in ("shape", "permutation", "dim_names")}
    return {key: None if value is None else list(value) for key, value in told.items()}


def _read_text(field: pa.Field) -> dict[str, Any]:
    """pyarrow gives what a type of variable shape says as its text alone."""
    told = _TEXT.fullmatch(str(field.type))
    if told is None:
        raise DataError(f"{field.name} has the type {field.type}, whose order of axes cannot be told: store it as "
                        f"arrow.fixed_shape_tensor")
    order, names = ([part for part in (text or "").split(",") if part] for text in told.groups())
    return {"permutation": [int(axis) for axis in order], "dim_names": names}


def _read_shape(field: pa.Field, told: dict[str, Any]) -> tuple[int, ...]:
    shape = told.get("shape")
    if not isinstance(shape, list) or not all(isinstance(size, int) and size > 0 for size in shape):
        raise DataError(f"the tensors of {field.name} must have a shape of whole numbers above 0, got {shape!r}")
    return tuple(shape)


def _read_permutation(field: pa.Field, told: dict[str, Any]) -> tuple[int, ...]:
    order = told.get("permutation") or []
    rank = len(told.get("shape") or order)
    if not isinstance(order, list) or (order and sorted(map(str, order)) != sorted(map(str, range(rank)))):
        raise DataError(f"the tensors of {field.name} have {rank} axes; their permutation cannot be {order!r}")
    return tuple(order)


def _is_image(shape: list[int], ends: tuple[int, ...]) -> bool:
    return len(shape) == 2 or (len(shape) == 3 and any(shape[end] in (1, 3) for end in ends))
