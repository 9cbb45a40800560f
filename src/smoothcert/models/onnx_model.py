"""ONNX files, run by onnxruntime on the CPU."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smoothcert.errors import FileError, MissingExtraError, ModelError
from smoothcert.limits import inside
from smoothcert.models.batching import in_batches
from smoothcert.models.layers import Shape
from smoothcert.models.loaded import read_model_file
from smoothcert.models.onnx_labels import onnx_labels

_FLOATS = ("tensor(float)", "tensor(double)", "tensor(float16)")


class OnnxModel:
    """An onnxruntime session as a model: float32 (N, C, H, W) -> (N, K), for any N, on the device of the images.

    It gives no gradients: raises ModelError for images that ask for them. `classes_` says what its outputs are of,
    where the file does.
    """

    classes_: tuple[int | str, ...] | None = None

    def __init__(self, session: Any, images: str, logits: str, flat: bool, batch: int | None):
        self._session = session
        self._images, self._logits = images, logits
        self._flat = flat
        self._batch = batch

    def __call__(self, images: Tensor) -> Tensor:
        if images.requires_grad and torch.is_grad_enabled():
            raise ModelError("an ONNX model gives no gradients, which attacks and training need: use the torch model")
        return in_batches(self._run, images, self._batch or 0, self._batch)

    def _run(self, batch: Tensor) -> Tensor:
        array = np.ascontiguousarray(batch.detach().float().cpu().numpy())
        array = array.reshape(len(array), -1) if self._flat else array
        return torch.from_numpy(self._session.run([self._logits], {self._images: array})[0]).to(batch.device)


def load_onnx(path: Path, content: bytes) -> tuple[OnnxModel, Shape | None, bytes]:
    """The model, (C, H, W) where the file fixes them, and the bytes of the file and of the weights stored beside it.

    The input is (N, C, H, W), or (N, D) for images that are flattened first; the logits are the first output of
    two dimensions that holds floats (a classifier of scikit-learn gives labels and probabilities).

    Raises FileError, MissingExtraError or ModelError, as `load_exported` says.
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
        raise FileError(f"{path} takes its weights from {in_memory[0]}, which is no file: export it again")
    stored = [content, *(read_model_file(inside(path.parent, place)) for place in beside)]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has one class of error a status, with no base of their own
        raise FileError(f"{path} cannot be loaded as an ONNX model: {type(error).__name__}: {error}") from error
    try:
        images, logits = _image_input(path, session.get_inputs()), _logits_output(path, session.get_outputs())
        batch, *shape = images.shape
    except UnicodeDecodeError as error:
        raise FileError(f"{path} names its inputs, outputs or dimensions in bytes that are no text: {error}") from None
    model = OnnxModel(session, images.name, logits, flat=len(shape) == 1,
                      batch=batch if isinstance(batch, int) else None)
    model.classes_ = onnx_labels(stored_model, logits)
    fixed = len(shape) == 3 and all(isinstance(size, int) for size in shape)
    return model, (shape[0], shape[1], shape[2]) if fixed else None, b"".join(stored)


def _image_input(path: Path, inputs: Sequence[Any]) -> Any:
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs)
        raise ModelError(f"{path} takes {len(inputs)} inputs ({names}); a model takes one, the images")
    if inputs[0].type != "tensor(float)" or len(inputs[0].shape) not in (2, 4):
        raise ModelError(f"{path} takes a {inputs[0].type} of shape {inputs[0].shape}; a model takes float32 images "
                         f"(N, C, H, W) in [0, 1], or (N, D) flattened")
    return inputs[0]


def _logits_output(path: Path, outputs: Sequence[Any]) -> str:
    for value in outputs:
        if value.type in _FLOATS and len(value.shape) == 2:
            return value.name
    listed = ", ".join(f"{value.name}: {value.type} {value.shape}" for value in outputs)
    raise ModelError(f"{path} has no output of floats (N, K), only {listed}; with skl2onnx, convert with the option "
                     f"zipmap=False")


def _places_beside(model: Any) -> Iterator[str]:
    """The files, relative to the model's, that hold tensors of the model, wherever in it they are."""
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
