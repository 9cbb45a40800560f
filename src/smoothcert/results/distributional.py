"""Distributional robustness, of a distributional store or a certify store's counts: certificate, bounds, worst case.

A bound on the expected loss is for all laws within a transport cost rho of that of the images. Only a figure labelled
`certificate` is a guarantee.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Self

import numpy as np

from smoothcert.checks import check_probability, one_line
from smoothcert.distributional.bounds import (
    BoundTerms,
    Ends,
    SideBySide,
    SurrogateBound,
    WorstCase,
    bound_from,
    side_by_side,
)
from smoothcert.distributional.certificates import (
    ClosedCertificate,
    LossMoments,
    certificate_from_counts,
    certificate_from_moments,
)
from smoothcert.errors import EmptyStoreError
from smoothcert.results.base import Measured, Points, StoreResult, check_records, unseen_classes
from smoothcert.runs.settings import AscentSetting, find_standing
from smoothcert.store.names import name_of
from smoothcert.store.recertify import errors_in
from smoothcert.store.store import Store

FORMS = ("outside", "inside")

RHO = (0.0, 0.01, 0.0625, 0.25)
"""Transport costs, where a store does not name any."""


@dataclass(frozen=True, repr=False)
class Robustness(StoreResult):
    """Bounds of one run, and what they are to be compared with.

    Attributes:
        name: how tables and legends call it.
        loss: "clipped", "cross-entropy" or "0-1". ceiling: M; None where the loss has none.
        sigma, alpha: noise level, and failure probability of the certificate (and of those among the bounds).
        images: those whose records are all there.
        certificate: closed, of the smoothed classifier's expected loss; None where the loss has no ceiling.
        bounds: by form, outside and inside; of a form without gammas there is none.
        found: by form, the worst case that the ascents found, with the same cost as the bound of that form.
        beside: both bounds at one cost, where there are both.
        equivalent: the eps that each gamma stands for, where the run was asked.
        rho: transport costs that the run named.
        complete: whether the run has finished.
        remarks: what a reader of its figures has to know besides.
        path: the store that they were read from.
    """

    kind: ClassVar[str] = "distributional"
    holds: ClassVar[str] = "distributional bounds"
    takes_radii: ClassVar[bool] = True

    name: str
    loss: str
    ceiling: float | None
    sigma: float
    alpha: float
    images: int
    certificate: ClosedCertificate | None
    bounds: dict[str, SurrogateBound]
    found: dict[str, WorstCase]
    rho: tuple[float, ...] = RHO
    complete: bool = True
    beside: SideBySide | None = None
    equivalent: dict[float, float] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    path: str = ""

    @classmethod
    def of(cls, store: Store, name: str | None = None, alpha: float | None = None) -> Self:
        """Return what a store proves at its own alpha, or at another that was chosen without looking at it.

        Raises:
            StoreError: a store of another kind, counts that are not fit (see `errors_in`), or no image is done.
        """
        check_records(store)
        level = store.identity.procedure.raw["alpha"] if alpha is None else check_probability("alpha", alpha)
        run, name = store.identity.distributional_or_none, one_line(name or name_of(store.folder))
        rho = RHO if store.provenance.rho is None else tuple(store.provenance.rho)
        if run is None or run.loss == "0-1":
            errors, n = errors_in(store)
            certificate = certificate_from_counts(errors, n, store.identity.noise.sigma, level)
            return cls(name, "0-1", 1.0, certificate.sigma, level, certificate.images, certificate,
                       {}, {}, rho, store.complete, path=str(store.folder),
                       remarks=unseen_classes(store.column("label"), store.class_names))
        records = _Records(store)
        forms = FORMS if store.identity.records_per_image > 1 else ()
        bounds = {form: records.bound(form, level) for form in forms if run.gamma}
        return cls(name, run.loss, run.ceiling, records.sigma, level, records.images,
                   records.certificate(level), bounds, {form: records.find_worst(form) for form in forms}, rho,
                   store.complete, side_by_side(bounds["outside"], bounds["inside"]) if bounds else None,
                   records.equivalent(), records.remarks(), str(store.folder))

    def at(self, rho: float) -> dict[str, Any]:
        """Return all figures at one transport cost, as plain values; None where there is none.

        Beside each bound its label, the gamma it took, and the worst case `found` at the same cost; at last both
        bounds where the cost holds the noise for both, and rho is the adversary's part of it (see `SideBySide`).
        """
        closed = None if self.certificate is None else self.certificate.at(rho)
        figures: dict[str, Any] = {"rho": rho, "certificate": closed and closed.value,
                                   "sample": closed and closed.sample}
        for form in FORMS:
            bound = self.bounds[form].at(rho) if form in self.bounds else None
            worst = self.found[form].at(rho) if form in self.found else None
            figures |= {form: bound and bound.value, f"{form}_label": bound and bound.label,
                        f"{form}_gamma": bound and bound.gamma, f"{form}_found": worst}
        smoothed, base = self.beside.at(rho) if self.beside else (None, None)
        figures |= {"beside_smoothed": smoothed, "beside_base": base}
        return figures

    def measurements(self, radii: Sequence[float]) -> list[Measured]:
        """Return the closed certificate and every form of the bound, at the transport costs that the run named."""
        at, lines = {rho: self.at(rho) for rho in self.rho}, []
        for kind in ("certificate", *FORMS):
            if all(figures[kind] is not None for figures in at.values()):
                labels = sorted({figures[f"{kind}_label"] for figures in at.values()}) if kind in FORMS else []
                name = f"{kind} (rho with noise)" if kind == "inside" else kind
                lines.append(Measured("bound", ", ".join([name, *labels]), tuple(at),
                                      tuple(figures[kind] for figures in at.values()), self.images, axis="rho"))
        return lines


@dataclass(frozen=True)
class RobustnessRuns:
    """Bounds of several runs at the same transport costs (P,)."""

    kind: ClassVar[str] = "distributional"

    results: Sequence[Robustness]
    costs: tuple[float, ...]

    @classmethod
    def of(cls, results: Sequence[Robustness], points: Points) -> Self:
        """Read bounds at the squares of the radii asked for, or at all transport costs that the runs named."""
        named = sorted({rho for run in results for rho in run.rho})
        return cls(results, tuple(radius**2 for radius in points.radii) or tuple(named))

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each run and transport cost."""
        gammas = sorted({gamma for run in self.results for gamma in run.equivalent})
        return [{"run": run.name, "images": run.images, "sigma": run.sigma, "loss": run.loss, "ceiling": run.ceiling,
                 "alpha": run.alpha, **run.at(rho),
                 **{f"eps_equivalent_of_gamma_{gamma:g}": run.equivalent.get(gamma) for gamma in gammas}}
                for run in self.results for rho in self.costs]

    def to_json(self) -> list[dict[str, Any]]:
        """Return an object for each run; `searches` holds every search at a gamma of its bounds."""
        return [{"store": run.path or None, "kind": self.kind, "name": run.name, "images": run.images,
                 "complete": run.complete, "sigma": run.sigma, "loss": run.loss, "ceiling": run.ceiling,
                 "alpha": run.alpha, "figures": [run.at(rho) for rho in self.costs],
                 "eps_equivalent": [{"gamma": gamma, "eps": eps} for gamma, eps in run.equivalent.items()],
                 "notes": list(run.remarks),
                 "searches": [{"form": form, **asdict(one)} for form, bound in run.bounds.items()
                              for one in bound.surrogates]} for run in self.results]


