"""Networks without convolutions: linear and mlp."""

import itertools
import math
from collections.abc import Sequence

from torch import nn

from smoothcert.checks import check_count
from smoothcert.errors import InputError
from smoothcert.models.layers import Shape, activation_layer


def linear(input_shape: Shape, num_classes: int) -> nn.Module:
    """One affine layer on the flattened image: (N, C, H, W) -> (N, K)."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), num_classes))


def mlp(
    input_shape: Shape, num_classes: int, *, hidden: Sequence[int] = (256,), activation: str = "relu"
) -> nn.Module:
    """Affine layers with activations between them: (N, C, H, W) -> (N, K).

    Args:
        hidden: sizes of the hidden layers, each at least 1; none gives `linear`.
        activation: "relu", "elu" or "silu".
    Raises InputError for other values.
    """
    if not isinstance(hidden, Sequence) or isinstance(hidden, str):
        raise InputError(f"hidden must be a sequence of layer sizes, such as (256, 128), got {hidden!r}")
    sizes = [math.prod(input_shape), *(check_count(f"hidden[{i}]", size) for i, size in enumerate(hidden))]
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), activation_layer(activation)]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], num_classes))
