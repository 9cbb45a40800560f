"""`Smooth` of the published code (Cohen et al. 2019), over our sampler."""

from itertools import count
from typing import Any

from torch import nn

from smoothcert.smoothing import SmoothedClassifier
from smoothcert.smoothing.protocols import put_in_eval_mode
from smoothcert.stats.procedures import ABSTAIN as ABSTAINED


class Smooth:
    """A smoothed classifier with the published signature: `from smoothcert.compat import Smooth`.

    Args:
        base_classifier: (N, C, H, W) float32 -> (N, K) logits; put into eval mode at each call, as published.
        num_classes: K.
        sigma: noise level, in the units of the images.
        seed: the same image and seed give the same answer; None (as published) draws fresh noise at each call.
        noise: "gaussian", as published, or "grid", from which nothing leaks through rounding.
        bounds: (low, high) that pixels must keep; None (as published) takes any.

    Differs from the published class in this: the radius is rounded down, the noise has streams of its own (no global
    generator is read or set), and a network that keeps no contract is refused with an error that says so.

    >>> from torch import stack
    >>> g = Smooth(lambda x: stack([x.mean((1, 2, 3)), 1 - x.mean((1, 2, 3))], dim=1), 2, 0.5, seed=0)
    >>> import torch
    >>> g.predict(torch.ones(1, 4, 4), n=100, alpha=0.001, batch_size=50)
    0
    """

    ABSTAIN = ABSTAINED

    def __init__(
        self, base_classifier: Any, num_classes: int, sigma: float, *, seed: int | None = None,
        noise: str = "gaussian", bounds: tuple[float, float] | None = None,
    ):
        self.base_classifier, self.num_classes, self.sigma = base_classifier, num_classes, sigma
        self._classifier = SmoothedClassifier(base_classifier, sigma, num_classes, seed, noise, bounds=bounds)
        self._calls = count() if seed is None else None

    def certify(self, x: Any, n0: int, n: int, alpha: float, batch_size: int) -> tuple[int, float]:
        """CERTIFY (section 3.2.2): (class, radius), or (`ABSTAIN`, 0.0); wrong with probability at most alpha.

        Args:
            x: one image, (C, H, W).
            n0: samples that choose the class.
            n: fresh samples that bound its probability.
            alpha: failure probability.
            batch_size: samples a forward pass.
        """
        self._ready()
        told = self._classifier.certify(x, n0, n, alpha, "cohen", index=self._call(), batch_size=batch_size)
        return (self.ABSTAIN if told.prediction is None else told.prediction), told.radius

    def predict(self, x: Any, n: int, alpha: float, batch_size: int) -> int:
        """PREDICT (section 3.2.1): the class, or `ABSTAIN`; another class than g's with probability at most alpha."""
        self._ready()
        told = self._classifier.predict(x, n, alpha, index=self._call(), batch_size=batch_size)
        return self.ABSTAIN if told.prediction is None else told.prediction

    def _ready(self) -> None:
        if isinstance(self.base_classifier, nn.Module):
            put_in_eval_mode(self.base_classifier)

    def _call(self) -> int | None:
        """What keys the noise beside the seed: a number no other call had, or None for the image's own bytes."""
        return None if self._calls is None else next(self._calls)
