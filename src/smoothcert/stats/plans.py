"""Prediction plans, and all plans by kind and design: from optional values, from a store's identity, and read again.

To add a design: write a frozen dataclass that keeps the protocol `Plan`, and give it a row in `PLANS`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from smoothcert.checks import check_count, check_known, check_probability
from smoothcert.display import Displayed
from smoothcert.errors import InputError
from smoothcert.stats.certify_plans import AtRadii, CertifyPlan, Curve, FixedN, refuse_without_noise
from smoothcert.stats.histories import Answers, Draw, History, RadiusOf, check_stages, flat_looks
from smoothcert.stats.procedures import ABSTAIN, predict_counts
from smoothcert.stats.sequential import growing_looks, spending_shares
from smoothcert.stats.transfer import Transfer

LAST_SHARE = 0.7
"""Share of alpha that sequential PREDICT keeps for its last look."""


@dataclass(frozen=True, repr=False)
class FixedPredict(Displayed):
    """PREDICT from a fixed number of samples: `predict_counts`.

    Attributes:
        n: samples an image. Several numbers are nested looks of one sample, the 100 first of the 1,000 first: all are
            always drawn, and the answer is that of the last one. `judge` on histories cut shorter answers at an
            earlier one; each is then a test of level alpha by itself, and no two of them together are.
        alpha: probability of returning another class than the smoothed classifier's.
    Raises:
        InputError: values outside these.
    """

    kind = "predict"
    n: int | Sequence[int] = 1000
    alpha: float = 0.001

    def __post_init__(self) -> None:
        several = tuple(check_count("n", n) for n in (self.n if isinstance(self.n, Sequence) else [self.n]))
        if not several or any(after <= before for before, after in pairwise(several)):
            raise InputError(f"n must name one or more numbers of samples in ascending order, got {self.n}")
        check_probability("alpha", self.alpha)
        object.__setattr__(self, "n", several[0] if len(several) == 1 else several)

    def identity(self) -> dict[str, Any]:
        return {"method": "predict", "alpha": self.alpha, "n": self.n if isinstance(self.n, int) else list(self.looks)}

    def most(self) -> int:
        return self.looks[-1]

    def next(self, histories: Sequence[History]) -> list[Draw | None]:
        draws = draw_up_to(self.looks)
        return [draws[len(history)] for history in histories]

    def judge(self, histories: Sequence[History]) -> Answers:
        check_stages(histories, "predict", "predict", most=len(self.looks) - 1)
        if not histories:
            return Answers(np.zeros(0, dtype=np.int64), {"p_value": np.zeros(0)})
        found = predict_counts(np.array([history[-1].counts for history in histories]), self.alpha)
        return Answers(found.prediction, {"p_value": found.p_value})

    @property
    def looks(self) -> tuple[int, ...]:
        return (self.n,) if isinstance(self.n, int) else tuple(self.n)


@dataclass(frozen=True, repr=False)
class Sequential(Displayed):
    """PREDICT at looks that grow by half, from 16 samples to n_max; the first look that rejects a tie answers.

    The last look has .7 alpha, the others share the rest equally; at each, the top two counts are tested at its part
    alpha_k (`predict_counts`). A class other than the smoothed classifier's is returned with probability at most
    sum alpha_k = alpha, under any stopping rule.

    The p-value is the least over the looks taken of p_k alpha / alpha_k, at most 1: the smallest alpha at which they
    answer. So the same looks may be judged at another alpha, and an image is answered where the p-value is <= alpha.

    Attributes:
        n_max: the most samples an image may take.
        alpha: probability of returning another class than the smoothed classifier's.
    Raises:
        InputError: values outside these.
    """

    kind = "predict"
    n_max: int
    alpha: float = 0.001

    def __post_init__(self) -> None:
        check_count("n_max", self.n_max)
        check_probability("alpha", self.alpha)

    def identity(self) -> dict[str, Any]:
        return {"design": "sequential", "method": "predict", "alpha": self.alpha, "n_max": self.n_max,
                "looks": "16*1.5^k", "spending": f"{1 - LAST_SHARE:.1g}/{LAST_SHARE:g}"}

    def most(self) -> int:
        return self.n_max

    def next(self, histories: Sequence[History]) -> list[Draw | None]:
        draws = [self.draws[len(history)] for history in histories]
        looked = [i for i, history in enumerate(histories) if history and draws[i]]
        _, p_value, _ = self._tests([histories[i][-1:] for i in looked])  # earlier looks have not answered
        for i in np.array(looked, dtype=np.int64)[p_value <= self.alpha].tolist():
            draws[i] = None
        return draws

    def judge(self, histories: Sequence[History]) -> Answers:
        check_stages(histories, "predict", "predict")
        owner, p_value, top = self._tests(histories)
        least, answer = np.ones(len(histories)), np.full(len(histories), ABSTAIN)
        np.minimum.at(least, owner, p_value)
        rejects = np.flatnonzero(p_value <= self.alpha)[::-1]
        answer[owner[rejects]] = top[rejects]  # the first look is written last
        return Answers(answer, {"p_value": least})

    @cached_property
    def looks(self) -> tuple[int, ...]:
        return growing_looks(self.n_max)

    @cached_property
    def draws(self) -> tuple[Draw | None, ...]:
        """The draw before each look, and None after the last one."""
        return draw_up_to(self.looks)

    def _tests(self, histories: Sequence[History]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (owner, p_k alpha / alpha_k rounded up, top class) of every look, (T,)."""
        owner, look, counts = flat_looks(histories, 0, self.looks)
        if not len(owner):
            return owner, np.zeros(0), owner
        share = np.array(spending_shares(len(self.looks), LAST_SHARE))[look]
        p_value = predict_counts(counts, self.alpha).p_value / share * np.where(share < 1, 1 + 2.0**-51, 1.0)
        return owner, p_value, counts.argmax(axis=1)


