"""Functions with real-valued outputs in the form of a base classifier: M outputs, and a column of zeros.

Base classifiers have two or more columns, by which adapters tell the columns of an answer from its rows. With a column
of zeros after its own a function of any M keeps their contract.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from smoothcert.smoothing.adapters import named_outputs
from smoothcert.smoothing.protocols import Normals, as_logits, is_random


class RealNetwork(nn.Module):
    """A network of real-valued outputs: inputs (N, *shape) -> (N, M + 1)."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self.training = network, network.training

    def forward(self, inputs: Tensor, *normals: Normals) -> Any:
        return add_zeros(self.network(inputs, *normals), len(inputs))

    @property
    def random(self) -> bool:
        return is_random(self.network)


class RealFunction:
    """Any other callable of real-valued outputs."""

    def __init__(self, function: Callable[..., Any]):
        self.function, self.random = function, is_random(function)

    def __call__(self, inputs: Tensor, *normals: Normals) -> Any:
        return add_zeros(self.function(inputs, *normals), len(inputs))


def add_zeros(answer: Any, n: int) -> Any:
    """Return an answer about n inputs with a column of zeros after those of each tensor in it, (n,) or (n, M).

    What has another shape stays as it is, to be refused by it.
    """
    columns = {name: _add_column(as_logits(value), n) for name, value in named_outputs(answer).items()}
    return columns[""] if list(columns) == [""] else columns


def _add_column(values: Tensor, n: int) -> Tensor:
    if values.ndim not in (1, 2) or len(values) != n:
        return values
    return nn.functional.pad(values.reshape(n, -1), (0, 1))
