"""Integers in ONNX models: which networks round their activations, and what their weights ask of a processor.

A network is an integer one where an activation is rounded to few bits (QuantizeLinear, or operators that compute in
integers). Where weights alone are stored in few bits, runtimes round the activations in front of them as well, in a way
that depends on the batch: such weights are made float32 before a runtime sees them.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from smoothcert.smoothing.engines.runtimes import OnnxSession

LARGEST_PAIR = 32_767
"""Two products of an unsigned byte and a weight add up to no more in the 16 bits of processors without VNNI."""

_STANDARD = ("", "ai.onnx")
_RUNTIME = "com.microsoft"
_MOVES = ("Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "MaxPool", "Slice", "Split", "Gather")
"""Operators that hand on rounded values as rounded ones."""

_REARRANGES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten")
_REWRITES = ("Constant", "QuantizeLinear", "DequantizeLinear", "Cast", *_REARRANGES)
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_INTEGER = {"QLinearConv": (3, 5), "ConvInteger": (1, 3), "QLinearMatMul": (3, 5), "MatMulInteger": (1, 3),
            "QGemm": (3, 5), "MatMulIntegerToFloat": (1, 5)}
"""Operators on integers, with the places of their weights and of the weights' zero points."""

_NO_PRODUCTS = ("QLinearAdd", "QLinearMul", "QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearConcat",
                "QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax", "QLinearReduceMean", "QLinearWhere",
                "QuickGelu", "QuantizeLinear")


