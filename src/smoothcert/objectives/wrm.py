"""`wrm`: Wasserstein robust training of the base classifier (Sinha et al. 2018), distributional without noise."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cross_entropy

from smoothcert.attacks import Ascent, attack_images
from smoothcert.checks import check_count, check_positive
from smoothcert.objectives.protocol import Loss, Model, Step, WholeBatch, distance_parts


@dataclass(frozen=True)
class WRM(WholeBatch):
    """Minimise CE(F(x'), y), where x' ascends CE(F(x'), y) - gamma ||x' - x||^2 without projection:

        x' = x + (.5/gamma) grad,  then for t = 0, 1, ...:  x' <- x' + ((.5/gamma) grad - (x' - x)) / sqrt(t + 2)

    which is `steps` + 1 steps of `Ascent` with its size and its decay. The theory asks for a smooth network
    (activation elu or silu) and a gamma above half the loss's smoothness. The ascent sees the network in eval mode.

    Attributes:
        gamma: price of a unit of squared distance.
        steps: after the first; 15 in the paper.
    """

    gamma: float = 1.5
    steps: int = 15

    def __post_init__(self) -> None:
        check_positive("gamma", self.gamma)
        check_count("steps", self.steps)

    def loss(self, model: Model, images: Tensor, labels: Tensor, step: Step) -> Loss:
        ascent = Ascent(self.gamma, self.steps + 1, decay=True)
        moved = attack_images(ascent, model, images, labels, generator=step.generator, bounds=None)
        return Loss(cross_entropy(model(moved), labels), distance_parts(images, moved))
