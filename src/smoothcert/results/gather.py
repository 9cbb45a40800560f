"""Results opened by the kind of their store: one, several for a table, or those of a page."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

from smoothcert.checks import check_count, check_known
from smoothcert.errors import InputError, SmoothcertError, StoreError
from smoothcert.interop import Named, name_inputs, open_records
from smoothcert.results.attacks import AttackResult, AttackRuns
from smoothcert.results.base import Points, Runs, StoreResult
from smoothcert.results.best import CertifiedRuns
from smoothcert.results.certified import Result, merge_runs
from smoothcert.results.compare import Comparison, compare
from smoothcert.results.distributional import Robustness, RobustnessRuns
from smoothcert.results.gallery import Gallery, ImagesOf, gallery_of
from smoothcert.results.multi_label import CertifiedLabels, LabelRuns
from smoothcert.results.predictions import Predicted, PredictedRuns
from smoothcert.results.regression import CertifiedIntervals, IntervalRuns
from smoothcert.store.store import Store

T = TypeVar("T")

NORMS = ("l2", "linf")

GALLERY = 48
"""Images that the galleries of a page show together; each run has at least one, and only the first so many runs."""


class Reader(NamedTuple):
    """The classes that read stores of one kind: one store, and several side by side."""

    result: type[StoreResult]
    runs: type[Runs]


RESULTS = {
    "certify": Reader(Result, CertifiedRuns),
    "predict": Reader(Predicted, PredictedRuns),
    "distributional": Reader(Robustness, RobustnessRuns),
    "attack": Reader(AttackResult, AttackRuns),
    "multi-label": Reader(CertifiedLabels, LabelRuns),
    "regression": Reader(CertifiedIntervals, IntervalRuns),
}
"""How to read each kind of store; a table shows them in this order."""


def read_result(store: Store, name: str | None = None) -> StoreResult:
    """Return the figures of a store, log or count file, by its kind.

    Raises:
        EmptyStoreError: it has no records that figures could be computed from. StoreError: it is damaged.
    """
    return RESULTS[store.kind].result.of(store, name)


def put_side_by_side(results: Sequence[StoreResult], points: Points) -> Runs:
    """Return results of one kind, read at the same points."""
    return RESULTS[results[0].kind].runs.of(results, points)


def open_each(
    texts: Sequence[str], opening: Callable[[Named], T], strict: bool = False
) -> tuple[list[T], list[SmoothcertError]]:
    """Open every `PATH` or `METHOD=PATH`; return what was opened and the errors of the others, each in order.

    Args:
        strict: raise the first error instead of collecting them. An error is also raised where one path is given, or
            nothing can be opened.
    Raises:
        InputError: what was asked of any of them is wrong.
    """
    found: list[T] = []
    problems: list[SmoothcertError] = []
    for one in name_inputs(texts):
        try:
            found.append(opening(one))
        except SmoothcertError as error:
            if strict or len(texts) == 1 or isinstance(error, InputError):
                raise
            problems.append(error)
    if problems and not found:
        raise type(problems[0])("\n".join(map(str, problems)))
    return found, problems


@dataclass(frozen=True)
class Gathered:
    """Results opened together, and the errors of what could not be opened, each in the order they were named."""

    results: Sequence[StoreResult]
    problems: Sequence[SmoothcertError] = ()

    def of_kinds(self, kinds: Iterable[str]) -> list[Any]:
        """Return the results of some kinds, those of the first kind first."""
        return [one for kind in kinds for one in self.results if one.kind == kind]

    def at(self, points: Points) -> list[Runs]:
        """Return the results of each kind side by side, in the order of `RESULTS`.

        Raises:
            InputError: none of them can be asked at these points.
        """
        certified = sum(one.is_certified for one in self.results)
        if points.envelopes and certified < 2:
            raise InputError(f"--envelope is the best of several runs of certification at each radius, and here "
                             f"{'is one' if certified else 'are none'}: leave it out, or name more")
        if points.paired and certified < 2:
            raise InputError(f"--paired is the difference of other runs of certification from the first one, and here "
                             f"{'is one' if certified else 'are none'}: leave it out, or name more")
        if points.intervals != "one" and not certified:
            raise InputError("--intervals chooses among the lower bounds that runs of certification of classes have, "
                             "and here are none: leave it out")
        if points.radii and not any(one.takes_radii for one in self.results):
            raise InputError("--radii are for runs of certification, of labels, of distributional bounds and of "
                             "regressions, and here are none: leave them out")
        return [put_side_by_side(found, points) for kind in RESULTS if (found := self.of_kinds([kind]))]


def gather(
    texts: Sequence[str], *, alpha: float | None = None, norm: str = "l2", dimension: int | None = None,
    radius_column: str | None = None, merge: bool = False, strict: bool = False, one_pass: bool = False,
) -> Gathered:
    """Open every `PATH` or `METHOD=PATH` for a table.

    Args:
        alpha: failure probability of the answers of count files, and of logs that do not state it.
        norm: "l2", or "linf": see `Result.in_linf`.
        dimension: values of an image, where a run does not state it.
        radius_column: the column of logs that holds the radii; see `read_log`.
        merge: take them all as parts of one run over different images.
        strict: raise the first error instead of collecting them, as `merge` does too.
        one_pass: read the votes for the labels too, from which the accuracy with one noisy copy is computed.
    """
    check_known("norm", norm, NORMS)
    if dimension is not None:
        check_count("dimension", dimension)
        if norm != "linf":
            raise InputError("--dimension is for --norm linf: leave it out, or give both")

    def read(one: Named) -> Any:
        store = open_records(one.path, alpha, radius_column)
        result = read_result(store, one.name)
        if one_pass and not isinstance(result, Result):
            raise InputError(f"--one-pass is for runs of certification, and {one.name} holds {result.holds}")
        result = result.with_label_limits(store) if one_pass and isinstance(result, Result) else result
        return result.in_group(one.group).in_norm(norm, dimension)

    results, problems = open_each(texts, read, strict or merge)
    if merge:
        if other := [one for one in results if not one.is_certified]:
            raise InputError(f"{other[0].name} holds no certificates of single images: only runs of certification can "
                             f"be merged")
        results = [merge_runs(results)]
    return Gathered(results, problems)


def compare_gathered(runs: Gathered, radii: Sequence[float], rho: float) -> Comparison:
    """Compare the two results gathered; raises what `compare` raises, and InputError for kinds without a comparison."""
    for one in runs.results:
        if not one.is_comparable:
            raise InputError(f"{one.name} holds {one.holds}, which are not compared image by image: `smoothcert table` "
                             f"shows several side by side")
    first, second = runs.of_kinds(RESULTS)
    return compare(first, second, radii, rho)


@dataclass(frozen=True)
class PageRun:
    """A certified run on a page: its certificates, the store, log or count file they came from, and its images."""

    result: Result
    store: Store
    gallery: Gallery | None = None
    no_gallery: str = ""

    @property
    def name(self) -> str:
        return self.result.name


@dataclass(frozen=True)
class PageOutputs:
    """A regression or a multi-label run on a page of its kind: its figures, and the store they came from."""

    result: CertifiedIntervals | CertifiedLabels
    store: Store


class GatheredPage(NamedTuple):
    """The runs and the attacks of a page, or the runs of one other task, and the errors of the others, each in the
    order they were named."""

    runs: list[PageRun]
    attacks: list[AttackResult]
    problems: list[SmoothcertError]
    outputs: Sequence[PageOutputs] = ()


def gather_page(texts: Sequence[str], images_of: ImagesOf | None, *, alpha: float | None = None,
                radius_column: str | None = None) -> GatheredPage:
    """Open what a page shows of stores, logs and count files (also METHOD=PATH).

    Images that are not available are left out, and the page says why.

    Args:
        images_of: the data set of a store, or None for no images.
        alpha: failure probability of the answers of count files, and of logs that do not state it.
        radius_column: the column of logs that holds the radii; see `read_log`.
    Raises:
        StoreError: none has radii. And the errors of `open_each`.
    """
    def read(one: Named) -> tuple[Any, Store]:
        store = open_records(one.path, alpha, radius_column)
        result = read_result(store, one.name)
        if not (result.is_on_pages or result.has_own_page):
            raise StoreError(f"{one.name} holds {result.holds}, and a report shows what was certified of single "
                             f"images: `smoothcert table` shows it")
        return result.in_norm("l2"), store

    opened, problems = open_each(texts, read)
    if outputs := [PageOutputs(result, store) for result, store in opened if result.has_own_page]:
        first = outputs[0].result
        if others := [result for result, _ in opened if result.kind != first.kind]:
            raise InputError(f"{first.name} holds {first.holds}, and {others[0].name} holds {others[0].holds}: give "
                             f"each a page of its own")
        return GatheredPage([], [], problems, outputs)
    runs = [PageRun(result, store) for result, store in opened if result.is_certified]
    if not runs:
        raise StoreError("\n".join(["a report shows what was certified: give at least one certify store or log with "
                                    "radii", *map(str, problems)]))
    shown = []
    for number, run in enumerate(runs):
        gallery, reason = None, ""
        if images_of is None:
            reason = "They were not asked for."
        elif number >= GALLERY:
            reason = f"Only the first {GALLERY} runs have images here."
        else:
            try:
                gallery = gallery_of(run.store, images_of, max(1, GALLERY // len(runs)))
            except SmoothcertError as error:
                reason = f"{error}."
        shown.append(replace(run, gallery=gallery, no_gallery=reason))
    attacks = [result for result, _ in opened if not result.is_certified]
    return GatheredPage(shown, attacks, problems)
