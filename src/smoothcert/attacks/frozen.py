"""A network as an attack needs it: in eval mode, its parameters frozen, and put back afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from smoothcert.smoothing.protocols import evaluation


def unwrapped(model: Any) -> Any:
    """The network itself, where it is wrapped for several processes."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


@contextmanager
def frozen(model: Any) -> Iterator[Any]:
    """Yield the model in eval mode with frozen parameters; modes and `requires_grad` are restored on the way out.

    BatchNorm statistics stay as they are, and no backward pass computes a gradient of a weight. A network wrapped for
    several processes is unwrapped: they need not take the same number of steps. A plain callable is yielded as it is.
    """
    model = unwrapped(model)
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    trained = [p for p in parameters if p.requires_grad]
    with evaluation(model):
        try:
            for parameter in trained:
                parameter.requires_grad_(False)
            yield model
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)
