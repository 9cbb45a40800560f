"""The kinds of picture: for each, how its data are gathered from stores, and the function that draws them.

To add one, write a drawing function (arrays -> figure), a gathering one (request -> arrays), and a row in `KINDS`.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from smoothcert.checks import check_known, check_probability
from smoothcert.errors import InputError, SmoothcertError
from smoothcert.interop import Named, open_records
from smoothcert.report.plots.bounding import draw_bounds
from smoothcert.report.plots.counts import draw_abstention, draw_scatter, draw_top_shares, draw_wall
from smoothcert.report.plots.denoising import draw_contraction, draw_denoised, draw_failures
from smoothcert.report.plots.images import draw_gallery, draw_panels, draw_regions, draw_resolution
from smoothcert.report.plots.lines import (
    Empirical,
    Envelopes,
    Observed,
    draw_curves,
    draw_empirical,
    draw_envelopes,
    draw_theorems,
)
from smoothcert.report.plots.observed import best_observed, observed, shared_norm
from smoothcert.report.plots.of_images import (
    gather_contraction,
    gather_denoised,
    gather_failures,
    gather_gallery,
    gather_panels,
    gather_regions,
    gather_resolution,
)
from smoothcert.report.plots.requests import Kind, Request
from smoothcert.report.plots.style import warn_above
from smoothcert.results.attacks import Attack
from smoothcert.results.base import check_same_data, why_not_side_by_side
from smoothcert.results.bound_curves import bound_panels
from smoothcert.results.certified import Result
from smoothcert.results.curves import Curve
from smoothcert.results.distributional import Robustness
from smoothcert.results.gather import open_each
from smoothcert.results.studies import (
    among,
    bounds_compared,
    envelopes,
    pairs,
    projected_over_alpha,
    projected_over_n,
    shares,
    theorems,
    top_shares,
    wall,
)
from smoothcert.results.thin import drawn_curve
from smoothcert.results.upper import Upper, upper_bound
from smoothcert.results.votes import Votes, votes_of
from smoothcert.store.store import Store

_FRONT = ("denoiser", "walk-jump", "front-option")


def picture(kind: str, request: Request) -> Figure:
    """Draw a picture of the stores that can be opened, and warn of each that cannot; see `draw_picture`."""
    figure, problems = draw_picture(kind, request)
    for problem in problems:
        warnings.warn(str(problem), stacklevel=2)
    return figure


def draw_picture(kind: str, request: Request) -> tuple[Figure, list[SmoothcertError]]:
    """Open the stores, gather and draw; what went wrong with single ones of many stands beside the figure.

    Warns, also above the picture, where what it shows side by side is of different data or images.

    Raises:
        UnknownNameError: no such kind; the closest is named. InputError: an option that it does not take, or another
            number of stores than it takes. StoreError, FileError: too few stores that it can be made from.
    """
    ready, problems = open_request(kind, request)
    figure = KINDS[kind].draw(KINDS[kind].gather(ready))
    if why_not := _why_not_side_by_side(ready.opened):
        warnings.warn(f"the runs are not to be compared: {why_not}", stacklevel=2)
        warn_above(figure, f"Not to be compared: {why_not}")
    return figure, problems


def open_request(kind: str, request: Request) -> tuple[Request, list[SmoothcertError]]:
    """The request with its stores opened, and what went wrong with single ones of many; raises as `draw_picture`."""
    check_request(kind, request)
    chosen = KINDS[kind]
    opened, problems = open_each(request.stores, partial(_opened, chosen, request.radius_column),
                                    strict=chosen.most is not None)
    if problems and len(opened) < chosen.least:
        raise type(problems[0])("\n".join(map(str, problems)))
    return replace(request, opened=chosen.together(tuple(opened))), problems


def _opened(kind: Kind, radius_column: str | None, one: Named) -> Any:
    found = kind.of(open_records(one.path, radius_column=radius_column), one.name)
    return replace(found, group=one.group) if isinstance(found, Result | Attack) else found


def check_request(kind: str, request: Request) -> None:
    """Raise InputError for options or numbers of stores that a kind does not take; nothing is read."""
    chosen = KINDS[check_known("kind of picture", kind, KINDS)]
    check_probability("rho", request.rho)
    if foreign := sorted(set(request.options) - set(chosen.options)):
        taken = ", ".join("--" + name for name in chosen.options) or "none"
        raise InputError(f"{kind} takes no {', '.join('--' + name for name in foreign)}; of its own it takes {taken}")
    count, most = len(request.stores), chosen.most
    if count < chosen.least or (most is not None and count > most):
        wanted = f"{chosen.least}" if most == chosen.least else f"at least {chosen.least}" if most is None else (
            f"{chosen.least} to {most}")
        raise InputError(f"{kind} takes {wanted} store(s), got {count}")


def _why_not_side_by_side(opened: Sequence[Any]) -> str:
    """Why what a picture shows of several runs does not belong side by side; "" where it does."""
    runs = [run for run in (one[0] if isinstance(one, tuple) else one for one in opened)
            if isinstance(run, Result | Attack)]
    reason, lacking = why_not_side_by_side(runs) if runs else ("", [])
    return "; ".join([reason, *lacking]) if reason else ""


def _result(store: Store, name: str) -> Result:
    return Result.of(store, name).in_norm("l2")


def _votes(store: Store, name: str) -> tuple[Result, Votes, float]:
    return Result.of(store, name), votes_of(store), store.identity["procedure"]["alpha"]


def _result_or_attack(store: Store, name: str) -> Result | Attack:
    return Attack.of(store, name) if store.kind == "attack" else _result(store, name)


def _apart(opened: Sequence[Any]) -> tuple[list[Result], list[Attack]]:
    """The certified runs and the attack stores."""
    return [one for one in opened if isinstance(one, Result)], [one for one in opened if isinstance(one, Attack)]


def _shared(opened: tuple[Result, ...]) -> tuple[Result, ...]:
    """Two runs over the images that both have."""
    check_same_data(opened)
    first, second = opened
    return among(first, second.index), among(second, first.index)


def _attacked_alone(opened: tuple[Result | Attack, ...]) -> tuple[Result | Attack, ...]:
    """The certified runs over the images that were attacked, and the attack stores."""
    results, attacks = _apart(opened)
    if not attacks or not results:
        raise InputError("empirical shows certify stores beside attack stores: give at least one of each")
    attacked = np.unique(np.concatenate([attack.index for attack in attacks]))
    return *(among(result, attacked) for result in results), *attacks


def _curves(request: Request) -> tuple[list[Curve], list[Upper]]:
    """Certified curves, and the empirical upper bounds that attack stores prove."""
    results, attacks = _apart(request.opened)
    return ([drawn_curve(result, request.rho) for result in results],
            [upper_bound(attack.store, attack.name) for attack in attacks])


def _envelopes(request: Request) -> Envelopes:
    """Of certified runs, or of attack stores, the best of each method."""
    results, attacks = _apart(request.opened)
    if results and attacks:
        raise InputError("envelope shows certify stores or attack stores: give one kind alone")
    if results:
        return Envelopes(envelopes(results, request.rho), [], [])
    norm = shared_norm(attacks)
    runs = [observed(attack, request.rho / len(attacks))[-1] for attack in attacks]
    groups: dict[str, list[Observed]] = {}
    for attack, run in zip(attacks, runs, strict=True):
        groups.setdefault(attack.group, []).append(run)
    return Envelopes([], [best_observed(group, members) for group, members in groups.items()], runs, norm)


def _empirical(request: Request) -> Empirical:
    """Certified curves, and the accuracies under attack."""
    results, attacks = _apart(request.opened)
    norm = shared_norm(attacks)
    curves = [drawn_curve(result if norm == "l2" else result.in_linf(), request.rho) for result in results]
    return Empirical(curves, [one for attack in attacks for one in observed(attack)], norm)


def _projection(request: Request) -> Any:
    store, name = request.only
    n, alpha = request.options.get("n"), request.options.get("alpha")
    if n and alpha:
        raise InputError("a projection is over n or over alpha: give one of --n and --alpha")
    if alpha:
        return projected_over_alpha(store, name, alpha, request.rho)
    taken = Result.of(store).n or 0
    return projected_over_n(store, name, n or [taken // 10 or 1, taken * 10, taken * 100], request.rho)


KINDS: dict[str, Kind] = {
    "curve": Kind(_curves, lambda data: draw_curves(*data), "certified accuracy against radius, with lower bounds, and "
                  "the upper bounds that attacks prove", of=_result_or_attack),
    "envelope": Kind(_envelopes, draw_envelopes, "the best of several runs of each method at each radius, or attack "
                     "stores' at each eps, bound at rho / number of runs", least=2, of=_result_or_attack),
    "empirical": Kind(_empirical, draw_empirical, "certified accuracy, and accuracy under the attacks of attack stores",
                      least=2, of=_result_or_attack, together=_attacked_alone),
    "bounds": Kind(lambda r: bounds_compared(*r.only, r.rho), draw_curves,
                   "the radii of Cohen, Li and Lecuyer from the same counts", most=1),
    "theorems": Kind(lambda r: theorems(r.only[0]), draw_theorems,
                     "radius against p_A under Cohen, Li and Lecuyer, and where the images stand", most=1),
    "projection": Kind(_projection, draw_curves, "the same run at another n (an estimate) or alpha",
                       ("n", "alpha"), most=1),
    "abstention": Kind(lambda r: shares(r.opened), draw_abstention, "right, wrong and abstained", of=Result.of),
    "votes": Kind(lambda r: top_shares([(run.name, *told) for run, *told in r.opened]), draw_top_shares,
                  "histograms of p_A, observed and bounded", of=_votes),
    "wall": Kind(lambda r: wall(r.opened), draw_wall, "sorted radii under r_max, the most n samples can prove",
                 of=_result),
    "scatter": Kind(lambda r: pairs(*r.opened), draw_scatter, "radius of each image in two runs",
                    least=2, most=2, of=_result, together=_shared),
    "gallery": Kind(gather_gallery, draw_gallery, "images sorted by radius, clean and noisy", ("count",), most=1),
    "panels": Kind(gather_panels, draw_panels, "one image at several sigma", ("image", "sigma"), most=1),
    "resolution": Kind(gather_resolution, draw_resolution,
                       "the same noise at several image sizes, after average pooling", ("image", "sigma"), most=1),
    "regions": Kind(gather_regions, lambda data: draw_regions(*data),
                    "classes on a plane through an image, and its votes",
                    ("image", "model", "weights", "trust"), most=1),
    "denoised": Kind(gather_denoised, draw_denoised, "images as they are, noisy, and denoised",
                     ("image", "count", *_FRONT), most=1),
    "failures": Kind(gather_failures, draw_failures, "images that the first of two runs certifies at a larger radius",
                     ("count", "denoiser"), least=2, most=2),
    "contraction": Kind(gather_contraction, draw_contraction, "how far a denoiser contracts noise, and moves the image",
                        ("count", "n", *_FRONT), most=1),
    "distributional": Kind(lambda r: bound_panels(r.opened), draw_bounds,
                           "bounds on the expected loss against rho, and the worst case found", of=Robustness.of),
}
"""Kinds of picture by name."""
