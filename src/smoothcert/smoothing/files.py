"""Networks in files, which a runtime such as ONNX Runtime runs, as base classifiers: also behind what adapts them."""

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from smoothcert.smoothing.adapters import AdaptedFunction
from smoothcert.smoothing.protocols import Columns


@dataclass(frozen=True)
class Runtime:
    """The runtime that decides a network's answers.

    Attributes:
        name: one of `RUNTIMES`, or torch. version: of its package.
        instructions: the processors on which it gives these answers: "x86" is any Intel or AMD one; "x86 avx512 vnni",
            those with these instruction sets.
    """

    name: str
    version: str
    instructions: str

    def identity(self) -> dict[str, str]:
        """Return what a store's identity says of it."""
        return asdict(self)


@runtime_checkable
class NetworkFile(Protocol):
    """A network in a file: float32 inputs (N, *shape) -> logits (N, K), for any N.

    Attributes:
        runtime: the runtime that is part of what it is; None where any runtime gives its votes.
        rows: those of the batches that it runs in, where it is so; None where any number is taken.
    """

    runtime: Runtime | None
    rows: int | None

    def __call__(self, images: Tensor) -> Tensor: ...

    def open(self, engine: str, shape: tuple[int, ...], rows: int, precision: str) -> Callable[[Tensor], Tensor]:
        """Return a pass by another engine, compiled for batches of so many rows: (N, *shape) -> (N, K), for any N.

        Raises `Refused` where the engine cannot run it.
        """
        ...


_HOLDERS = {Columns: "_model", AdaptedFunction: "function"}
"""What may stand around a file that is no torch module, and the name under which it holds it."""


def find_file(model: Any) -> NetworkFile | None:
    """Return the network in a file that a model is, whatever adapts it; None for other models."""
    while not isinstance(model, NetworkFile):
        place = _place(model)
        if place is None:
            return None
        model = getattr(model, place)
    return model


def runtime_of(model: Any) -> Runtime | None:
    """Return the runtime that is part of what a model is; None for other models."""
    found = getattr(find_file(model) or model, "runtime", None)
    return found if isinstance(found, Runtime) else None


def put_in_place(model: Any, run: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return the pass of a model that is a file with `run` in the file's place."""
    place = _place(model)
    if place is None:
        return run
    other = copy.copy(model)
    setattr(other, place, put_in_place(getattr(model, place), run))
    return other


def _place(model: Any) -> str | None:
    return _HOLDERS.get(type(model)) or getattr(type(model), "holds", None)
