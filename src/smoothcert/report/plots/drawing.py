"""A picture from stores: open them, gather what the kind shows, draw it."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, Generic, TypeVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smoothcert.errors import InputError, SmoothcertError
from smoothcert.interop import Named, open_records
from smoothcert.report.plots.kinds import KINDS, Kind, PlotConfig, find_kind
from smoothcert.report.plots.style import warn_above
from smoothcert.results.attacks import AttackResult
from smoothcert.results.base import StoreResult, check_records, why_not_side_by_side
from smoothcert.results.certified import Result
from smoothcert.results.denoising import Estimates
from smoothcert.results.distributional import Robustness
from smoothcert.results.gallery import Answers, ImagesOf
from smoothcert.results.gather import RESULTS, open_each
from smoothcert.results.multi_label import CertifiedLabels
from smoothcert.results.regression import CertifiedIntervals
from smoothcert.results.studies import votes_of
from smoothcert.store.store import Store

Options = TypeVar("Options", bound=PlotConfig)
Stores = Sequence[str | Path] | Sequence[tuple[str, Store]]


@dataclass(frozen=True)
class Request(Generic[Options]):
    """Everything that a picture is made from.

    Attributes:
        options: those of the kind.
        opened: what the kind takes of each store, in the order of their colours.
        images_of, answers_of, estimates_of: functions of a store that give its data set, its base classifier, and a
            denoiser at its sigma, for kinds that need them.
    """

    options: Options
    opened: tuple[Any, ...]
    images_of: ImagesOf | None = None
    answers_of: Callable[[Store], Answers] | None = None
    estimates_of: Callable[[Store], Estimates] | None = None

    @property
    def only(self) -> tuple[Store, str]:
        """The store of a kind that shows one, and its name."""
        return self.opened[0]

    @property
    def images(self) -> ImagesOf:
        """`images_of`; raises InputError where there is none."""
        if self.images_of is None:
            raise InputError("this kind of picture shows images: give images_of, a function of the store that gives "
                             "its data set")
        return self.images_of


def picture(kind: Any, stores: Stores, *, ax: Axes | None = None, images_of: ImagesOf | None = None,
            answers_of: Callable[[Store], Answers] | None = None,
            estimates_of: Callable[[Store], Estimates] | None = None, **options: Any) -> Figure:
    """Draw a picture of the stores that can be opened, and warn of each that cannot.

    Args:
        kind: a name in `KINDS`, the place of your own code, or a function (runs) -> figure.
        stores: stores, logs or count files, also METHOD=PATH; or opened ones, with their names. options: those of the
            kind.
        ax: the axes to draw in, for kinds that draw in one; None makes a figure.
        images_of, answers_of, estimates_of: see `Request`.
    Raises:
        UnknownNameError: no such kind; the closest is named. ConfigError: options or a number of stores that the kind
        does not take. StoreError, FileError: too few stores that it can be made from.
    """
    chosen = find_kind(kind)
    opened = [one for one in stores if isinstance(one, tuple)]
    texts = [one[0] if isinstance(one, tuple) else str(one) for one in stores]
    checked = chosen.options.parse({**options, "stores": tuple(texts)})
    figure, problems = draw_picture(kind, checked, opened, ax, images_of=images_of, answers_of=answers_of,
                                    estimates_of=estimates_of)
    for problem in problems:
        warnings.warn(str(problem), stacklevel=2)
    return figure


def draw_picture(
    kind: Any, options: PlotConfig, opened: Sequence[tuple[str, Store]] = (), ax: Axes | None = None, **sources: Any
) -> tuple[Figure, list[SmoothcertError]]:
    """Open the stores, gather and draw; return the figure, and what went wrong with single ones of many stores.

    Warns, also above a picture of its own, where what it shows side by side is of different data or images. `opened`
    are stores in place of those that the options name; `sources` are the functions of a `Request`. Raises StoreError
    or FileError where too few stores can be opened.
    """
    chosen = find_kind(kind)
    draw = _function(chosen.draw)
    if not isinstance(ax, Axes | None):
        raise InputError(f"ax: must be matplotlib axes, got {type(ax).__name__}")
    if ax is not None and "ax" not in signature(draw).parameters:
        raise InputError(f"ax: the picture {KINDS.label(kind)} is not drawn in one pair of axes: leave ax out")
    request, problems = open_request(chosen, options, opened, **sources)
    figure = draw(_function(chosen.gather)(request), **({} if ax is None else {"ax": ax}))
    if not isinstance(figure, Figure):
        raise InputError(f"the picture {KINDS.label(kind)} must be a matplotlib figure, got {type(figure).__name__}")
    runs = [run for run in (one[0] if isinstance(one, tuple) else one for one in request.opened)
            if isinstance(run, Result | AttackResult)]
    reason, lacking = why_not_side_by_side(runs) if runs else ("", [])
    if reason:
        why_not = "; ".join([reason, *lacking])
        warnings.warn(f"the runs are not to be compared: {why_not}", stacklevel=2)
        if ax is None:
            warn_above(figure, f"Not to be compared: {why_not}")
    return figure, problems


def open_request(
    kind: Kind, options: PlotConfig, given: Sequence[tuple[str, Store]] = (), **sources: Any
) -> tuple[Request[Any], list[SmoothcertError]]:
    """Open the stores of a picture as its kind takes them; see `draw_picture`."""
    take = TAKES[kind.take]

    def open_one(one: Named) -> Any:
        found = take(open_records(one.path, radius_column=getattr(options, "radius_column", None)), one.name)
        return replace(found, group=one.group) if isinstance(found, Result | AttackResult) else found

    if given:
        opened, problems = [take(store, name) for name, store in given], list[SmoothcertError]()
    else:
        opened, problems = open_each(options.stores, open_one, strict=options.most is not None)
    if problems and len(opened) < options.least:
        raise type(problems[0])("\n".join(map(str, problems)))
    share = kind.share
    return Request(options, tuple(_function(share)(opened) if share else opened), **sources), problems


def _function(name: str | Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of this package by "module.function", or a function as it is."""
    if callable(name):
        return name
    module, _, function = name.partition(".")
    return getattr(import_module(f"smoothcert.report.plots.{module}"), function)


def _take_store(store: Store, name: str) -> tuple[Store, str]:
    check_records(store)
    return store, name


def _take_for_page(store: Store, name: str) -> StoreResult:
    """Return the result of a kind of store that pages show; any other has to have radii."""
    kind = RESULTS[store.kind].result
    return (kind if kind.is_on_pages else Result).of(store, name).in_norm("l2")


TAKES: dict[str, Callable[[Store, str], Any]] = {
    "store": _take_store,
    "result": Result.of,
    "certified": lambda store, name: Result.of(store, name).in_norm("l2"),
    "certified or attack": _take_for_page,
    "votes": lambda store, name: (Result.of(store, name), votes_of(store)),
    "robustness": Robustness.of,
    "intervals": CertifiedIntervals.of,
    "labels": CertifiedLabels.of,
}
"""Functions of a store and its name that give what a kind shows of it, or raise where the store does not have it."""
