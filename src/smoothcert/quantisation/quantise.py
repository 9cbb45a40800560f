"""Static int8 quantisation of a base classifier, calibrated on noisy images, by onnxruntime.quantization.

Each convolution and dense layer computes on 8-bit inputs and 7-bit weights: w is stored as round(w / s), |w / s| <= 64,
with a scale s for each output channel. Two products of 255 and 64 stay below 2^15, so that processors without VNNI,
which add two products in 16 bits, compute the same sums. A layer's inputs x are stored as round(x / s) + z, with s and
z from the least and the largest value on the calibration images. The last layer's output stays in float: in integers,
rows would tie at the top.
"""

import importlib
import logging
import math
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smoothcert.classifiers.card import INTEGER, ModelCard, Quantisation, describe_data, write_card
from smoothcert.classifiers.classifier import Classifier, model_card, open_classifier
from smoothcert.config.sampling import RunConfig
from smoothcert.data import ImageData
from smoothcert.denoise import DenoisedClassifier
from smoothcert.errors import (
    DataError,
    FileError,
    InputError,
    MissingExtraError,
    ModelError,
    QualityWarning,
    first_line,
)
from smoothcert.io.files import make_folder, sha256, write_error
from smoothcert.models import label_model
from smoothcert.noise import Noise, identify_noise
from smoothcert.progress import Progress, phase, reporting
from smoothcert.quantisation.export import batches_of, float_graph, run_rows
from smoothcert.quantisation.options import LEAST_IMAGES, QuantiseConfig
from smoothcert.runs.inputs import Inputs, model_title, open_inputs
from smoothcert.smoothing.precision import isolate
from smoothcert.smoothing.protocols import check_logits, evaluation
from smoothcert.version import __version__

LAYERS = ("Conv", "Gemm", "MatMul")
"""Operators with weights, which the integers are for."""

AROUND = ("Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "MaxPool", "Pad", "Relu", "Reshape",
          "Squeeze", "Transpose", "Unsqueeze")
"""Operators between them that the runtimes also compute in integers, and faster."""

WEIGHT_BITS = 7
LEAST_AGREEMENT = 0.9
"""A warning is due where the integer network gives the original's class to a smaller share of noisy images."""

_SAME = 1e-3  # of a row's largest |logit|: more between a network and its export is another network
_NO_ARITHMETIC = ("QuantizeLinear", "DequantizeLinear", "Cast", "Concat", "Constant", "Expand", "Flatten", "Gather",
                  "Identity", "Reshape", "Shape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")
_VERSIONS = ("torch", "onnx", "onnxruntime")


@isolate()
def quantise(config: QuantiseConfig, progress: Progress | None = None, *, verbose: bool = False) -> ModelCard:
    """Write the integer network of a float32 model into a new model directory, and return its card.

    Args:
        progress, verbose: as for `certify`.
    Raises:
        MissingExtraError: without onnx and onnxruntime. FileError: the directory exists. InputError: no calibration
        data or no sigma. DataError: too few images. ModelError: a model that is quantised already, cannot be exported
        (the message names the operator), or has no layer for integers. Nothing is written then.
    Warns:
        QualityWarning: the integer network often gives other answers than the original.
    """
    try:
        importlib.import_module("onnxscript")
        importlib.import_module("onnxruntime.quantization")
    except ImportError as error:
        raise MissingExtraError(error.name or "onnxruntime", "onnx", "quantise") from error
    out = config.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileError(f"{out} exists: choose a new directory for -o")
    with reporting(progress, verbose):
        inputs, asked = _open(config)
        with phase("drawing the calibration images"):
            noisy = draw_noisy(inputs.data, inputs.indices, inputs.noise, inputs.seed)
            fresh = draw_noisy(inputs.data, inputs.indices, inputs.noise, inputs.seed, start=1)
        with phase("exporting the network"):
            graph = float_graph(asked, inputs.classifier.model, inputs.data.shape, inputs.classifier.num_classes)
            logits = _answers(inputs.classifier, fresh, inputs.device)
            _check_export(label_model(config.model), logits, run_rows(graph, fresh))
        make_folder(out.parent)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as place:
            draft = Path(place) / out.name
            draft.mkdir()
            with phase("calibrating"):
                in_float = quantise_graph(graph, noisy, draft / INTEGER)
            with phase("checking the integer network"):
                made = open_classifier(str(draft / INTEGER), inputs.data.shape, inputs.classifier.num_classes,
                                       bounds=inputs.data.bounds)
                votes = _answers(made, fresh, torch.device("cpu")).argmax(axis=1)
            agreement = float((votes == logits.argmax(axis=1)).mean())
            card = _describe(config, inputs, graph, draft / INTEGER, in_float, agreement)
            write_card(draft, card)
            try:
                draft.replace(out)
            except OSError as error:
                raise write_error(error, out) from error
    if agreement < LEAST_AGREEMENT:
        warnings.warn(f"the integer network gives the original's class to only {agreement:.1%} of the noisy images: "
                      f"calibrate on more images, at the sigma and on the data that the model was trained with",
                      QualityWarning, stacklevel=3)
    return card


