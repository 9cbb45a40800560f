"""What a report is made of: the per-image answers of one run, with what they mean."""

from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from smoothcert.errors import InputError, StoreError
from smoothcert.runs.store import Store
from smoothcert.stats import CertifiedAccuracy, average_certified_radius, certified_accuracy, max_radius


@dataclass(frozen=True)
class Result:
    """Certificates of the images of one run.

    Attributes:
        name: how it is called in tables and legends.
        index, radius, correct, abstained: (M,) per image; radius is 0 where abstained.
        sigma, alpha, method, n, margin: what they were certified with; n is the most samples an image could take.
        decided: radii that a sequential run was asked to decide: its claims there are what n samples would give, and
            everything between is a lower bound. None where every radius counts as it is.
        setting: the store's identity without what tells its images apart; runs can be merged where it is equal.
        complete: whether the run has finished.
    """

    name: str
    index: np.ndarray
    radius: np.ndarray
    correct: np.ndarray
    abstained: np.ndarray
    sigma: float
    alpha: float
    method: str
    n: int
    margin: float | None = None
    decided: tuple[float, ...] | None = None
    setting: dict[str, Any] = field(default_factory=dict)
    complete: bool = True

    @classmethod
    def of(cls, store: Store, name: str | None = None) -> Self:
        """The certificates of a store, as they were certified."""
        procedure = store.identity["procedure"]
        return cls.build(store, name, procedure, store.column("prediction"), store.column("radius")
                         if store.kind == "certify" else None)

    @classmethod
    def build(cls, store: Store, name: str | None, procedure: dict[str, Any], prediction: np.ndarray,
              radius: np.ndarray | None) -> Self:
        """Certificates given beside a store, such as recomputed ones."""
        name = name or store.folder.name
        if radius is None:
            raise StoreError(f"{store.folder} is a {store.kind} store and has no radii: its table needs a certify "
                             f"store; `smoothcert info` shows its accuracy")
        if not len(prediction):
            raise StoreError(f"{store.folder} has no records yet: let its run finish some images")
        label = store.column("label")
        return cls(name, store.column("index"), np.asarray(radius), prediction == label, prediction < 0,
                   store.identity["noise"]["sigma"], procedure["alpha"], procedure["method"],
                   procedure.get("n") or procedure["n_max"], procedure["margin"], _decided(procedure),
                   _setting({**store.identity, "procedure": procedure}), store.complete)

    @property
    def is_lower_bound(self) -> bool:
        """Whether its curve and its ACR are lower bounds of what the same samples without early stopping would give."""
        return self.decided is not None

    def is_decided(self, radius: float) -> bool:
        """Whether the claims at `radius` are settled, rather than a lower bound."""
        return self.decided is None or radius in self.decided

    @property
    def images(self) -> int:
        return len(self.radius)

    @property
    def acr(self) -> float:
        """Average certified radius."""
        return average_certified_radius(self.radius, self.correct)

    def at(self, radii: Any, rho: float) -> CertifiedAccuracy:
        """Certified accuracy at `radii` with its intervals."""
        return certified_accuracy(self.radius, self.correct, radii, self.alpha, rho)


def merged(results: list[Result]) -> Result:
    """One result from runs over different images of one data set, certified alike.

    Raises:
        InputError: they differ in how they were certified, or share images.
    """
    first = results[0]
    for other in results[1:]:
        differing = [name for name in {**first.setting, **other.setting}
                     if first.setting.get(name) != other.setting.get(name)]
        if differing:
            raise InputError(f"{other.name} cannot be merged with {first.name}: they differ in {', '.join(differing)}")
    index = np.concatenate([r.index for r in results])
    if len(np.unique(index)) < len(index):
        raise InputError("these stores cannot be merged: they hold some of the same images")
    order = np.argsort(index)
    fields = {field: np.concatenate([getattr(r, field) for r in results])[order]
              for field in ("index", "radius", "correct", "abstained")}
    return replace(first, name="+".join(r.name for r in results), complete=all(r.complete for r in results), **fields)


def _decided(procedure: dict[str, Any]) -> tuple[float, ...] | None:
    if procedure.get("design") != "radii":
        return None
    return tuple(procedure["radii"]) if procedure.get("decided", True) else ()


def _setting(identity: dict[str, Any]) -> dict[str, Any]:
    """An identity without the images it names, and without the seed, which independent streams may share or not."""
    data = {name: value for name, value in identity["data"].items() if name != "sha256"}
    return {name: value for name, value in {**identity, "data": data}.items()
            if name not in ("images", "seed", "recertified_from")}


def default_radii(results: list[Result], most: int = 12) -> list[float]:
    """What the runs decided; else 0, step, 2 step, ... up to what they could certify, in at most `most` columns."""
    if decided := sorted({radius for result in results for radius in result.decided or ()}):
        return decided
    widest = max(float(max_radius(r.n, r.alpha, r.sigma)) for r in results)
    step = next(s for s in (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, widest) if widest / s < most)
    return [round(step * k, 10) for k in range(int(widest / step) + 1)]
