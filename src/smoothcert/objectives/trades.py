"""`trades`: the trade-off between accuracy and robustness (Zhang et al. 2019)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from smoothcert.attacks import PGD, attack_images
from smoothcert.checks import check_weight
from smoothcert.objectives.protocol import Loss, Model, Step, WholeBatch, attack_parts, warm_up
from smoothcert.smoothing.soft import freeze


@dataclass(frozen=True)
class Trades(WholeBatch):
    """Minimise CE(F(x), y) + beta KL(F(x) || F(x')), where x' maximises that divergence over ||x' - x||_2 <= eps.

    x' is found by PGD from x + .001 N(0, I), in eval mode and without noise. Unlike in the authors' code, x and x' pass
    together in training, so that BatchNorm sees one batch of both.

    Attributes:
        beta: 6 in the paper.
        eps: bound on ||x' - x||_2.
        steps: of PGD.
        warmup: epochs over which eps grows linearly; the paper has none.
    """

    beta: float = 6.0
    eps: float = 0.5
    steps: int = 10
    warmup: float = 0.0

    def __post_init__(self) -> None:
        check_weight("beta", self.beta)
        check_weight("warmup", self.warmup)
        self._inner(self.eps)

    def loss(self, model: Model, images: Tensor, labels: Tensor, step: Step) -> Loss:
        eps = warm_up(self.eps, step.epoch, self.warmup)
        with freeze(model) as network, torch.no_grad():
            reference = network(images).softmax(dim=1)
        adversarial = attack_images(self._inner(eps), model, images, reference, generator=step.generator,
                                    bounds=step.bounds)
        clean_logits, adversarial_logits = model(torch.cat([images, adversarial])).chunk(2)
        clean = cross_entropy(clean_logits, labels)
        robust = divergence(adversarial_logits.unsqueeze(1), clean_logits.softmax(dim=1)).mean()
        parts = {"clean": clean, "divergence": robust, **attack_parts(eps, images, adversarial)}
        return Loss(clean + self.beta * robust, parts)

    def _inner(self, eps: float) -> PGD:
        return PGD(eps, self.steps, surrogate=divergence, start_std=0.001)


def divergence(logits: Tensor, reference: Tensor) -> Tensor:
    """Return (1/m) sum_j KL(reference || softmax of logits_j): logits (b, m, K), probabilities (b, K) -> (b,)."""
    terms = kl_div(log_softmax(logits, dim=-1), reference.unsqueeze(1).expand_as(logits), reduction="none")
    return terms.sum(dim=-1).mean(dim=1)
