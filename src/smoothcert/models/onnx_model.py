"""ONNX files, run by onnxruntime on the CPU, after a check that the graph is a function of one image.

Nodes are judged as they are in the file: onnxruntime removes or replaces nodes as it loads it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from smoothcert.classes import Label, names_in_text
from smoothcert.errors import FileError, ModelError, first_line
from smoothcert.limits import path_inside
from smoothcert.models.layers import Shape
from smoothcert.models.loaded import LoadedModel, read_model_file
from smoothcert.models.network_file import open_file
from smoothcert.models.quantised import OnnxGraph, close_gaps, is_integer, keep_activations, wide_layers
from smoothcert.smoothing.engines.runtimes import RUNTIMES, OnnxSession, OpenvinoSession, import_runtime

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


@dataclass(frozen=True, eq=False)
class OnnxSource:
    """An ONNX file as runtimes are given it; see `smoothcert.models.network_file.FileSource`.

    Attributes:
        path: the file. stored: its model, without the weights beside it. changed: what runs in its place, if any.
    """

    path: Path
    stored: Any
    changed: Any = None
    wide: str | None = None
    runtimes: tuple[str, ...] = RUNTIMES

    @property
    def name(self) -> str:
        return self.path.name

    def load(self) -> OnnxSession:
        """Open it in onnxruntime for any batch. Raises FileError."""
        try:
            return OnnxSession(str(self.path) if self.changed is None else self.changed.SerializeToString())
        except UnicodeDecodeError as error:
            raise FileError(f"{self.path} names its inputs, outputs or dimensions in bytes that are not text: {error}"
                            ) from None
        except Exception as error:  # onnxruntime has one class of error a status, with no base of their own
            raise FileError(f"{self.path} cannot be loaded as an ONNX model: {type(error).__name__}: {error}"
                            ) from error

    def session(
        self, runtime: str, rows: int, shape: tuple[int, ...], precision: str = "float32", study: bool = False,
    ) -> OnnxSession | OpenvinoSession:
        model = complete(self.path, self.stored) if self.changed is None else self.changed
        if runtime == "openvino":
            return OpenvinoSession(model.SerializeToString(), None, rows, shape, precision, study)
        return OnnxSession(_fix_sizes(model, rows, shape).SerializeToString(), study)


def _fix_sizes(model: Any, rows: int, shape: tuple[int, ...]) -> Any:
    """Return an ONNX model for one size of batch and of images alone."""
    fixed = type(model)()
    fixed.CopyFrom(model)
    held = {tensor.name for tensor in fixed.graph.initializer}
    images = next(value for value in fixed.graph.input if value.name not in held)
    for size, wanted in zip(images.type.tensor_type.shape.dim, (rows, *shape), strict=True):
        size.dim_value = wanted
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    return fixed


def complete(path: Path, stored: Any) -> Any:
    """Return an ONNX model with the weights in it that lie beside its file. Raises FileError."""
    from onnx import external_data_helper

    model = type(stored)()
    model.CopyFrom(stored)
    try:
        external_data_helper.load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # onnx raises many kinds for weights that are missing or damaged
        raise FileError(f"{path} cannot be read with its weights: {first_line(error)}") from error
    return model


def load_onnx(
    spec: str, path: Path, content: bytes, num_classes: int | None, input_shape: Shape | None,
    output: str | int | None, runtime: str | None = None,
) -> LoadedModel:
    """Return the model in an ONNX file; its content is the bytes of the file and of the weights stored beside it.

    The input is (N, *shape), or (N, D) for images that are flattened first, of floats of any precision; images are
    cast to it. The logits are the one output that can hold them (see `smoothing.adapters`).

    Args:
        runtime: the one that runs an integer network, and is part of it; None is onnxruntime.
    Raises:
        FileError: a corrupt file. MissingExtraError: onnxruntime is not installed. ModelError: a model that is no
            function of one image, or as `open_file` says. InputError: as `open_file` says.
    """
    onnx = import_runtime("onnx", f"loading {path}")
    import_runtime("onnxruntime", f"loading {path}")
    try:
        stored = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own errors, which differ between its versions
        raise FileError(f"{path} cannot be read as an ONNX model: {type(error).__name__}: {error}") from error
    beside = sorted(set(_places_beside(stored)))
    if in_memory := [place for place in beside if "_MEM_ADDR_" in place]:  # onnxruntime's word for an address
        raise FileError(f"{path} takes its weights from {in_memory[0]}, which is not a file: export it again")
    parts = [content, *(read_model_file(path_inside(path.parent, place)) for place in beside)]
    source = OnnxSource(path, stored)
    session = source.load()
    rows = session.inputs[0].shape[0] if session.inputs and session.inputs[0].shape else None
    check_graph(path, stored, one_row=rows == 1)
    if any(node.op_type in _BITS or node.op_type.startswith("Q") for node, _, _ in _nodes(stored, path)):
        source = _judge_integers(source)
        session = session if source.changed is None else source.load()
    model, shape = open_file(source, session, str(path), num_classes, input_shape, output, runtime)
    model.classes_ = find_labels(stored, model.outputs[0])
    return LoadedModel(model, spec, "onnx", b"".join(parts), shape, model.input_dtype,
                       activations="float32" if source.wide is None and source.changed is not None else None)


_BITS = ("DequantizeLinear", "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "MatMulNBits")


def _judge_integers(source: OnnxSource) -> OnnxSource:
    """Return a file's model with what its integers ask for: see `keep_activations` and `close_gaps`."""
    model = _without_functions(complete(source.path, source.stored))
    folded = keep_activations(OnnxGraph(model))
    graph = OnnxGraph(model if folded is None else folded)
    if not is_integer(graph):
        return replace(source, changed=folded)
    closed = close_gaps(graph)
    return replace(source, changed=folded if closed is None else closed, wide=wide_layers(graph))


def _places_beside(model: Any) -> Iterator[str]:
    """Yield the files, relative to the model's, that hold tensors of any part of the model."""
    messages = [model]
    while messages:
        message = messages.pop()
        if message.DESCRIPTOR.name == "TensorProto":
            places = [entry.value for entry in message.external_data if entry.key == "location"]
            yield from (place if isinstance(place, str) else place.decode("utf-8", "replace") for place in places)
            continue
        for field, value in message.ListFields():
            if field.message_type:
                messages += [value] if hasattr(value, "ListFields") else value


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
    it;
    a list in the file's metadata. If several nodes differ in their labels, the next one is tried.
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
