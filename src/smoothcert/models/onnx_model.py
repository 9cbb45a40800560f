"""ONNX files, run by onnxruntime on the CPU, after a check that the graph is a function of one image.

Nodes are judged as they are in the file: onnxruntime removes or replaces nodes as it loads it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smoothcert.classes import Label, names_in_text
from smoothcert.errors import FileError, MissingExtraError, ModelError
from smoothcert.limits import path_inside
from smoothcert.models.layers import Shape
from smoothcert.models.loaded import LoadedModel, exact_batches, read_model_file
from smoothcert.smoothing.adapters import Fit, find_fit
from smoothcert.smoothing.batching import ANY_BATCH, BatchSizes

_INPUTS = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"}
_SCORES = ("float", "double", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")

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


class OnnxModel:
    """An onnxruntime session as a model: float32 (N, C, H, W) -> (N, K), for any N, on the device of the images.

    It gives no gradients, and raises ModelError for images that require them. `classes_` are the classes of its
    outputs, if the file names them.
    """

    classes_: tuple[int | str, ...] | None = None

    def __init__(self, session: Any, images: str, outputs: Sequence[str], flat: bool, input_dtype: str) -> None:
        self.fit = Fit()
        self.input_dtype = input_dtype
        self._session = session
        self._images, self.outputs = images, list(outputs)
        self._flat = flat

    def __call__(self, images: Tensor) -> Tensor:
        if images.requires_grad and torch.is_grad_enabled():
            raise ModelError("an ONNX model gives no gradients, which attacks and training need: take the attack "
                             "stein, which asks only for answers, or attack the torch model with --save-adversaries "
                             "and let this one predict them, with --adversaries")
        return self.fit.logits(self.run, images)

    def run(self, batch: Tensor) -> dict[str, np.ndarray]:
        """Return the wanted outputs, by name, for one batch of a size that the file takes."""
        array = np.ascontiguousarray(batch.detach().float().cpu().numpy()).astype(self.input_dtype, copy=False)
        array = array.reshape(len(array), -1) if self._flat else array
        return dict(zip(self.outputs, self._session.run(self.outputs, {self._images: array}), strict=True))

    def use_fit(self, fit: Fit) -> None:
        """Run as `fit` describes from now on, and compute no other output than the one that it names."""
        self.fit, self.outputs = fit, [fit.output] if fit.output else self.outputs


def load_onnx(
    spec: str, path: Path, content: bytes, num_classes: int | None, input_shape: Shape | None, output: str | int | None
) -> LoadedModel:
    """Return the model in an ONNX file; its content is the bytes of the file and of the weights stored beside it.

    The input is (N, C, H, W), or (N, D) for images that are flattened first, of floats of any precision; images are
    cast to it. The logits are the one output that can hold them (see `smoothing.adapters`).

    Raises FileError for a corrupt file, MissingExtraError without onnxruntime, ModelError for a model that does not
    take images of floats (of input_shape, if known) or does not return logits.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(error.name or "onnxruntime", "onnx", f"loading {path}") from error
    try:
        stored_model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own errors, which differ between its versions
        raise FileError(f"{path} cannot be read as an ONNX model: {type(error).__name__}: {error}") from error
    beside = sorted(set(_places_beside(stored_model)))
    if in_memory := [place for place in beside if "_MEM_ADDR_" in place]:  # onnxruntime's word for an address
        raise FileError(f"{path} takes its weights from {in_memory[0]}, which is not a file: export it again")
    stored = [content, *(read_model_file(path_inside(path.parent, place)) for place in beside)]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # failures are raised, and need not be printed as well
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has one class of error a status, with no base of their own
        raise FileError(f"{path} cannot be loaded as an ONNX model: {type(error).__name__}: {error}") from error
    try:
        images = _image_input(path, session.get_inputs())
        outputs = session.get_outputs()
        listed = ", ".join(f"{value.name}: {value.type} {value.shape}" for value in outputs)
    except UnicodeDecodeError as error:
        raise FileError(f"{path} names its inputs, outputs or dimensions in bytes that are not text: {error}") from None
    batch, *sizes = images.shape
    check_graph(path, stored_model, one_row=batch == 1)
    fixed = all(isinstance(size, int) for size in sizes)
    numeric = [value.name for value in outputs if value.type in {f"tensor({kind})" for kind in _SCORES}]
    if not numeric:
        raise ModelError(f"{path} has no output of numbers (N, K), only {listed}{_hint(listed)}")
    model = OnnxModel(session, images.name, numeric, len(sizes) == 1, _INPUTS[images.type])
    shape = None if len(sizes) == 1 or not fixed else (sizes[0], sizes[1], sizes[2])
    tried = (1, 1, sizes[0]) if len(sizes) == 1 and fixed else shape or input_shape
    declared = BatchSizes(batch, batch) if isinstance(batch, int) and batch > 0 else ANY_BATCH
    model.use_fit(_fit(path, model, tried, outputs, listed, num_classes, output, declared))
    model.classes_ = find_labels(stored_model, model.outputs[0])
    return LoadedModel(model, spec, "onnx", b"".join(stored), shape, model.input_dtype)


def _fit(
    path: Path, model: OnnxModel, shape: Shape | None, outputs: Sequence[Any], listed: str, num_classes: int | None,
    output: str | int | None, batch: BatchSizes,
) -> Fit:
    """Return how the logits come out of the file, found by a trial, or as declared if it takes images of any size."""
    if shape is not None:
        try:
            fit = find_fit(model.run, shape, num_classes, output, batch)
        except ModelError as error:
            raise ModelError(f"{path} returns {listed}: {error}{_hint(listed)}") from error
    else:
        names = [value.name for value in outputs if value.name in model.outputs]
        flat = [value.name for value in outputs if value.name in names and len(value.shape) == 2]
        found = [name for name in names if name == output] if output is not None else flat or names
        if len(found) != 1:
            raise ModelError(f"{path} takes images of any size and returns {listed}: name the one with the logits "
                             f"by --output NAME (in Python, output=NAME), or give input_shape")
        fit = Fit(found[0], batch)
    return replace(fit, batch=exact_batches(fit.batch, model.input_dtype))


def _image_input(path: Path, inputs: Sequence[Any]) -> Any:
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs)
        raise ModelError(f"{path} takes {len(inputs)} inputs ({names}); a model takes one, the images")
    if inputs[0].type not in _INPUTS or len(inputs[0].shape) not in (2, 4):
        raise ModelError(f"{path} takes a {inputs[0].type} of shape {inputs[0].shape}; a model takes floats (N, C, H, "
                         f"W) in [0, 1] plus noise, or (N, D) flattened: export it with such an input, and put "
                         f"conversions to other inputs inside")
    return inputs[0]


def _hint(listed: str) -> str:
    return "; with skl2onnx, convert with the option zipmap=False" if "seq(" in listed or "map(" in listed else ""


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
