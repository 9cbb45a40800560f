"""Smoothed classifiers whose settings may change between calls, as those of the published classes do."""

from typing import Any

from torch import nn

from smoothcert.smoothing import SmoothedClassifier
from smoothcert.smoothing.protocols import device_of, put_in_eval_mode


class LiveClassifier:
    """The smoothed classifier of the settings that a call is made with: made anew when one of them has changed."""

    def __init__(self) -> None:
        self._model: Any = None
        self._settings: dict[str, Any] = {}
        self._classifier: SmoothedClassifier | None = None

    def of(self, model: Any, **settings: Any) -> SmoothedClassifier:
        """Return a smoothed classifier of `model`, with these arguments of `SmoothedClassifier`."""
        settings["device"] = device_of(model)
        if self._classifier is None or model is not self._model or settings != self._settings:
            self._classifier = SmoothedClassifier(model, **settings)
            self._model, self._settings = model, settings
        return self._classifier

    def ready(self, model: Any, **settings: Any) -> SmoothedClassifier:
        """Return the same, with a network put into eval mode, as the published classes leave it."""
        if isinstance(model, nn.Module):
            put_in_eval_mode(model)
        return self.of(model, **settings)
