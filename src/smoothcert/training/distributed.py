"""The processes of one training run, as torchrun's environment describes them, and BatchNorm across them."""

import gc
import os
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.modules.batchnorm import _BatchNorm

from smoothcert.errors import LostProcessError

_PATIENCE = timedelta(minutes=10)
"""How long a process waits for the others before it gives up; it notices at once when one has ended."""


@dataclass(frozen=True)
class Share:
    """The rows that this process holds of a batch, or of the part of a batch that gets an optimiser step.

    Attributes:
        rows: their positions.
        whole: number of rows of all processes together.
        weight: weight of the mean loss of `rows`, so that the mean over processes is the mean loss of the whole.
        counts: number of rows that they count for in a mean over processes.
    """

    rows: Sequence[int]
    whole: int
    weight: float
    counts: float


@dataclass(frozen=True)
class Ranks:
    """This process (rank) among `world` processes."""

    rank: int
    world: int

    @property
    def is_main(self) -> bool:
        """True in the process that writes files and prints."""
        return self.rank == 0

    def share(self, rows: int) -> Share:
        """Return this process's share of `rows` rows; where there are fewer rows than processes, each holds all."""
        if rows < self.world:
            return Share(range(rows), rows, 1.0, rows / self.world)
        own = self.own(rows)
        return Share(own, rows, self.world * len(own) / rows, len(own))

    def own(self, rows: int) -> range:
        """Return the positions of the rows, of `rows` in all, that belong to this process alone."""
        return range(self.rank, rows, self.world)

    def synchronise_batchnorm(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Return the network, to run on `device`, with the statistics of BatchNorm taken over all processes.

        Parameters, buffers and their names stay. On a GPU the layers are torch's own, which run there only; on a
        processor they are `HostBatchNorm`.
        """
        if self.world > 1 and device.type == "cuda":
            return nn.SyncBatchNorm.convert_sync_batchnorm(network)
        for layer in network.modules() if self.world > 1 else ():
            if isinstance(layer, _BatchNorm):
                layer.__class__ = HostBatchNorm
        return network

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return the network with its gradients averaged over processes."""
        return nn.parallel.DistributedDataParallel(network) if self.world > 1 else network

    def sum(self, values: Tensor) -> Tensor:
        """Sum values over all processes, in place, and return them."""
        if self.world > 1:
            torch.distributed.all_reduce(values)
        return values

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes the main process's values, in place."""
        for tensor in tensors if self.world > 1 else ():
            values = tensor.contiguous()
            torch.distributed.broadcast(values, 0)
            tensor.copy_(values)

    def agree(self, value: int, device: torch.device) -> bool:
        """Return True where a value is the same in all processes."""
        main_value = torch.tensor([value], device=device)
        self.broadcast([main_value])
        return int(self.sum((main_value != value).long())) == 0

    def wait(self) -> None:
        """Wait until all processes have come this far."""
        if self.world > 1:
            torch.distributed.barrier()


def world_size() -> int:
    """Return the number of processes of this run, as torchrun or another launcher gives it; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Return True in the process, of those that torchrun started, that writes files and prints."""
    return os.environ.get("RANK", "0") == "0"


def join_processes(device: torch.device) -> Ranks:
    """Join the process group that the environment describes (RANK, WORLD_SIZE, ...). `leave_processes` has to be around
    it."""
    if world_size() == 1:
        return Ranks(0, 1)
    cuda = device.type == "cuda"
    store, rank, world = next(rendezvous("env://", timeout=_PATIENCE))
    if os.environ.get("GROUP_WORLD_SIZE") == "1":
        # When torchrun restarts processes (`--max-restarts`), its store still has the addresses of the dead ones, and
        # the new ones would wait for them. On a single machine the count of restarts is the same in all processes.
        store = PrefixStore(f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    if cuda:
        torch.cuda.set_device(device)  # else what names no device goes to the first GPU, from all processes
        # NCCL's watchdog then only gives the group up, so that the next exchange raises; it would abort the process.
        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "2")
    torch.distributed.init_process_group("nccl" if cuda else "gloo", store=store, rank=rank, world_size=world,
                                         timeout=_PATIENCE, device_id=device if cuda else None)
    return Ranks(rank, world)


@contextmanager
def leave_processes() -> Iterator[None]:
    """Leave the process group at the end, where one was joined.

    What was wrapped for the group has to be gone by then, so the training is a function of its own within this context:
    the network that `Ranks.wrap` returns holds the group too, and a group that is freed with it can wait for ever. It
    waits for the group's threads while it holds Python's lock, for which a thread waits that frees its last tensors.

    Raises LostProcessError where another process has ended, or has not answered for ten minutes.
    """
    theirs = torch.distributed.is_initialized()
    try:
        yield
    except BaseException as error:
        if isinstance(error, torch.distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error)):
            raise LostProcessError(f"another process of this run has ended; its own message, if there is one, says why "
                                   f"({str(error).split('. ')[0]}); the same command resumes after the last finished "
                                   f"epoch") from error
        if torch.distributed.is_initialized() and not theirs:
            traceback.clear_frames(error.__traceback__)  # which hold the network too
            _destroy_group()
        raise
    if torch.distributed.is_initialized() and not theirs:
        _destroy_group()


