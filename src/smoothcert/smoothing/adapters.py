"""Models of other people made to fit: one output of several, the sizes of batch they take, logits of shape (N, K).

`adapted` tries a model on a few fixed images and returns one that takes any number of images and answers with one
tensor (N, K): the model itself where it does so already. `AdaptedNetwork` and `AdaptedFunction` are what it returns
otherwise; their `Fit` says what was found, and can be made by hand: `Fit(batch=BatchSizes(1, 1))` judges row by row.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from smoothcert.errors import AdaptedWarning, ModelError, SmoothcertError
from smoothcert.limits import PIXELS, within
from smoothcert.smoothing.batching import ANY_BATCH, BatchSizes, in_batches
from smoothcert.smoothing.protocols import is_random

_ROWS = 3
"""Images in the first try."""

_BAKED_IN = (1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100, 128)
"""Batch sizes that are tried on a model that fails on `_ROWS` images: one of them may be written into it."""

_TRIED_VALUES = 2**21  # of images, beyond which no larger batch is tried
_BATCH_VALUES = 2**29  # of images, beyond which no model is run that asks for such a batch


@dataclass(frozen=True)
class Fit:
    """How a model's answers become logits.

    Attributes:
        output: name of the output that holds them; None where the answer is one tensor.
        batch: the numbers of rows that the model takes.
        drops: whether answers have axes of size 1 beside N and K, which are dropped.
    """

    output: str | None = None
    batch: BatchSizes = ANY_BATCH
    drops: bool = False

    @property
    def changes_nothing(self) -> bool:
        """Whether a model that fits so needs nothing around it."""
        return self.output is None and self.batch.free and not self.drops

    def logits(self, run: Callable[..., Any], images: Tensor) -> Tensor:
        """Return the logits (N, K) of images (N, C, H, W), for any N."""
        return in_batches(lambda rows: self.read(run(rows), rows), images, self.batch)

    def read(self, answer: Any, rows: Tensor) -> Tensor:
        """Return the logits in an answer about rows (n, C, H, W), without axes of size 1, on the rows' device."""
        if self.output is not None:
            answer = _picked(named_outputs(answer), self.output)[1]
        if isinstance(answer, np.ndarray):
            answer = torch.from_numpy(np.ascontiguousarray(answer)).to(rows.device)
        if not isinstance(answer, Tensor):  # nor a stand-in of torch.fx, which has no shape to go by
            raise ModelError(f"the base classifier must return a tensor of logits, got {type(answer).__name__}")
        k = _classes(tuple(answer.shape), len(rows))
        logits = answer if k is None else answer.reshape(len(rows), k)
        return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits  # NumPy has no bfloat16


class AdaptedNetwork(nn.Module):
    """A torch module behind a `Fit`: float32 images (N, C, H, W), for any N -> (N, K)."""

    def __init__(self, network: nn.Module, fit: Fit):
        super().__init__()
        self.network, self.fit, self.training = network, fit, network.training

    def forward(self, images: Tensor) -> Tensor:
        return self.fit.logits(self.network, images)


class AdaptedFunction:
    """Any other callable behind a `Fit`."""

    def __init__(self, function: Callable[..., Any], fit: Fit):
        self.function, self.fit = function, fit

    def __call__(self, images: Tensor) -> Tensor:
        return self.fit.logits(self.function, images)


def adapted(
    model: Any, shape: Sequence[int], num_classes: int | None = None, output: str | int | None = None,
    device: torch.device | None = None,
) -> Any:
    """Return a model that takes any number of images and answers with logits (N, K): `model` itself where it does.

    Args:
        model: a callable, ready for use (see `protocols.check_ready`), on `device`. A random one is left as it is.
        shape: (C, H, W) of one image.
        num_classes: K, where known: tells the logits from other outputs.
        output: name or position of the output that holds the logits; None takes the only one that can.
    Raises:
        ModelError: the model fails on such images, gives no logits, or gives several outputs that could be them.
    """
    if is_random(model):
        return model
    fit = find_fit(model, shape, num_classes, output, device=device)
    return model if fit.changes_nothing else behind_fit(model, fit)


def behind_fit(model: Any, fit: Fit) -> Any:
    """Return a model behind a `Fit`: a module for a module, else a function."""
    return AdaptedNetwork(model, fit) if isinstance(model, nn.Module) else AdaptedFunction(model, fit)


def find_fit(
    run: Callable[..., Any], shape: Sequence[int], num_classes: int | None = None, output: str | int | None = None,
    batch: BatchSizes | None = None, device: torch.device | None = None,
) -> Fit:
    """Return how a model's answers become logits, found by trying it on a few fixed images of shape (C, H, W).

    Args:
        num_classes, output: as for `adapted`.
        batch: the numbers of rows that it says it takes; None, or any number, is tried.
    Raises:
        ModelError: as `adapted` says.
    """
    sizes = batch or ANY_BATCH
    failures: list[tuple[str, BaseException]] = []
    values = int(np.prod(shape, dtype=object))
    within(f"what an image of shape {tuple(shape)} holds", values, PIXELS, "it is no image", ModelError)
    for n in _tried(shape, sizes):
        within(f"what a batch of {n} images of shape {tuple(shape)} holds", n * values, _BATCH_VALUES,
               "export the model for smaller batches", ModelError)
        images = _noisy(shape, n).to(device or "cpu")
        try:
            with torch.no_grad():
                answer = run(images)
        except SmoothcertError:
            raise
        except (Exception, SystemExit) as error:  # foreign code raises whatever it likes
            said = " ".join(str(error).split())
            shown = f"float32 images of shape {tuple(images.shape)}: {type(error).__name__}: {said:.400}"
            failures.append((shown, error))
            continue
        if failures:
            sizes = BatchSizes(n, n)
            takes = "one row at a time" if n == 1 else f"batches of exactly {n} rows"
            warnings.warn(f"the model takes {takes}, and runs so; it cannot take {failures[0][0]}", AdaptedWarning,
                          stacklevel=3)
        name, value = choose(answer, n, num_classes, output)
        if sizes.free and not _takes(run, _noisy(shape, 1).to(device or "cpu")):
            sizes = BatchSizes(n, n)
            warnings.warn(f"the model takes batches of exactly {n} rows, and runs so", AdaptedWarning, stacklevel=3)
        return Fit(name or None, sizes, value.ndim != 2 or len(value) != n)
    raise ModelError(f"the model cannot take {failures[0][0]}") from failures[0][1]


