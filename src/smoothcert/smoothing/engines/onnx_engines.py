"""Other runtimes, fed by an ONNX export of the folded network for one fixed number of rows, or by a file."""

import logging
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from smoothcert.errors import InputError, MissingExtraError
from smoothcert.smoothing.content import fingerprint
from smoothcert.smoothing.engines.protocol import Refused, Run, refuse_on_error
from smoothcert.smoothing.engines.runtimes import (
    EXTRAS,
    PACKAGES,
    OpenvinoSession,
    check_rows,
    depends_on_place,
    describe_bf16,
    fixed_batch,
    import_runtime,
)
from smoothcert.smoothing.files import find_file, put_in_place
from smoothcert.smoothing.folding import fold

CACHED_WEIGHTS = 2**20  # float32, about what a core's own cache holds
_FEW_ROWS = 32

_exports: weakref.WeakKeyDictionary[nn.Module, tuple[str, bytes]] = weakref.WeakKeyDictionary()


def onnxruntime(model: Any, shape: tuple[int, ...], batch: int, device: torch.device, precision: str) -> Run:
    """Run ONNX Runtime on a CPU, or on a GPU through its CUDA provider, TF32 off; a file of a network on a CPU."""
    if precision != "float32":
        raise InputError(f"engine 'onnxruntime' runs float32 only, got precision {precision!r}: use engine 'openvino' "
                         f"(bf16 on a CPU), 'eager', 'compile' or 'plain'")
    runtime = import_runtime("onnxruntime")
    if (file := find_file(model)) is not None:
        return put_in_place(model, file.open("onnxruntime", shape, batch, precision))
    need_exporter("onnxruntime")
    provider: Any = "CPUExecutionProvider"
    if device.type == "cuda":
        provider = ("CUDAExecutionProvider", {"device_id": str(device.index or 0), "use_tf32": "0"})
        if provider[0] not in runtime.get_available_providers():
            raise Refused("the installed onnxruntime has no CUDA provider (onnxruntime-gpu has)")
    elif device.type != "cpu":
        raise Refused(f"it does not run on a device of type {device.type}")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    rows = rows_of_pass(model, batch, device)
    content = export(model, shape, rows)
    with refuse_on_error("onnxruntime cannot load the network"):
        session = runtime.InferenceSession(content, options, providers=[provider])
        # A provider whose libraries do not load is left out without an error.
        if device.type == "cuda" and provider[0] not in session.get_providers():
            raise Refused("onnxruntime's CUDA provider does not start here (its release needs other versions of CUDA "
                          "and cuDNN), so that it would compute on the CPU")
        return fill_up(_session_run(session, device), shape, rows, device)


def openvino(model: Any, shape: tuple[int, ...], batch: int, device: torch.device, precision: str) -> Run:
    """Run OpenVINO on a CPU: in full float32, or in bfloat16 where the processor has units for it.

    Reads the ONNX export: openvino's converter of torch modules would report its use to its makers, as its import does
    where that is not prevented. In bfloat16 the size of its batches is fixed, whatever `batch` is.
    """
    if precision not in ("float32", "bf16"):
        raise InputError(f"engine 'openvino' runs float32 and bf16, got precision {precision!r}: use engine 'eager', "
                         f"'compile' or 'plain'")
    import_runtime("openvino")
    if precision == "bf16":
        describe_bf16()
    if (file := find_file(model)) is not None:
        return put_in_place(model, file.open("openvino", shape, batch, precision))
    need_exporter("openvino")
    if device.type != "cpu":
        raise Refused(f"it runs on CPUs, the model is on {device}")
    rows = fixed_batch(shape) if precision == "bf16" else rows_of_pass(model, batch, device)
    content = export(model, shape, rows)
    with refuse_on_error("openvino cannot load the network"):
        session = OpenvinoSession(content, precision=precision)
    name = session.outputs[0].name

    def run(images: Tensor) -> Tensor:
        found = session.run(images.numpy(), [name])
        check_rows(found, rows, "openvino")
        return torch.from_numpy(found[name])

    filled = fill_up(run, shape, rows, device)
    if precision == "float32":
        return filled
    with refuse_on_error("openvino fails on noisy inputs"):
        moves = depends_on_place(filled, shape, rows)
    if moves:
        raise Refused("a row's answer in bfloat16 depends on its place in the batch")
    return filled