def _destroy_group() -> None:
    gc.collect()
    torch.distributed.destroy_process_group()


class HostBatchNorm(_BatchNorm):
    """BatchNorm of one to three dimensions that trains with the mean and variance of the rows of all processes."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any number of dimensions."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        wide = torch.promote_types(input.dtype, torch.float32)
        ones = torch.ones(input.shape[1], dtype=wide)
        weight, bias = (ones, torch.zeros_like(ones)) if self.weight is None else (self.weight, self.bias)
        output, mean, variance, values = _Normalised.apply(input, weight, bias, self.eps)
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked += 1
            step = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, step)
            self.running_var.lerp_(variance * values / (values - 1), step)
        return output


class _Normalised(torch.autograd.Function):
    """(output, mean, variance, values a channel) of a batch that several processes hold, by torch's own kernels."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, ...]:
        _, mean, scale = torch.native_batch_norm(rows, weight, bias, None, None, True, 0.0, eps)
        own = rows.numel() / rows.shape[1]
        mean, variance = mean.double(), scale.double() ** -2 - eps
        moments = torch.cat([mean, variance + mean.square(), mean.new_ones(1)]) * own
        torch.distributed.all_reduce(moments)
        values = moments[-1]
        mean, square = (moments[:-1] / values).chunk(2)
        variance = (square - mean.square()).clamp(min=0)
        mean, variance = mean.to(weight.dtype), variance.to(weight.dtype)
        output = torch.native_batch_norm(rows, weight, bias, mean, variance, False, 0.0, eps)[0]
        ctx.save_for_backward(rows, weight, bias, mean, variance)
        ctx.eps, ctx.values = eps, float(values)
        statistics = (mean, variance, values.to(weight.dtype))
        ctx.mark_non_differentiable(*statistics)
        return output, *statistics

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, bias, mean, variance = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient itself will be differentiated
            return *torch.autograd.grad(_normalise(rows, weight, bias, ctx.eps), (rows, weight, bias), gradients[0],
                                        create_graph=True), None
        gradient = gradients[0].contiguous(memory_format=torch.channels_last) \
            if rows.ndim == 4 and rows.is_contiguous(memory_format=torch.channels_last) else gradients[0].contiguous()
        _, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, rows, weight, mean, variance, None, None, False, ctx.eps, [False, True, True])
        sums = torch.stack([of_weight, of_bias])
        torch.distributed.all_reduce(sums)
        along_rows, constant = sums / ctx.values
        scale = (variance + ctx.eps).rsqrt()
        slope = -weight * scale.square() * along_rows
        of_rows = _scale_and_shift(gradient, weight * scale, -weight * scale * constant - slope * mean)
        return of_rows + _scale_and_shift(rows, slope, torch.zeros_like(slope)), of_weight, of_bias, None


def _scale_and_shift(values: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return scale x values + shift, channel by channel, by BatchNorm's own kernel at mean 0 and variance 1."""
    zero = torch.zeros_like(scale)
    return torch.native_batch_norm(values, scale, shift, zero, zero + 1, False, 0.0, 0.0)[0]


def _normalise(rows: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Return BatchNorm's output from steps that torch can differentiate twice."""
    axes = [0, *range(2, rows.ndim)]
    shape = [1, -1, *[1] * (rows.ndim - 2)]
    wide = rows.to(weight.dtype)
    sums = _Total.apply(torch.cat([wide.sum(axes), wide.new_tensor([wide.numel() / wide.shape[1]])]))
    values = sums[-1].detach()
    centred = wide - (sums[:-1] / values).view(shape)
    variance = _Total.apply(centred.square().sum(axes)) / values
    scale = weight * (variance + eps).rsqrt()
    return (centred * scale.view(shape) + bias.view(shape)).to(rows.dtype)


class _Total(torch.autograd.Function):
    """The sum over processes: the loss of each depends on the terms of all, and so does the gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        values = values.contiguous().clone()
        torch.distributed.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Total.apply(gradients[0])
