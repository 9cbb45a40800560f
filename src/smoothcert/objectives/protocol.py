"""The protocol of objectives, a batch and a model in, a loss and its named parts out; and what attacking ones share.

An objective owns no optimiser and no loop.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from smoothcert.attacks import l2_norms
from smoothcert.errors import InputError

Model = Callable[[Tensor], Tensor]
Trained = Literal["classifier", "denoiser"]


@dataclass(frozen=True)
class Step:
    """The point that training has reached, and the randomness of this step.

    Attributes:
        generator: draws every random number of the step, on the images' device; numbers that have a row for each image
            are drawn by `smoothcert.draws`, since several processes hold the generator in the same state.
        epoch: epochs done so far, with its fraction (2.5 is half way through the third), for warm-ups.
        bounds: (low, high) that every value of the data keeps, and so what an attack gives; None for any.
    """

    generator: torch.Generator
    epoch: float
    bounds: tuple[float, float] | None = (0.0, 1.0)


@dataclass(frozen=True)
class Loss:
    """`total` is minimised; `parts` are scalars worth plotting, by name."""

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """One paper's training objective. To add one: a file with a frozen dataclass, and a row in `OBJECTIVES`.

    The dataclass's fields are the objective's options; a field `sigma` receives the run's noise level.

    Attributes:
        trains: "classifier", images -> logits, or "denoiser", (images, sigma) -> images, which uses no labels.
        prefers: training options for which the objective has other defaults than usual, by name.
    """

    trains: ClassVar[Trained]
    prefers: ClassVar[Mapping[str, Any]]

    def split(self, batch: int) -> Sequence[Sequence[int]]:
        """Return the parts of a batch that get one optimiser step each, as their rows in 0 ... batch - 1, in order."""
        ...

    def loss(self, model: Model, images: Tensor, labels: Tensor, step: Step) -> Loss:
        """Return the loss of clean inputs (B, *shape) within `step.bounds` with labels (B,), the model in train
        mode."""
        ...


class WholeBatch:
    """The usual case: a classifier is trained, with one optimiser step a batch."""

    trains: ClassVar[Trained] = "classifier"
    prefers: ClassVar[Mapping[str, Any]] = {}

    def split(self, batch: int) -> Sequence[Sequence[int]]:
        return (range(batch),)


class SplitByNoise(WholeBatch):
    """A classifier trained on m noises an image: a batch of B images is split into m parts of B/m images x m noises
    with an optimiser step each, so that a training pass has B rows whatever m is.

    Attributes:
        m: noises an image.
    """

    m: int

    def split(self, batch: int) -> Sequence[Sequence[int]]:
        """Return m parts, or one for each image where there are fewer than m."""
        return [part.tolist() for part in np.array_split(np.arange(batch), min(self.m, batch))]


def check_classifier(classifier: Any) -> None:
    """Raise InputError unless an objective's classifier is None or a module."""
    if classifier is not None and not isinstance(classifier, nn.Module):
        raise InputError(f"classifier must be a torch module, images -> logits, got {classifier!r}")


def warm_up(eps: float, epoch: float, warmup: float) -> float:
    """Return eps, or another value, times (epochs begun) / warmup, at most eps: it grows linearly, epoch by epoch, and
    is never 0.

    >>> [warm_up(1.0, epoch, 4) for epoch in (0, 0.9, 1, 3, 8)]
    [0.25, 0.25, 0.5, 1.0, 1.0]
    """
    return eps * min(1.0, (math.floor(epoch) + 1) / warmup) if warmup else eps


def attack_parts(eps: float, images: Tensor, adversarial: Tensor) -> dict[str, Tensor]:
    """Return parts worth plotting: the eps of this step, and the mean ||x' - x||_2 that the attack used of it."""
    return {"eps": images.new_tensor(eps), "perturbation": l2_norms(adversarial - images).mean().to(images.dtype)}


def distance_parts(images: Tensor, moved: Tensor) -> dict[str, Tensor]:
    """Return parts worth plotting: the mean of ||x_K - x||_2, and rho, the mean of its square."""
    norms = l2_norms(moved - images)
    return {"perturbation": norms.mean().to(images.dtype), "rho": norms.square().mean().to(images.dtype)}
