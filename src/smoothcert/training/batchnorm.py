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
        wide = torch.promote_types(input.dtype, torch.float32)
        ones = torch.ones(input.shape[1], dtype=wide)
        weight, bias = (ones, torch.zeros_like(ones)) if self.weight is None else (self.weight, self.bias)
        output, mean, variance, values = _Normalised.apply(input, weight, bias, self.eps)
        self._remember(mean, variance * values / (values - 1))
        return output

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards those of a batch."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        step = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, step)
        self.running_var.lerp_(variance, step)


class _Normalised(torch.autograd.Function):
    """(output, mean, variance, values a channel) of a batch that lies in several processes, by torch's own kernels."""

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
        if torch.is_grad_enabled():  # the gradient is to be differentiated too
            return *torch.autograd.grad(_composed(rows, weight, bias, ctx.eps), (rows, weight, bias), gradients[0],
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
        of_rows = _affine(gradient, weight * scale, -weight * scale * constant - slope * mean)
        return of_rows + _affine(rows, slope, torch.zeros_like(slope)), of_weight, of_bias, None


def _affine(values: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """scale x values + shift, channel by channel: BatchNorm's own kernel, at a mean of 0 and a variance of 1."""
    zero = torch.zeros_like(scale)
    return torch.native_batch_norm(values, scale, shift, zero, zero + 1, False, 0.0, 0.0)[0]


def _composed(rows: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """The same output from differentiable steps."""
    axes = [0, *range(2, rows.ndim)]
    shape = [1, -1, *[1] * (rows.ndim - 2)]
    wide = rows.to(weight.dtype)
    sums = total(torch.cat([wide.sum(axes), wide.new_tensor([wide.numel() / wide.shape[1]])]))
    values = sums[-1].detach()
    centred = wide - (sums[:-1] / values).view(shape)
    variance = total(centred.square().sum(axes)) / values
    scale = weight * (variance + eps).rsqrt()
    return (centred * scale.view(shape) + bias.view(shape)).to(rows.dtype)


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
