"""Pages of certified accuracy, of single runs and of two compared. Every figure is rounded down, never up."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from smoothcert.report.tables import Cell, Column, Page, Row, Table, write
from smoothcert.results.best import BestRuns, CertifiedRuns, best_method
from smoothcert.results.certified import Result
from smoothcert.results.compare import Comparison
from smoothcert.results.figures import alpha_words, confidence, down, percent, radius_words, sigma_words
from smoothcert.results.paired import Difference
from smoothcert.stats import AccuracyBounds
from smoothcert.store.names import few

BOUNDS = (
    ("accuracy", "certified accuracy"),
    ("test_set", "this test set, at least"),
    ("bernstein", "this test set, Bernstein"),
    ("population", "new images, at least"),
    ("all_radii", "this test set, all radii at once"),
)
"""What may be printed at each radius: fields of `smoothcert.stats.AccuracyBounds`, and their names."""

INTERVALS = {"one": ("accuracy", "population"), "all": tuple(field for field, _ in BOUNDS)}
"""The fields of `BOUNDS` that a table shows, by what was asked for: on few images the bound for new ones says most."""

_ONE_PASS = (("population", "one noisy copy, at least"), ("test_set", "one noisy copy, this test set"))

_MORE = {"one": " `table --intervals all` adds the bounds on these images alone.", "all": ""}


def _method(result: Result) -> str:
    method = result.method or "method ?"
    margin = "" if result.margin is None else f" with margin {result.margin:g}"
    return f"{method}{margin}" + (f", {result.claim.words}" if result.claim else "")


def _acr(result: Result) -> str:
    return (">= " if result.is_lower_bound else "") + down(result.acr, 3 if result.norm == "l2" else 5)


class RunColumn(NamedTuple):
    """A column of facts of each run: its head, the text of a run's cell, and the formats whose tables have it."""

    column: Column
    cell: Callable[[Result], str]
    formats: tuple[str, ...] = ("text", "markdown", "latex")


RUN_COLUMNS = (
    RunColumn(Column("run", left=True), lambda run: run.name),
    RunColumn(Column("images"), lambda run: str(run.images), ("markdown",)),
    RunColumn(Column("sigma", latex=r"$\sigma$"), lambda run: sigma_words(run.sigma)),
    RunColumn(Column("method"), _method, ("markdown",)),
    RunColumn(Column("alpha"), lambda run: alpha_words(run.alpha), ("markdown",)),
    RunColumn(Column("ACR"), _acr),
    RunColumn(Column("abstained"), lambda run: f"{percent(run.abstained.mean())}%", ("markdown",)),
    RunColumn(Column("abst. (%)", latex=r"abst.\ (\%)"), lambda run: percent(run.abstained.mean()), ("latex",)),
)
"""The columns before those of the radii, in tables of several runs."""


def certificates_page(runs: CertifiedRuns, style: str) -> Page:
    """Return certified accuracy with its bounds: in text a table for each run, else one table of all."""
    heads = [radius_words(radius, runs.results[0].norm) for radius in runs.radii]
    kind = runs.results[0].norm
    norm = {"l2": "", "linf": "l_inf radii, of the ball inside the l2 ball. "}.get(kind, f"{kind} radii. ")
    best = "* best at this radius. " if any(stars.any() for stars in runs.stars) else ""
    legend = (f"{norm}{best}Percent, rounded down; certified accuracy = right class and radius >= r. Lower bounds hold "
              f"with probability {confidence(runs.rho)} at one radius chosen beforehand; ACR = average certified "
              f"radius.{_MORE[runs.intervals]}")
    if runs.one_pass:
        legend += (f" One noisy copy: the accuracy left to a classifier that answers with a single noisy copy, against "
                   f"changes of l2 norm r whose author does not see the noise, on new images, with probability "
                   f"{confidence(runs.rho)}. It is a marginal claim over images and noise: no single answer is "
                   f"certified.")
    if runs.paired:
        legend += (f" Differences are of the shared images; each interval holds that on new images with probability "
                   f"{confidence(runs.rho)}.")
    if style == "text":
        tables = _text_tables(runs, heads)
    elif style == "markdown":
        tables = _table_of_all(runs, heads, style, Column("%"))
    else:
        tables = _table_of_all(runs, heads, style, Column("", left=True))
    return Page(tables, runs.warning, runs.notes, legend)