class OnnxGraph:
    """An ONNX model's main graph: who makes each value, and which values are constant.

    Args:
        model: an `onnx.ModelProto` with all of its weights, and without local functions.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.nodes = list(model.graph.node)
        self.makers = {name: node for node in self.nodes for name in node.output if name}
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._values: dict[str, np.ndarray | None] = {}

    def is_constant(self, name: str) -> bool:
        """Tell whether a value is stored, or follows from stored ones alone by operators that only rewrite it."""
        if name in self._tensors:
            return True
        node = self.makers.get(name)
        return node is not None and node.op_type in _REWRITES and all(map(self.is_constant, filter(None, node.input)))

    def constant(self, name: str) -> np.ndarray | None:
        """Return the array of a constant value; None for other values."""
        from onnx import numpy_helper

        if name not in self._values:
            if name in self._tensors:
                self._values[name] = numpy_helper.to_array(self._tensors[name])
            elif self.is_constant(name):
                session = OnnxSession(self._part(name).SerializeToString())
                self._values[name] = session.compute(name)
            else:
                self._values[name] = None
        return self._values[name]

    def _part(self, name: str) -> Any:
        """Return a model that computes one constant, and takes nothing."""
        from onnx import helper

        waiting, nodes, stored = [name], dict[int, Any](), dict[str, Any]()
        while waiting:
            wanted = waiting.pop()
            if wanted in self._tensors:
                stored[wanted] = self._tensors[wanted]
            elif wanted:
                node = self.makers[wanted]
                nodes[id(node)] = node
                waiting += node.input
        ordered = [node for node in self.nodes if id(node) in nodes]
        graph = helper.make_graph(ordered, "part", [], [helper.make_empty_tensor_value_info(name)],
                                  list(stored.values()))
        return helper.make_model(graph, opset_imports=list(self.model.opset_import), ir_version=self.model.ir_version)

    def is_rounded(self, name: str) -> bool:
        """Tell whether a value was dequantised, and no more was done to it than to move it: a runtime sees integers."""
        node = self.makers.get(name)
        if node is None or self.is_constant(name):
            return False
        if node.op_type == "DequantizeLinear":
            return True
        return node.op_type in _MOVES and self.is_rounded(node.input[0])

    def source(self, name: str) -> Any:
        """Return the node that dequantised a value which `is_rounded`, before it was moved."""
        node = self.makers.get(name)
        while node is not None and node.op_type in _MOVES:
            node = self.makers.get(node.input[0])
        return node

    def readers(self, name: str) -> Iterator[tuple[Any, str]]:
        """Yield the nodes that use a value, also rearranged, and the name under which they do."""
        for node in self.nodes:
            if name in node.input:
                if node.op_type in _REARRANGES and node.input[0] == name:
                    yield from self.readers(node.output[0])
                else:
                    yield node, name


def is_integer(graph: OnnxGraph) -> bool:
    """Tell whether an activation is rounded to integers anywhere."""
    return any(node.op_type in _INTEGER or (node.op_type == "QuantizeLinear" and not graph.is_constant(node.output[0]))
               or (node.domain == _RUNTIME and node.op_type in _NO_PRODUCTS) for node in graph.nodes)


def keep_activations(graph: OnnxGraph) -> Any:
    """Return the model with stored weights of few bits as float32 wherever their layer's activations are float; None
    where there are no such weights."""
    from onnx import ModelProto, helper, numpy_helper

    folded: dict[str, Any] = {}
    for node in graph.nodes:
        name = node.output[0] if node.output else ""
        if node.op_type != "DequantizeLinear" or not graph.is_constant(name):
            continue
        if not any(graph.is_rounded(other) for reader, own in graph.readers(name)
                   for other in reader.input if other != own):
            folded[name] = graph.constant(name)
    packed = [node for node in graph.nodes if node.op_type == "MatMulNBits" and node.domain == _RUNTIME]
    if not folded and not packed:
        return None
    model = ModelProto()
    model.CopyFrom(graph.model)
    del model.graph.node[:]
    model.graph.node.extend(node for node in graph.nodes if not node.output or node.output[0] not in folded)
    model.graph.initializer.extend(numpy_helper.from_array(np.ascontiguousarray(value), name)
                                   for name, value in folded.items())
    for node in model.graph.node:
        if node.op_type == "MatMulNBits" and node.domain == _RUNTIME:
            kept = [attribute for attribute in node.attribute if attribute.name != "accuracy_level"]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute("accuracy_level", 1)])  # float32
    return model


def close_gaps(graph: OnnxGraph) -> Any:
    """Return the model with activations rounded again, which changes none, right in front of each product that they
    reach moved; None where there is no such gap.

    ONNX Runtime computes in integers only where it finds the rounding there. In its place, it would take such a layer
    for one whose weights alone are stored in few bits.
    """
    from onnx import ModelProto, helper

    nodes: list[Any] = []
    for node in graph.nodes:
        given = node.input[0] if node.input else ""
        source = graph.source(given)
        if node.op_type in _PRODUCTS and graph.is_rounded(given) and source is not graph.makers[given]:
            label = f"{node.output[0]}_rounded"
            nodes += [helper.make_node("QuantizeLinear", [given, *source.input[1:]], [f"{label}_q"]),
                      helper.make_node("DequantizeLinear", [f"{label}_q", *source.input[1:]], [label])]
            changed = type(node)()
            changed.CopyFrom(node)
            changed.input[0] = label
            node = changed
        nodes.append(node)
    if len(nodes) == len(graph.nodes):
        return None
    model = ModelProto()
    model.CopyFrom(graph.model)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def wide_layers(graph: OnnxGraph) -> str:
    """Return the layers whose products could exceed 16 bits in pairs, in words; "" where there are none."""
    return list_layers(found for node in graph.nodes for found in _wide(graph, node))


def _wide(graph: OnnxGraph, node: Any) -> Iterator[str]:
    label = node.name or next(iter(node.output), "")
    if node.op_type in _INTEGER:
        place, zero = _INTEGER[node.op_type]
        weights = graph.constant(node.input[place])
        start = graph.constant(node.input[zero]) if len(node.input) > zero and node.input[zero] else np.int8(0)
        if weights is None or start is None:
            yield f"{label}: its weights are computed"
        elif node.op_type in ("QLinearConv", "ConvInteger"):
            yield from describe_wide(label, magnitudes(weights, start, 0), 0)
        else:
            axis = 0 if _flag(node, "transB") else -1
            yield from describe_wide(label, magnitudes(weights, start, axis), axis)
    elif node.domain == _RUNTIME and node.op_type.startswith("Q") and node.op_type not in _NO_PRODUCTS:
        yield f"{label}: the weights of a {node.op_type} are not read"
    elif node.op_type in _PRODUCTS and len(node.input) > 1 and graph.is_rounded(node.input[0]):
        if graph.is_rounded(node.input[1]):
            yield f"{label}: both of its factors are computed"
            return
        maker = graph.makers.get(node.input[1])
        moved = maker is not None and maker.op_type in _REARRANGES
        while maker is not None and maker.op_type in _REARRANGES:
            maker = graph.makers.get(maker.input[0])
        if maker is None or maker.op_type != "DequantizeLinear":
            return  # weights in float, which runs in float
        weights = graph.constant(maker.input[0])
        start = graph.constant(maker.input[2]) if len(maker.input) > 2 and maker.input[2] else np.int8(0)
        if weights is None or start is None:
            yield f"{label}: its weights are computed"
            return
        axes = {"Conv": 0, "Gemm": 0 if _flag(node, "transB") else -1, "MatMul": -1}
        axis = None if moved else axes.get(node.op_type)
        yield from describe_wide(label, magnitudes(weights, start, _attribute(maker, "axis", 1)), axis)


def magnitudes(weights: np.ndarray, zero_point: npt.ArrayLike, axis: int) -> np.ndarray:
    """Return the largest factor that a kernel may make of each integer weight: as it is stored or without its zero
    point, and moved to signed bytes where it is unsigned.

    Args:
        axis: that of a zero point for each channel.
    """
    values, zero = weights.astype(np.int64), np.asarray(zero_point).astype(np.int64)
    if zero.ndim == 1 and zero.size > 1 and zero.size == values.shape[axis]:
        zero = zero.reshape([-1 if k == axis % values.ndim else 1 for k in range(values.ndim)])
    elif zero.size > 1 and zero.shape != values.shape:  # one for each block
        zero = np.full((), np.abs(zero).max())
    unsigned = weights.dtype.kind == "u"
    return np.maximum(np.abs(values - zero), np.abs(values - 128 if unsigned else values))


def describe_wide(label: str, sizes: np.ndarray, axis: int | None) -> Iterator[str]:
    """Yield in words that two weights of an output channel are too large together, if any two are.

    Args:
        sizes: their magnitudes. axis: that of the output channels; None takes any two weights.
    """
    channels = sizes.reshape(1, -1) if axis is None else np.moveaxis(sizes, axis, 0).reshape(sizes.shape[axis], -1)
    pairs = np.sort(channels, axis=1)[:, -2:].astype(np.int64)
    worst = pairs[pairs.sum(axis=1).argmax()]
    if 255 * worst.sum() > LARGEST_PAIR:
        summed = " + ".join(map(str, worst[::-1].tolist()))
        yield f"{label}: 255 x ({summed}) = {255 * worst.sum():,} > {LARGEST_PAIR:,}"


def list_layers(found: Iterable[str]) -> str:
    """Return layers as one text, the first two of them in full."""
    layers = list(found)
    return "; ".join(layers[:2]) + (f"; and {len(layers) - 2} more layers" if len(layers) > 2 else "")


def _flag(node: Any, name: str) -> bool:
    return bool(_attribute(node, name, 0))


def _attribute(node: Any, name: str, default: int) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), default)
