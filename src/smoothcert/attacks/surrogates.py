"""Objectives of attacks: functions of the logits of m noisy copies, (b, m, K), and of the labels, (b,), giving (b,).

F = softmax of logits, e_j the noise, G(x) = (1/m) sum_j F(x + e_j). A targeted attack descends the same function at
the class that it wants. Salman = Salman et al. 2019 (SmoothAdv); Feng = Feng et al. 2020 (ADRE).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import nll_loss

from smoothcert.checks import check_known, check_weight
from smoothcert.smoothing.soft import log_mean_softmax, mean_cross_entropy, normal_gap, soft_cross_entropy

Surrogate = Callable[[Tensor, Tensor], Tensor]
"""(logits (b, m, K), labels (b,)) -> (b,)."""


def runner_up(log_mean: Tensor, labels: Tensor) -> Tensor:
    """Return Feng's l_adre = -log G_c at the likeliest class c other than y; c is an index, without gradient.

    Args:
        log_mean: log G, (b, K).
        labels: (b,).
    """
    others = log_mean.detach().scatter(1, labels[:, None], -math.inf)
    return nll_loss(log_mean, others.argmax(dim=1), reduction="none")


def top_two_gap(log_mean: Tensor, labels: Tensor) -> Tensor:
    """Return Feng's eq. 10: Phi^-1(p_A) - Phi^-1(p_B) of the two likeliest classes, whatever the label.

    Where it is infinite (p_A rounds to 1, or p_B to 0) it is 0 without gradient, so that the image is left out.
    """
    top = log_mean.exp().topk(2, dim=1).values
    return normal_gap(top[:, 0], top[:, 1])[0]


REGULARISERS: dict[str, Surrogate] = {"runner-up": runner_up, "gap": top_two_gap}
"""The terms that ADRE subtracts lambda times: functions of log G (b, K) and the labels (b,); larger is safer."""


@dataclass(frozen=True)
class AdreSurrogate:
    """Feng's attack objective: -log G_y - lambda R(x'), R one of `REGULARISERS`; lambda = 0 is Salman's (S)."""

    lam: float = 0.1
    regulariser: str = "runner-up"

    def __post_init__(self) -> None:
        check_weight("lam", self.lam)
        check_known("regulariser", self.regulariser, REGULARISERS)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_mean = log_mean_softmax(logits)
        return nll_loss(log_mean, labels, reduction="none") \
            - self.lam * REGULARISERS[self.regulariser](log_mean, labels)


SURROGATES: dict[str, Surrogate] = {"smoothed": soft_cross_entropy, "wrong": mean_cross_entropy,
                                    "adre": AdreSurrogate()}
"""Attack objectives by name."""


def find_surrogate(surrogate: str | Surrogate) -> Surrogate:
    """Return the surrogate of that name, or the function itself. Raises UnknownNameError."""
    return surrogate if callable(surrogate) else SURROGATES[check_known("surrogate", surrogate, SURROGATES)]