def _text_tables(runs: CertifiedRuns, heads: list[str]) -> list[Table]:
    """Return a table for each run, an overview of several, and one for each envelope."""
    fields = INTERVALS[runs.intervals]
    tables = [Table.of(["radius", *heads], [*_bound_rows(fields, result, at), *_one_pass_rows(runs, number)],
                       above=_facts(result))
              for number, (result, at) in enumerate(zip(runs.results, runs.at, strict=True))]
    if len(runs.results) > 1:
        facts = [fact for fact in RUN_COLUMNS if "text" in fact.formats]
        empty = [""] * (len(facts) - 1)
        rows: list[Row] = [
            [*(fact.cell(result) for fact in facts), *_accuracy_cells(result, at, stars)]
            for result, at, stars in zip(runs.results, runs.at, runs.stars, strict=True)]
        rows += [[words, *empty, *cells] for words, cells in _paired_rows(runs)]
        rows += [[f"best sigma of {one.group}" if one.group else "best sigma", *empty, *one.sigma]
                 for one in runs.envelopes]
        if len(runs.envelopes) > 1:
            rows.append(["best method", *empty, *best_method(runs.envelopes)])
        columns = [*(fact.column for fact in facts), *(Column(head, starred=True) for head in heads)]
        tables.append(Table.of(columns, rows, above=["certified accuracy; ACR beside it"]))
    count = len(runs.results)
    tables += [Table.of(["radius", *heads], _envelope_rows(fields, one), above=[
        f"{one.name}: the best of {few(one.runs)} at each radius; bounds at rho = {runs.rho:g} / {count} runs"])
        for one in runs.shown_envelopes]
    return tables


def _table_of_all(runs: CertifiedRuns, heads: list[str], style: str, head: Column) -> list[Table]:
    """Return one table with a row for each run and each bound that is shown, named under `head`."""
    fields = INTERVALS[runs.intervals]
    facts = [fact for fact in RUN_COLUMNS if style in fact.formats]
    rows: list[Row] = []
    for number, (result, at, stars) in enumerate(zip(runs.results, runs.at, runs.stars, strict=True)):
        rows += _under_facts([fact.cell(result) for fact in facts],
                             [*_bound_rows(fields, result, at, stars), *_one_pass_rows(runs, number)])
    for words, cells in _paired_rows(runs):
        rows += _under_facts([words, *[""] * (len(facts) - 1)], [["difference [interval]", *cells]])
    for one in runs.shown_envelopes:
        rows += _under_facts([one.name, *[""] * (len(facts) - 1)], _envelope_rows(fields, one))
    return [Table.of([*(fact.column for fact in facts), head, *heads], rows)]


def _under_facts(facts: Sequence[str], rows: Sequence[Row]) -> list[Row]:
    """Return rows behind facts that stand in the first of them alone."""
    return [[*(facts if number == 0 else [""] * len(facts)), *row] for number, row in enumerate(rows)]


def _bound_rows(fields: Sequence[str], result: Result, at: AccuracyBounds,
                stars: np.ndarray | None = None) -> list[Row]:
    """Return the rows of `fields` in percent; a dash is a radius that the run could not have proved."""
    return [[words, *(_accuracy_cells(result, at, stars) if name == "accuracy" else
                      ("-" if result.is_out_of_reach(radius) else percent(value)
                       for radius, value in zip(at.radii, getattr(at, name), strict=True)))]
            for name, words in BOUNDS if name in fields]


def _one_pass_rows(runs: CertifiedRuns, number: int) -> list[Row]:
    """Return the rows of the accuracy with one noisy copy of a run, in percent, where they were asked for."""
    if not runs.one_pass:
        return []
    shown = _ONE_PASS if runs.intervals == "all" else _ONE_PASS[:1]
    return [[words, *map(percent, getattr(runs.one_pass[number], part))] for part, words in shown]


def _accuracy_cells(result: Result, at: AccuracyBounds, stars: np.ndarray | None) -> list[Cell]:
    """Return certified accuracy in percent, with a mark where more samples could raise it."""
    marks = ["" if result.is_decided(radius) else ">=" for radius in at.radii]
    return [Cell("-" if result.is_out_of_reach(radius) else mark + percent(value),
                 best=stars is not None and bool(stars[k]))
            for k, (radius, value, mark) in enumerate(zip(at.radii, at.accuracy, marks, strict=True))]


