"""From a base classifier and noise to votes, and the smoothed classifier that users hold."""

from smoothcert.smoothing.classifier import SmoothedClassifier
from smoothcert.smoothing.protocols import BaseClassifier, Denoiser, base_classifier, check_ready, evaluation
from smoothcert.smoothing.sampling import Sampler

__all__ = [
    "BaseClassifier", "Denoiser", "Sampler", "SmoothedClassifier", "base_classifier", "check_ready", "evaluation",
]
