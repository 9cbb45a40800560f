"""ONNX Runtime and OpenVINO: networks that they have compiled, and what must be said of them where they decide an
answer.

In float32 a runtime only rounds otherwise, which `opening` checks. The last steps of an integer network, and of one in
bfloat16, are the runtime's own: its name, its version and the instruction sets that give its answers are part of the
base classifier, as a `Runtime`.
"""

import ctypes
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smoothcert.errors import MissingExtraError, ModelError
from smoothcert.machine import BF16_UNITS, VNNI_UNITS, describe_processor, instruction_sets, is_x86
from smoothcert.smoothing.engines.protocol import Refused
from smoothcert.smoothing.files import Runtime

PACKAGES = {"onnxruntime": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino"),
            "mnn": ("onnx", "onnxscript", "MNN")}
"""The packages that each engine imports for a torch module."""

RUNTIMES = ("onnxruntime", "openvino")
"""Engines that run files of networks, each the package of its name; the first is the one for integer ONNX files."""

EXTRAS = {"onnx": "onnx", "onnxruntime": "onnx", "openvino": "openvino", "MNN": "mnn"}

FIXED_BATCH = (16, 128)
"""The least and most rows of a batch whose size no option changes; about 100,000 values between them."""

_FLOAT_EXACT = {
    "Input", "Output", "Parameter", "Result", "Const", "Constant", "Subgraph", "Eltwise", "Reorder", "Reshape",
    "Transpose", "Concatenation", "Split", "FakeQuantize", "Convert", "Pad", "StridedSlice", "Gather", "Squeeze",
    "Unsqueeze", "Broadcast", "ShapeOf",
}
"""Layers of OpenVINO that may be float32 in such a network: they move values, or round each value once."""
_EXACT = {
    "QuantizeLinear", "DequantizeLinear", "Relu", "Clip", "MaxPool", "Reshape", "Flatten", "Transpose", "Identity",
    "Constant", "Concat", "Slice", "Split", "Squeeze", "Unsqueeze", "Pad", "Shape", "Gather", "Cast", "Expand",
    "Add", "Sub", "Mul", "Div", "Max", "Min", "Neg", "Abs", "LeakyRelu", "PRelu", "ReduceMax", "ReduceMean",
    "GlobalAveragePool", "AveragePool", "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "QLinearConv",
    "QLinearMatMul", "QGemm", "QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearAveragePool",
    "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearReduceMean", "QLinearSigmoid", "QLinearSoftmax",
    "QLinearWhere", "NhwcMaxPool", "ReorderInput", "ReorderOutput",
}
"""Operators of ONNX Runtime that give the same bits with any of x86's instruction sets: its integer kernels, and those
in float32 that it compiles for all of them alike or that round each value once."""