def _paired_rows(runs: CertifiedRuns) -> list[tuple[str, list[str]]]:
    """Return the name and the cells of each run's difference from the first one, where these were asked for."""
    names = [result.name for result in runs.results]
    return [(f"{names[0]} - {name}", ["-" if all(one.out_of_reach) else
                                      f"{100 * one.value:+.1f} {_interval(one.low, one.high)}" for one in differences])
            for name, differences in zip(names[1:], runs.paired, strict=False)]


def _envelope_rows(fields: Sequence[str], one: BestRuns) -> list[list[str]]:
    return [[words, *map(percent, one.values[name])] for name, words in BOUNDS if name in fields]


def _facts(result: Result) -> list[str]:
    samples = "?"
    if result.n:
        samples = f"<= {result.n:,}" if result.setting.get("procedure", {}).get("n_max") else f"{result.n:,}"
    unfinished = "" if result.complete else "  (UNFINISHED: the run has images left)"
    lines = [f"{result.name}: {result.images} images, sigma {sigma_words(result.sigma)}, {_method(result)}, "
             f"alpha {alpha_words(result.alpha)}, n {samples}{unfinished}",
             f"ACR {_acr(result)}, abstained {percent(result.abstained.mean())}%"]
    if result.asked_to is not None:
        lines.append(f"asked for up to radius {result.asked_to:g}; the curve beyond it and the ACR are a lower bound")
    elif result.is_lower_bound:
        where = f"decided at radius {', '.join(f'{r:g}' for r in result.decided)}" if result.decided else "undecided"
        lines.append(f"sequential, {where}; the curve elsewhere and the ACR are a lower bound")
    return lines


_HEADS = ("radius", "first", "second", "first only", "second only", "first - second", "interval")


def render_comparison(comparison: Comparison, style: str) -> str:
    """Return two runs side by side in one of `FORMATS`."""
    return write(lambda style: _comparison_page(comparison), comparison.rows, style)


def _comparison_page(comparison: Comparison) -> Page:
    (one, two), (left_one, left_two) = comparison.names, comparison.left_out
    left_out = f" ({left_one} of the first and {left_two} of the second are left out)" if left_one or left_two else ""
    above = [f"{one} (first) against {two} (second): {comparison.images} images that both have{left_out}"]
    above += [f"{which}: {network}" for which, network in zip(("first", "second"), comparison.networks, strict=True)
              if network]
    certified = " and certified at the radius" if comparison.differences[0].radius is not None else ""
    if comparison.acr is not None:
        error = "" if comparison.acr_error is None else f" (standard error {comparison.acr_error:.3f}, an estimate)"
        first, second = comparison.acr
        above.append(f"ACR {down(first, 3)} and {down(second, 3)}: difference {first - second:+.3f}{error}")
    undecided = (">=: a run stopped before this radius was decided, so its claims, and the difference, may be too few. "
                 if any(one.lower_bound for one in comparison.differences) else "")
    legend = (f"Percent of the shared images; first only, second only: images that just one of them has right"
              f"{certified}. {undecided}The interval holds the difference on new images with probability "
              f"{confidence(comparison.rho)} at one radius chosen beforehand.")
    rows = [_comparison_row(one, comparison.norm) for one in comparison.differences]
    above += [f"note: {note}" for note in comparison.notes]
    return Page([Table.of(_HEADS, rows, above)], legend=legend)


def _comparison_row(one: Difference, norm: str) -> list[str]:
    radius = "predicted" if one.radius is None else radius_words(one.radius, norm)
    if all(one.out_of_reach):
        return [radius, *["-"] * (len(_HEADS) - 1)]
    mark = ">=" if one.lower_bound else ""
    shares = ("-" if out else mark + percent(value)
              for value, out in zip((one.first, one.second), one.out_of_reach, strict=True))
    return [radius, *shares, str(one.only_first), str(one.only_second), f"{100 * one.value:+.1f}",
            _interval(one.low, one.high)]


def _interval(low: float, high: float) -> str:
    return f"[{_outward(low, math.floor)}, {_outward(high, math.ceil)}]"


def _outward(value: float, step: Callable[[float], int]) -> str:
    return f"{step(1000 * value) / 10:+.1f}"
