"""torch's own ways to run a network: as it is, folded, and compiled. All are `Builder`s."""

from typing import Any

import torch
from torch import Tensor, nn

from smoothcert.errors import InputError, first_line
from smoothcert.smoothing.engines.folding import fold
from smoothcert.smoothing.engines.precision import Bfloat16, guarded, reduced
from smoothcert.smoothing.engines.protocol import Run, no_graph, refusing


def plain(model: Any, shape: tuple[int, ...], batch: int, device: torch.device, precision: str) -> Run:
    """The model as it is, for any number of rows."""
    run = reduced(model, precision)
    if precision != "bf16":
        return run

    def run_told(*inputs: Any) -> Tensor:
        try:
            return run(*inputs)
        except RuntimeError as error:
            raise InputError(f"precision 'bf16': the network cannot compute in bfloat16 ({first_line(error)}), which "
                             f"quantised layers cannot, for example: use precision 'float32'") from error

    return run_told


def eager(model: nn.Module, shape: tuple[int, ...], batch: int, device: torch.device, precision: str) -> Run:
    """The folded network in channels_last, for any number of rows."""
    network = _folded(model, device, precision)

    def run(rows: Tensor) -> Tensor:
        with no_graph():
            return network(_channels_last(rows)).float()

    return guarded(run, precision)


def compiled(model: nn.Module, shape: tuple[int, ...], batch: int, device: torch.device, precision: str) -> Run:
    """The folded network through torch.compile: with its weights frozen in on a CPU, as a CUDA graph on a GPU."""
    how: dict[str, Any] = {"mode": "reduce-overhead"} if device.type == "cuda" else {"options": {"freezing": True}}
    network = torch.compile(_folded(model, device, precision), dynamic=False, **how)
    # Always the same buffer: a tensor of another kind (inference or not) would be compiled for again.
    buffer = _channels_last(torch.zeros(batch, *shape, device=device))

    def run(rows: Tensor) -> Tensor:
        with no_graph():
            buffer[: len(rows)].copy_(rows)
            return network(buffer)[: len(rows)].float().clone()  # the next call overwrites a CUDA graph's result

    compiled_run = guarded(run, precision)
    with refusing("torch.compile failed"):
        compiled_run(torch.zeros(batch, *shape, device=device))
    return compiled_run


def _folded(model: nn.Module, device: torch.device, precision: str) -> nn.Module:
    with refusing("the network cannot be copied"):
        network: Any = fold(Bfloat16(model) if precision == "bf16" else model).to(device).requires_grad_(False)
    return network.to(memory_format=torch.channels_last)


def _channels_last(rows: Tensor) -> Tensor:
    return rows.contiguous(memory_format=torch.channels_last) if rows.ndim == 4 else rows