class _Records:
    """The records of a distributional run over a model: those of the images that have all of theirs."""

    def __init__(self, store: Store) -> None:
        self.store, self.run, self.sigma = store, store.identity.distributional, store.identity.noise.sigma
        index, times = np.unique(store.column("index"), return_counts=True)
        whole = index[times == store.identity.records_per_image]
        if not len(whole):
            raise EmptyStoreError(f"{store.folder} has no image with all its records yet: let its run finish some")
        self.images = len(whole)
        self._kept = np.isin(store.column("index"), whole)
        self._form, self._gamma = store.column("form"), store.column("gamma")

    def remarks(self) -> tuple[str, ...]:
        """Return which classes its images do not show."""
        return unseen_classes(self.store.column("label")[self._kept], self.store.class_names,
                              self.store.column("index")[self._kept])

    def rows(self, setting: AscentSetting) -> np.ndarray:
        """Return (M,) bool: the records of a setting, which come in the order of the images."""
        same = np.isnan(self._gamma) if setting.gamma is None else self._gamma == setting.gamma
        return self._kept & (self._form == setting.form) & same

    def values(self, setting: AscentSetting, name: str) -> np.ndarray:
        return self.store.column(name)[self.rows(setting)]

    def moments(self, setting: AscentSetting, n: int) -> LossMoments:
        return LossMoments(n, self.values(setting, "mean"), self.values(setting, "variance"))

    def certificate(self, alpha: float) -> ClosedCertificate | None:
        ceiling = self.run.ceiling
        if ceiling is None:
            return None
        moments = self.moments(AscentSetting("outside", None), self.store.identity.procedure.raw["n"])
        return certificate_from_moments(moments, self.sigma, ceiling, alpha)

    def bound(self, form: str, alpha: float) -> SurrogateBound:
        """Return the bound over the gammas that were named for it."""
        search = self.run.search or {}
        settings = [AscentSetting(form, gamma) for gamma in self.run.gamma]
        standings = [find_standing(setting, self.run, self.sigma) for setting in settings]
        ends = []
        for setting in settings:
            loss, cost, slope, steep = (self.values(setting, name) for name in ("loss", "cost", "slope", "steep"))
            has_certificate = not np.isnan(steep).any()
            ends.append(Ends(loss, cost, slope, self.moments(setting, search["check"]), steep) if has_certificate
                        else Ends(loss, cost, slope))
        terms = BoundTerms(self.run.ceiling, self.sigma if form == "outside" else None,
                           math.prod(self.store.identity.data.shape), alpha, search["tolerance"])
        return bound_from(self.run.gamma, ends, standings, terms)

    def find_worst(self, form: str) -> WorstCase:
        """Return where all ascents ended, and before them the images as they are."""
        gammas = sorted({*self.run.gamma, *self.run.gamma_adv}, reverse=True)
        settings = [AscentSetting(form, gamma) for gamma in (None, *gammas)]
        means = [[float(self.values(setting, name).mean()) for setting in settings] for name in ("cost", "loss")]
        return WorstCase(np.array([math.inf, *gammas]), *np.array(means))

    def equivalent(self) -> dict[float, float]:
        """Return by gamma the root mean square move of the short ascents, where the run made them."""
        asked = self.run.gamma if self.run.eps_equivalent else []
        costs = {gamma: self.values(AscentSetting("equivalent", gamma), "cost") for gamma in asked}
        return {gamma: math.sqrt(float(cost.mean())) for gamma, cost in costs.items()}


def loss_words(run: Robustness) -> str:
    """Return the loss of a run in words; the 0-1 loss is the error of the base classifier under noise."""
    return f"cross-entropy clipped at {run.ceiling:.4g}" if run.loss == "clipped" else f"{run.loss} loss"
