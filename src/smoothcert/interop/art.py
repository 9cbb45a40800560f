"""An estimator with the interface that randomized smoothing has in ART (Adversarial Robustness Toolbox), without it."""

from typing import Any, cast

import numpy as np

from smoothcert.checks import check_count
from smoothcert.errors import InputError
from smoothcert.interop.smooth import LiveClassifier
from smoothcert.smoothing import SmoothedClassifier
from smoothcert.stats import ABSTAIN, Certificate, FixedN, FixedPredict, Prediction


class SmoothedEstimator:
    """`predict` and `certify` on arrays (N, C, H, W), as `PyTorchRandomizedSmoothing` of ART has them.

    All attributes are read at each call, so `estimator.scale = 1.0` takes effect.

    Args:
        model: (N, C, H, W) float32 -> (N, K) logits; put into eval mode at each call.
        nb_classes: K.
        sample_size: samples that choose a class; ART's default is 32, with which `predict` abstains often.
        scale: sigma of the noise, in the units of the images.
        alpha: failure probability of each answer.
        clip_values: (low, high) that pixels must keep, or None to take any. Noise is never clipped.
        seed: run seed; None draws one. The same image and seed give the same answer.

    Differs from ART: the class and its bound come from different samples, and the radius is rounded down.
    """

    def __init__(
        self, model: Any, nb_classes: int, sample_size: int = 100, scale: float = 0.25, alpha: float = 0.001,
        clip_values: tuple[float, float] | None = (0.0, 1.0), seed: int | None = None,
    ):
        self.model, self.nb_classes = model, nb_classes
        self.sample_size, self.scale, self.alpha = check_count("sample_size", sample_size), scale, alpha
        self.clip_values, self.seed = clip_values, seed
        self._live = LiveClassifier()
        self._live.of(model, **self._settings())

    def predict(self, x: Any, batch_size: int = 128, is_abstain: bool = True) -> np.ndarray:
        """Return (N, K) float32, 1 at the class of each image; a row of zeros where PREDICT abstains.

        Args:
            is_abstain: False gives the most frequent class instead, which claims nothing.
        """
        plan = FixedPredict(self.sample_size, self.alpha)
        predictions = cast(list[Prediction], self._ready().predict(_batch(x), plan, batch_size=batch_size))
        answers = np.zeros((len(predictions), self.nb_classes), dtype=np.float32)
        for row, one in zip(answers, predictions, strict=True):
            answer = one.prediction if is_abstain else one.counts.top
            if answer is not None:
                row[answer] = 1
        return answers

    def certify(self, x: Any, n: int, batch_size: int = 32) -> tuple[np.ndarray, np.ndarray]:
        """Return classes (N,) int64, -1 for abstentions, and l2 radii (N,) float64, from `n` samples an image."""
        plan = FixedN(n0=self.sample_size, n=n, alpha=self.alpha, method="cohen")
        found = cast(list[Certificate], self._ready().certify(_batch(x), plan, batch_size=batch_size))
        return (np.array([ABSTAIN if one.prediction is None else one.prediction for one in found], dtype=np.int64),
                np.array([one.radius for one in found]))

    def _ready(self) -> SmoothedClassifier:
        return self._live.ready(self.model, **self._settings())

    def _settings(self) -> dict[str, Any]:
        return {"sigma": self.scale, "num_classes": self.nb_classes, "seed": self.seed, "bounds": self.clip_values}


def _batch(x: Any) -> Any:
    if np.ndim(x) != 4:
        raise InputError(f"images must have shape (N, C, H, W), got {np.shape(x)}")
    return x
