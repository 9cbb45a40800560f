"""smoothcert: certified adversarial robustness by randomized smoothing.

>>> from smoothcert import SmoothedClassifier

The heavy parts (torch) load on first use, so that `import smoothcert` stays quick.
"""

import importlib
import logging
from typing import TYPE_CHECKING, Any

from smoothcert.version import __version__

if TYPE_CHECKING:
    from smoothcert.data import load_data
    from smoothcert.errors import SmoothcertError
    from smoothcert.models import build_model, load_model
    from smoothcert.smoothing import SmoothedClassifier
    from smoothcert.stats import Certificate, ClassCounts, Prediction

logging.getLogger(__name__).addHandler(logging.NullHandler())  # as a library has it: who wants the log asks for it

_HOMES = {
    "SmoothedClassifier": "smoothing",
    "Certificate": "stats",
    "ClassCounts": "stats",
    "Prediction": "stats",
    "SmoothcertError": "errors",
    "build_model": "models",
    "load_model": "models",
    "load_data": "data",
}

__all__ = [
    "Certificate", "ClassCounts", "Prediction", "SmoothcertError", "SmoothedClassifier", "__version__", "build_model",
    "load_data", "load_model",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'smoothcert' has no attribute {name!r}")
    return getattr(importlib.import_module(f"smoothcert.{_HOMES[name]}"), name)
