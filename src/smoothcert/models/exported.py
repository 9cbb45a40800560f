"""Exported models, .pt2 and .onnx files; and the .pt2 ones, programs saved by torch.export."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smoothcert.errors import FileError, ModelError
from smoothcert.models.batching import in_batches
from smoothcert.models.harmless import NotHarmless, harmless
from smoothcert.models.layers import Shape
from smoothcert.models.loaded import LoadedModel, read_model_file


def load_exported(spec: str, kind: str, path: Path, input_shape: Shape | None, trust: bool) -> LoadedModel:
    """The model in a file of kind "pt2" or "onnx".

    Raises FileError for a missing or corrupt file, MissingExtraError without onnxruntime, ModelError for a "pt2" file
    without `trust`, or a model that does not take float32 images (of input_shape, where known) or does not return
    logits.
    """
    content = read_model_file(path)
    if kind == "pt2":
        model, takes = _load_program(path, content, trust)
    else:
        from smoothcert.models.onnx_model import load_onnx

        model, takes, content = load_onnx(path, content)
    if takes and input_shape and takes != input_shape:
        raise ModelError(f"{path} takes images of shape {takes} (C, H, W), but the images have shape {input_shape}")
    return LoadedModel(model, spec, kind, content, takes)


class ExportedProgram(nn.Module):
    """A program of torch.export that takes any number of images: (N, C, H, W) -> (N, K).

    Its mode was fixed when it was exported, so train() and eval() change nothing.
    """

    def __init__(self, program: nn.Module, least: int, most: int | None):
        super().__init__()
        self.program = program
        self.least, self.most = least, most

    def forward(self, images: Tensor) -> Tensor:
        return in_batches(self.program, images, self.least, self.most)

    def train(self, mode: bool = True) -> "ExportedProgram":
        return self


def _load_program(path: Path, content: bytes, trust: bool) -> tuple[ExportedProgram, Shape | None]:
    """The program in the bytes of a .pt2 file, and (C, H, W) where it fixes them."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise FileError(f"{path} is not a .pt2 file (they are zip archives): save it with torch.export.save")
    if not trust:
        content = _harmless_content(path, content)
    try:
        program = torch.export.load(io.BytesIO(content))
    except Exception as error:  # torch passes on what zip, JSON, its schema and its loader raise
        raise FileError(f"{path} cannot be read as a torch.export program: {type(error).__name__}: {error}") from error
    _refuse_train_mode(path, program)
    batch, *shape = _image_input(path, program).shape
    if len(program.graph_signature.user_outputs) != 1:
        raise ModelError(f"{path} returns {len(program.graph_signature.user_outputs)} values, not the logits alone")
    least, most = _batch_sizes(batch, program)
    takes = (shape[0], shape[1], shape[2]) if all(isinstance(size, int) for size in shape) else None
    return ExportedProgram(program.module(), least, most), takes


def _harmless_content(path: Path, content: bytes) -> bytes:
    try:
        return harmless(str(path), content)
    except zipfile.BadZipFile as error:
        raise FileError(f"{path} is corrupt: {error}") from None
    except NotHarmless as error:
        raise ModelError(f"reading {path} could run code that is hidden in it: {error}. If you trust its author, pass "
                         f"--trust (in Python, trust=True); else ask for an ONNX file, or for a factory and its "
                         f"weights as safetensors") from None


def _image_input(path: Path, program: torch.export.ExportedProgram) -> Tensor:
    """The stand-in for the images with which the program was traced."""
    names = program.graph_signature.user_inputs
    values = [node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    if len(names) != 1 or not isinstance(values[0], Tensor):
        raise ModelError(f"{path} takes {len(names)} inputs, not one tensor of images")
    if values[0].ndim != 4 or values[0].dtype != torch.float32:
        raise ModelError(f"{path} takes a tensor of type {values[0].dtype} and {values[0].ndim} dimensions; a model "
                         f"takes float32 images (N, C, H, W) in [0, 1]")
    return values[0]


def _batch_sizes(batch: Any, program: torch.export.ExportedProgram) -> tuple[int, int | None]:
    """The least and the greatest batch that the program takes; None: no limit."""
    if isinstance(batch, int):
        return batch, batch
    allowed = program.range_constraints.get(batch.node.expr)
    if allowed is None:
        return 1, None
    return max(1, int(allowed.lower)), int(allowed.upper) if getattr(allowed.upper, "is_Integer", False) else None


def _refuse_train_mode(path: Path, program: torch.export.ExportedProgram) -> None:
    """Raise ModelError where a step of the program trains or draws random numbers."""
    for node in _calls(program):
        if _trains_or_draws(node):
            raise ModelError(f"{path} was exported in train mode, or draws random numbers ({node.target}): call "
                             f"model.eval() before torch.export.export")


def _calls(program: torch.export.ExportedProgram) -> Iterator[torch.fx.Node]:
    """The operator calls of a program and of the graphs within it."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            yield from (node for node in module.graph.nodes if isinstance(node.target, torch._ops.OpOverload))


def _trains_or_draws(node: torch.fx.Node) -> bool:
    operator: Any = node.target
    names = [argument.name for argument in operator._schema.arguments]
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    if "train" in names or "training" in names:
        return given.get("train", given.get("training")) is not False
    if "dropout_p" in names:
        return bool(given.get("dropout_p", 0.0) != 0)
    return torch.Tag.nondeterministic_seeded in operator.tags
