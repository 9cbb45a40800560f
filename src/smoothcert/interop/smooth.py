"""`Smooth` of the published code (Cohen et al. 2019), over our sampler."""

import math
from itertools import chain, count
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from smoothcert.checks import check_count
from smoothcert.errors import InputError
from smoothcert.smoothing import SmoothedClassifier
from smoothcert.smoothing.protocols import put_in_eval_mode
from smoothcert.stats import (
    Certificate,
    FixedN,
    FixedPredict,
    Prediction,
    clopper_pearson,
    cohen_radius,
    predict_counts,
)
from smoothcert.stats.procedures import ABSTAIN as ABSTAINED

_CACHED_VALUES, _MOST_ROWS = 2**17, 1000


def rows_in_a_pass(batch_size: int, values: int) -> int:
    """Return the samples of a forward pass: `batch_size`, and more where samples of so few values fit a cache.

    Clients ask for 32 or 400 whatever the size of an image. The batch never changes an answer.

    >>> rows_in_a_pass(32, 3 * 224 * 224), rows_in_a_pass(32, 28 * 28)
    (32, 167)
    """
    return max(check_count("batch_size", batch_size), min(_MOST_ROWS, _CACHED_VALUES // values))


class LiveClassifier:
    """The smoothed classifier of settings that may change between calls, as attributes of the published classes do.

    It is built again when a setting has changed.
    """

    def __init__(self) -> None:
        self._model: Any = None
        self._settings: dict[str, Any] = {}
        self._classifier: SmoothedClassifier | None = None

    def of(self, model: Any, **settings: Any) -> SmoothedClassifier:
        """Return a smoothed classifier of `model`, with these arguments of `SmoothedClassifier`."""
        settings["device"] = _device_of(model)
        if self._classifier is None or model is not self._model or settings != self._settings:
            self._classifier = SmoothedClassifier(model, **settings)
            self._model, self._settings = model, settings
        return self._classifier

    def ready(self, model: Any, **settings: Any) -> SmoothedClassifier:
        """Return the same after putting a network into eval mode, in which the published classes leave it."""
        if isinstance(model, nn.Module) and any(part.training for part in model.modules()):
            put_in_eval_mode(model)
        return self.of(model, **settings)


class Smooth:
    """A smoothed classifier with the published signature.

    All attributes are read at each call, so `g.sigma = 1.0` or `g.base_classifier = other` takes effect. A subclass
    that overrides `_sample_noise` or `_lower_confidence_bound` gets the published procedure over its own steps.

    Args:
        base_classifier: (N, C, H, W) float32 -> (N, K) logits; put into eval mode at each call, as published.
        num_classes: K.
        sigma: noise level, in the units of the images.
        seed: the same image and seed give the same answer; None (as published) draws fresh noise at each call.
        noise: "grid", from which nothing leaks through rounding, or "gaussian", as published.
        bounds: (low, high) that pixels must keep; None (as published) takes any.
        levels: levels per unit the images were quantised to, for grid noise: 255 for 8-bit images.

    Differs from the published class in this: the noise lies on a grid, the radius is rounded down, the noise has
    streams of its own (no global generator is read or set), and a network that keeps no contract is refused with an
    error that says so.

    >>> from torch import stack
    >>> g = Smooth(lambda x: stack([x.mean((1, 2, 3)), 1 - x.mean((1, 2, 3))], dim=1), 2, 0.5, seed=0)
    >>> import torch
    >>> g.predict(torch.ones(1, 4, 4), n=100, alpha=0.001, batch_size=50)
    0
    """

    ABSTAIN = ABSTAINED

    def __init__(
        self, base_classifier: Any, num_classes: int, sigma: float, *, seed: int | None = None,
        noise: str = "grid", bounds: tuple[float, float] | None = None, levels: int = 255,
    ):
        self.base_classifier, self.num_classes, self.sigma = base_classifier, num_classes, sigma
        self.seed, self.noise, self.bounds, self.levels = seed, noise, bounds, levels
        self._calls = count()
        self._live = LiveClassifier()
        self._live.of(base_classifier, **self._settings())

    def certify(self, x: Any, n0: int, n: int, alpha: float, batch_size: int) -> tuple[int, float]:
        """CERTIFY (section 3.2.2): (class, radius), or (`ABSTAIN`, 0.0); wrong with probability at most alpha.

        Args:
            x: one image, (C, H, W) or (1, C, H, W).
            n0: samples that choose the class.
            n: fresh samples that bound its probability.
            alpha: failure probability.
            batch_size: samples a forward pass, or more where they are small.
        """
        if self._has_own("_sample_noise", "_lower_confidence_bound"):
            top = int(np.argmax(self._sample_noise(x, n0, batch_size)))
            p_a = self._lower_confidence_bound(int(self._sample_noise(x, n, batch_size)[top]), n, alpha)
            radius = float(cohen_radius(p_a, sigma=self.sigma))
            return (top, radius) if radius > 0 else (self.ABSTAIN, 0.0)
        plan, image = FixedN(n0=n0, n=n, alpha=alpha, method="cohen"), _image(x)
        certificate = cast(Certificate, self._ready().certify(image, plan, index=self._call(),
                                                              batch_size=rows_in_a_pass(batch_size, _size(image))))
        answer = certificate.prediction
        return (self.ABSTAIN if answer is None else answer), certificate.radius

    def predict(self, x: Any, n: int, alpha: float, batch_size: int) -> int:
        """PREDICT (section 3.2.1): the class, or `ABSTAIN`; another class than g's with probability at most alpha."""
        if self._has_own("_sample_noise"):
            return int(predict_counts(self._sample_noise(x, n, batch_size), alpha).prediction)
        answer = self._predict(x, FixedPredict(n, alpha), self._call(), batch_size).prediction
        return self.ABSTAIN if answer is None else answer

    def _sample_noise(self, x: Any, num: int, batch_size: int) -> np.ndarray:
        """Return how often `num` noisy copies of x, fresh at each call, fall on each class: (K,)."""
        return np.asarray(self._predict(x, FixedPredict(num, 0.5), next(self._calls), batch_size).counts)

    def _lower_confidence_bound(self, NA: int, N: int, alpha: float) -> float:
        """Return the Clopper-Pearson lower limit of a probability at level 1 - alpha, from NA of N, rounded down."""
        return float(clopper_pearson(NA, N, alpha))

    def _predict(self, x: Any, plan: FixedPredict, index: int | None, batch_size: int) -> Prediction:
        image = _image(x)
        return cast(Prediction, self._ready().predict(image, plan, index=index,
                                                      batch_size=rows_in_a_pass(batch_size, _size(image))))

    def _ready(self) -> SmoothedClassifier:
        return self._live.ready(self.base_classifier, **self._settings())

    def _settings(self) -> dict[str, Any]:
        return {"sigma": self.sigma, "num_classes": self.num_classes, "seed": self.seed, "noise": self.noise,
                "bounds": self.bounds, "levels": self.levels}

    def _call(self) -> int | None:
        """Return the noise's key beside the seed: a number that no other call had, or None for the image's bytes."""
        return next(self._calls) if self.seed is None else None

    def _has_own(self, *steps: str) -> bool:
        """Tell whether a subclass, or this object, overrides one of these steps of the published class."""
        return any(step in vars(self) or getattr(type(self), step) is not getattr(Smooth, step) for step in steps)


def _device_of(model: Any) -> torch.device:
    """Return where a network is, at the cost of one look, since every call asks."""
    tensors = chain(model.parameters(), model.buffers()) if isinstance(model, nn.Module) else iter(())
    first = next(tensors, None)
    return torch.device("cpu") if first is None else first.device


def _size(image: Tensor | np.ndarray) -> int:
    return max(1, math.prod(image.shape))


def _image(x: Any) -> Tensor | np.ndarray:
    """Return the image (C, H, W) that the published class, which repeats x in a new first dimension, takes x for."""
    x = x if isinstance(x, Tensor) else np.asarray(x)
    if x.ndim == 4 and len(x) == 1:
        return x[0]
    if x.ndim not in (1, 2, 3):
        raise InputError(f"x must be one image, (C, H, W) or (1, C, H, W), got shape {tuple(x.shape)}: call once for "
                         f"each image, or give them all to smoothcert.smoothing.SmoothedClassifier")
    return x.reshape((1,) * (3 - x.ndim) + tuple(x.shape))
