"""The networks inside a denoiser: mlp, conv, unet and dncnn, from a noisy image to an image, or to one number."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from smoothcert.checks import check_count, check_known
from smoothcert.errors import InputError

Shape = tuple[int, int, int]
"""(C, H, W) of one image."""

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"silu": nn.SiLU, "softplus": nn.Softplus, "relu": nn.ReLU}
"""Activations by name; an energy needs a smooth one, as its second derivatives train it."""


class Mlp(nn.Module):
    """`depth` hidden layers of `width` units: (N, planes, H, W) -> (N, C, H, W), or (N,) where `scalar`.

    Of the planes beyond C, which hold the noise level, one pixel is read.
    """

    def __init__(self, shape: Shape, conditioned: bool, scalar: bool, width: int, depth: int, activation: str):
        super().__init__()
        self.shape, self.scalar = shape, scalar
        self.values = math.prod(shape) + conditioned
        sizes = [self.values, *[width] * depth]
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), ACTIVATIONS[activation]()]
        last = nn.Linear(sizes[-1], 1, bias=False) if scalar else nn.Linear(sizes[-1], math.prod(shape))
        self.layers = nn.Sequential(*layers, last)

    def forward(self, y: Tensor) -> Tensor:
        out = self.layers(y.flatten(1)[:, : self.values])
        return out[:, 0] if self.scalar else out.reshape(-1, *self.shape)


class Convolutional(nn.Module):
    """A body that keeps height and width: y + body(y) with images out, or the sum of body(y) over its pixels.

    The images among the input's planes are the first C; the sum is (N,), for a body of one channel.
    """

    def __init__(self, body: nn.Module, channels: int, scalar: bool):
        super().__init__()
        self.body, self.channels, self.scalar = body, channels, scalar

    def forward(self, y: Tensor) -> Tensor:
        out = self.body(y)
        return out.sum(dim=(1, 2, 3)) if self.scalar else y[:, : self.channels] + out


class UNet(nn.Module):
    """A small U: `depth` times two 3x3 convolutions and a mean over 2x2 pixels, then back up beside what was there.

    Level i has 2^i width channels; any height and width of at least 2^depth pixels will do.
    """

    def __init__(self, planes: int, outputs: int, width: int, depth: int, activation: str, bias: bool):
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(_pair(a, b, activation) for a, b in itertools.pairwise([planes, *widths]))
        self.up = nn.ModuleList(_pair(a + b, a, activation) for a, b in reversed(list(itertools.pairwise(widths))))
        self.last = nn.Conv2d(width, outputs, 3, padding=1, bias=bias)

    def forward(self, y: Tensor) -> Tensor:
        x, passed = self.down[0](y), []
        for level in itertools.islice(self.down, 1, None):
            passed.append(x)
            x = level(functional.avg_pool2d(x, 2))
        for level in self.up:
            beside = passed.pop()
            x = level(torch.cat([functional.interpolate(x, beside.shape[2:], mode="nearest"), beside], dim=1))
        return self.last(x)


def mlp(
    shape: Shape, conditioned: bool, scalar: bool, *, width: int = 1024, depth: int = 2, activation: str = "silu"
) -> nn.Module:
    """Fully connected: `depth` hidden layers of `width` units."""
    return Mlp(shape, conditioned, scalar, width, depth, activation)


def conv(
    shape: Shape, conditioned: bool, scalar: bool, *, width: int = 64, depth: int = 6, activation: str = "silu"
) -> nn.Module:
    """`depth` 3x3 convolutions of `width` channels, whose output is added to the input."""
    channels = [shape[0] + conditioned, *[width] * (depth - 1)]
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(channels):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), ACTIVATIONS[activation]()]
    last = nn.Conv2d(channels[-1], 1 if scalar else shape[0], 3, padding=1, bias=not scalar)
    return Convolutional(nn.Sequential(*layers, last), shape[0], scalar)


def unet(
    shape: Shape, conditioned: bool, scalar: bool, *, width: int = 32, depth: int = 2, activation: str = "silu"
) -> nn.Module:
    """A small U-shaped network of `depth` halvings and `width` channels at full size, added to the input."""
    if min(shape[1:]) < 2**depth:
        raise InputError(f"unet of depth {depth} takes images of at least {2**depth}x{2**depth} pixels, got "
                         f"{shape[1]}x{shape[2]}: lower depth")
    body = UNet(shape[0] + conditioned, 1 if scalar else shape[0], width, depth, activation, bias=not scalar)
    return Convolutional(body, shape[0], scalar)


def dncnn(
    shape: Shape, conditioned: bool, scalar: bool, *, width: int = 64, depth: int = 17, activation: str = "relu"
) -> nn.Module:
    """DnCNN (Zhang et al. 2017): `depth` 3x3 convolutions, all but the first and last with BatchNorm, added to the
    input."""
    if scalar:
        raise InputError("dncnn gives an image: it is no network for energy-scalar")
    first = [nn.Conv2d(shape[0] + conditioned, width, 3, padding=1), ACTIVATIONS[activation]()]
    middle = [layer for _ in range(depth - 2) for layer in (
        nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), ACTIVATIONS[activation]())]
    body = nn.Sequential(*first, *middle, nn.Conv2d(width, shape[0], 3, padding=1))
    return Convolutional(body, shape[0], scalar)


NETWORKS: dict[str, Callable[..., nn.Module]] = {"mlp": mlp, "conv": conv, "unet": unet, "dncnn": dncnn}
"""Networks by name: (shape, conditioned, scalar, *, width, depth, activation) -> module; the keyword arguments'
defaults differ from one to the next."""

_LEAST_DEPTH = {"conv": 2, "dncnn": 2}


def build_network(
    name: str, shape: Shape, conditioned: bool, scalar: bool, known: Sequence[str] = tuple(NETWORKS),
    width: int | None = None, depth: int | None = None, activation: str | None = None,
) -> nn.Module:
    """A new network: (N, C, H, W), or (N, C + 1, H, W) with a plane of sigma where conditioned, to (N, C, H, W), or to
    (N,) where scalar.

    Args:
        known: the networks that may be named here.
        width, depth, activation: None is the network's own.
    Raises:
        InputError: an unknown name or a value out of range.
    """
    check_known("network of a denoiser", name, known)
    given: dict[str, Any] = {"width": width, "depth": depth, "activation": activation}
    if width is not None:
        check_count("width", width)
    if depth is not None:
        check_count("depth", depth, least=_LEAST_DEPTH.get(name, 1))
    if activation is not None:
        check_known("activation", activation, ACTIVATIONS)
    return NETWORKS[name](shape, conditioned, scalar, **{k: v for k, v in given.items() if v is not None})


def _pair(inputs: int, outputs: int, activation: str) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), ACTIVATIONS[activation](),
                         nn.Conv2d(outputs, outputs, 3, padding=1), ACTIVATIONS[activation]())
