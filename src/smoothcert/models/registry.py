"""Reference networks by name.

The functions stay in this module: a user's network that keeps one of them as a setting has its name in its identity.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn

from smoothcert.checks import check_count, check_shape, construct
from smoothcert.models.airbench import airbench
from smoothcert.models.convolutional import cnn, cnn3, lenet
from smoothcert.models.dense import linear, mlp
from smoothcert.models.layers import with_normalisation
from smoothcert.models.resnet import resnet18, resnet20, resnet50, resnet110
from smoothcert.models.series import conv1d
from smoothcert.models.vgg import vgg16
from smoothcert.parts import Registry


def _check_builder(part: Any) -> list[str]:
    return [] if callable(part) else ["it must be a function (input_shape, num_classes, *, options) -> torch module"]


MODELS: Registry[Callable[..., nn.Module]] = Registry("model", "smoothcert.models", {
    "linear": linear,
    "mlp": mlp,
    "cnn": cnn,
    "lenet": lenet,
    "cnn3": cnn3,
    "conv1d": conv1d,
    "airbench": airbench,
    "resnet20": resnet20,
    "resnet110": resnet110,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "vgg16": vgg16,
}, _check_builder)
"""Builders by name: (input_shape, num_classes, *, options) -> network; the keyword-only arguments are the options."""


def build_model(
    name: str, input_shape: Sequence[int], num_classes: int, *, mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None, **options: Any,
) -> nn.Module:
    """Return a new network by name, with random weights and its normalisation inside.

    Args:
        name: one of `model_names()`.
        input_shape: of one input: (C, H, W) of images; `mlp` and `linear` take any, `conv1d` series (C, T).
        num_classes: K >= 2.
        mean, std: one number a channel; both give a `Normalise` layer, mean alone a `Centre` layer, neither no layer.
        options: the network's own; `model_options(name)` lists them.
    Returns:
        A module (N, *input_shape) float32 -> (N, K) logits, in train mode. Weights come from torch's global generator.
    Raises:
        UnknownNameError: no such network. InputError: an option that the network does not have, a bad value, or
        inputs that the network does not take.

    >>> build_model("mlp", (1, 8, 8), 10, hidden=(32,))[1]
    Linear(in_features=64, out_features=32, bias=True)
    """
    builder = MODELS.registered(name)
    shape = check_shape("input_shape", input_shape)
    check_count("num_classes", num_classes, least=2)
    known = model_options(name)
    network = construct(name, partial(builder, shape, num_classes), known, options)
    return with_normalisation(network, shape, mean, std)


def model_names() -> tuple[str, ...]:
    """Return the names that `build_model` knows."""
    return tuple(MODELS)


def model_options(name: str) -> dict[str, Any]:
    """Return a network's options and their defaults, the common ones last. Raises UnknownNameError.

    >>> model_options("cnn")
    {'width': 32, 'mean': None, 'std': None}
    """
    parameters = inspect.signature(MODELS.registered(name)).parameters.values()
    own = {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    return {**own, "mean": None, "std": None}
