"""torch's own ways to run a network: as it is, folded, and compiled. The first three functions are `Builder`s."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from smoothcert.errors import InputError, first_line
from smoothcert.smoothing.engines.protocol import Run, refuse_on_error
from smoothcert.smoothing.folding import fold
from smoothcert.smoothing.gpu.convolutions import fuse_where_it_runs
from smoothcert.smoothing.gpu.shortcuts import is_taken
from smoothcert.smoothing.precision import NARROW, Narrow, guard_tf32, no_graph, reduce_precision, tf32
from smoothcert.smoothing.rows import Intake


def plain(model: Any, shape: tuple[int, ...], batch: int, device: torch.device, precision: str) -> Run:
    """Run the model as it is, for any number of rows."""
    run = reduce_precision(model, precision)
    if precision not in NARROW:
        return run

    def run_or_explain(*inputs: Any) -> Tensor:
        try:
            return run(*inputs)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise InputError(f"precision {precision!r}: the network cannot compute in {NARROW[precision]} here "
                             f"({first_line(error)}), which quantised layers cannot, for example: use precision "
                             f"'float32'") from error

    return run_or_explain


def eager(model: nn.Module, shape: tuple[int, ...], batch: int, device: torch.device, precision: str) -> Run:
    """Run the folded network in channels_last, for any number of rows."""
    network = _prepare(model, precision)
    if device.type == "cuda" and is_taken("fused_convolutions"):
        with tf32(precision == "tf32"):
            network = fuse_where_it_runs(network, shape, device)
    return FoldedPass(network, precision)


class FoldedPass:
    """A pass of a folded network in one memory layout, for any number of rows.

    Attributes:
        intake: how the network reads its rows.
    """

    def __init__(self, network: nn.Module, precision: str, channels_last: bool = True) -> None:
        self._network, self._precision = network, precision
        self.intake = Intake(channels_last, NARROW.get(precision, torch.float32))
        self._laid_out = _channels_last if channels_last else Tensor.contiguous
        self._run = guard_tf32(self._compute, precision)

    def __call__(self, rows: Tensor) -> Tensor:
        return self._run(rows)

    def channels_first(self) -> "FoldedPass":
        """Return the same with the channels first, in a copy of the network."""
        return FoldedPass(_lay_out(copy.deepcopy(self._network), torch.contiguous_format), self._precision,
                          channels_last=False)

    def _compute(self, rows: Tensor) -> Tensor:
        with no_graph():
            return self._network(self._laid_out(rows)).float()


def torch_compile(model: nn.Module, shape: tuple[int, ...], batch: int, device: torch.device, precision: str) -> Run:
    """Run the folded network through torch.compile: with its weights frozen in on a CPU, as a CUDA graph on a GPU."""
    how: dict[str, Any] = {"mode": "reduce-overhead"} if device.type == "cuda" else {"options": {"freezing": True}}
    network = torch.compile(_prepare(model, precision), dynamic=False, **how)
    # Always the same buffer: a tensor of another kind (inference or not) would be compiled for again.
    buffer = _channels_last(torch.zeros(batch, *shape, device=device))

    def run(rows: Tensor) -> Tensor:
        with no_graph():
            buffer[: len(rows)].copy_(rows)
            return network(buffer)[: len(rows)].float().clone()  # the next call overwrites a CUDA graph's result

    compiled_run = guard_tf32(run, precision)
    with refuse_on_error("torch.compile failed"):
        compiled_run(torch.zeros(batch, *shape, device=device))
    return compiled_run


def _prepare(model: nn.Module, precision: str) -> nn.Module:
    with refuse_on_error("the network cannot be copied"):
        network: Any = Narrow(model, NARROW[precision]) if precision in NARROW else fold(model)
        network.requires_grad_(False)
    return put_channels_last(network)


def put_channels_last(network: nn.Module) -> nn.Module:
    """Lay the weights of a network out as two-dimensional convolutions are fastest, in place, and return it.

    `network.to(memory_format=torch.channels_last)` raises where a tensor has five axes.
    """
    return _lay_out(network, torch.channels_last)


def _lay_out(network: nn.Module, layout: torch.memory_format) -> nn.Module:
    """Lay weights out in place.

    By `to`, since `contiguous` leaves what has one channel as it is: it lies in memory alike in both layouts, but its
    strides tell a convolution in which to compute, and the layers after it go on in that one.
    """
    return network._apply(lambda values: values.to(memory_format=layout) if values.ndim == 4 else values)


def _channels_last(values: Tensor) -> Tensor:
    return values.contiguous(memory_format=torch.channels_last) if values.ndim == 4 else values
