"""Plans by kind and design: from optional values, from the identity of a store, and read again at another level.

To add a design: write a frozen dataclass that keeps the protocol `Plan`, give it a row in `PLANS`.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any, Literal

from smoothcert.checks import check_known
from smoothcert.errors import InputError
from smoothcert.stats.certify_plans import AtRadii, CertifyPlan, Curve, FixedN, refuse_without_noise
from smoothcert.stats.histories import RadiusOf
from smoothcert.stats.predict_plans import FixedPredict, PredictPlan, Sequential

AnyPlan = CertifyPlan | PredictPlan

PLANS: dict[str, dict[str, type[AnyPlan]]] = {
    "certify": {"fixed": FixedN, "radii": AtRadii, "curve": Curve},
    "predict": {"fixed": FixedPredict, "sequential": Sequential},
}
"""Plans by the kind of their stores, and by design."""


def certify_plan(
    radius_of: RadiusOf = refuse_without_noise, *, n0: int | None = None, n: int | None = None,
    radii: Sequence[float] | None = None, curve_loss: float | None = None, n_max: int | None = None,
    alpha: float | None = None, method: str | None = None, margin: float | None = None,
) -> CertifyPlan:
    """Return the plan that these options ask for: `FixedN`, or with `n_max` either `AtRadii` or `Curve`.

    None stands for the default of the design.

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
        return AtRadii(n_max=n_max, radii=radii, **common)
    if curve_loss is not None and radii is None:
        return Curve(n_max=n_max, loss=curve_loss, **common)
    raise InputError("n_max needs either radii (decide these) or curve_loss (the full curve): give one of them")


def predict_plan(
    alpha: float | None = None, n: int | Sequence[int] | None = None, n_max: int | None = None
) -> PredictPlan:
    """Return the plan that these options ask for: `FixedPredict`, or with `n_max` `Sequential`.

    None stands for the default of the design.

    Raises:
        InputError: both n and n_max, or values that the design does not take.
    """
    _check_one_size(n, n_max)
    if n_max is None:
        return FixedPredict(**_drop_none(n=n, alpha=alpha))
    return Sequential(n_max, **_drop_none(alpha=alpha))


def _check_one_size(n: int | Sequence[int] | None, n_max: int | None) -> None:
    """Raise InputError where the number of samples is both fixed and bounded."""
    if n is not None and n_max is not None:
        raise InputError(f"n = {n} fixes the number of samples and n_max = {n_max} bounds it: give one of them")


def _drop_none(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def plan_from(kind: str, procedure: dict[str, Any], radius_of: RadiusOf | None = None) -> AnyPlan:
    """Return the plan with this identity; `radius_of` is needed for the kind "certify".

    Raises:
        InputError: an unknown kind or design, parts missing, or constants (looks, spending) that are not this
            version's: the records would be judged by another design than they were drawn with.
    """
    check_known("kind of store", kind, PLANS)
    design = check_known("design", procedure.get("design", "fixed"), PLANS[kind])
    cls = PLANS[kind][design]
    names = [item.name for item in fields(cls) if item.name != "radius_of"]
    if missing := [name for name in names if name not in procedure]:
        raise InputError(f"a {kind} procedure of design {design} needs {', '.join(missing)}; got {procedure}")
    values: dict[str, Any] = {name: procedure[name] for name in names}
    if kind == "certify":
        if radius_of is None:
            raise InputError("a certify plan needs radius_of, the radius of its noise")
        values["radius_of"] = radius_of
    plan = cls(**values)
    expected, got = ({"design": "fixed", **parts} for parts in (plan.identity(), procedure))
    if other := [key for key in sorted({*expected, *got} - {*names}) if expected.get(key) != got.get(key)]:
        listed = ", ".join(f"{key} {got.get(key)!r} (here {expected.get(key)!r})" for key in other)
        raise InputError(f"these records follow another version of the design {design}: {listed}")
    return plan


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
