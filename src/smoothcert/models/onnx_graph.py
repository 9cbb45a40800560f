"""Whether the graph of an ONNX file is a function of one image, judged by its nodes as they are in the file.

onnxruntime removes or replaces nodes as it loads a file, so that what it runs is no evidence of what the file says.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from smoothcert.errors import ModelError

_STANDARD = ("", "ai.onnx")
_RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")
_RUNTIME = "com.microsoft"  # onnxruntime's own operators, many of which have no specification elsewhere
_TRAINING = ("ai.onnx.training", "ai.onnx.preview.training")

_DRAWS = "draws random numbers"
_TRAINS = "is in training mode, or may be"
_BATCH = "takes its statistics over the batch"
_SCALE = "takes its scale over the whole batch"

_ADVICE = {
    _DRAWS: "export the model in eval mode, without random layers",
    _TRAINS: "export the model in eval mode",
    _BATCH: "export the model in eval mode, with statistics that are fixed or of one image",
    _SCALE: "quantise statically (onnxruntime.quantization.quantize_static), or export the model for a fixed batch of "
            "one image before quantising it",
}


def check_graph(path: Path, model: Any, one_row: bool) -> None:
    """Raise ModelError, naming the nodes, for an ONNX model whose answers are not a function of one image.

    All subgraphs and functions are looked at.

    Args:
        model: an `onnx.ModelProto`.
        one_row: whether it declares a batch of one image: a scale over the batch is then that of the image.
    """
    found: dict[str, list[str]] = {}
    for node, version, constants in _nodes(_without_functions(model), path):
        fault = _fault(node, version, constants)
        if fault and not (fault == _SCALE and one_row):
            found.setdefault(fault, []).append(f"{node.op_type} {node.name or ', '.join(node.output)!r}")
    if found:
        parts = [f"{_listed(nodes)} {fault}: {_ADVICE[fault]}" for fault, nodes in found.items()]
        raise ModelError(f"{path} is not a function of one image: {'; '.join(parts)}")


def _fault(node: Any, version: int, constants: Mapping[str, Any]) -> str | None:
    """What keeps a node from judging each row by itself, always alike; None where nothing is known."""
    if node.domain in _STANDARD:
        if node.op_type in _RANDOM:
            return _DRAWS
        if node.op_type == "Dropout" and _drops(node, version, constants):
            return _TRAINS
        if node.op_type == "BatchNormalization" and _normalises_by_batch(node, version):
            return _TRAINS
        if node.op_type == "MeanVarianceNormalization" and 0 in _attribute(node, "axes", [0, 2, 3]):
            return _BATCH
        if node.op_type in ("LayerNormalization", "RMSNormalization") and _attribute(node, "axis", -1) == 0:
            return _BATCH
        return _SCALE if node.op_type == "DynamicQuantizeLinear" else None
    if node.domain in _TRAINING:
        return _TRAINS
    if node.domain != _RUNTIME:
        return None
    if node.op_type.startswith("DynamicQuantize"):
        return _SCALE
    if "Dropout" in node.op_type:
        return _TRAINS if _drops(node, 12, constants, {"BiasDropout": 4, "BitmaskBiasDropout": 4}) else None
    if node.op_type == "BatchNormInternal" and _normalises_by_batch(node, 14):
        return _TRAINS
    return _DRAWS if node.op_type == "Sampling" else None


def _drops(node: Any, version: int, constants: Mapping[str, Any], places: Mapping[str, int] | None = None) -> bool:
    """Whether a dropout is not certain to be idle."""
    if version < 7:
        return not _attribute(node, "is_test", 0)
    place = (places or {}).get(node.op_type, 2)
    given = node.input[place] if version >= 12 and len(node.input) > place else ""
    if not given:
        return False
    value = constants.get(given)
    return value is None or bool(value.any())


def _normalises_by_batch(node: Any, version: int) -> bool:
    if version >= 14:
        return bool(_attribute(node, "training_mode", 0))
    if version >= 7:
        return sum(bool(name) for name in node.output) > 1
    return not _attribute(node, "is_test", 0)


def _attribute(node: Any, name: str, default: Any) -> Any:
    from onnx.helper import get_attribute_value

    for attribute in node.attribute:
        if attribute.name == name:
            return 1 if attribute.ref_attr_name else get_attribute_value(attribute)
    return default


def _without_functions(model: Any) -> Any:
    """The model with its local functions put in where they are called; itself where that is not possible."""
    if not model.functions:
        return model
    from onnx import inliner

    try:
        return inliner.inline_local_functions(model)
    except Exception:  # the functions are then judged as they are, whatever they are called with
        return model


def _nodes(model: Any, path: Path) -> Iterator[tuple[Any, int, Mapping[str, Any]]]:
    """Every node with the version of its operators and the constants that it can see, those within it included."""
    versions = _versions(model)
    pending: list[tuple[Any, int, dict[str, Any]]] = [(model.graph, versions, {})]
    pending += [(function, _versions(function) or versions, {}) for function in model.functions]
    while pending:
        graph, version, outer = pending.pop()
        constants = _constants(graph, outer, path)
        for node in graph.node:
            yield node, version, constants
            for attribute in node.attribute:
                inner = [attribute.g] if attribute.HasField("g") else []
                pending += [(part, version, constants) for part in (*inner, *attribute.graphs)]


def _versions(holder: Any) -> int:
    """The version of the standard operators; 0 where it is not said."""
    return max((entry.version for entry in holder.opset_import if entry.domain in _STANDARD), default=0)


def _constants(graph: Any, outer: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Single values that are known in a graph, by name: those of the graph around it, stored ones, and copies."""
    inner = {getattr(value, "name", value) for value in graph.input} | {name for n in graph.node for name in n.output}
    known = {name: value for name, value in outer.items() if name not in inner}
    known |= {tensor.name: _single(tensor, path) for tensor in getattr(graph, "initializer", ())}
    for node in graph.node:
        if node.domain not in _STANDARD or not node.output:
            continue
        if node.op_type == "Constant":
            given = {attribute.name: attribute for attribute in node.attribute}
            if "value" in given:
                known[node.output[0]] = _single(given["value"].t, path)
            elif "value_int" in given:
                known[node.output[0]] = np.asarray(given["value_int"].i)
        elif node.op_type in ("Identity", "Cast") and node.input:
            known[node.output[0]] = known.get(node.input[0])
    return known


def _single(tensor: Any, path: Path) -> Any:
    """The array of a stored tensor of one value; None for more of them, or where it cannot be read."""
    from onnx import numpy_helper

    if any(size != 1 for size in tensor.dims):
        return None
    try:
        return numpy_helper.to_array(tensor, str(path.parent))
    except Exception:  # onnx raises many kinds for one that is damaged
        return None


def _listed(nodes: list[str]) -> str:
    more = f" and {len(nodes) - 3} more" if len(nodes) > 3 else ""
    return f"{', '.join(nodes[:3])}{more}"
