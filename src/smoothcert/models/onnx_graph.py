"""The graph of an ONNX file: the check that it is a function of one image, and the classes that it names.

Nodes are judged as they are in the file: onnxruntime removes or replaces nodes as it loads it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from smoothcert.classes import Label, names_in_text
from smoothcert.errors import ModelError

LABEL_ENTRIES = ("id2label", "names", "class_names", "classes", "labels")
"""Entries of a file's metadata that may list its classes."""

_LABELS = ("classlabels_strings", "classlabels_int64s", "classlabels_ints")
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

    All subgraphs and functions are checked.

    Args:
        model: an `onnx.ModelProto`.
        one_row: it declares a batch of one image, so that a scale over the batch is that of the image.
    """
    found: dict[str, list[str]] = {}
    for node, version, constants in _nodes(_without_functions(model), path):
        fault = _fault(node, version, constants)
        if fault and not (fault == _SCALE and one_row):
            found.setdefault(fault, []).append(f"{node.op_type} {node.name or ', '.join(node.output)!r}")
    if found:
        parts = []
        for fault, nodes in found.items():
            more = f" and {len(nodes) - 3} more" if len(nodes) > 3 else ""
            parts.append(f"{', '.join(nodes[:3])}{more} {fault}: {_ADVICE[fault]}")
        raise ModelError(f"{path} is not a function of one image: {'; '.join(parts)}")


def _fault(node: Any, version: int, constants: Mapping[str, Any]) -> str | None:
    """Return the reason why a node does not judge each row by itself, always alike; None if none is known."""
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
    """Tell if a dropout may be active."""
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
    """Return the model with its local functions put in where they are called, or itself if that is not possible."""
    if not model.functions:
        return model
    from onnx import inliner

    try:
        return inliner.inline_local_functions(model)
    except Exception:  # the functions are then judged as they are, with any arguments
        return model


def _nodes(model: Any, path: Path) -> Iterator[tuple[Any, int, Mapping[str, Any]]]:
    """Yield every node, those within others included, with its operators' version and the constants it can see."""
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
    """Return the version of the standard operators, 0 if it is not given."""
    return max((entry.version for entry in holder.opset_import if entry.domain in _STANDARD), default=0)


def _constants(graph: Any, outer: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return single values that are known in a graph, by name: of the graph around it, stored ones, and copies."""
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
    """Return the array of a stored tensor of one value, None for other sizes or if it cannot be read."""
    from onnx import numpy_helper

    if any(size != 1 for size in tensor.dims):
        return None
    try:
        return numpy_helper.to_array(tensor, str(path.parent))
    except Exception:  # onnx raises many kinds for one that is damaged
        return None


def find_labels(model: Any, output: str) -> tuple[Label, ...] | None:
    """Return the class of each column of a model's `output`, None if the file does not name them.

    These are tried in order: the labels of the classifier (a node of ai.onnx.ml) that makes the output, or of the
    ZipMap that reads it; the list from which another output takes the label of the largest score, as skl2onnx writes
    it; a list
    in the file's metadata. If several nodes differ in their labels, the next one is tried.
    """
    behind = list(_behind(model.graph, output))
    maps = [node for node in model.graph.node if node.op_type == "ZipMap" and output in node.input]
    others = [value.name for value in model.graph.output if value.name != output]
    tables = [node for other in others for node in _behind(model.graph, other) if node not in behind]
    metadata = {entry.key.lower(): entry.value for entry in model.metadata_props}
    for found in ({_labels_of(node) for node in [*behind, *maps]}, {_table_of(model.graph, node) for node in tables}):
        if len(found - {()}) == 1:
            return (found - {()}).pop()
    return next((names for key in LABEL_ENTRIES if key in metadata and (names := names_in_text(metadata[key]))), None)


def _behind(graph: Any, output: str) -> Iterator[Any]:
    """Yield the nodes that compute an output."""
    makers = {name: node for node in graph.node for name in node.output if name}
    waiting, seen = [output], set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in makers:
            continue
        seen.add(name)
        yield makers[name]
        waiting += makers[name].input


def _labels_of(node: Any) -> tuple[Label, ...]:
    if node.domain != "ai.onnx.ml":
        return ()
    for attribute in node.attribute:
        if attribute.name in _LABELS and (attribute.strings or attribute.ints):
            return _texts(attribute.strings) or tuple(attribute.ints)
    return ()


def _table_of(graph: Any, node: Any) -> tuple[Label, ...]:
    """Return the constant list of texts or whole numbers from which a node picks elements."""
    if node.op_type != "ArrayFeatureExtractor":
        return ()
    stored = [tensor for tensor in graph.initializer if tensor.name == node.input[0] and len(tensor.dims) == 1]
    if not stored:
        return ()
    if stored[0].string_data:
        return _texts(stored[0].string_data)
    from onnx import numpy_helper

    values = numpy_helper.to_array(stored[0])
    return tuple(values.tolist()) if values.dtype.kind == "i" else ()


def _texts(strings: Any) -> tuple[str, ...]:
    return tuple(text.decode("utf-8", "replace") for text in strings)
