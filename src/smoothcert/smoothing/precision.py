"""The arithmetic that a network computes in: float32 whatever a caller has set in torch, or a reduced precision.

What a caller has set must not change a certificate. Reduced precision makes another base classifier from the same
weights.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from smoothcert.checks import check_known
from smoothcert.errors import InputError
from smoothcert.smoothing.folding import fold
from smoothcert.smoothing.protocols import CastInputs, device_of


@contextmanager
def isolate(device: torch.device | None = None) -> Iterator[None]:
    """Compute in float32, whatever the caller has set in torch, and put all of it back afterwards.

    Autocast is off, new tensors are float32 and on the CPU, and float32 products and convolutions on a CPU keep all
    their bits; on a GPU, the engines see to that (`guard_tf32`). Left alone is what changes a result by its last
    bits, against which close calls are judged again (threads, oneDNN, attention kernels), and what changes none
    (gradients, determinism). Serves as a decorator too.

    Args:
        device: where the model runs. A default device of its kind stays, because the model may count on it.
    """
    own = device.type if device else "cpu"
    with ExitStack() as stack:
        for kind in filter(torch.amp.is_autocast_available, {"cpu", "cuda", own}):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if own == "cuda":
            stack.enter_context(torch.cuda.device(device))  # for what asks for "the" GPU, such as a kernel's launch
        if torch.get_default_device().type not in ("cpu", own):
            stack.enter_context(torch.device("cpu"))
        if torch.get_default_dtype() != torch.float32:
            stack.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(torch.float32)
        stack.enter_context(_whole_products())
        yield


@contextmanager
def _whole_products() -> Iterator[None]:
    """Switch off what shortens the factors of float32 products and convolutions on a CPU.

    Before torch 2.9 one switch serves the products of every device, and none the convolutions.
    """
    mkldnn: Any = torch.backends.mkldnn
    if not hasattr(mkldnn, "conv"):
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
        return
    parts = (mkldnn.matmul, mkldnn.conv, mkldnn.rnn)
    short = [(part, part.fp32_precision) for part in parts if part.fp32_precision in ("tf32", "bf16")]
    try:
        for part, _ in short:
            part.fp32_precision = "ieee"
        yield
    finally:
        for part, value in short:
            part.fp32_precision = value


NARROW = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""The precisions that keep weights and activations in a type of 16 bits."""

PRECISIONS = ("float32", "tf32", *NARROW)


def reduce_precision(model: Any, precision: str) -> Callable[..., Tensor]:
    """Return the base classifier that a model is in a given precision.

    It gives other logits than the model in float32, and now and then another vote, so it must be certified and
    recorded as what it is. Under "float32" it is the model itself, with TF32 switched off where there is CUDA
    (torch allows it in convolutions unless told otherwise).

    Args:
        model: base classifier.
        precision: "float32"; "tf32" rounds the factors of CUDA's products and convolutions to 10 bits; "bf16" and
            "fp16" keep weights and activations in bfloat16 (7 bits) and float16 (10 bits, at most 65,504); logits come
            back as float32.
    Raises:
        InputError: "tf32" without a CUDA device, "bf16" and "fp16" for anything but a torch module, or "tf32" and
            "bf16" on a GPU that does not have them.
    """
    check_known("precision", precision, PRECISIONS)
    device = device_of(model)
    if precision in ("tf32", "bf16") and device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability < (8, 0):
            raise InputError(f"precision '{precision}' needs a GPU of compute capability 8.0, and "
                             f"{torch.cuda.get_device_name(device)} has {'.'.join(map(str, capability))}: use "
                             f"precision 'float32'")
    if precision in NARROW:
        if not isinstance(model, nn.Module):
            raise InputError(f"precision {precision!r} needs a torch module, whose weights can be converted; got "
                             f"{type(model).__name__}: use precision 'float32'")
        return Narrow(model, NARROW[precision])
    if precision == "tf32" and device.type != "cuda":
        raise InputError(f"precision 'tf32' needs a torch module on a CUDA device, got a {type(model).__name__} on "
                         f"{device}: use precision 'float32'")
    return guard_tf32(model, precision)


class Narrow(nn.Module):
    """A copy of a network, in eval mode, with weights, buffers and activations in a type of 16 bits.

    BatchNorm is folded into the layers before it from the network's own values, and then rounded once.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = fold(network.network if isinstance(network, CastInputs) else network, dtype)
        self._dtype = dtype

    def forward(self, rows: Tensor, *normals: Any) -> Tensor:
        return self.network(rows.to(self._dtype), *normals).to(torch.float32)


def guard_tf32(run: Callable[..., Tensor], precision: str) -> Callable[..., Tensor]:
    """Return a forward pass during which CUDA's use of TF32 is what the precision says; `run` itself without CUDA."""
    if not torch.cuda.is_available():
        return run

    def run_guarded(*inputs: Any) -> Tensor:
        with tf32(precision == "tf32"):
            return run(*inputs)

    return run_guarded


@contextmanager
def repeatable() -> Iterator[None]:
    """Give the same outputs and gradients at every call on one machine: one processor thread, cuDNN's repeatable
    kernels, and all bits of float32, since `torch.backends.cudnn.flags` allows TF32 unless it is told otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.backends.cudnn.flags(enabled=True, deterministic=True), tf32(False):
            yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 in CUDA's convolutions and matrix products, and put all settings back afterwards.

    torch has two sets of switches: one for all convolutions and one for all products, which cannot be read once they
    are mixed with the newer ones, and those, one an operation, from torch 2.9 on.
    """
    backends: Any = torch.backends
    # The newer switches that the older ones change too; none before torch 2.9.
    operations = [backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul, backends.mkldnn.matmul] if hasattr(
        backends.cudnn, "conv") else []
    before = [operation.fp32_precision for operation in operations]
    try:
        coarse = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:
        coarse = None
    try:
        if coarse:
            torch.backends.cudnn.allow_tf32 = allowed
            torch.set_float32_matmul_precision("high" if allowed else "highest")
        for operation in operations:
            operation.fp32_precision = "tf32" if allowed else "ieee"
        yield
    finally:
        if coarse:
            torch.backends.cudnn.allow_tf32 = coarse[0]
            torch.set_float32_matmul_precision(coarse[1])
        for operation, value in zip(operations, before, strict=True):
            operation.fp32_precision = value


@contextmanager
def no_graph() -> Iterator[None]:
    """Compute without gradients, and outside inference mode, in which an energy could not be differentiated."""
    with torch.inference_mode(False), torch.no_grad():
        yield