def export(model: nn.Module, shape: tuple[int, ...], batch: int) -> bytes:
    """Return the folded network as ONNX, for exactly `batch` rows; the last export of a network is kept while it lives.

    Raises Refused where the network cannot be exported.
    """
    key = f"{fingerprint(model)} {shape} {batch}"
    if key != _exports.get(model, ("", b""))[0]:
        with refuse_on_error("the network cannot be exported to ONNX"), _quiet(), torch.no_grad():
            program: Any = torch.onnx.export(fold(model).cpu(), (torch.zeros(batch, *shape),), dynamo=True,
                                             verbose=False)
            _exports[model] = key, program.model_proto.SerializeToString()
    return _exports[model][1]


def rows_of_pass(model: nn.Module, batch: int, device: torch.device) -> int:
    """Return how many rows an engine computes at once where it is given up to `batch`.

    On a CPU, convolutions are fastest on few, whose values stay in a core's cache. Dense layers that a cache does not
    hold are read from memory once a pass, so that as many rows as there are should share a reading.
    """
    convolves = any(isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) for layer in model.modules())
    few = device.type == "cpu" and convolves and dense_weights(model) <= CACHED_WEIGHTS
    return min(batch, _FEW_ROWS) if few else batch


def dense_weights(network: Any) -> int:
    """Return the number of weights in a network's dense layers, 0 for what is no network."""
    layers = network.modules() if isinstance(network, nn.Module) else ()
    return sum(layer.weight.numel() for layer in layers if isinstance(layer, nn.Linear))


def fill_up(run: Run, shape: tuple[int, ...], rows: int, device: torch.device) -> Run:
    """Return a pass over exactly so many contiguous rows as one over any number of them, in any layout.

    What fills up a short batch are rows of earlier ones: no row's logits depend on another's.
    """
    buffer = torch.zeros(rows, *shape, device=device)

    def run_filled(part: Tensor) -> Tensor:
        if len(part) == rows:
            return run(part)
        buffer[: len(part)].copy_(part)
        return run(buffer)[: len(part)]

    def run_any(images: Tensor) -> Tensor:
        parts = [run_filled(part) for part in images.detach().to(torch.float32).contiguous().split(rows)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    return run_any


def _session_run(session: Any, device: torch.device) -> Run:
    """Return a pass that reads the rows where they lie, and returns a copy of the buffer that logits are written to."""
    binding, where = session.io_binding(), (device.type, device.index or 0, np.float32)
    rows_in, logits_out = session.get_inputs()[0].name, session.get_outputs()[0]
    logits = torch.empty(logits_out.shape, device=device)
    binding.bind_output(logits_out.name, *where, logits_out.shape, logits.data_ptr())

    def run(rows: Tensor) -> Tensor:
        binding.bind_input(rows_in, *where, tuple(rows.shape), rows.data_ptr())
        if device.type == "cuda":  # the runtime has a stream of its own
            torch.cuda.current_stream(device).synchronize()
        session.run_with_iobinding(binding)
        return logits.clone()

    return run


def need_exporter(engine: str) -> None:
    """Raise MissingExtraError unless torch can export modules for an engine."""
    for package in ("onnx", "onnxscript"):
        try:
            import_module(package)
        except ImportError as error:
            raise MissingExtraError(error.name or package, EXTRAS[PACKAGES[engine][-1]], f"the engine {engine}"
                                    ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's remarks on packages that play no role here."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
