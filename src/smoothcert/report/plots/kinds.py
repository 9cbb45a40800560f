"""The kinds of picture: for each, how its data are gathered from stores, and the function that draws them.

To add one, write a drawing function (arrays -> figure), a gathering one (request -> arrays), and a row in `KINDS`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from smoothcert.analysis.estimates import Estimates
from smoothcert.analysis.panels import noise_panels, resolution_study
from smoothcert.analysis.regions import Answers, decision_regions
from smoothcert.checks import check_known, check_probability
from smoothcert.errors import InputError
from smoothcert.report.bound_curves import bound_panels
from smoothcert.report.denoising import contraction_of, denoised_copies, denoised_gallery, failures_of
from smoothcert.report.gallery import ImagesOf, gallery_of
from smoothcert.report.interop import named, open_records
from smoothcert.report.plots.bounding import draw_bounds
from smoothcert.report.plots.counts import draw_abstention, draw_scatter, draw_top_shares, draw_wall
from smoothcert.report.plots.denoising import draw_contraction, draw_denoised, draw_failures
from smoothcert.report.plots.images import draw_gallery, draw_panels, draw_regions, draw_resolution
from smoothcert.report.plots.lines import (
    Empirical,
    Envelopes,
    draw_curves,
    draw_empirical,
    draw_envelopes,
    draw_theorems,
)
from smoothcert.report.plots.observed import best_observed, observed, shared_norm
from smoothcert.report.present import check_records
from smoothcert.report.results import Result
from smoothcert.report.robustness import Robustness
from smoothcert.report.same_data import check_same_data
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
from smoothcert.report.upper import upper_bound
from smoothcert.report.votes import votes_of
from smoothcert.runs.recertify import noise_of
from smoothcert.runs.store import Store

_PANEL_SIGMA = (0.12, 0.25, 0.5, 1.0)
_FRONT = ("denoiser", "walk-jump", "front-option")


@dataclass(frozen=True)
class Request:
    """What a picture is asked of.

    Attributes:
        stores: stores, logs or count files (also METHOD=PATH), in the order of their colours.
        rho: failure probability of each lower bound.
        options: what was given beside; each kind names those that it takes.
        images_of, answers_of, estimates_of: the data set of a store, its base classifier, and a denoiser at its sigma;
            for kinds that need them.
    """

    stores: tuple[str, ...]
    rho: float = 0.05
    options: dict[str, Any] = field(default_factory=dict)
    images_of: ImagesOf | None = None
    answers_of: Callable[[Store], Answers] | None = None
    estimates_of: Callable[[Store], Estimates] | None = None


@dataclass(frozen=True)
class Kind:
    """A kind of picture.

    Attributes:
        gather: request -> what `draw` takes.
        draw: that -> figure.
        words: what it shows, in a line.
        options: names of the options it takes beside the common ones.
        most: how many stores it takes at most, and `least` at least.
    """

    gather: Callable[[Request], Any]
    draw: Callable[[Any], Figure]
    words: str
    options: tuple[str, ...] = ()
    least: int = 1
    most: int | None = None


def picture(kind: str, request: Request) -> Figure:
    """Gather and draw.

    Raises:
        UnknownNameError: no such kind; the closest is named. InputError: an option that it does not take, or another
            number of stores than it takes. StoreError: a store that it cannot be made from.
    """
    chosen = KINDS[check_known("kind of picture", kind, KINDS)]
    check_request(kind, request)
    return chosen.draw(chosen.gather(request))


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


def _opened(request: Request) -> list[tuple[Store, str]]:
    return [(open_records(one.path), one.name) for one in named(request.stores)]


def _results(request: Request) -> list[Result]:
    return [Result.of(store, name) for store, name in _opened(request)]


def _comparable(request: Request) -> list[Result]:
    results = _results(request)
    check_same_data(results)
    return results


def _only(request: Request) -> tuple[Store, str]:
    return _opened(request)[0]


def _grouped(request: Request) -> list[Result]:
    """The certified runs, each with the method that it was named with."""
    return [replace(Result.of(open_records(one.path), one.name), group=one.group) for one in named(request.stores)]


def _curves(request: Request) -> Any:
    """Certified curves, and the empirical upper bounds that attack stores prove."""
    opened = _opened(request)
    return ([drawn_curve(Result.of(store, name), request.rho) for store, name in opened if store.kind != "attack"],
            [upper_bound(store, name) for store, name in opened if store.kind == "attack"])


def _envelopes(request: Request) -> Envelopes:
    """Of certified runs, or of attack stores, the best of each method."""
    opened = [(open_records(one.path), one) for one in named(request.stores)]
    if {store.kind for store, _ in opened} != {"attack"}:
        results = _grouped(request)
        check_same_data(results)
        return Envelopes(envelopes(results, request.rho), [], [])
    norm = shared_norm([store for store, _ in opened])
    runs = [(one.group, observed(store, one.name, request.rho / len(opened))[-1]) for store, one in opened]
    groups = dict.fromkeys(group for group, _ in runs)
    return Envelopes([], [best_observed(group, [run for own, run in runs if own == group]) for group in groups],
                     [run for _, run in runs], norm)


def _empirical(request: Request) -> Empirical:
    """Certified curves over the images that were attacked, and the accuracies under attack."""
    opened = _opened(request)
    attacks = [(store, name) for store, name in opened if store.kind == "attack"]
    results = [Result.of(store, name) for store, name in opened if store.kind != "attack"]
    if not attacks or not results:
        raise InputError("empirical shows certify stores beside attack stores: give at least one of each")
    norm = shared_norm([store for store, _ in attacks])
    attacked = np.unique(np.concatenate([store.column("index") for store, _ in attacks]))
    shared = [among(result if norm == "l2" else result.in_linf(), attacked) for result in results]
    return Empirical([drawn_curve(result, request.rho) for result in shared],
                     [one for store, name in attacks for one in observed(store, name)], norm)


def _projection(request: Request) -> Any:
    store, name = _only(request)
    n, alpha = request.options.get("n"), request.options.get("alpha")
    if n and alpha:
        raise InputError("a projection is over n or over alpha: give one of --n and --alpha")
    if alpha:
        return projected_over_alpha(store, name, alpha, request.rho)
    taken = Result.of(store).n
    return projected_over_n(store, name, n or [taken // 10 or 1, taken * 10, taken * 100], request.rho)


def _top_shares(request: Request) -> Any:
    return top_shares([(name, votes_of(store), store.identity["procedure"]["alpha"])
                       for store, name in _opened(request)])


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
    first, second = _opened(request)
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
                  "the upper bounds that attacks prove"),
    "envelope": Kind(_envelopes, draw_envelopes, "the best of several runs of each method at each radius, or attack "
                     "stores' at each eps, bound at rho / number of runs", least=2),
    "empirical": Kind(_empirical, draw_empirical, "certified accuracy, and accuracy under the attacks of attack stores",
                      least=2),
    "bounds": Kind(lambda r: bounds_compared(*_only(r), r.rho), draw_curves,
                   "the radii of Cohen, Li and Lecuyer from the same counts", most=1),
    "theorems": Kind(lambda r: theorems(_only(r)[0]), draw_theorems,
                     "radius against p_A under Cohen, Li and Lecuyer, and where the images stand", most=1),
    "projection": Kind(_projection, draw_curves, "the same run at another n (an estimate) or alpha",
                       ("n", "alpha"), most=1),
    "abstention": Kind(lambda r: shares(_results(r)), draw_abstention, "right, wrong and abstained"),
    "votes": Kind(_top_shares, draw_top_shares, "histograms of p_A, observed and bounded"),
    "wall": Kind(lambda r: wall(_results(r)), draw_wall, "sorted radii under r_max, the most n samples can prove"),
    "scatter": Kind(lambda r: pairs(*_comparable(r)), draw_scatter, "radius of each image in two runs",
                    least=2, most=2),
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
    "distributional": Kind(lambda r: bound_panels([Robustness.of(store, name) for store, name in _opened(r)]),
                           draw_bounds, "bounds on the expected loss against rho, and the worst case found"),
}
"""Kinds of picture by name."""
