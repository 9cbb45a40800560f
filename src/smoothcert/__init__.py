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
    from smoothcert.metrics import CertifiedAccuracy
    from smoothcert.models import build_model, load_model
    from smoothcert.smoothing import SmoothedClassifier
    from smoothcert.smoothing.ensemble import Ensemble
    from smoothcert.smoothing.multi_label import SmoothedMultiLabelClassifier
    from smoothcert.smoothing.regressor import SmoothedRegressor
    from smoothcert.smoothing.router import SmoothedRouter
    from smoothcert.stats import Certificate, ClassCounts, Prediction
    from smoothcert.store.store import Store, read_store
    from smoothcert.verbs import (
        attack,
        bundle,
        certify,
        check,
        plan,
        plot,
        predict,
        quantise,
        table,
        train,
        transfer,
    )

logging.getLogger(__name__).addHandler(logging.NullHandler())  # as a library has it: who wants the log asks for it

_HOMES = {
    "SmoothedClassifier": "smoothing",
    "SmoothedMultiLabelClassifier": "smoothing.multi_label",
    "SmoothedRegressor": "smoothing.regressor",
    "SmoothedRouter": "smoothing.router",
    "Ensemble": "smoothing.ensemble",
    "Certificate": "stats",
    "ClassCounts": "stats",
    "Prediction": "stats",
    "SmoothcertError": "errors",
    "build_model": "models",
    "load_model": "models",
    "load_data": "data",
    "Store": "store.store",
    "read_store": "store.store",
    "CertifiedAccuracy": "metrics",
    **dict.fromkeys(
        ("attack", "bundle", "certify", "check", "plan", "plot", "predict", "quantise", "table", "train", "transfer"),
        "verbs"),
}

__all__ = [
    "Certificate", "CertifiedAccuracy", "ClassCounts", "Ensemble", "Prediction", "SmoothcertError",
    "SmoothedClassifier", "SmoothedMultiLabelClassifier", "SmoothedRegressor", "SmoothedRouter", "Store", "__version__",
    "attack", "build_model", "bundle", "certify", "check", "load_data", "load_model", "plan", "plot", "predict", "quantise",
    "read_store", "table", "train", "transfer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'smoothcert' has no attribute {name!r}")
    return getattr(importlib.import_module(f"smoothcert.{_HOMES[name]}"), name)
