"""What an objective is: a batch and a model in, a loss and its named parts out. It owns no optimiser and no loop."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

Model = Callable[[Tensor], Tensor]
Trained = Literal["classifier", "denoiser"]


@dataclass(frozen=True)
class Step:
    """Where training stands, and the randomness of this step.

    Attributes:
        generator: draws every random number of the step, on the images' device; what has a row for each image by
            `smoothcert.draws`, since several processes hold it in the same state.
        epoch: epochs done so far, with its fraction (2.5 is half way through the third), for warm-ups.
    """

    generator: torch.Generator
    epoch: float


@dataclass(frozen=True)
class Loss:
    """`total` is minimised; `parts` are scalars worth plotting, by name."""

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """One paper's training objective. To add one: a file with a frozen dataclass, and a row in `OBJECTIVES`.

    The dataclass's fields are the objective's options; a field `sigma` receives the run's noise level.

    Attributes:
        trains: "classifier", images -> logits, or "denoiser", (images, sigma) -> images; labels are then not looked at.
        prefers: options of training that it needs other than the usual ones, by name; those that are given win.
    """

    trains: ClassVar[Trained]
    prefers: ClassVar[Mapping[str, Any]]

    def split(self, batch: int) -> Sequence[Sequence[int]]:
        """The parts of a batch of so many images that get one optimiser step each, as the rows 0 ... batch - 1 that
        they hold, in order; usually all."""
        ...

    def loss(self, model: Model, images: Tensor, labels: Tensor, step: Step) -> Loss:
        """The loss of clean images (B, C, H, W) in [0, 1] with labels (B,), the model in train mode."""
        ...


class WholeBatch:
    """The usual: a classifier is trained, with one optimiser step a batch."""

    trains: ClassVar[Trained] = "classifier"
    prefers: ClassVar[Mapping[str, Any]] = {}

    def split(self, batch: int) -> Sequence[Sequence[int]]:
        return (range(batch),)
