"""The kinds of picture: for each, how its data are gathered from stores, and the function that draws them.

To add one, write a drawing function (arrays -> figure), a gathering one (request -> arrays), and a row in `KINDS`.
"""

import warnings
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from smoothcert.analysis.estimates import Estimates
from smoothcert.analysis.panels import noise_panels, resolution_study
from smoothcert.analysis.regions import decision_regions
from smoothcert.checks import check_known, check_probability
from smoothcert.errors import InputError, SmoothcertError
from smoothcert.report.attacks import Attack
from smoothcert.report.bound_curves import bound_panels
from smoothcert.report.compare import why_not_side_by_side
from smoothcert.report.curves import Curve
from smoothcert.report.denoising import contraction_of, denoised_copies, denoised_gallery, failures_of
from smoothcert.report.gallery import ImagesOf, gallery_of
from smoothcert.report.interop import Named, open_records
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
from smoothcert.report.plots.requests import Kind, Request
from smoothcert.report.present import check_records
from smoothcert.report.results import Result
from smoothcert.report.robustness import Robustness
from smoothcert.report.same_data import check_same_data
from smoothcert.report.several import opened_apart
from smoothcert.report.studies import (
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
from smoothcert.report.thin import drawn_curve
from smoothcert.report.upper import Upper, upper_bound
from smoothcert.report.votes import Votes, votes_of
from smoothcert.runs.recertify import noise_of
from smoothcert.runs.store import Store

_PANEL_SIGMA = (0.12, 0.25, 0.5, 1.0)
_FRONT = ("denoiser", "walk-jump", "front-option")


def picture(kind: str, request: Request) -> Figure:
    """Draw a picture of the stores that can be opened, and warn of each that cannot; see `draw_picture`."""
    figure, problems = draw_picture(kind, request)
    for problem in problems:
        warnings.warn(str(problem), stacklevel=2)
    return figure


def draw_picture(kind: str, request: Request) -> tuple[Figure, list[SmoothcertError]]:
    """Open the stores, gather and draw; what went wrong with single ones of many stands beside the figure.

    Raises:
        UnknownNameError: no such kind; the closest is named. InputError: an option that it does not take, or another
            number of stores than it takes. StoreError, FileError: too few stores that it can be made from.
    """
    ready, problems = open_request(kind, request)
    return KINDS[kind].draw(KINDS[kind].gather(ready)), problems


def open_request(kind: str, request: Request) -> tuple[Request, list[SmoothcertError]]:
    """The request with its stores opened, and what went wrong with single ones of many; raises as `draw_picture`."""
    check_request(kind, request)
    chosen = KINDS[kind]
    opened, problems = opened_apart(request.stores, partial(_opened, chosen, request.radius_column),
                                    whole=chosen.most is not None)
    if problems and len(opened) < chosen.least:
        raise type(problems[0])("\n".join(map(str, problems)))
    return replace(request, opened=tuple(opened)), problems


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


def _result(store: Store, name: str) -> Result:
    return Result.of(store, name).in_norm("l2")


def _votes(store: Store, name: str) -> tuple[str, Votes, float]:
    return name, votes_of(store), store.identity["procedure"]["alpha"]


def _result_or_attack(store: Store, name: str) -> Result | Attack:
    return Attack.of(store, name) if store.kind == "attack" else _result(store, name)


def _comparable(request: Request) -> tuple[Result, ...]:
    check_same_data(request.opened)
    return request.opened


def _apart(request: Request) -> tuple[list[Result], list[Attack]]:
    """The certified runs and the attack stores."""
    return ([one for one in request.opened if isinstance(one, Result)],
            [one for one in request.opened if isinstance(one, Attack)])


def _only(request: Request) -> tuple[Store, str]:
    return request.opened[0]


def _curves(request: Request) -> tuple[list[Curve], list[Upper], str]:
    """Certified curves, the empirical upper bounds that attack stores prove, and why the curves are not comparable."""
    results, attacks = _apart(request)
    reason, lacking = why_not_side_by_side(results) if results else ("", [])
    why_not = "; ".join([reason, *lacking]) if reason else ""
    if why_not:
        warnings.warn(f"the curves are not to be compared: {why_not}", stacklevel=2)
    return ([drawn_curve(result, request.rho) for result in results],
            [upper_bound(attack.store, attack.name) for attack in attacks], why_not)


def _envelopes(request: Request) -> Envelopes:
    """Of certified runs, or of attack stores, the best of each method."""
    results, attacks = _apart(request)
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
    """Certified curves over the images that were attacked, and the accuracies under attack."""
    results, attacks = _apart(request)
    if not attacks or not results:
        raise InputError("empirical shows certify stores beside attack stores: give at least one of each")
    norm = shared_norm(attacks)
    attacked = np.unique(np.concatenate([attack.store.column("index") for attack in attacks]))
    shared = [among(result if norm == "l2" else result.in_linf(), attacked) for result in results]
    return Empirical([drawn_curve(result, request.rho) for result in shared],
                     [one for attack in attacks for one in observed(attack)], norm)


def _projection(request: Request) -> Any:
    store, name = _only(request)
    n, alpha = request.options.get("n"), request.options.get("alpha")
    if n and alpha:
        raise InputError("a projection is over n or over alpha: give one of --n and --alpha")
    if alpha:
        return projected_over_alpha(store, name, alpha, request.rho)
    taken = Result.of(store).n or 0
    return projected_over_n(store, name, n or [taken // 10 or 1, taken * 10, taken * 100], request.rho)


def _gallery(request: Request) -> Any:
    return gallery_of(_only(request)[0], _images(request), request.options.get("count", 36))


def _panels(request: Request) -> Any:
    store, image, key = _one_image(request)
    sigmas = request.options.get("sigma") or sorted({*_PANEL_SIGMA, store.identity["noise"]["sigma"]})
    return noise_panels(image, sigmas, int(store.identity["seed"]), key)


def _resolution(request: Request) -> Any:
    store, image, key = _one_image(request)
    sigma = request.options.get("sigma") or [store.identity["noise"]["sigma"]]
    if len(sigma) > 1:
        raise InputError(f"resolution shows one sigma, got {len(sigma)}")
    return resolution_study(image, sigma[0], seed=int(store.identity["seed"]), key=key)


def _regions(request: Request) -> Any:
    if request.answers_of is None:
        raise InputError("regions needs the base classifier: give --model")
    store, image, key = _one_image(request)
    answers, images = request.answers_of(store), _images(request)(store)
    found = decision_regions(answers, image, noise_of(store), store.num_classes, seed=int(store.identity["seed"]),
                             key=key)
    row = np.flatnonzero(store.column("index") == key)
    radius = float(store.column("radius")[row[0]]) if len(row) and store.kind == "certify" else 0.0
    return found, tuple(images.class_names), radius


def _denoised(request: Request) -> Any:
    how, count = _estimates(request, "denoised"), request.options.get("count", 8)
    if "image" in request.options:
        store, image, key = _one_image(request)
        return denoised_copies(store, image, key, how, count)
    return denoised_gallery(_only(request)[0], _images(request), how, count)


def _failures(request: Request) -> Any:
    first, second = request.opened
    how = request.estimates_of(second[0]) if request.estimates_of else None
    return failures_of(first, second, _images(request), how, request.options.get("count", 12))


def _contraction(request: Request) -> Any:
    how, copies = _estimates(request, "contraction"), request.options.get("n", [64])
    if len(copies) > 1:
        raise InputError(f"contraction takes one --n, the number of noisy copies an image; got {len(copies)}")
    return contraction_of(_only(request)[0], _images(request), how, request.options.get("count", 100), copies[0])


def _estimates(request: Request, kind: str) -> Estimates:
    if request.estimates_of is None:
        raise InputError(f"{kind} needs a denoiser: give --denoiser, its directory")
    return request.estimates_of(_only(request)[0])


def _one_image(request: Request) -> tuple[Store, np.ndarray, int]:
    """The image asked for, else the one of the median radius, and its index."""
    store = _only(request)[0]
    check_records(store)
    index, key = store.column("index"), request.options.get("image")
    if key is None:
        order = np.argsort(store.column("radius"), kind="stable") if store.kind == "certify" else np.arange(1)
        key = int(index[order[len(order) // 2]])
    elif key not in index:
        raise InputError(f"image {key} is not among those of {store.folder}, such as {index[0]}")
    return store, _images(request)(store).batch([key])[0], key


def _images(request: Request) -> ImagesOf:
    if request.images_of is None:
        raise InputError("this kind of picture needs the data set of the store")
    return request.images_of


KINDS: dict[str, Kind] = {
    "curve": Kind(_curves, lambda data: draw_curves(*data), "certified accuracy against radius, with lower bounds, and "
                  "the upper bounds that attacks prove", of=_result_or_attack),
    "envelope": Kind(_envelopes, draw_envelopes, "the best of several runs of each method at each radius, or attack "
                     "stores' at each eps, bound at rho / number of runs", least=2, of=_result_or_attack),
    "empirical": Kind(_empirical, draw_empirical, "certified accuracy, and accuracy under the attacks of attack stores",
                      least=2, of=_result_or_attack),
    "bounds": Kind(lambda r: bounds_compared(*_only(r), r.rho), draw_curves,
                   "the radii of Cohen, Li and Lecuyer from the same counts", most=1),
    "theorems": Kind(lambda r: theorems(_only(r)[0]), draw_theorems,
                     "radius against p_A under Cohen, Li and Lecuyer, and where the images stand", most=1),
    "projection": Kind(_projection, draw_curves, "the same run at another n (an estimate) or alpha",
                       ("n", "alpha"), most=1),
    "abstention": Kind(lambda r: shares(r.opened), draw_abstention, "right, wrong and abstained", of=Result.of),
    "votes": Kind(lambda r: top_shares(r.opened), draw_top_shares, "histograms of p_A, observed and bounded",
                  of=_votes),
    "wall": Kind(lambda r: wall(r.opened), draw_wall, "sorted radii under r_max, the most n samples can prove",
                 of=_result),
    "scatter": Kind(lambda r: pairs(*_comparable(r)), draw_scatter, "radius of each image in two runs",
                    least=2, most=2, of=_result),
    "gallery": Kind(_gallery, draw_gallery, "images sorted by radius, clean and noisy", ("count",), most=1),
    "panels": Kind(_panels, draw_panels, "one image at several sigma", ("image", "sigma"), most=1),
    "resolution": Kind(_resolution, draw_resolution, "the same noise at several image sizes, after average pooling",
                       ("image", "sigma"), most=1),
    "regions": Kind(_regions, lambda data: draw_regions(*data), "classes on a plane through an image, and its votes",
                    ("image", "model", "weights", "trust"), most=1),
    "denoised": Kind(_denoised, draw_denoised, "images as they are, noisy, and denoised",
                     ("image", "count", *_FRONT), most=1),
    "failures": Kind(_failures, draw_failures, "images that the first of two runs certifies at a larger radius",
                     ("count", "denoiser"), least=2, most=2),
    "contraction": Kind(_contraction, draw_contraction, "how far a denoiser contracts noise, and moves the image",
                        ("count", "n", *_FRONT), most=1),
    "distributional": Kind(lambda r: bound_panels(r.opened), draw_bounds,
                           "bounds on the expected loss against rho, and the worst case found", of=Robustness.of),
}
"""Kinds of picture by name."""
