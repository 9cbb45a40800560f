"""Certified accuracy as a metric with `update`, `compute` and `reset`, as torchmetrics has them."""

from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from smoothcert.errors import InputError, MissingExtraError
from smoothcert.stats import Certificate

Certified = Certificate | Iterable[Certificate] | tuple[npt.ArrayLike, npt.ArrayLike]
"""Certificates, or the pair (classes (N,), -1 where abstained; radii (N,))."""


class CertifiedAccuracy:
    """The share of images that are right and certified at each of several radii, and the average certified radius.

    An abstention is wrong, and has radius 0. The same radii, in batches of any size, give the same values.

    Args:
        radii: at which the accuracy is wanted, in the units of the certificates.
        acr: also compute the average certified radius (wrong answers count 0).
    Raises:
        InputError: radii that are not finite numbers of at least 0.

    >>> metric = CertifiedAccuracy(radii=[0, 0.5])
    >>> metric.update(([1, 2, -1], [0.7, 0.2, 0.0]), [1, 2, 0])
    >>> metric.compute()["certified_accuracy_0.5"]
    0.3333333333333333
    """

    higher_is_better = True
    is_differentiable = False

    def __init__(self, radii: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0), acr: bool = True) -> None:
        self.radii: tuple[float, ...] = tuple(float(radius) for radius in radii)
        if not self.radii or not all(0 <= radius < float("inf") for radius in self.radii):
            raise InputError(f"radii must be finite numbers of at least 0, got {list(radii)}")
        self.acr = acr
        self.reset()

    def update(self, preds: Certified, target: npt.ArrayLike) -> None:
        """Add a batch.

        Args:
            target: the true classes, (N,), an array, a tensor or a list; a number for a single certificate.
        Raises:
            InputError: other numbers of certificates and classes.
        """
        right, total, radius = tally(preds, target, self.radii)
        self._right, self._total, self._radius = self._right + right, self._total + total, self._radius + radius

    def compute(self) -> dict[str, float]:
        """Return "certified_accuracy_R" for each radius R, and "acr". Raises InputError before the first update."""
        if not self._total:
            raise InputError("compute was called before update: there are no certificates yet")
        return name_values(self.radii, self.acr, self._right / self._total, self._radius / self._total)

    def reset(self) -> None:
        """Forget all batches."""
        self._right, self._total, self._radius = np.zeros(len(self.radii), dtype=np.int64), 0, 0.0

    def forward(self, preds: Certified, target: npt.ArrayLike) -> dict[str, float]:
        """Add a batch, and return the values of this batch alone."""
        self.update(preds, target)
        alone = type(self)(self.radii, self.acr)
        alone.update(preds, target)
        return alone.compute()

    __call__ = forward

    def merge_state(self, other: Self) -> None:
        """Add the batches of another metric of the same radii, such as that of another process."""
        if other.radii != self.radii:
            raise InputError(f"the metrics have other radii: {list(self.radii)} and {list(other.radii)}")
        self._right, self._total = self._right + other._right, self._total + other._total
        self._radius += other._radius

    def __repr__(self) -> str:
        return f"CertifiedAccuracy(radii={list(self.radii)}, acr={self.acr})"


def tally(preds: Certified, target: npt.ArrayLike, radii: Sequence[float]) -> tuple[np.ndarray, int, float]:
    """Return (R,) the images that are right at each radius, their number, and the sum of the radii of right ones."""
    if isinstance(preds, Certificate):
        preds = [preds]
    if isinstance(preds, tuple) and len(preds) == 2 and not isinstance(preds[0], Certificate):
        classes, radius = (np.asarray(_on_host(part)) for part in preds)
    else:
        found: list[Any] = list(preds)
        if not all(isinstance(one, Certificate) for one in found):
            raise InputError("certificates, or a pair (classes, radii), were expected")
        classes = np.array([-1 if one.prediction is None else one.prediction for one in found], dtype=np.int64)
        radius = np.array([one.radius for one in found], dtype=np.float64)
    labels = np.atleast_1d(np.asarray(_on_host(target)))
    classes, radius = np.atleast_1d(classes), np.atleast_1d(radius).astype(np.float64)
    if not classes.shape == radius.shape == labels.shape or classes.ndim != 1:
        raise InputError(f"one class, one radius and one label an image were expected, got shapes {classes.shape}, "
                         f"{radius.shape} and {labels.shape}")
    correct = (classes == labels) & (classes >= 0)
    right = np.array([np.count_nonzero(correct & (radius >= r)) for r in radii], dtype=np.int64)
    return right, len(labels), float(np.sum(radius[correct]))


def name_values(radii: Sequence[float], acr: bool, accuracy: Any, average: Any) -> dict[str, Any]:
    """Return the values of a metric by their names."""
    values = {f"certified_accuracy_{radius:g}": accuracy[k] for k, radius in enumerate(radii)}
    values |= {"acr": average} if acr else {}
    return {name: float(value) if isinstance(value, np.generic | float) else value for name, value in values.items()}


def torchmetric(radii: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0), acr: bool = True) -> Any:
    """Return `CertifiedAccuracy` as a `torchmetrics.Metric`.

    Its states are summed over processes, it goes into a MetricCollection and Lightning's `log_dict`, and its values are
    tensors.

    Raises MissingExtraError without torchmetrics.
    """
    try:
        torchmetrics, torch = import_module("torchmetrics"), import_module("torch")
    except ImportError as error:
        raise MissingExtraError("torchmetrics", "metrics", "torchmetric()") from error
    checked = CertifiedAccuracy(radii, acr).radii

    class CertifiedAccuracyMetric(torchmetrics.Metric):
        higher_is_better, is_differentiable, full_state_update = True, False, False

        def __init__(self) -> None:
            super().__init__()
            self.add_state("right", torch.zeros(len(checked), dtype=torch.int64), dist_reduce_fx="sum")
            self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")
            self.add_state("radius", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")

        right: Any
        total: Any
        radius: Any

        def update(self, preds: Any, target: Any) -> None:
            right, total, radius = tally(preds, target, checked)
            self.right += torch.from_numpy(right).to(self.right.device)
            self.total += total
            self.radius += radius

        def compute(self) -> dict[str, Any]:
            return name_values(checked, acr, self.right / self.total, (self.radius / self.total).float())

    return CertifiedAccuracyMetric()


def _on_host(value: Any) -> Any:
    return value.detach().cpu() if hasattr(value, "detach") else value