class OnnxSession:
    """An ONNX model in ONNX Runtime on the CPU.

    Attributes:
        inputs, outputs: its arguments, with `name`, `type` ("tensor(float)") and `shape`.
        float_layers: operators that compute in float32 in an order that depends on instruction sets; "" where none
            does. Only filled with `study`.

    Raises whatever onnxruntime raises for a model that it cannot load.
    """

    def __init__(self, model: bytes | str, study: bool = False) -> None:
        runtime = import_runtime("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # failures are raised, and need not be printed as well
        # Left alone, it rounds the activations in front of dequantised weights, by a scale of its own.
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
        self.float_layers = ""
        with tempfile.TemporaryDirectory() as folder:
            if study:
                options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
            self._session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            if study:
                self.float_layers = _float_nodes(Path(folder) / "optimised.onnx")
        self.inputs, self.outputs = self._session.get_inputs(), self._session.get_outputs()

    def run(self, images: np.ndarray, outputs: list[str]) -> dict[str, np.ndarray]:
        """Return the named outputs for one batch of a size that the model takes."""
        found = self._session.run(outputs, {self.inputs[0].name: images})
        return dict(zip(outputs, found, strict=True))

    def compute(self, output: str) -> np.ndarray:
        """Return an output of a model that takes nothing."""
        return self._session.run([output], {})[0]


def _float_nodes(path: Path) -> str:
    import onnx

    nodes = onnx.load(path, load_external_data=False).graph.node
    return _count_names(node.op_type for node in nodes if node.op_type not in _EXACT)


class OpenvinoSession:
    """A network in OpenVINO on the CPU; see `OnnxSession`.

    Args:
        model: the bytes of an ONNX model or of an IR; or an `openvino.Model`.
        weights: the bytes of an IR's weights.
        rows: of a batch, where it is fixed: OpenVINO was seen to return no rows at all for some free ones.
        shape: that of one row, where the model leaves it open.
    """

    def __init__(
        self, model: Any, weights: bytes | None = None, rows: int | None = None, shape: tuple[int, ...] | None = None,
        precision: str = "float32", study: bool = False,
    ) -> None:
        network = read_openvino(model, weights) if isinstance(model, bytes) else model
        if rows is not None:
            old = network.input(0).partial_shape
            network.reshape([rows, *((shape or ()) if shape else (old[k].get_length() for k in range(1, len(old))))])
        self.request, compiled = compile_openvino(network, precision)
        self.inputs = [_Argument.of(port, k) for k, port in enumerate(network.inputs)]
        self.outputs = [_Argument.of(port, k) for k, port in enumerate(network.outputs)]
        self._places = {name: k for k, port in enumerate(network.outputs)
                        for name in (self.outputs[k].name, *port.get_names())}
        self.float_layers = _float_layers(compiled) if study else ""

    def run(self, images: np.ndarray, outputs: list[str]) -> dict[str, np.ndarray]:
        """Return the named outputs for one batch of a size that the model takes."""
        runtime = import_runtime("openvino")
        self.request.set_input_tensor(0, runtime.Tensor(images, shared_memory=True))
        self.request.infer()
        return {name: self.request.get_output_tensor(self._places[name]).data.copy() for name in outputs}


@dataclass(frozen=True)
class _Argument:
    name: str
    type: str
    shape: list[int | str]

    @classmethod
    def of(cls, port: Any, place: int) -> "_Argument":
        kinds = {"f32": "float", "f64": "double", "f16": "float16", "i64": "int64", "i32": "int32", "i16": "int16",
                 "i8": "int8", "u8": "uint8", "boolean": "bool"}
        kind = port.get_element_type().get_type_name()
        sizes = port.get_partial_shape()
        names = sorted(port.get_names())
        shape = [] if sizes.rank.is_dynamic else [size.get_length() if size.is_static else "?" for size in sizes]
        return cls(names[0] if names else f"output {place}", f"tensor({kinds.get(kind, kind)})", shape)


def read_openvino(content: bytes, weights: bytes | None = None) -> Any:
    """Return an `openvino.Model` of an ONNX model or an IR. Raises ValueError in OpenVINO's words, the telling ones."""
    runtime = import_runtime("openvino")
    try:
        if weights is None:
            return runtime.Core().read_model(content)
        return runtime.Core().read_model(content, runtime.Tensor(np.frombuffer(weights, dtype=np.uint8)))
    except RuntimeError as error:
        lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()]
        telling = [line for line in lines if line.startswith(("No conversion rule", "Conversion is failed"))]
        raise ValueError("; ".join(telling) or lines[-1]) from error


def compile_openvino(network: Any, precision: str) -> tuple[Any, Any]:
    """Return an inference request for a network, and the compiled network.

    Says in words what OpenVINO would choose by itself: bfloat16 where the processor has units for it, activations
    rounded to 8 bits in front of compressed weights, and pinned threads, which would put all workers on one core.

    Raises Refused where it compiles for another precision than the one asked for.
    """
    options = {
        "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": str(torch.get_num_threads()),
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bf16": "bf16"}[precision], "ENABLE_CPU_PINNING": "NO",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
    }
    compiled = import_runtime("openvino").Core().compile_model(network, "CPU", options)
    taken = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if taken != options["INFERENCE_PRECISION_HINT"]:
        raise Refused(f"openvino compiles it for {taken} and not for {options['INFERENCE_PRECISION_HINT']} here")
    return compiled.create_infer_request(), compiled


def _float_layers(compiled: Any) -> str:
    names = []
    for layer in compiled.get_runtime_model().get_ordered_ops():
        said = {key: str(value.value if hasattr(value, "value") else value)
                for key, value in layer.get_rt_info().items()}
        if said.get("layerType") not in _FLOAT_EXACT and said.get("runtimePrecision", "f32").startswith(("f", "b")):
            names.append(said.get("layerType", "?"))
    return _count_names(names)


def _count_names(names: Any) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(Counter(names).items()))


def check_rows(outputs: Mapping[str, np.ndarray], rows: int, runtime: str) -> None:
    """Raise ModelError unless every output of a batch has as many rows as its images."""
    for name, value in outputs.items():
        if value.size == 0 or (rows > 1 and rows not in value.shape):
            raise ModelError(f"{runtime} was given {rows} images and returned an output {name!r} of shape "
                             f"{value.shape}: its kernels are at fault here, so the run stops; choose another --engine")


