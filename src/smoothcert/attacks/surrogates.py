"""What an attack ascends: functions of the logits of m noisy copies, (b, m, K), and of the labels, (b,), giving (b,).

F = softmax of logits, e_j the noise, G(x) = (1/m) sum_j F(x + e_j). A targeted attack descends the same function at
the class it wants. Salman = Salman et al. 2019 (SmoothAdv); Feng = Feng et al. 2020 (ADRE).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, nll_loss

from smoothcert.checks import check_known, check_weight

Surrogate = Callable[[Tensor, Tensor], Tensor]
"""(logits (b, m, K), labels (b,)) -> (b,)."""


def log_mean_softmax(logits: Tensor) -> Tensor:
    """log G: (b, m, K) -> (b, K), with no logarithm of a rounded sum."""
    return log_softmax(logits, dim=-1).logsumexp(dim=1) - math.log(logits.shape[1])


def smoothed(logits: Tensor, labels: Tensor) -> Tensor:
    """Objective (S) of Salman, section 3: -log (1/m) sum_j F_y(x + e_j)."""
    return nll_loss(log_mean_softmax(logits), labels, reduction="none")


def wrong(logits: Tensor, labels: Tensor) -> Tensor:
    """The objective that Salman warn of, for comparison: (1/m) sum_j -log F_y(x + e_j)."""
    return nll_loss(log_softmax(logits, dim=-1).mean(dim=1), labels, reduction="none")


def runner_up(log_mean: Tensor, labels: Tensor) -> Tensor:
    """Feng's l_adre = -log G_c at the likeliest class c other than y; c is an index, without gradient.

    Args:
        log_mean: log G, (b, K).
        labels: (b,).
    """
    others = log_mean.detach().scatter(1, labels[:, None], -math.inf)
    return nll_loss(log_mean, others.argmax(dim=1), reduction="none")


def top_two_gap(log_mean: Tensor, labels: Tensor) -> Tensor:
    """Feng's eq. 10: Phi^-1(p_A) - Phi^-1(p_B) of the two likeliest classes, whatever the label.

    Where it is infinite (p_A rounds to 1, or p_B to 0) it is 0 without gradient, so that the image is left out.
    """
    top = log_mean.exp().topk(2, dim=1).values
    return normal_gap(top[:, 0], top[:, 1])[0]


REGULARISERS: dict[str, Surrogate] = {"runner-up": runner_up, "gap": top_two_gap}
"""What ADRE subtracts lambda times: functions of log G (b, K) and the labels (b,); larger is safer."""


@dataclass(frozen=True)
class AdreSurrogate:
    """Feng's attack objective: J(x') - lambda R(x'), J that of `smoothed`, R of `REGULARISERS`; lambda 0 is (S)."""

    lam: float = 0.1
    regulariser: str = "runner-up"

    def __post_init__(self):
        check_weight("lam", self.lam)
        check_known("regulariser", self.regulariser, REGULARISERS)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_mean = log_mean_softmax(logits)
        return nll_loss(log_mean, labels, reduction="none") \
            - self.lam * REGULARISERS[self.regulariser](log_mean, labels)


SURROGATES: dict[str, Surrogate] = {"smoothed": smoothed, "wrong": wrong, "adre": AdreSurrogate()}
"""Attack objectives by name."""


def normal_gap(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Phi^-1(first) - Phi^-1(second) for probabilities (b,), and where that is finite; elsewhere 0, no gradient."""
    finite = (first < 1) & (second > torch.finfo(second.dtype).tiny)
    half = torch.full_like(first, 0.5)
    gap = torch.special.ndtri(torch.where(finite, first, half)) - torch.special.ndtri(torch.where(finite, second, half))
    return gap, finite
