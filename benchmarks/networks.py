"""The networks that speeds are quoted for: random weights, BatchNorm statistics as training would leave them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from smoothcert.models import build_model

CLASSES = 10
SIGMA = 0.5
SHAPES = {"linear": (1, 28, 28), "lenet": (1, 28, 28), "cnn": (1, 28, 28), "resnet20": (3, 32, 32),
          "resnet110": (3, 32, 32)}
LARGE = {"resnet50": (3, 224, 224)}
"""Those that only a GPU is timed with."""


@dataclass(frozen=True)
class Network:
    """A network in eval mode, an image (C, H, W) in 256 levels, and what a sample costs it."""

    name: str
    model: nn.Module
    image: np.ndarray
    mflop: float


def network(name: str) -> Network:
    """The network of this name, the same in every run."""
    shape = (SHAPES | LARGE)[name]
    generator = np.random.default_rng(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = settled(build_model(name, shape, CLASSES), shape)
    image = (np.rint(generator.random(shape) * 255) / 255).astype(np.float32)
    return Network(name, model, image, mflop(model, shape))


def settled(model: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
    """The network in eval mode, its BatchNorm statistics those of noisy images."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # plain averages
    with torch.no_grad():
        model.train()(0.5 + SIGMA * torch.randn(64, *shape))
    return model.eval()


def mflop(model: nn.Module, shape: tuple[int, int, int]) -> float:
    """Millions of floating-point operations a sample, of products and convolutions; a multiply-add counts two."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, *shape))
    return counter.get_total_flops() / 1e6
