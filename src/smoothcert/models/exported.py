"""Programs saved by torch.export, .pt2 files.

`torch.export.load` unpickles parts of a file, evaluates its expressions, and writes Python from its names (seen in
2.13). So a file that is not trusted is read here first, and every part of it has to be of a kind that cannot run code:
raw tensors, example inputs that `weights_only` unpickles, and a program whose steps are aten operators, whose names are
names and whose expressions are arithmetic. torch then gets a new archive of just these parts, so that a second reading
cannot find anything else.
"""

import io
import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.graph_signature import ConstantArgument, InputKind
from torch.utils import _pytree as pytree

from smoothcert.errors import FileError, ModelError, SmoothcertError
from smoothcert.limits import check_unpacked_size, from_json
from smoothcert.models.layers import Shape
from smoothcert.models.loaded import LoadedModel, exact_batches, fit_file
from smoothcert.smoothing.adapters import Fit
from smoothcert.smoothing.batching import BatchSizes
from smoothcert.smoothing.engines.runtimes import describe_runtime
from smoothcert.smoothing.files import Runtime


class ExportedProgram(nn.Module):
    """A program of torch.export that takes any number of images: (N, C, H, W) -> (N, K).

    Its mode was fixed when it was exported, so train() and eval() change nothing.

    Args:
        program: the module of the program.
        call: packs images as the program takes them, into positional and keyword arguments.
        dtype: type of floating point that the program takes, to which images are cast.

    Attributes:
        runtime: torch, where the program rounds to integers, as those of PyTorch's quantisation (pt2e) do.
    """

    casts = True
    runtime: Runtime | None = None

    def __init__(self, program: nn.Module, call: Callable[[Tensor], tuple[Any, Any]], dtype: torch.dtype) -> None:
        super().__init__()
        self.program, self.call, self.dtype = program, call, dtype
        self.fit = Fit()

    def forward(self, images: Tensor) -> Tensor:
        return self.fit.logits(self.run, images)

    def run(self, batch: Tensor) -> Any:
        """Return the program's own answer to one batch of a size that it takes."""
        arguments, keywords = self.call(batch.to(self.dtype))
        return self.program(*arguments, **keywords)

    def train(self, mode: bool = True) -> "ExportedProgram":
        return self


def load_program(
    spec: str, path: Path, content: bytes, num_classes: int | None, input_shape: Shape | None, trust: bool,
    output: str | int | None,
) -> LoadedModel:
    """Return the model in the bytes of a .pt2 file, which may run code only with `trust`.

    Raises FileError for a corrupt file, ModelError for one without `trust` that could run code, or for a program that
    does not take floats (of input_shape, if known) or does not return logits.
    """
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise FileError(f"{path} is not a .pt2 file (they are zip archives): save it with torch.export.save")
    parts = content
    if not trust:
        try:
            parts = rebuild_archive(str(path), content)
        except zipfile.BadZipFile as error:
            raise FileError(f"{path} is corrupt: {error}") from None
        except UnsafeArchive as error:
            raise ModelError(f"reading {path} could run code that is hidden in it: {error}. If you trust its author, "
                             f"pass --trust (in Python, trust=True); else ask for an ONNX file, or for a factory and "
                             f"its weights as safetensors") from None
    integers = b"torch.ops.quantized_decomposed." in _read_programs(parts)
    if integers:
        import_module("torch.ao.quantization.fx._decomposed")  # where torch registers these operators
    try:
        program = torch.export.load(io.BytesIO(parts))
    except Exception as error:  # torch passes on what zip, JSON, its schema and its loader raise
        raise FileError(f"{path} cannot be read as a torch.export program: {type(error).__name__}: {error}") from error
    _refuse_train_mode(path, program)
    images, call = _image_input(path, program)
    batch, *sizes = images.shape
    shape = tuple(sizes) if all(isinstance(size, int) for size in sizes) else None
    model = ExportedProgram(program.module(), call, images.dtype)
    dtype = str(images.dtype).removeprefix("torch.")
    fit = Fit(None if output is None else str(output), _batch_sizes(batch, program))
    if tried := shape or input_shape:
        try:
            fit = fit_file(model.run, tried, num_classes, output, fit.batch)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error
    model.fit = replace(fit, batch=exact_batches(fit.batch, dtype))
    if integers:  # rounded again and again, which magnifies what a batch changes in a float32 sum
        model.runtime = describe_runtime("torch", float_layers="its products")
        model.fit = replace(model.fit, batch=replace(model.fit.batch, alone=True))
    return LoadedModel(model, spec, "pt2", content, shape, dtype)


