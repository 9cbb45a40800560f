"""A base classifier as one float32 ONNX graph: exported from torch, or read from the file that it is in."""

import logging
import re
import warnings
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from smoothcert.config.sampling import RunConfig
from smoothcert.denoise import DenoisedClassifier
from smoothcert.denoise.estimators import EnergyEstimator
from smoothcert.errors import ModelError, first_line
from smoothcert.models import label_model, load_model
from smoothcert.models.layers import Shape, normalise_input
from smoothcert.smoothing.adapters import Fit
from smoothcert.smoothing.folding import fold
from smoothcert.smoothing.protocols import PredictProba, input_dtype, is_random
from smoothcert.smoothing.sampling import denoise

OPSET = 18
"""The least version of the standard operators that the graph is written in."""

_INTEGER = re.compile(r".*(Quantize|Integer|QLinear).*|QGemm|QMoE|MatMulNBits")
_OPERATOR = re.compile(r"OpOverload\(op='([\w.:]+)'|target=(?:torch\.ops\.)?([\w.]+)\]")


class _DenoiserLayer(nn.Module):
    """The denoiser at its sigma, as a layer: inputs (N, *shape) -> (N, *shape)."""

    def __init__(self, denoiser: Any, sigma: float):
        super().__init__()
        self.denoiser, self.sigma = denoiser, sigma

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return denoise(self.denoiser, images, self.sigma)


class _Called(nn.Module):
    """A function of inputs as a module."""

    def __init__(self, function: Any):
        super().__init__()
        self.function = function

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.function(images)


def float_graph(asked: RunConfig, model: Any, shape: Shape, num_classes: int) -> Any:
    """Return an `onnx.ModelProto`: float32 inputs (N, *shape) -> logits (N, K), BatchNorm folded.

    Args:
        asked: the options that name the model, and the denoiser and normalisation in front of it.
        model: the base classifier that they make.
    Raises:
        ModelError: it is random, quantised already, or has an operator that ONNX lacks; the message names it.
    """
    name = label_model(asked.model)
    if is_random(model):
        raise ModelError(f"{name} draws random numbers for each image, which ONNX has no operator for: quantise a "
                         f"model that does not")
    if isinstance(model, PredictProba):
        raise ModelError(f"{name} gives its scores by predict_proba, which cannot be exported to ONNX: give a torch "
                         f"network or an ONNX file")
    if (dtype := input_dtype(model)) != torch.float32:
        raise ModelError(f"{name} computes in {dtype}, and only float32 networks can be quantised: give it in float32")
    for part in model.modules() if isinstance(model, nn.Module) else ():
        if isinstance(part, EnergyEstimator):
            raise ModelError(f"{name} cannot be exported to ONNX: its denoiser {type(part).__name__} takes a gradient "
                             f"(torch.autograd.grad), which ONNX has no operator for; a direct denoiser has none")
        if "quantized" in type(part).__module__:
            raise ModelError(f"{name} is quantised already (its layer {type(part).__name__}): give the float32 network")
    kind = Path(asked.model).suffix.lower() if isinstance(asked.model, str) else ""
    if kind == ".xml":
        raise ModelError(f"{name} is a network of OpenVINO, which cannot be exported to ONNX: give the torch network "
                         f"or the ONNX file that it was converted from")
    if kind != ".onnx":
        return export_network(model if isinstance(model, nn.Module) else _Called(model), shape, name)
    graph = _read_file(asked, shape, num_classes)
    front = [_DenoiserLayer(model.denoiser, model.sigma)] if isinstance(model, DenoisedClassifier) else []
    if asked.mean is not None:
        front.append(normalise_input(nn.Identity(), asked.mean, asked.std, shape, name))
    if not front:
        return graph
    rows = graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value or None
    exported = export_network(nn.Sequential(*front), shape, name, rows, graph.opset_import[0].version)
    return _put_in_front(exported, graph, name)