PredictPlan = FixedPredict | Sequential
"""The designs that `SmoothedClassifier.predict` takes."""


def draw_up_to(looks: Sequence[int]) -> tuple[Draw | None, ...]:
    """Return the draw before each look at a sample that grows to `looks`; then None.

    >>> [draw and draw.n for draw in draw_up_to([100, 1000])]
    [100, 900, None]
    """
    return (*(Draw("predict", n - before) for before, n in pairwise((0, *looks))), None)


AnyPlan = CertifyPlan | PredictPlan | Transfer

PLANS: dict[str, dict[str, tuple[type[AnyPlan], ...]]] = {
    "certify": {"fixed": (FixedN,), "radii": (AtRadii,), "curve": (Curve,), "transfer": (Transfer,)},
    "predict": {"fixed": (FixedPredict,), "sequential": (Sequential,)},
}
"""Plans by the kind of their stores, and by design: all its versions, the first one first. New runs take the last."""


def certify_plan(
    radius_of: RadiusOf = refuse_without_noise, *, n0: int | None = None, n: int | None = None,
    radii: Sequence[float] | None = None, curve_loss: float | None = None, n_max: int | None = None,
    alpha: float | None = None, method: str | None = None, margin: float | None = None, version: int | None = None,
) -> CertifyPlan:
    """Return the plan that these options ask for: `FixedN`, or with `n_max` either `AtRadii` or `Curve`.

    None stands for the default of the design, and for its last version.

    Raises:
        InputError: options that name no design, or several, or values that the design does not take.
    """
    _check_one_size(n, n_max)
    common = _drop_none(n0=n0, alpha=alpha, method=method, margin=margin, radius_of=radius_of)
    if n_max is None:
        if radii is not None or curve_loss is not None:
            raise InputError("radii and curve_loss are sequential: give n_max, the most samples an image may take")
        return FixedN(**_drop_none(n=n), **common)
    if radii is not None and curve_loss is None:
        return _version_of("certify", "radii", version)(n_max=n_max, radii=radii, **common)
    if curve_loss is not None and radii is None:
        return _version_of("certify", "curve", version)(n_max=n_max, loss=curve_loss, **common)
    raise InputError("n_max needs either radii (decide these) or curve_loss (the full curve): give one of them")


