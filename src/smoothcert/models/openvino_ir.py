"""OpenVINO's intermediate representation, an .xml file of a network and a .bin file of its weights, run by OpenVINO."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from smoothcert.errors import FileError, first_line
from smoothcert.limits import path_inside
from smoothcert.models.layers import Shape
from smoothcert.models.loaded import LoadedModel, read_model_file
from smoothcert.models.network_file import open_file
from smoothcert.models.quantised import describe_wide, list_layers, magnitudes
from smoothcert.smoothing.engines.runtimes import OpenvinoSession, import_runtime, read_openvino

_MOVES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "MaxPool", "Relu", "Clamp", "Pad", "Concat", "StridedSlice",
          "VariadicSplit", "Split", "Gather")
_REARRANGES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze")
_PRODUCTS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul")
_RANDOM = ("RandomUniform", "Multinomial")
_BYTES = ("i8", "u8", "i4", "u4", "i2", "u2")


@dataclass(frozen=True, eq=False)
class IrSource:
    """An IR as OpenVINO is given it; see `smoothcert.models.network_file.FileSource`."""

    path: Path
    content: bytes
    weights: bytes
    wide: str | None = None
    runtimes: tuple[str, ...] = ("openvino",)

    @property
    def name(self) -> str:
        return self.path.name

    def session(
        self, runtime: str, rows: int, shape: tuple[int, ...], precision: str = "float32", study: bool = False,
    ) -> OpenvinoSession:
        return OpenvinoSession(self.content, self.weights, rows, shape, precision, study)


def load_ir(
    spec: str, path: Path, content: bytes, num_classes: int | None, input_shape: Shape | None,
    output: str | int | None, runtime: str | None = None,
) -> LoadedModel:
    """Return the model in an IR; its content is the bytes of both files. The rest is as for `load_onnx`.

    Raises:
        FileError: corrupt files, or none of weights. MissingExtraError: openvino is not installed. ModelError,
        InputError: as `open_file` says, or a network that draws random numbers.
    """
    import_runtime("openvino", f"loading {path}")
    weights = read_model_file(path_inside(path.parent, path.with_suffix(".bin").name))
    try:
        network = read_openvino(content, weights)
        wide = find_wide(network)
        session = OpenvinoSession(network)
    except Exception as error:  # whatever openvino, or a file that is damaged, makes of it
        raise FileError(f"{path} and {path.stem}.bin cannot be loaded as OpenVINO's IR: {first_line(error)}") from error
    if drawn := [node.get_friendly_name() for node in network.get_ordered_ops() if node.get_type_name() in _RANDOM]:
        raise FileError(f"{path} draws random numbers ({', '.join(drawn[:3])}), so it is not a function of one image: "
                        f"export the model in eval mode, without random layers")
    source = IrSource(path, content, weights, wide)
    model, shape = open_file(source, session, str(path), num_classes, input_shape, output, runtime)
    return LoadedModel(model, spec, "xml", content + weights, shape, model.input_dtype)


def find_wide(network: Any) -> str | None:
    """Return the layers of an integer network whose products could exceed 16 bits in pairs, in words, "" where there
    are none; None where no activation is rounded."""
    nodes = network.get_ordered_ops()
    if not any(node.get_type_name() == "FakeQuantize" and not _is_constant(_source(node, 0)) for node in nodes):
        return None
    return list_layers(found for node in nodes if node.get_type_name() in _PRODUCTS for found in _wide(node))


def _source(node: Any, place: int) -> Any:
    return node.input_value(place).get_node()


def _is_constant(node: Any) -> bool:
    kind = node.get_type_name()
    if kind in ("Constant", "Parameter"):
        return kind == "Constant"
    return all(_is_constant(_source(node, place)) for place in range(node.get_input_size()))


def _is_rounded(node: Any) -> bool:
    """Tell whether a value was rounded, and no more was done to it than to move and to dequantise it."""
    kind = node.get_type_name()
    if kind == "FakeQuantize":
        return not _is_constant(node)
    if kind == "Convert" and node.input_value(0).get_element_type().get_type_name() in _BYTES:
        return not _is_constant(node)
    if kind in ("Multiply", "Subtract"):
        return _is_constant(_source(node, 1)) and _is_rounded(_source(node, 0))
    return kind in _MOVES and _is_rounded(_source(node, 0))


def _wide(node: Any) -> Iterator[str]:
    label, kind = node.get_friendly_name(), node.get_type_name()
    if not _is_rounded(_source(node, 0)):
        return
    weights = _source(node, 1)
    if not _is_constant(weights):
        if _is_rounded(weights):
            yield f"{label}: both of its factors are computed"
        return
    moved = weights.get_type_name() in _REARRANGES
    while weights.get_type_name() in _REARRANGES:
        weights = _source(weights, 0)
    sizes = _sizes(weights)
    if sizes is None:
        return  # weights in float, which runs in float
    if kind == "GroupConvolution" and not moved:
        yield from describe_wide(label, sizes.reshape(sizes.shape[0] * sizes.shape[1], -1), 0)
    else:
        transposed = bool(node.get_attributes().get("transpose_b", False))
        axis = {"Convolution": 0, "MatMul": -2 if transposed else -1}.get(kind)
        yield from describe_wide(label, sizes, None if moved or sizes.ndim < 2 else axis)


def _sizes(weights: Any) -> np.ndarray | None:
    """Return the magnitudes of the integers behind dequantised weights; None for weights in float."""
    zero: Any = np.int8(0)
    kind = weights.get_type_name()
    if kind == "FakeQuantize":
        levels = weights.get_attributes()["levels"]
        low, high = (np.asarray(_value(_source(weights, place)), dtype=np.float64) for place in (3, 4))
        step = (high - low) / (levels - 1)
        values = np.asarray(_value(_source(weights, 0)), dtype=np.float64)
        inside = np.clip(values, *(np.asarray(_value(_source(weights, place))) for place in (1, 2)))
        return np.rint(np.abs(inside) / np.where(step == 0, 1, step)).astype(np.int64)
    while kind in ("Multiply", "Subtract", "Convert"):
        if kind == "Subtract":
            zero = _value(_source(weights, 1))
        weights = _source(weights, 0)
        kind = weights.get_type_name()
    if kind != "Constant" or weights.get_element_type().get_type_name() not in _BYTES:
        return None
    values = np.asarray(weights.get_data())
    zero = np.rint(np.asarray(zero, dtype=np.float64)).astype(np.int64)
    if zero.ndim == values.ndim:  # one for each channel, in the weights' own axes
        unsigned = values.dtype.kind == "u"
        whole = values.astype(np.int64)
        return np.maximum(np.abs(whole - zero), np.abs(whole - 128 if unsigned else whole))
    return magnitudes(values, zero.reshape(-1)[:1] if zero.size == 1 else np.abs(zero).max(keepdims=True), 0)


def _value(node: Any) -> Any:
    """Return the array of a constant, also behind conversions and reshapes of it."""
    while node.get_type_name() != "Constant":
        node = _source(node, 0)
    return node.get_data()
