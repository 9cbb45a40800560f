"""From a base classifier and noise to votes, and the smoothed classifier that users hold."""

from smoothcert.smoothing.classifier import SmoothedClassifier
from smoothcert.smoothing.packing import Finished, run_plan
from smoothcert.smoothing.precision import isolated
from smoothcert.smoothing.protocols import BaseClassifier, Denoiser, base_classifier, check_ready, evaluation
from smoothcert.smoothing.rows import Segment
from smoothcert.smoothing.sampling import OpenVoter, Sampling, open_voter

__all__ = [
    "BaseClassifier", "Denoiser", "Finished", "OpenVoter", "Sampling", "Segment", "SmoothedClassifier",
    "base_classifier", "check_ready", "evaluation", "isolated", "open_voter", "run_plan",
]
