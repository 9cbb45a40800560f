"""MNN, which computes convolutions by Winograd's products: fewer multiplications than the sums that they equal.

Larger tiles need fewer of them and round more, for 5x5 convolutions beyond what an engine may: the largest tiles are
taken that keep to `ROUNDING` on a few noisy rows.

Its command-line tools report their use to MNN's makers and install a package for that, so the converter is called
underneath them.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from smoothcert.errors import InputError
from smoothcert.smoothing.contract import ROUNDING, largest_difference, row_scale
from smoothcert.smoothing.engines.onnx_engines import export, fill_up, need_exporter, rows_of_pass
from smoothcert.smoothing.engines.protocol import Refused, Run, refuse_on_error
from smoothcert.smoothing.engines.runtimes import import_runtime, silence_output

_TILES_HINT = 3  # Interpreter::WINOGRAD_MEMORY_LEVEL
_TILES = (3, 1)  # the largest, and middling ones


def mnn(model: nn.Module, shape: tuple[int, ...], batch: int, device: torch.device, precision: str) -> Run:
    """Run MNN in float32 on a CPU, fed by the ONNX export."""
    if precision != "float32":
        raise InputError(f"engine 'mnn' runs float32 only, got precision {precision!r}: use engine 'openvino' (bf16 on "
                         f"a CPU), 'eager', 'compile' or 'plain'")
    import_runtime("MNN")
    need_exporter("mnn")
    if device.type != "cpu":
        raise Refused(f"it runs on CPUs, the model is on {device}")
    rows = rows_of_pass(model, batch, device)
    content = export(model, shape, rows)
    tried = torch.from_numpy(0.5 + 0.5 * np.random.default_rng(0).standard_normal((rows, *shape), dtype=np.float32))
    with refuse_on_error("mnn cannot run the network"), torch.no_grad():
        expected = model(tried)
        for tiles in _TILES:
            run = fill_up(_compile(content, shape, rows, tiles), shape, rows, device)
            if largest_difference(expected, run(tried), row_scale(expected)) < ROUNDING / 2:
                return run
    raise Refused(f"it rounds logits by more than {ROUNDING / 2:.2g} of their scale, whatever the size of its tiles")


def _compile(content: bytes, shape: tuple[int, ...], rows: int, tiles: int) -> Run:
    """Return a pass over exactly so many rows."""
    runtime, converter = import_runtime("MNN"), import_runtime("_tools")
    with tempfile.TemporaryDirectory() as folder, silence_output():
        source, converted = Path(folder) / "network.onnx", str(Path(folder) / "network.mnn")
        source.write_bytes(content)
        converter.mnnconvert(["", "-f", "ONNX", "--modelFile", str(source), "--MNNModel", converted, "--bizCode", ""])
        manager = runtime.nn.create_runtime_manager(
            ({"backend": "CPU", "numThread": torch.get_num_threads(), "precision": "normal"},))
        manager.set_hint(_TILES_HINT, tiles)
        network = runtime.nn.load_module_from_file(converted, *_names(content), runtime_manager=manager)
    expr: Any = runtime.expr
    images = expr.placeholder([rows, *shape], expr.NCHW)

    def run(noisy: Tensor) -> Tensor:
        images.write(noisy.numpy())
        return torch.from_numpy(expr.convert(network.forward(images), expr.NCHW).read().copy())

    return run


def _names(content: bytes) -> tuple[list[str], list[str]]:
    """Return the names of an ONNX model's inputs and outputs."""
    import onnx

    graph = onnx.load_model_from_string(content).graph
    return [value.name for value in graph.input], [value.name for value in graph.output]