def choose(answer: Any, n: int, num_classes: int | None, output: str | int | None) -> tuple[str, Any]:
    """Return name and value of the one output in an answer about n images that can hold their logits.

    Raises:
        ModelError: none can, or several can and `output` names none of them.
    """
    outputs = named_outputs(answer)
    if not outputs:
        raise ModelError(f"the base classifier must return a tensor of logits, got {type(answer).__name__}")
    classes = {name: _classes(tuple(value.shape), n) for name, value in outputs.items()}
    if output is not None:
        name, value = _picked(outputs, output)
        if classes[name] is None:
            raise ModelError(f"output {name!r} has shape {_shape(value, n)}, but logits have shape (N, K), one row for "
                           f"each image{_advice(outputs, n)}")
        return name, value
    fitting = [name for name, k in classes.items() if k is not None]
    found = [name for name in fitting if classes[name] == num_classes] or fitting
    if len(found) > 1:
        raise ModelError(f"the model has {len(found)} outputs that could be the logits: "
                        f"{_listed({name: outputs[name] for name in found}, n)}; pick one with --output NAME (in "
                        f"Python, output=NAME)")
    if not found:
        raise ModelError(f"the base classifier must return logits of shape (N, {num_classes or 'K'}) for N images, got "
                       f"{_listed(outputs, n)}{_advice(outputs, n)}")
    return found[0], outputs[found[0]]


def named_outputs(answer: Any) -> dict[str, Any]:
    """Return the tensors and arrays of an answer by name: those of a mapping, a list, or an object with fields.

    One that is a tensor itself has the name "", those within one another are joined by dots.

    >>> list(named_outputs({"logits": torch.zeros(2, 3), "states": [torch.zeros(1), None]}))
    ['logits', 'states.0']
    """
    return dict(_leaves("", answer))


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Tensor | np.ndarray):
        yield name, value
        return
    parts: dict[Any, Any] = {"logits": value.logits} if hasattr(value, "logits") else {}
    if isinstance(value, Mapping):
        parts = dict(value)
    elif isinstance(value, list | tuple):
        parts = dict(zip(getattr(value, "_fields", range(len(value))), value, strict=False))
    elif is_dataclass(value):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
    for key, part in parts.items():
        yield from _leaves(f"{name}.{key}" if name else str(key), part)


def _picked(outputs: Mapping[str, Any], output: str | int) -> tuple[str, Any]:
    """Name and value of the output of that name, or at that position."""
    name, names = str(output), list(outputs)
    if name not in outputs and name.isdigit() and int(name) < len(names):
        name = names[int(name)]
    if name not in outputs:
        known = ", ".join(map(repr, names)) if names != [""] else "one tensor without a name: leave output away"
        raise ModelError(f"output: the model has no output {output!r}; it returns {known}")
    return name, outputs[name]


def _classes(shape: tuple[int, ...], n: int) -> int | None:
    """K, for the shape of scores (n, K) with any axes of size 1; None for another."""
    sizes = [size for size in shape if size != 1]
    rows = [n] if n != 1 else []
    return sizes[-1] if len(sizes) == len(rows) + 1 and sizes[:-1] == rows else None


def _noisy(shape: Sequence[int], n: int) -> Tensor:
    normals = np.random.default_rng(0).standard_normal((n, *shape), dtype=np.float32)
    return torch.from_numpy(0.5 + 0.5 * normals)


def _takes(run: Callable[..., Any], images: Tensor) -> bool:
    try:
        with torch.no_grad():
            run(images)
    except Exception:
        return False
    return True


def _tried(shape: Sequence[int], sizes: BatchSizes) -> Iterator[int]:
    yield sizes.up_from(_ROWS if sizes.most is None else min(_ROWS, sizes.most))
    if sizes.free:
        yield from (n for n in _BAKED_IN if n == 1 or n * int(np.prod(shape)) <= _TRIED_VALUES)


def _advice(outputs: Mapping[str, Any], n: int) -> str:
    """What to do about answers of one number a row."""
    if any(str(value.dtype).removeprefix("torch.").startswith(("int", "uint")) for value in outputs.values()):
        return ": whole numbers are classes already; return logits, or one_hot rows of them"
    if any([size for size in value.shape if size != 1] == [n] * (n > 1) for value in outputs.values()):
        return (": one logit z a row, of shape (N, 1), decides between two classes: return two columns, "
                "torch.cat([-z, z], 1); a probability p: torch.cat([1 - p, p], 1)")
    return ""


def _listed(outputs: Mapping[str, Any], n: int) -> str:
    return ", ".join(f"{name} {_shape(value, n)}".strip() for name, value in outputs.items())


def _shape(value: Any, n: int) -> str:
    sizes = [str(size) for size in value.shape]
    if sizes and value.shape[0] == n:
        sizes[0] = "N"
    return f"({', '.join(sizes)}{',' * (len(sizes) == 1)})"