def _read_programs(archive: bytes) -> bytes:
    """Return the JSON of all programs in the bytes of a .pt2 file."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return b"".join(opened.read(name) for name in opened.namelist() if re.search(r"models/[^/]+\.json$", name))


def _image_input(
    path: Path, program: torch.export.ExportedProgram
) -> tuple[Tensor, Callable[[Tensor], tuple[Any, Any]]]:
    """Return the stand-in for images with which the program was traced, and a function that packs its arguments."""
    specs = [spec.arg for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT]
    names = [argument.name for argument in specs if not isinstance(argument, ConstantArgument)]
    values = [node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    if len(names) != 1 or not isinstance(values[0], Tensor):
        raise ModelError(f"{path} takes {len(names)} inputs ({', '.join(names)}), not one tensor of images")
    if values[0].ndim < 2 or not values[0].is_floating_point():
        raise ModelError(f"{path} takes a tensor of type {values[0].dtype} and {values[0].ndim} dimensions; a model "
                         f"takes floats (N, *shape), (N, C, H, W) of images in [0, 1] plus noise")
    packing = program.call_spec.in_spec

    def call(images: Tensor) -> tuple[Any, Any]:
        leaves = [argument.value if isinstance(argument, ConstantArgument) else images for argument in specs]
        return pytree.tree_unflatten(leaves, packing) if packing is not None else ((images,), {})

    return values[0], call


def _batch_sizes(batch: Any, program: torch.export.ExportedProgram) -> BatchSizes:
    """Return the batches that the program takes: any number in a range, one number, or multiples such as 8 b."""
    if isinstance(batch, int):
        return BatchSizes(batch, batch)
    size = batch.node.expr
    symbol = next(iter(size.free_symbols))
    if len(size.free_symbols) != 1 or not (size.diff(symbol).is_Integer and size.diff(symbol) > 0):
        return BatchSizes(int(batch.node.hint), int(batch.node.hint))
    step, offset = int(size.diff(symbol)), int(size.subs(symbol, 0))
    allowed = program.range_constraints.get(symbol)
    bounds: list[Any] = [getattr(allowed, "lower", None), getattr(allowed, "upper", None)]
    low, high = (int(bound) if getattr(bound, "is_Integer", False) else None for bound in bounds)
    least = max(low or 0, -(-(1 - offset) // step))
    return BatchSizes(offset + step * least, None if high is None else offset + step * high, step)


def _refuse_train_mode(path: Path, program: torch.export.ExportedProgram) -> None:
    """Raise ModelError if a step of the program trains or draws random numbers."""
    if changed := (*program.graph_signature.buffers_to_mutate.values(),
                   *program.graph_signature.user_inputs_to_mutate.values()):
        raise ModelError(f"{path} changes {', '.join(changed)} at each call, so its answers are not a function of "
                         f"one image: export it without that")
    graphs = (module.graph for module in program.graph_module.modules() if isinstance(module, torch.fx.GraphModule))
    for node in (node for graph in graphs for node in graph.nodes):
        if isinstance(node.target, torch._ops.OpOverload) and _trains_or_draws(node):
            raise ModelError(f"{path} was exported in train mode, or draws random numbers ({node.target}): call "
                             f"model.eval() before torch.export.export")


def _trains_or_draws(node: torch.fx.Node) -> bool:
    operator: Any = node.target
    names = [argument.name for argument in operator._schema.arguments]
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    if "train" in names or "training" in names:
        return given.get("train", given.get("training")) is not False
    if "dropout_p" in names:
        return bool(given.get("dropout_p", 0.0) != 0)
    return torch.Tag.nondeterministic_seeded in operator.tags


_NAME = r"[A-Za-z0-9_.]*"
_QUANTISED = r"torch\.ops\.quantized_decomposed\.(de)?quantize_per_(tensor|channel)\.(default|tensor|tensor2)"
_STEP = (_QUANTISED + "|"
         r"torch\.ops\.aten\.(?!from_file\b)(?!__)\w+\.(?!__)\w+|torch\.ops\.higher_order\.wrap_with_set_grad_enabled"
         r"|_operator\.(add|sub|mul|floordiv|truediv|mod|neg|getitem|eq|ne|lt|le|gt|ge)|torch\.sym_(int|float|max|min)")
_KNOWN = "|".join(("Symbol", "Integer", "Add", "Mul", "Max", "Min", "Mod", "FloorDiv", "CeilDiv", "positive", "integer",
                   "nonnegative", "True", "False"))
_EXPRESSION = rf"(({_KNOWN}|[su]\d+)\b|'[su]\d+'|\d{{1,18}}|[-+%(),= ]|\*(?!\*)|/)*"
_SIZE = r"([su]\d+|\d{1,18}|[-+() ]|\*(?!\*))+"
_GUARD = r"(L\['[A-Za-z_]\w*'\]|\.size\(\)\[\d+\]|\b(and|or|not)\b|\d{1,18}|[-+%()<>=! ]|\*(?!\*))*"

_STRINGS = {
    "target": _STEP, "as_operator": _STEP, "expr_str": _EXPRESSION, "guards_code": _GUARD, "type": "cpu|cuda",
    "torch_version": r"[\w.+-]*", "verifiers": "[A-Z]*", "as_string": r"(?s).*", "path_name": r"\w+",
    "as_float": "-?Infinity|NaN",
    **dict.fromkeys(("name", "as_name", "parameter_name", "buffer_name", "tensor_constant_name", "fqn",
                     "forward_arg_names"), _NAME),
}
"""Patterns that the strings of a program must match, by the key that they are under; no other key may hold strings."""

_DROPPED = {"metadata", "nn_module_stack", "stack_trace"}
"""Notes about a step that are not needed to run it."""

_SPECS = {"in_spec", "out_spec"}
_CONTAINERS = {None, "builtins.tuple", "builtins.list", "builtins.dict"}


class UnsafeArchive(SmoothcertError):
    """A part of a file is not of a kind that is known to be harmless."""


def rebuild_archive(path: str, content: bytes) -> bytes:
    """Return the archive of a .pt2 file made anew from its parts, all of which are known to be harmless.

    Raises:
        UnsafeArchive: a part that is not. FileError: a part that is corrupt or too large.
    """
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as given, zipfile.ZipFile(made, "w") as again:
        parts = given.infolist()
        check_unpacked_size(path, len(content), sum(part.file_size for part in parts))
        if len({part.filename.lower() for part in parts}) != len(parts):
            raise UnsafeArchive("it has two parts of one name")
        for part in parts:
            name = part.filename
            check = next((check for pattern, check in _PARTS.items()
                          if re.fullmatch(rf"(?!\.+/)[^/\\\x00-\x1f]+/{pattern}", name)), None)
            if check is None:
                raise UnsafeArchive(f"its part {name!r} is of an unknown kind")
            again.writestr(zipfile.ZipInfo(name), check(name, given.read(part)))
    return made.getvalue()


def _check_tensors(name: str, content: bytes) -> bytes:
    try:
        torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever keeps torch from it, with what it does then
        raise UnsafeArchive(f"its part {name!r} holds more than tensors: {type(error).__name__}") from None
    return content


def _check_json(name: str, content: bytes) -> bytes:
    return json.dumps(_check_value(name, "", from_json(content, name))).encode()


_PARTS: dict[str, Callable[[str, bytes], bytes]] = {
    r"data/(weights/weight|constants/tensor)_\d+": lambda name, content: content,
    r"(archive_format|archive_version|byteorder|\.data/version|\.data/serialization_id)": lambda name, content: content,
    r"data/sample_inputs/[\w.-]+\.pt": _check_tensors,
    r"data/(weights|constants)/[\w.-]+_config\.json": _check_json,
    r"models/[\w.-]+\.json": _check_json,
}


def _check_value(part: str, key: str, value: Any) -> Any:
    """Return the value under `key` of a JSON part without the notes in it. Raises UnsafeArchive."""
    if isinstance(value, dict):
        for name in value:
            _match(part, key, name, _SIZE if key == "range_constraints" else _NAME)
        if value.get("use_pickle"):
            raise UnsafeArchive(f"its part {part!r} names values that are pickled")
        return {name: {} if name in _DROPPED else _check_value(part, name, child) for name, child in value.items()}
    if isinstance(value, list):
        return [_check_value(part, key, child) for child in value]
    if isinstance(value, str) and key in _SPECS:
        _check_spec(part, from_json(value, part))
    elif isinstance(value, str):
        _match(part, key, value, _STRINGS.get(key))
    return value


def _match(part: str, key: str, text: str, pattern: str | None) -> None:
    if pattern is None or not re.fullmatch(pattern, text):
        raise UnsafeArchive(f"its part {part!r} has {text!r:.80} under {key!r}")


def _check_spec(part: str, spec: Any) -> None:
    """Raise UnsafeArchive unless arguments are packed in plain containers: a version and a tree."""
    trees = [spec[1]] if isinstance(spec, list) and len(spec) == 2 and isinstance(spec[1], dict) else [spec]
    while trees:
        tree = trees.pop()
        if not isinstance(tree, dict) or tree.get("type") not in _CONTAINERS or set(tree) - {
                "type", "context", "children_spec"}:
            raise UnsafeArchive(f"its part {part!r} packs arguments in {tree!r:.80}")
        _match(part, "context", str(tree.get("context")), r'null|None|\[("\w+"(, "\w+")*)?\]')
        trees.extend(tree.get("children_spec") or [])
