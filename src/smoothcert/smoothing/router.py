"""SmoothedRouter: one classifier composed of a smoothed router and the smoothed classifiers that it chooses among."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from smoothcert.display import Displayed
from smoothcert.errors import InputError
from smoothcert.smoothing.classifier import SmoothedClassifier
from smoothcert.stats import Certificate, Prediction, proved_level


@dataclass(frozen=True, repr=False)
class RoutedAnswer(Displayed):
    """The answer of a composed classifier at one image.

    Attributes:
        prediction: the class, or None where the router or the chosen classifier abstains.
        radius: within which the composed classifier keeps the class, 0 where it abstains; None of a prediction.
        alpha: the failure probability, the sum of the two answers' own.
        route: the number of the chosen classifier, None where the router abstains or names none.
        router, classifier: the two answers.
    """

    prediction: int | None
    radius: float | None
    alpha: float
    route: int | None
    router: Certificate | Prediction
    classifier: Certificate | Prediction | None

    def display_facts(self) -> dict[str, Any]:
        return {"prediction": self.prediction, "radius": self.radius, "alpha": self.alpha, "route": self.route}


class SmoothedRouter:
    """f(x) = g_l(x) with l = g_0(x): the smoothed router g_0 chooses which smoothed classifier answers.

    At an image where g_0 is certified with radius R_0 at level alpha_0, and the chosen g_l with R_l at alpha_l, f is
    certified with min(R_0, R_l) at level alpha_0 + alpha_l; `smoothcert.store.routed` has the proof.

    Args:
        router: its class l names the classifier; classes beyond the classifiers are abstentions.
        classifiers: two or more of equal numbers of classes, in the order of the router's classes.
    Raises:
        InputError: fewer classifiers than two, more than the router has classes, or of other numbers of classes.

    >>> import torch
    >>> linear = lambda x: torch.stack([x.mean((1, 2, 3)), 1 - x.mean((1, 2, 3))], dim=1)
    >>> g = [SmoothedClassifier(linear, sigma=sigma, num_classes=2, seed=0) for sigma in (0.5, 0.25, 0.5)]
    >>> f = SmoothedRouter(g[0], g[1:])
    >>> f.certify(torch.ones(1, 4, 4), n=1000).route
    0
    """

    def __init__(self, router: SmoothedClassifier, classifiers: Sequence[SmoothedClassifier]) -> None:
        self.router, self.classifiers = router, tuple(classifiers)
        if not 2 <= len(self.classifiers) <= router.num_classes:
            raise InputError(f"a router of {router.num_classes} classes chooses among 2 to {router.num_classes} "
                             f"classifiers, got {len(self.classifiers)}")
        counts = {one.num_classes for one in self.classifiers}
        if len(counts) > 1:
            raise InputError(f"the classifiers must have the same classes, got numbers of classes {sorted(counts)}")

    def certify(self, x: Any, **parts: Any) -> RoutedAnswer | list[RoutedAnswer]:
        """Return the answer at one image, or a list of those at several; `parts` as for `SmoothedClassifier.certify`,
        of the router and of the classifier that it chooses alike."""
        if parts.get("labels") is not None:
            raise InputError("labels are those of the classifiers, and the router has none: leave labels out")
        return self._answer(lambda g, images, rest: g.certify(images, **rest), x, parts)

    def predict(self, x: Any, **parts: Any) -> RoutedAnswer | list[RoutedAnswer]:
        """Return the answer at one image, or a list of those at several; `parts` as for `SmoothedClassifier.predict`.
        """
        return self._answer(lambda g, images, rest: g.predict(images, **rest), x, parts)

    def _answer(self, ask: Callable[..., Any], x: Any, parts: dict[str, Any]) -> RoutedAnswer | list[RoutedAnswer]:
        chosen = ask(self.router, x, parts)
        if not isinstance(chosen, list):
            g = self._chosen(chosen.prediction)
            return _compose(chosen, None if g is None else ask(g, x, parts), None if g is None else chosen.prediction)
        index = parts.get("index")
        found: list[RoutedAnswer | None] = [None] * len(chosen)
        for route in {answer.prediction for answer in chosen}:
            rows, g = [i for i, answer in enumerate(chosen) if answer.prediction == route], self._chosen(route)
            images = [x[i] for i in rows] if isinstance(x, list | tuple) else x[np.array(rows)]
            own = parts if index is None else {**parts, "index": [index[i] for i in rows]}
            answers = [None] * len(rows) if g is None else ask(g, images, own)
            for i, answer in zip(rows, answers, strict=True):
                found[i] = _compose(chosen[i], answer, None if g is None else route)
        return [answer for answer in found if answer is not None]

    def _chosen(self, route: int | None) -> SmoothedClassifier | None:
        return self.classifiers[route] if route is not None and route < len(self.classifiers) else None


def _compose(router: Any, answer: Any, route: int | None) -> RoutedAnswer:
    level = sum(proved_level(getattr(one, "method", ""), one.alpha) for one in (router, answer) if one is not None)
    prediction = getattr(answer, "prediction", None)
    radius = None
    if isinstance(router, Certificate):
        radius = 0.0 if prediction is None else min(router.radius, answer.radius)
    return RoutedAnswer(prediction, radius, level, route, router, answer)
