"""Losses of single images: functions of logits and labels, with the ceiling that a certificate needs to know."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from smoothcert.checks import check_optional_positive, check_positive


@dataclass(frozen=True)
class PointLoss:
    """0 <= l <= ceiling, image by image.

    Attributes:
        name: how it is called in messages and tables.
        values: (logits (N, K), labels (N,)) -> losses (N,).
        ceiling: M, the most it can be; None where nothing bounds it.
        binary: whether it is 0 or 1 and nothing between, so that no ascent can follow its gradient.
    """

    name: str
    values: Callable[[Tensor, Tensor], Tensor]
    ceiling: float | None = None
    binary: bool = False

    def __post_init__(self):
        check_optional_positive("ceiling", self.ceiling)

    def each(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The losses of m copies of each image: (b, m, K), (b,) -> (b, m)."""
        copies = logits.shape[1]
        return self.values(logits.flatten(0, 1), labels.repeat_interleave(copies, dim=0)).unflatten(0, (-1, copies))

    def mean(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(1/m) sum_j l, what an ascent follows: (b, m, K), (b,) -> (b,)."""
        return self.each(logits, labels).mean(dim=1)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits, labels, reduction="none")


cross_entropy = PointLoss("cross-entropy", _cross_entropy)
"""-log softmax_y, unbounded: for estimates only."""

zero_one = PointLoss("0-1", lambda logits, labels: (logits.argmax(dim=1) != labels).to(logits.dtype), 1.0, binary=True)
"""1 where the likeliest class is not the label: its mean under noise is the noisy base classifier's error."""


def clipped_cross_entropy(ceiling: float) -> PointLoss:
    """min(cross-entropy, ceiling). ln K is what knowing nothing costs among K classes.

    >>> clipped_cross_entropy(2.0).name
    'cross-entropy clipped at 2'
    """
    ceiling = check_positive("ceiling", ceiling)
    return PointLoss(f"cross-entropy clipped at {ceiling:g}",
                     lambda logits, labels: _cross_entropy(logits, labels).clamp(max=ceiling), ceiling)
