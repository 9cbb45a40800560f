"""Plans by kind and design: from the options of a run, and back from the identity of a store.

To add a design: write a frozen dataclass that keeps the protocol `Plan`, give it a row in `PLANS`.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any, Literal

from smoothcert.checks import check_known
from smoothcert.errors import InputError
from smoothcert.stats.certify_plans import CurveCertify, FixedCertify, RadiiCertify
from smoothcert.stats.curve import default_pilot
from smoothcert.stats.histories import Answers, Draw, History, Look, Plan, RadiusOf
from smoothcert.stats.predict_plans import FixedPredict, SequentialPredict

__all__ = [
    "PLANS", "Answers", "CurveCertify", "Draw", "FixedCertify", "FixedPredict", "History", "Look", "Plan",
    "RadiiCertify", "RadiusOf", "SequentialPredict", "certify_plan", "plan_from", "predict_plan", "reread",
]

AnyPlan = FixedCertify | RadiiCertify | CurveCertify | FixedPredict | SequentialPredict

PLANS: dict[str, dict[str, type[AnyPlan]]] = {
    "certify": {"fixed": FixedCertify, "radii": RadiiCertify, "curve": CurveCertify},
    "predict": {"fixed": FixedPredict, "sequential": SequentialPredict},
}
"""Plans by the kind of their stores, and by design."""


def certify_plan(
    radius_of: RadiusOf, *, n0: int | None = None, n: int | None = None, radii: Sequence[float] | None = None,
    curve_loss: float | None = None, n_max: int | None = None, alpha: float = 0.001, method: str = "two-sided",
    margin: float | None = None,
) -> FixedCertify | RadiiCertify | CurveCertify:
    """The plan that these options ask for: `n` samples (default 100,000), or with `n_max` a sequential design.

    Sequential is either `radii` or `curve_loss`. `n0` is 100 by default; for `curve_loss` it is the pilot, 1,000.

    Raises:
        InputError: options that name no design, or several.
    """
    if n_max is None:
        if radii is not None or curve_loss is not None:
            raise InputError("radii and curve_loss are sequential: give n_max, the most samples an image may take")
        return FixedCertify(100 if n0 is None else n0, 100_000 if n is None else n, alpha, method, margin, radius_of)
    if n is not None:
        raise InputError(f"n = {n} fixes the number of samples and n_max = {n_max} bounds it: give one of them")
    if radii is not None and curve_loss is None:
        return RadiiCertify(100 if n0 is None else n0, n_max, tuple(radii), alpha, method, margin, radius_of)
    if curve_loss is not None and radii is None:
        pilot = default_pilot(n_max) if n0 is None else n0
        return CurveCertify(pilot, curve_loss, n_max, alpha, method, margin, radius_of)
    raise InputError("n_max needs either radii (decide these) or curve_loss (the full curve): give one of them")


def predict_plan(
    alpha: float = 0.001, n: int | Sequence[int] | None = None, n_max: int | None = None
) -> FixedPredict | SequentialPredict:
    """PREDICT from `n` samples (default 1,000; several are nested looks), or sequentially from at most `n_max`."""
    if n_max is None:
        return FixedPredict(1000 if n is None else n, alpha)
    if n is not None:
        raise InputError(f"n = {n} fixes the number of samples and n_max = {n_max} bounds it: give one of them")
    return SequentialPredict(n_max, alpha)


def plan_from(kind: str, procedure: dict[str, Any], radius_of: RadiusOf | None = None) -> AnyPlan:
    """The plan with this identity; `radius_of` is needed for the kind "certify".

    Raises:
        InputError: an unknown kind or design, parts missing, or constants (looks, spending) that are not this
            version's: the records would be judged by another design than they were drawn with.
    """
    check_known("kind of store", kind, PLANS)
    design = check_known("design", procedure.get("design", "fixed"), PLANS[kind])
    made = PLANS[kind][design]
    names = [item.name for item in fields(made) if item.name != "radius_of"]
    if missing := [name for name in names if name not in procedure]:
        raise InputError(f"a {kind} procedure of design {design} needs {', '.join(missing)}; got {procedure}")
    given: dict[str, Any] = {name: procedure[name] for name in names}
    if kind == "certify":
        if radius_of is None:
            raise InputError("a certify plan needs radius_of, the radius of its noise")
        given["radius_of"] = radius_of
    plan = made(**given)
    expected, got = ({"design": "fixed", **told} for told in (plan.identity(), procedure))
    if other := [key for key in sorted({*expected, *got} - {*names}) if expected.get(key) != got.get(key)]:
        told = ", ".join(f"{key} {got.get(key)!r} (here {expected.get(key)!r})" for key in other)
        raise InputError(f"these records follow another version of the design {design}: {told}")
    return plan


def reread(
    plan: AnyPlan, alpha: float | None = None, method: str | None = None,
    margin: float | Literal["stored"] | None = "stored",
) -> AnyPlan:
    """The same design with another alpha, method or margin, to `judge` stored histories by.

    None (for `margin`: "stored") keeps what was. Choose without looking at the counts. For the design "radii" the
    methods are their sequential forms; a fixed-n method on the last counts would fail with more than alpha.

    Raises:
        InputError: values that the design does not take.
    """
    changes: dict[str, Any] = {} if alpha is None else {"alpha": alpha}
    if isinstance(plan, FixedPredict | SequentialPredict):
        if method is not None or margin != "stored":
            raise InputError("predictions have no method and no margin: only alpha can be changed")
        return replace(plan, **changes)
    if method is not None:
        changes["method"] = method
    if margin != "stored":
        changes |= {"margin": margin, "radius_of": partial(plan.radius_of, margin=margin)}
    return replace(plan, **changes)