def _open(config: QuantiseConfig) -> tuple[Inputs, RunConfig]:
    """Return the model, the calibration images and the noise, and the options of a run that opens them."""
    asked = RunConfig.parse({**config.select(RunConfig), "max_images": config.images})
    card = model_card(config)
    if card is not None and card.quantised is not None:
        raise ModelError(f"{config.model} is quantised already: give the float32 network that it was made from, "
                         f"{card.quantised.original['model']}")
    if config.data is None and (card is None or not card.data.get("data")):
        raise InputError(f"data: the calibration images are required, because {label_model(config.model)} does not "
                         f"say what it was trained on")
    inputs = open_inputs(asked)
    if len(inputs.indices) < LEAST_IMAGES:
        raise DataError(f"{inputs.data.name} ({inputs.data.split}) has {len(inputs.indices)} images, and calibration "
                        f"takes at least {LEAST_IMAGES}: give another split or other data")
    return inputs, asked


def draw_noisy(data: ImageData, indices: np.ndarray, noise: Noise, seed: int, start: int = 0) -> np.ndarray:
    """Return a noisy copy of each image, (N, *shape) float32, keyed by seed and index in a stage of its own.

    The network is then independent of all noise that it is certified with, also under the same seed.

    Args:
        start: the number of the copy.
    """
    rows = np.empty((len(indices), int(np.prod(data.shape))), dtype=np.float32)
    for row, index in zip(rows, indices.tolist(), strict=True):
        centre = noise.centre(data.image(index))
        noise.fill(row[None], centre, noise.stream(seed, index, "calibrate", centre, start))
    return rows.reshape(-1, *data.shape)


