"""`adversarial`: adversarial training of the base classifier (Madry et al. 2018), to compare SmoothAdv with."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cross_entropy

from smoothcert.attacks import PGD, attack_images
from smoothcert.checks import check_weight
from smoothcert.objectives.protocol import Loss, Model, Step, WholeBatch, attack_parts, warm_up


@dataclass(frozen=True)
class Adversarial(WholeBatch):
    """Minimise CE(F(x'), y), where x' maximises it over ||x' - x||_2 <= eps: PGD on F itself, without noise.

    Attributes:
        eps: bound on ||x' - x||_2.
        steps: of PGD, each of 2 eps / steps, from x.
        warmup: epochs over which eps grows linearly, as for smoothadv.
    """

    eps: float = 0.5
    steps: int = 10
    warmup: float = 10.0

    def __post_init__(self) -> None:
        check_weight("warmup", self.warmup)
        PGD(self.eps, self.steps)

    def loss(self, model: Model, images: Tensor, labels: Tensor, step: Step) -> Loss:
        eps = warm_up(self.eps, step.epoch, self.warmup)
        adversarial = attack_images(PGD(eps, self.steps), model, images, labels, generator=step.generator,
                                    bounds=step.bounds)
        return Loss(cross_entropy(model(adversarial), labels), attack_parts(eps, images, adversarial))