def depends_on_place(run: Callable[[Tensor], Tensor], shape: tuple[int, ...], rows: int) -> bool:
    """Tell whether a bit of a row's answer changes with its place in a batch, or with the other rows."""
    noisy = torch.from_numpy(0.5 + 0.5 * np.random.default_rng(0).standard_normal((rows, *shape), dtype=np.float32))
    with torch.no_grad():
        whole, turned, few = run(noisy), run(noisy.flip(0)).flip(0), run(noisy[rows // 2 : rows // 2 + 3])
    return not (torch.equal(whole, turned) and torch.equal(whole[rows // 2 : rows // 2 + 3], few))


def describe_runtime(name: str, wide: str = "", float_layers: str = "") -> Runtime:
    """Return the runtime that runs an integer network, with the processors on which it gives the same answers.

    Args:
        wide: the layers whose weights are so large that pairs of products exceed 16 bits; "" where there are none.
        float_layers: operators that the runtime runs in float32.
    Raises:
        Refused: such weights on a processor that would cut their products, or one of which this is not known.
    """
    found, version = instruction_sets(name == "openvino"), version_of(name)
    if not is_x86():
        return Runtime(name, version, describe_processor().partition(" ")[0])
    words = ["x86"]
    if float_layers:
        words.append("avx512" if "avx512f" in found else "avx2" if "avx2" in found else "sse")
    if wide:
        if VNNI_UNITS.isdisjoint(found):
            raise Refused(
                f"products of its weights exceed 16 bits in pairs ({wide}), which processors without VNNI cut, and "
                f"this one has none that {name} could use ({describe_processor(name == 'openvino')}): certify it on "
                f"a processor with VNNI, or quantise it with 7-bit weights (reduce_range=True in "
                f"onnxruntime.quantization, OverflowFix.ENABLE in NNCF)")
        words.append("vnni")
    return Runtime(name, version, " ".join(words))


def describe_bf16() -> Runtime:
    """Return OpenVINO as it computes in bfloat16 here. Raises Refused without units for it."""
    units = sorted(BF16_UNITS & instruction_sets(onednn=True))
    if not units:
        raise Refused(f"this processor has no units for bfloat16 ({describe_processor(onednn=True)})")
    kind = "x86" if is_x86() else describe_processor().partition(" ")[0]
    return Runtime("openvino", version_of("openvino"), " ".join([kind, *units]))


def version_of(runtime: str) -> str:
    """Return the version of an installed runtime, without the name of its build."""
    return re.split(r"[-+]", str(getattr(import_runtime(runtime), "__version__", "")))[0]


def import_runtime(name: str, purpose: str | None = None) -> ModuleType:
    """Import a runtime's package. Raises MissingExtraError."""
    try:
        return _import_quietly(name)
    except ImportError as error:
        raise MissingExtraError(error.name or name, EXTRAS.get(name, name), purpose or f"the engine {name}") from error


@contextmanager
def silence_telemetry() -> Iterator[None]:
    """Make the package that tells openvino's makers that it was imported impossible to import meanwhile."""
    sender = "openvino_telemetry"
    silenced = sys.modules.setdefault(sender, None) is None  # type: ignore[arg-type]
    try:
        yield
    finally:
        if silenced:
            del sys.modules[sender]


@contextmanager
def silence_output() -> Iterator[None]:
    """Discard what libraries write to the process's standard output, which belongs to results."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        ctypes.CDLL(None if os.name == "posix" else "msvcrt").fflush(None)  # what the C library still holds
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def import_packages(engine: str) -> list[ModuleType]:
    """Import the packages of an engine and return them, none for those that need only torch."""
    return [_import_quietly(package) for package in PACKAGES.get(engine, ())]


def _import_quietly(name: str) -> ModuleType:
    """Import a package; openvino without word to its makers, and MNN, which prints, without a word here."""
    with silence_telemetry(), nullcontext() if name in sys.modules else silence_output():
        return import_module(name)


def fixed_batch(shape: Collection[int]) -> int:
    """Return the rows of a batch for images of a shape, whatever the options say.

    >>> fixed_batch((1, 28, 28)), fixed_batch((3, 32, 32)), fixed_batch((3, 224, 224))
    (127, 32, 16)
    """
    least, most = FIXED_BATCH
    return int(np.clip(100_000 // int(np.prod(list(shape))), least, most))
