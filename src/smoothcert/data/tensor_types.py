"""Arrow's tensors: the layout of a column of them, as its type or its field's metadata describe it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from smoothcert.errors import DataError, FileError
from smoothcert.limits import from_json

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
