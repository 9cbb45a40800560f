"""Computing as torch does when nobody has told it otherwise: what a caller has set must not change a certificate."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch


@contextmanager
def isolated(device: torch.device | None = None) -> Iterator[None]:
    """Compute in float32, whatever the caller has set in torch, and put all of it back afterwards.

    Autocast is off, new tensors are float32 and on the CPU, and float32 products and convolutions on a CPU keep all
    their bits; on a GPU, the engines see to that (`engines.precision`). Left alone is what changes a result by its last
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