def export_network(network: nn.Module, shape: Shape, name: str, rows: int | None = None, version: int = OPSET) -> Any:
    """Return a folded network as an `onnx.ModelProto`.

    Args:
        name: of the model, for errors.
        rows: the number that the graph is for; None is any number, or the one that the network says it takes.
        version: of the standard operators.
    Raises:
        ModelError: it cannot be exported; the message names the operator.
    """
    sizes = [fit.batch for part in network.modules() if isinstance(fit := getattr(part, "fit", None), Fit)]
    rows = max((1 if size.alone else size.up_from(1) for size in sizes if not size.free), default=rows)
    dynamic = ({0: torch.export.Dim("N")},) if rows is None else None
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:  # the exporter logs and prints whole graphs where it fails
        with warnings.catch_warnings(), torch.no_grad(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(fold(network).cpu(), (torch.zeros(rows or 2, *shape),), dynamo=True,
                                             verbose=False, opset_version=version, dynamic_shapes=dynamic)
    except Exception as error:  # the exporter and the network's own code raise anything
        raise ModelError(f"{name} cannot be exported to ONNX: {_explain(error)}") from error
    finally:
        logging.disable(level)
    return _normalise(program.model_proto)


def _explain(error: BaseException) -> str:
    """Return the operator at which an export failed, and why."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    found = next((match for one in reversed(chain) if (match := _OPERATOR.search(str(one)))), None)
    if found is None:
        return first_line(chain[-1])
    operator = found[1] or found[2]
    return f"ONNX has no form of its operator {operator} ({first_line(chain[-1])}); replace it in the network"


def _normalise(graph: Any) -> Any:
    """Return a model with one entry for each set of operators that it uses, and without the notes that an exporter
    leaves of the files that its nodes come from."""
    from onnx import helper

    used = {_domain(node) for part in (graph.graph, *graph.functions) for node in part.node}
    versions = {_domain(entry): entry.version for entry in graph.opset_import if _domain(entry) in used | {""}}
    del graph.opset_import[:]
    graph.opset_import.extend(helper.make_opsetid(domain, versions[domain]) for domain in sorted(versions))
    for node in graph.graph.node:
        node.doc_string = ""
    for noted in (graph.graph, *graph.graph.node, *graph.graph.value_info, *graph.graph.input, *graph.graph.output):
        del noted.metadata_props[:]
    return graph


def _domain(entry: Any) -> str:
    """Return the set of operators of an entry; the standard set has two names."""
    return "" if entry.domain == "ai.onnx" else entry.domain


def _read_file(asked: RunConfig, shape: Shape, num_classes: int) -> Any:
    """Return the graph of an ONNX file with the one output that holds its logits."""
    import onnx

    path = Path(asked.model).expanduser()
    loaded: Any = load_model(asked.model, num_classes=num_classes, input_shape=shape, output=asked.output)
    graph = onnx.load(path)
    integer = sorted({node.op_type for node in graph.graph.node if _INTEGER.fullmatch(node.op_type)})
    if integer:
        raise ModelError(f"{path} is quantised already ({', '.join(integer)}): give the float32 network")
    if loaded.input_dtype != "float32":
        raise ModelError(f"{path} takes images of {loaded.input_dtype}, and only float32 networks can be quantised: "
                         f"export it in float32")
    if any(len(value.type.tensor_type.shape.dim) != 1 + len(shape) for value in graph.graph.input):
        raise ModelError(f"{path} takes flattened inputs (N, D), and the data have shape {shape}: export it with "
                         f"inputs of that shape, flattened inside")
    kept = [value for value in graph.graph.output if value.name == loaded.model.outputs[0]]
    del graph.graph.output[:]
    graph.graph.output.extend(kept)
    version = max(entry.version for entry in graph.opset_import if _domain(entry) == "")
    if version < OPSET:
        try:
            graph = onnx.version_converter.convert_version(graph, OPSET)
        except Exception as error:  # the converter has one class of error for all
            raise ModelError(f"{path} is written in version {version} of the ONNX operators, which cannot be brought "
                             f"to {OPSET}: {first_line(error)}; export it again") from error
    return _normalise(graph)


def _put_in_front(front: Any, graph: Any, name: str) -> Any:
    """Return one graph that passes the images through `front` first."""
    from onnx import compose

    front.ir_version = graph.ir_version = max(front.ir_version, graph.ir_version)
    last, first = front.graph.output[0].name, graph.graph.input[0].name
    try:
        merged = compose.merge_models(compose.add_prefix(front, "front/"), graph, io_map=[(f"front/{last}", first)])
    except Exception as error:  # the composer raises ValueError, and the checker its own
        raise ModelError(f"{name} and what stands in front of it cannot be joined in ONNX: {first_line(error)}"
                         ) from error
    return _normalise(merged)


def run_rows(graph: Any, rows: np.ndarray) -> np.ndarray:
    """Return the logits (N, K) of float32 rows (N, *shape) by ONNX Runtime, in batches that the graph takes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    session: Any = onnxruntime.InferenceSession(graph.SerializeToString(), options,
                                                providers=["CPUExecutionProvider"])
    images = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {images: batch})[0][:wanted].reshape(wanted, -1)
                           for batch, wanted in batches_of(rows, session.get_inputs()[0].shape[0])])


def batches_of(rows: np.ndarray, declared: Any, size: int = 32) -> list[tuple[np.ndarray, int]]:
    """Return rows in batches, each with the number of its own rows: of `size`, the last one shorter, or of exactly the
    number that a graph declares, the last one filled up with the first rows."""
    fixed = declared if isinstance(declared, int) and declared > 0 else None
    step, found = fixed or size, []
    for begin in range(0, len(rows), step):
        batch = rows[begin : begin + step]
        filled = batch if fixed is None else np.resize(np.concatenate([batch, rows]), (step, *rows.shape[1:]))
        found.append((filled, len(batch)))
    return found
