"""From a base classifier and noise to votes, and the smoothed classifier that users hold."""

from smoothcert.smoothing.classifier import SmoothedClassifier
from smoothcert.smoothing.precision import isolate
from smoothcert.smoothing.protocols import BaseClassifier, Denoiser, base_classifier, check_ready, evaluation
from smoothcert.smoothing.rows import Segment
from smoothcert.smoothing.sampling import OpenVoter, Sampling, open_voter
from smoothcert.smoothing.voters import Finished, run_plan

__all__ = [
    "BaseClassifier", "Denoiser", "Finished", "OpenVoter", "Sampling", "Segment", "SmoothedClassifier",
    "base_classifier", "check_ready", "evaluation", "isolate", "open_voter", "run_plan",
]
