"""The figures of a result one by one, as cards and bills of materials list them, each rounded to the safe side."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from smoothcert.results.base import Measured, StoreResult
from smoothcert.results.certified import Result, default_radii
from smoothcert.results.figures import down, radius_words, sigma_words, up
from smoothcert.results.multi_label import CertifiedLabels
from smoothcert.results.predictions import Predicted
from smoothcert.stats.intervals import acr_limit

DIGITS = 4
"""Decimals of every figure."""

_WORDS = {("attack", "accuracy"): "accuracy under attack", ("attack", "changed"): "changed answers",
          ("distributional", "bound"): "bound on the expected loss", ("regression", "width"): "mean width of intervals"}
_BETTER_IF_SMALL = ("bound", "changed", "width")


@dataclass(frozen=True)
class Metric:
    """A figure by itself, as a Python number.

    Attributes:
        kind: what is measured, in one word, such as "certified_accuracy". name: the same with its setting, in words.
        value: the figure; a share is a fraction.
        at_least: its lower confidence limit for new inputs; None where there is none.
        setting: what it rests on: alpha, n, the number of images.
    """

    kind: str
    name: str
    value: float
    at_least: float | None = None
    setting: dict[str, Any] = field(default_factory=dict)

    @property
    def is_share(self) -> bool:
        """True for a share of the inputs."""
        return "accuracy" in self.kind


def list_metrics(result: StoreResult, radii: Sequence[float] = (), rho: float = 0.05) -> list[Metric]:
    """Return the figures of a result of any kind.

    Args:
        radii: of certified accuracies; none takes those that the run decided, else evenly spaced ones. A radius that
            the samples could not have proved is left out.
        rho: failure probability of each limit.
    """
    return _LISTED.get(result.kind, _list_measurements)(result, radii, rho)


def _list_certified(result: Result, radii: Sequence[float], rho: float) -> list[Metric]:
    shown = [radius for radius in radii or default_radii([result]) if not result.is_out_of_reach(radius)]
    claim = f", {result.claim.words}" if result.claim else ""
    under = f"({result.norm}, sigma {sigma_words(result.sigma)}{claim})"
    proved = {"alpha": result.alpha, "n": result.n, "images": result.images}
    found = []
    if shown:
        at = result.at(shown, rho)
        found = [Metric("certified_accuracy", f"certified accuracy at {radius_words(radius, result.norm)} {under}",
                        _down(share), _down(limit), proved)
                 for radius, share, limit in zip(shown, at.accuracy, at.population, strict=True)]
    limit = None if result.ceiling is None else _down(
        acr_limit(result.radius, result.correct, result.level, rho, result.ceiling))
    return [*found, Metric("average_certified_radius", f"average certified radius {under}", _down(result.acr), limit,
                           proved)]


def _list_predicted(result: Predicted, radii: Sequence[float], rho: float) -> list[Metric]:
    found = []
    for look in result.looks:
        shares = look.shares(rho)
        samples = f"n {look.n:,}, " if look.n else ""
        found.append(Metric("accuracy", f"accuracy of PREDICT ({samples}sigma {sigma_words(look.sigma)})",
                            _down(shares["accuracy"]), _down(shares["population"]),
                            {"alpha": look.alpha, "n": look.n, "images": look.images}))
    return found


def _list_labels(result: CertifiedLabels, radii: Sequence[float], rho: float) -> list[Metric]:
    proved = {"alpha": result.alpha, "n": result.n, "images": result.images}
    return [Metric("all_labels_accuracy", f"inputs with all labels right and certified at {one.radius:g} (l2, sigma "
                   f"{sigma_words(result.sigma)})", _down(one.exact), _down(one.population), proved)
            for one in result.at(radii or CertifiedLabels.default_radii([result]), rho)]


def _list_measurements(result: StoreResult, radii: Sequence[float], rho: float) -> list[Metric]:
    """Return what a result measures without confidence limits, such as the outcomes of attacks."""
    return [_of_line(result.kind, line, at, value)
            for line in result.measurements(list(radii) or type(result).default_radii([result]))
            for at, value in zip(line.at, line.values, strict=True) if math.isfinite(value)]


def _of_line(kind: str, line: Measured, at: float, value: float) -> Metric:
    setting = f" ({line.setting})" if line.setting else ""
    words = f"{_WORDS.get((kind, line.measure), line.measure)} at {line.axis} {at:g}{setting}"
    figure = float(up(value, DIGITS)) if line.measure in _BETTER_IF_SMALL else _down(value)
    return Metric(f"{kind}_{line.measure}", words, figure, setting={"images": line.images})


def _down(value: float) -> float:
    return float(down(float(value), DIGITS))


_LISTED: dict[str, Callable[[Any, Sequence[float], float], list[Metric]]] = {
    "certify": _list_certified, "predict": _list_predicted, "multi-label": _list_labels,
}
