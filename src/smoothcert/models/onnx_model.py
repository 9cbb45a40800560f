"""ONNX files, run by onnxruntime on the CPU."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smoothcert.errors import FileError, MissingExtraError, ModelError
from smoothcert.limits import path_inside
from smoothcert.models.layers import Shape
from smoothcert.models.loaded import LoadedModel, exact_batches, read_model_file
from smoothcert.models.onnx_graph import check_graph, find_labels
from smoothcert.smoothing.adapters import Fit, find_fit
from smoothcert.smoothing.batching import ANY_BATCH, BatchSizes

_INPUTS = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"}
_SCORES = ("float", "double", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")


class OnnxModel:
    """An onnxruntime session as a model: float32 (N, C, H, W) -> (N, K), for any N, on the device of the images.

    It gives no gradients, and raises ModelError for images that require them. `classes_` are the classes of its
    outputs, if the file names them.
    """

    classes_: tuple[int | str, ...] | None = None

    def __init__(self, session: Any, images: str, outputs: Sequence[str], flat: bool, input_dtype: str):
        self.fit = Fit()
        self.input_dtype = input_dtype
        self._session = session
        self._images, self.outputs = images, list(outputs)
        self._flat = flat

    def __call__(self, images: Tensor) -> Tensor:
        if images.requires_grad and torch.is_grad_enabled():
            raise ModelError("an ONNX model gives no gradients, which attacks and training need: use the torch model")
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
