"""`adre`: adversarially regularised training, ADRE and ADRE-Adv (Feng et al. 2020)."""

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from smoothcert.attacks import PGD, REGULARISERS, AdreSurrogate, attack_images
from smoothcert.checks import check_count, check_flag, check_known, check_optional_positive, check_share, check_weight
from smoothcert.errors import InputError, QualityWarning
from smoothcert.objectives.protocol import Loss, Model, Step, WholeBatch, attack_parts, warm_up
from smoothcert.smoothing.soft import draw_noise, log_mean_softmax, noisy_logits


@dataclass(frozen=True)
class Adre(WholeBatch):
    """Minimise l_per - lambda l_adre, with k noises e_j shared by both terms and G = (1/k) sum_j F(x + e_j):

        l_per = (1/k) sum_j CE(F(x + e_j), y)    l_adre = -log G_c,  c = argmax of G over classes other than y

    so that the likeliest wrong class, which bounds the certified radius together with y, is pushed down. With `eps`
    (ADRE-Adv) the same is minimised at x^, which ascends -log G_y - lambda l_adre over ||x^ - x||_2 <= eps, c found
    anew at each step. lambda = 0 is SmoothAdv with `eps`, and Gaussian augmentation without.

    It differs from the paper in one point: l_adre has no upper bound, and at k = 1 the loss has no minimum, so l_adre
    is capped, image by image, at -log 1e-4 (`cap=None`: never, as printed). log G is computed by logsumexp.

    Attributes:
        k: noises an image, 8 on CIFAR-10, 1 or 4 on ImageNet.
        lam: lambda in [0, 1), .1 to .3 on CIFAR-10; without a cap it may be larger, which gives a warning.
        cap: the largest l_adre, in nats, that still has a gradient; None is the faithful form.
        single_draw: take l_per from the first noise alone, as for the paper's Table 1.
        regulariser: "runner-up" (l_adre), or "gap": eq. 10's Phi^-1(p_A) - Phi^-1(p_B) of G's two likeliest classes,
            the label unseen, which the paper found unstable; its cap is the gap at p_B = e^-cap, p_A = 1 - e^-cap.
        label_smoothing: of l_per; .1 on ImageNet.
        eps: bound on ||x^ - x||_2; None trains on x itself.
        steps: M, steps of PGD.
        warmup: epochs over which eps grows linearly.
    """

    sigma: float
    k: int = 8
    lam: float = 0.1
    cap: float | None = -math.log(1e-4)
    single_draw: bool = False
    regulariser: str = "runner-up"
    label_smoothing: float = 0.0
    eps: float | None = None
    steps: int = 2
    warmup: float = 10.0

    def __post_init__(self) -> None:
        check_count("k", self.k)
        check_optional_positive("cap", self.cap)
        check_weight("lam", self.lam)
        if self.lam >= 1 and self.cap is not None:
            raise InputError(f"lam must lie in [0, 1) while l_adre is capped, got {self.lam:g}; without a cap "
                             f"(cap=null), as the paper prints the loss, it may be larger")
        if self.lam >= 1:
            warnings.warn(f"adre with lambda = {self.lam:g} and no cap: for lambda of 1 or more the loss falls without "
                          f"end as the likeliest wrong class becomes less likely, whatever the label gets; watch l_per",
                          QualityWarning, stacklevel=2)
        check_flag("single_draw", self.single_draw)
        check_known("regulariser", self.regulariser, REGULARISERS)
        check_share("label_smoothing", self.label_smoothing)
        check_optional_positive("eps", self.eps)
        check_count("steps", self.steps)
        check_weight("warmup", self.warmup)

    def loss(self, model: Model, images: Tensor, labels: Tensor, step: Step) -> Loss:
        noise = draw_noise(images, self.k, self.sigma, step.generator)
        parts = {}
        if self.eps is not None:
            eps = warm_up(self.eps, step.epoch, self.warmup)
            inner = PGD(eps, self.steps, surrogate=AdreSurrogate(self.lam, self.regulariser))
            adversarial = attack_images(inner, model, images, labels, noise, generator=step.generator,
                                        bounds=step.bounds)
            parts = attack_parts(eps, images, adversarial)
            images = adversarial
        loss = self.of_logits(noisy_logits(model, images, noise), labels)
        return Loss(loss.total, {**loss.parts, **parts})

    def of_logits(self, logits: Tensor, labels: Tensor) -> Loss:
        """Return the loss of the noisy copies' logits (B, k, K)."""
        drawn = logits[:, :1] if self.single_draw else logits
        l_per = cross_entropy(drawn.flatten(0, 1), labels.repeat_interleave(drawn.shape[1]),
                              label_smoothing=self.label_smoothing)
        values = REGULARISERS[self.regulariser](log_mean_softmax(logits), labels)
        limit = math.inf if self.cap is None else self.cap
        if self.cap is not None and self.regulariser == "gap":
            limit = -2 * float(torch.special.ndtri(torch.tensor(math.exp(-self.cap), dtype=torch.float64)))
        l_adre = values.clamp(max=limit).mean()
        parts = {"l_per": l_per, "l_adre": l_adre, "capped": (values >= limit).to(l_per.dtype).mean()}
        return Loss(l_per - self.lam * l_adre, parts)
