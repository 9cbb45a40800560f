"""BatchNorm over the batch of all processes, as one process has it: its statistics are means over all of them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def across_processes(network: nn.Module, device: torch.device) -> nn.Module:
    """The network with its BatchNorm layers synchronised, by torch's own layer, which runs on a GPU alone, or by
    `HostBatchNorm`; parameters, buffers and their names stay."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for layer in network.modules():
        if isinstance(layer, _BatchNorm):
            layer.__class__ = HostBatchNorm
    return network


class HostBatchNorm(_BatchNorm):
    """BatchNorm of one to three dimensions, in training with the mean and variance of all processes' rows."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Any will do."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        axes = [0, *range(2, input.ndim)]
        shape = [1, -1, *[1] * (input.ndim - 2)]
        wide = input.to(torch.promote_types(input.dtype, torch.float32))  # 16 bits hold no sum
        sums = total(torch.cat([wide.sum(axes), wide.new_tensor([wide.numel() / wide.shape[1]])]))
        values = sums[-1].detach()
        mean = sums[:-1] / values
        centred = wide - mean.view(shape)
        variance = total(centred.square().sum(axes)) / values
        self._remember(mean.detach(), variance.detach() * values / (values - 1))
        scale = (variance + self.eps).rsqrt()
        weight, bias = (scale, 0.0) if self.weight is None else (scale * self.weight, self.bias.view(shape))
        return (centred * weight.view(shape) + bias).to(input.dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards those of a batch."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        step = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, step)
        self.running_var.lerp_(variance, step)


class _Total(torch.autograd.Function):
    """The sum over processes; each process's loss depends on the terms of all, and so does the gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        values = values.contiguous().clone()
        torch.distributed.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Total.apply(gradients[0])


def total(values: Tensor) -> Tensor:
    """The sum over processes, with its gradient."""
    return _Total.apply(values)