def quantise_graph(graph: Any, noisy: np.ndarray, path: Path) -> dict[str, int]:
    """Write the integer form of a float32 graph, and return the numbers of operators that stay in float.

    Args:
        graph: an `onnx.ModelProto`. noisy: calibration inputs (N, *shape).
    Raises:
        ModelError: onnxruntime cannot quantise it, or there is no layer to quantise.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    images = graph.graph.input[0]
    declared = images.type.tensor_type.shape.dim[0].dim_value

    class CalibrationImages(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(batches_of(noisy, declared))

        def get_next(self) -> Any:
            batch = next(self.batches, None)
            return None if batch is None else {images.name: batch[0]}

    with tempfile.TemporaryDirectory() as place, _quiet():
        source, ready = Path(place) / "source.onnx", Path(place) / "ready.onnx"
        onnx.save(graph, source)
        try:
            quant_pre_process(source, ready, skip_symbolic_shape=True)
            prepared = onnx.load(ready)
            for number, node in enumerate(prepared.graph.node):
                node.name = f"{number} {node.op_type}"  # nodes are excluded by name, and not all have one
            onnx.save(prepared, ready)
            quantize_static(
                ready, path, CalibrationImages(), per_channel=True, reduce_range=True, activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8, op_types_to_quantize=[*LAYERS, *AROUND],
                nodes_to_exclude=[node.name for node in _keep_in_float(prepared.graph)],
                extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"], "MatMulConstBOnly": True})
        except Exception as error:  # it raises what its passes, protobuf and the runtime raise
            raise ModelError(f"onnxruntime cannot quantise the network: {type(error).__name__}: {first_line(error)}"
                             ) from error
    made = onnx.load(path).graph
    scaled = {name for node in made.node if node.op_type == "DequantizeLinear" for name in node.output}
    counted = [node for node in made.node if node.op_type not in _NO_ARITHMETIC]
    stored = {tensor.name for tensor in made.initializer}
    floats = [node for node in counted if node.op_type not in (*LAYERS, *AROUND)
              or not scaled.issuperset({*node.input} - stored - {""})]
    if not any(node.op_type in LAYERS and node not in floats for node in counted):
        raise ModelError(f"the network has no convolution or dense layer with fixed weights, which integers are for; "
                         f"its operators are {', '.join(sorted({node.op_type for node in made.node}))}")
    return dict(sorted(Counter(node.op_type for node in floats).items()))


def _keep_in_float(graph: Any) -> Iterator[Any]:
    """Yield the nodes that stay in float: those behind the last layers with weights, and each maximum pooling in front
    of a ReLU, which ONNX Runtime computes faster so (0.63 against 0.80 ms an image of a network with three)."""
    makers = {name: node for node in graph.node for name in node.output}
    users: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    waiting, seen = [value.name for value in graph.output], set()
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.op_type not in LAYERS and node.name not in seen:
            seen.add(node.name)
            waiting += node.input
            yield node
    for node in graph.node:
        behind = users.get(node.output[0], [])
        if node.op_type == "MaxPool" and node.name not in seen and behind and all(
                user.op_type == "Relu" for user in behind):
            yield node


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the remarks that the quantiser logs to the root logger."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)


def _answers(classifier: Classifier, rows: np.ndarray, device: torch.device) -> np.ndarray:
    """Return a classifier's logits on rows, (N, K) on the host."""
    with torch.no_grad(), evaluation(classifier.model):
        return np.concatenate([
            check_logits(classifier.model(torch.from_numpy(batch).to(device)), len(batch), classifier.num_classes).cpu()
            for batch, _ in batches_of(rows, None)])


def _check_export(name: str, expected: np.ndarray, found: np.ndarray) -> None:
    """Raise ModelError where the exported graph computes another function than the model."""
    scale = np.abs(expected).max(axis=1, keepdims=True).clip(min=np.median(np.abs(expected).max(axis=1)))
    if expected.shape != found.shape or not (np.abs(expected - found) <= _SAME * scale).all():
        raise ModelError(f"{name} exported to ONNX gives other scores than the model itself, so that it was not "
                         f"exported as it is: look for steps that depend on the values or the number of the images, "
                         f"or for classes in another order")


def _describe(
    config: QuantiseConfig, inputs: Inputs, graph: Any, file: Path, in_float: dict[str, int], agreement: float
) -> ModelCard:
    """Return the card of the integer network."""
    data = inputs.data
    original = model_card(config)
    made = Quantisation(
        sha256=sha256(file),
        original={"model": model_title(config.model), **inputs.classifier.identity},
        calibration={"data": data.name, "split": data.split, "images": len(inputs.indices),
                     "sha256": data.fingerprint(inputs.indices)},
        noise={**identify_noise(inputs.noise, config.noise), "seed": inputs.seed},
        weights=WEIGHT_BITS, in_float=in_float,
        versions={"smoothcert": __version__,
                  **{tool: importlib.import_module(tool).__version__ for tool in _VERSIONS}},
        denoiser=isinstance(inputs.classifier.model, DenoisedClassifier))
    trained_on = original.data if original is not None and config.data is None else \
        describe_data(config, data.name, data.columns)
    stored = sum(math.prod(tensor.dims) for tensor in graph.graph.initializer if tensor.data_type == tensor.FLOAT)
    return ModelCard(
        model=INTEGER, options={}, input_shape=data.shape, num_classes=data.num_classes,
        class_names=data.class_names, levels=data.levels, data=trained_on, sigma=inputs.noise.sigma,
        identity={"kind": "quantise", "sha256": made.sha256},
        best={"agreement": round(agreement, 4)}, complete=True, parameters=stored, quantised=made)