def predict_plan(
    alpha: float | None = None, n: int | Sequence[int] | None = None, n_max: int | None = None,
    version: int | None = None,
) -> PredictPlan:
    """Return the plan that these options ask for: `FixedPredict`, or with `n_max` `Sequential`.

    None stands for the default of the design, and for its last version.

    Raises:
        InputError: both n and n_max, or values that the design does not take.
    """
    _check_one_size(n, n_max)
    if n_max is None:
        return FixedPredict(**_drop_none(n=n, alpha=alpha))
    return _version_of("predict", "sequential", version)(n_max=n_max, **_drop_none(alpha=alpha))


def _check_one_size(n: int | Sequence[int] | None, n_max: int | None) -> None:
    """Raise InputError where the number of samples is both fixed and bounded."""
    if n is not None and n_max is not None:
        raise InputError(f"n = {n} fixes the number of samples and n_max = {n_max} bounds it: give one of them")


def _drop_none(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def version_in(procedure: dict[str, Any]) -> int:
    """Return the version of its design that a procedure's identity names; the first versions name none."""
    return procedure.get("version", 1)


def _version_of(kind: str, design: str, version: int | None) -> Any:
    """Return a design's plan of this version, the last one for None. Raises InputError for an unknown version."""
    versions = PLANS[kind][design]
    if version is None:
        return versions[-1]
    if type(version) is not int or not 1 <= version <= len(versions):
        raise InputError(f"these records follow version {version!r} of the design {design}, and this release knows "
                         f"{' and '.join(map(str, range(1, len(versions) + 1)))}: use the release that made them")
    return versions[version - 1]


def plan_from(kind: str, procedure: dict[str, Any], radius_of: RadiusOf | None = None) -> AnyPlan:
    """Return the plan with this identity; `radius_of` is needed for the kind "certify".

    Raises:
        InputError: an unknown kind or design, parts missing, or constants (looks, spending) that are not this
            version's: the records would be judged by another design than they were drawn with.
    """
    check_known("kind of store", kind, PLANS)
    design = check_known("design", procedure.get("design", "fixed"), PLANS[kind])
    cls = _version_of(kind, design, version_in(procedure))
    takes = [item.name for item in fields(cls)]
    names = [name for name in takes if name != "radius_of"]
    if missing := [name for name in names if name not in procedure]:
        raise InputError(f"a {kind} procedure of design {design} needs {', '.join(missing)}; got {procedure}")
    values: dict[str, Any] = {name: procedure[name] for name in names}
    if "radius_of" in takes:
        if radius_of is None:
            raise InputError("a certify plan needs radius_of, the radius of its noise")
        values["radius_of"] = radius_of
        if "source" in values:
            values["source"] = _source_plan(values["source"], radius_of)
    plan = cls(**values)
    expected, got = ({"design": "fixed", **parts} for parts in (plan.identity(), procedure))
    if other := [key for key in sorted({*expected, *got} - {*names}) if expected.get(key) != got.get(key)]:
        listed = ", ".join(f"{key} {got.get(key)!r} (here {expected.get(key)!r})" for key in other)
        raise InputError(f"these records follow another version of the design {design}: {listed}")
    return plan


def _source_plan(procedure: Any, radius_of: RadiusOf) -> AnyPlan:
    """Return the plan of the run that certificates were transferred from. Raises InputError for no such procedure."""
    if not isinstance(procedure, dict) or procedure.get("design") == "transfer":
        raise InputError(f"certificates are transferred from a run that sampled, got {procedure}")
    return plan_from("certify", procedure, partial(radius_of, margin=procedure.get("margin")))


def reread(
    plan: AnyPlan, alpha: float | None = None, method: str | None = None,
    margin: float | Literal["stored"] | None = "stored",
) -> AnyPlan:
    """Return the same design with another alpha, method or margin, to `judge` stored histories by.

    None (for `margin`: "stored") keeps what was. Choose without looking at the counts. For the design "radii" the
    methods are their sequential forms; a fixed-n method on the last counts would fail with more than alpha.

    Raises:
        InputError: values that the design does not take.
    """
    changes = _drop_none(alpha=alpha, method=method)
    if isinstance(plan, FixedPredict | Sequential):
        if method is not None or margin != "stored":
            raise InputError("predictions have no method and no margin: only alpha can be changed")
    elif margin != "stored":
        changes |= {"margin": margin, "radius_of": partial(plan.radius_of, margin=margin)}
    return replace(plan, **changes)
