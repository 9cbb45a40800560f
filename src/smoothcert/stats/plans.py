"""All plans by kind and design: from optional values, from a store's identity, and read again.

To add a design: write a frozen dataclass that keeps the protocol `Plan`, and give it a row in `PLANS`.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any, Literal

from smoothcert.checks import check_known
from smoothcert.errors import InputError
from smoothcert.stats.at_radii import AtRadii
from smoothcert.stats.certify_plans import Curve, FixedN, refuse_without_noise
from smoothcert.stats.claimed import Claimed
from smoothcert.stats.claims import claim_from
from smoothcert.stats.earlier import EarlierCurve, EarlierRadii, EarlierSequential
from smoothcert.stats.histories import RadiusOf
from smoothcert.stats.predict_plans import FixedPredict, PredictPlan, Sequential
from smoothcert.stats.transfer import Transfer

CertifyPlan = FixedN | AtRadii | Curve
"""The designs that `SmoothedClassifier.certify` takes."""

AnyPlan = CertifyPlan | EarlierRadii | PredictPlan | Transfer | Claimed

PLANS: dict[str, dict[str, tuple[type[Any], ...]]] = {
    "certify": {"fixed": (FixedN,), "radii": (EarlierRadii, AtRadii), "curve": (EarlierCurve, Curve),
                "transfer": (Transfer,)},
    "predict": {"fixed": (FixedPredict,), "sequential": (EarlierSequential, Sequential)},
}
"""Plans by the kind of their stores, and by design: all its versions, the first one first. New runs take the last."""


def certify_plan(
    radius_of: RadiusOf = refuse_without_noise, *, n0: int | None = None, n: int | None = None,
    radii: Sequence[float] | None = None, curve_loss: float | None = None, curve_to: float | None = None,
    n_max: int | None = None, alpha: float | None = None, method: str | None = None, margin: float | None = None,
    labels_known: bool | None = None, version: int | None = None,
) -> CertifyPlan:
    """Return the plan that these options ask for: `FixedN`, or with `n_max` either `AtRadii` or `Curve`.

    None stands for the default of the design, and for its last version.

    Raises:
        InputError: options that name no design, or several, or values that the design does not take.
    """
    _check_one_size(n, n_max)
    if curve_to is not None and curve_loss is None:
        raise InputError(f"curve_to = {curve_to} is the radius up to which curve_loss sizes n: give curve_loss too")
    if labels_known and (radii is None or n_max is None):
        raise InputError("labels_known decides radii for the label's own class: give radii and n_max")
    common = _drop_none(n0=n0, alpha=alpha, method=method, margin=margin, radius_of=radius_of)
    if n_max is None:
        if radii is not None or curve_loss is not None:
            raise InputError("radii and curve_loss are sequential: give n_max, the most samples an image may take")
        return FixedN(**_drop_none(n=n), **common)
    if radii is not None and curve_loss is None:
        at_radii, known = _version_of("certify", "radii", version), {"labels_known": True} if labels_known else {}
        if known and at_radii is EarlierRadii:
            raise InputError("labels_known is newer than these records, which judge any class: leave it out to go on "
                             "with them, or give another place for new ones")
        return at_radii(n_max=n_max, radii=radii, **common, **known)
    if curve_loss is not None and radii is None:
        curve = _version_of("certify", "curve", version)
        if curve_to is not None and curve is EarlierCurve:
            raise InputError("curve_to is newer than these records, whose curves are sized as a whole: leave it out to "
                             "go on with them, or give another place for new ones")
        return curve(n_max=n_max, loss=curve_loss, **_drop_none(to=curve_to), **common)
    raise InputError("n_max needs either radii (decide these) or curve_loss (the full curve): give one of them")


def with_noise(plan: CertifyPlan, radius: RadiusOf) -> CertifyPlan:
    """Return a plan that turns bounds into radii by a noise's `radius(bounds, margin)`."""
    return replace(plan, radius_of=partial(radius, margin=plan.margin))


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
    if (told := procedure.get("claim")) is not None:
        plain = plan_from(kind, {name: value for name, value in procedure.items() if name != "claim"}, radius_of)
        claimed = Claimed(plain, claim_from(told), told.get("labels_known", False))
        _check_constants("claim", claimed.identity()["claim"], told)
        return claimed
    design = check_known("design", procedure.get("design", "fixed"), PLANS[kind])
    cls = _version_of(kind, design, version_in(procedure))
    takes = [item.name for item in fields(cls) if item.init]
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
    expected, got = ({"design": "fixed", **{key: value for key, value in parts.items() if key not in names}}
                     for parts in (plan.identity(), procedure))
    _check_constants(f"design {design}", expected, got)
    return plan


def _check_constants(of: str, expected: dict[str, Any], got: dict[str, Any]) -> None:
    """Raise InputError unless a stored procedure has the constants that this release gives it."""
    if other := [key for key in sorted({*expected, *got}) if expected.get(key) != got.get(key)]:
        listed = ", ".join(f"{key} {got.get(key)!r} (here {expected.get(key)!r})" for key in other)
        raise InputError(f"these records follow another version of the {of}: {listed}")


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
    if isinstance(plan, Claimed):
        return plan.with_plan(reread(plan.plan, alpha, method, margin))
    changes = _drop_none(alpha=alpha, method=method)
    if isinstance(plan, FixedPredict | Sequential):
        if method is not None or margin != "stored":
            raise InputError("predictions have no method and no margin: only alpha can be changed")
    elif margin != "stored":
        changes |= {"margin": margin, "radius_of": partial(plan.radius_of, margin=margin)}
    return replace(plan, **changes)
