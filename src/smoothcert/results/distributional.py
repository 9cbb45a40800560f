"""What a distributional store says, or a certify store's counts: the certificate, the bounds, the worst case found.

A bound on the expected loss is for all laws within a transport cost rho of that of the images. Only what is labelled
`certificate` is a guarantee.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

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
from smoothcert.errors import StoreError
from smoothcert.results.unseen import unseen_classes
from smoothcert.runs.counts import errors_in
from smoothcert.runs.distributional_settings import AscentSetting as Setting
from smoothcert.runs.distributional_settings import find_standing
from smoothcert.store.store import Store

FORMS = ("outside", "inside")

RHO = (0.0, 0.01, 0.0625, 0.25)
"""Transport costs, where a store does not name any."""


@dataclass(frozen=True)
class Robustness:
    """Bounds of one run, and what they are to be compared with.

    Attributes:
        name: how it is called in tables and legends.
        loss: "clipped", "cross-entropy" or "0-1". ceiling: M; None where the loss has none.
        sigma, alpha: noise level, and failure probability of the certificate (and of those among the bounds).
        images: whose records are all there.
        certificate: closed, of the smoothed classifier's expected loss; None where the loss has no ceiling.
        bounds: by form, outside and inside; of a form without gammas there is none.
        found: by form, the worst case that the ascents found, with the same cost as the bound of that form.
        beside: both bounds at one cost, where there are both.
        equivalent: the eps that each gamma stands for, where the run was asked.
        rho: transport costs that the run named.
        complete: whether the run has finished.
        remarks: what a reader of its figures has to know besides.
    """

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

    @classmethod
    def of(cls, store: Store, name: str | None = None, alpha: float | None = None) -> Self:
        """What a store proves at its own alpha, or at another that was chosen without looking at it.

        Raises:
            StoreError: a store of another kind, counts that are not fit (see `errors_in`), or no image is done.
        """
        level = store.identity["procedure"]["alpha"] if alpha is None else check_probability("alpha", alpha)
        told, name = store.identity.get("distributional"), one_line(name or store.folder.name)
        if told is None or told["loss"] == "0-1":
            errors, n = errors_in(store)
            certificate = certificate_from_counts(errors, n, store.identity["noise"]["sigma"], level)
            return cls(name, "0-1", 1.0, certificate.sigma, level, certificate.images, certificate,
                       {}, {}, tuple(store.provenance.get("rho", RHO)), store.complete,
                       remarks=unseen_classes(store.column("label"), store.class_names))
        records = _Records(store)
        forms = FORMS if store.identity["records_per_image"] > 1 else ()
        bounds = {form: records.bound(form, level) for form in forms if told["gamma"]}
        return cls(name, told["loss"], told["ceiling"], records.sigma, level, records.images,
                   records.certificate(level), bounds, {form: records.found(form) for form in forms},
                   tuple(store.provenance.get("rho", RHO)), store.complete,
                   side_by_side(bounds["outside"], bounds["inside"]) if bounds else None, records.equivalent(),
                   records.remarks())

    def at(self, rho: float) -> dict[str, Any]:
        """All figures at one transport cost, as plain values; None where there is none.

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

    def content(self, rhos: Sequence[float]) -> dict[str, Any]:
        """The run in plain values, for programs; every search at a gamma of the bounds under `searches`."""
        return {"name": self.name, "images": self.images, "complete": self.complete, "sigma": self.sigma,
                "loss": self.loss, "ceiling": self.ceiling, "alpha": self.alpha,
                "figures": [self.at(rho) for rho in rhos],
                "eps_equivalent": [{"gamma": gamma, "eps": eps} for gamma, eps in self.equivalent.items()],
                "notes": list(self.remarks),
                "searches": [{"form": form, **asdict(one)} for form, bound in self.bounds.items()
                             for one in bound.surrogates]}


class _Records:
    """The records of a distributional run over a model: those of the images that have all of theirs."""

    def __init__(self, store: Store):
        self.store, self.told, self.sigma = store, store.identity["distributional"], store.identity["noise"]["sigma"]
        index, times = np.unique(store.column("index"), return_counts=True)
        whole = index[times == store.identity["records_per_image"]]
        if not len(whole):
            raise StoreError(f"{store.folder} has no image with all its records yet: let its run finish some")
        self.images = len(whole)
        self._kept = np.isin(store.column("index"), whole)
        self._form, self._gamma = store.column("form"), store.column("gamma")

    def remarks(self) -> tuple[str, ...]:
        """Which classes its images do not show."""
        return unseen_classes(self.store.column("label")[self._kept], self.store.class_names,
                              self.store.column("index")[self._kept])

    def rows(self, setting: Setting) -> np.ndarray:
        """(M,) bool: the records of a setting, which come in the order of the images."""
        same = np.isnan(self._gamma) if setting.gamma is None else self._gamma == setting.gamma
        return self._kept & (self._form == setting.form) & same

    def values(self, setting: Setting, name: str) -> np.ndarray:
        return self.store.column(name)[self.rows(setting)]

    def moments(self, setting: Setting, n: int) -> LossMoments:
        return LossMoments(n, self.values(setting, "mean"), self.values(setting, "variance"))

    def certificate(self, alpha: float) -> ClosedCertificate | None:
        ceiling = self.told["ceiling"]
        if ceiling is None:
            return None
        moments = self.moments(Setting("outside", None), self.store.identity["procedure"]["n"])
        return certificate_from_moments(moments, self.sigma, ceiling, alpha)

    def bound(self, form: str, alpha: float) -> SurrogateBound:
        """The bound over the gammas that were named for it."""
        search = self.told["search"]
        settings = [Setting(form, gamma) for gamma in self.told["gamma"]]
        standings = [find_standing(setting, self.store.identity.distributional, self.sigma) for setting in settings]
        ends = [self._ends(setting, search["check"]) for setting in settings]
        terms = BoundTerms(self.told["ceiling"], self.sigma if form == "outside" else None,
                      math.prod(self.store.identity["data"]["shape"]), alpha, search["tolerance"])
        return bound_from(self.told["gamma"], ends, standings, terms)

    def _ends(self, setting: Setting, check: int) -> Ends:
        """Without samples behind a certificate where there are none."""
        loss, cost, slope, steep = (self.values(setting, name) for name in ("loss", "cost", "slope", "steep"))
        if np.isnan(steep).any():
            return Ends(loss, cost, slope)
        return Ends(loss, cost, slope, self.moments(setting, check), steep)

    def found(self, form: str) -> WorstCase:
        """Where all ascents ended, and before them the images as they are."""
        gammas = sorted({*self.told["gamma"], *self.told["gamma_adv"]}, reverse=True)
        settings = [Setting(form, gamma) for gamma in (None, *gammas)]
        means = [[float(self.values(setting, name).mean()) for setting in settings] for name in ("cost", "loss")]
        return WorstCase(np.array([math.inf, *gammas]), *np.array(means))

    def equivalent(self) -> dict[float, float]:
        """By gamma the root mean square move of the short ascents, where the run made them."""
        asked = self.told["gamma"] if self.told.get("eps_equivalent") else []
        return {gamma: math.sqrt(float(self.values(Setting("equivalent", gamma), "cost").mean())) for gamma in asked}


def loss_words(run: Robustness) -> str:
    """What a run's loss is.

    The 0-1 loss is the error of the base classifier under noise.
    """
    return f"cross-entropy clipped at {run.ceiling:.4g}" if run.loss == "clipped" else f"{run.loss} loss"
