"""Figures that a recipe expected beside those obtained from its finished steps, and their tables for people."""

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from smoothcert.io.files import write_json, write_text
from smoothcert.recipes.plan import RecipePlan, Task
from smoothcert.recipes.recipe import VERBS, Expected, Recipe
from smoothcert.report.tables import Page, Table
from smoothcert.results.base import Measured, StoreResult
from smoothcert.results.figures import down, up
from smoothcert.results.gather import read_result
from smoothcert.stats.binomial import clopper_pearson
from smoothcert.store.store import read_store

RHO = 0.05
"""Failure probability of each interval."""


@dataclass(frozen=True)
class Figure:
    """A share of the images, or a bound on the expected loss, at one point.

    Attributes:
        at: a radius (certify), an eps or a multiple of the radius (attack; 0 is clean), or a transport cost
            (distributional).
        low, high: the Clopper-Pearson interval, at confidence 1 - RHO, of that share of new images of the same kind;
            None for bounds, and for the best of several rows, which were chosen by these very images.
        out_of_reach: no sample of the run could have proved that radius, so the figure says nothing.
    """

    at: float
    obtained: float
    low: float | None
    high: float | None
    expected: float | None
    out_of_reach: bool = False

    @property
    def excludes_expected(self) -> bool:
        if self.out_of_reach:
            return False
        return None not in (self.expected, self.low, self.high) and not self.low <= self.expected <= self.high  # type: ignore[operator]


@dataclass(frozen=True)
class Line:
    """The figures of a step for a row.

    Attributes:
        rows: those that are one run at this scale, mostly a single one; a figure is expected of them where all that
            print it agree.
        seconds: of the training of everything that the step used.
        setting: tells apart the attacks or the bounds of a step.
        measure: whether `figures` are each an "accuracy", a share of "changed" answers, or a "bound".
    """

    rows: tuple[str, ...]
    step: str
    verb: str
    folder: str
    images: int
    seconds: float
    figures: tuple[Figure, ...]
    setting: str = ""
    measure: str = "accuracy"
    acr: float | None = None
    expected_acr: float | None = None
    abstained: float | None = None
    expected_abstained: float | None = None

    @property
    def row(self) -> str:
        """The name of the rows together."""
        return " = ".join(self.rows) if len(self.rows) < 3 else f"{self.rows[0]} = {len(self.rows) - 1} more"


@dataclass(frozen=True)
class BestLine:
    """At each radius the best of the rows measured so far, `rows` of `of`; rows that are one run count once."""

    name: str
    step: str
    rows: int
    of: int
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class RecipeComparison:
    """Everything that is finished of a recipe at a scale."""

    plan: RecipePlan
    lines: tuple[Line, ...]
    best: tuple[BestLine, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as plain values."""
        recipe, scale = self.plan.recipe, self.plan.scale
        return {"recipe": recipe.name, "title": recipe.title, "source": recipe.source, "scale": scale,
                "about": recipe.scales[scale].about, "comparable": scale == "paper", "rho": RHO,  # type: ignore[index]
                "lines": [{"row": line.row, **asdict(line)} for line in self.lines],
                "best": [asdict(best) for best in self.best]}


def compare_recipe(plan: RecipePlan, out: Path) -> RecipeComparison:
    """Return the comparison for every row whose steps are complete in `out`."""
    lines = []
    for step in dict.fromkeys(task.step for tasks in plan.tasks.values() for task in tasks):
        done = [(row, task) for row, tasks in plan.tasks.items() for task in tasks
                if task.step == step and VERBS[task.verb].measures and task.is_done(out)]
        results = {task.folder: read_result(read_store(task.path(out))) for _, task in done}
        at = _points(plan, step, list(results.values()))
        for folder, result in results.items():
            rows = tuple(row for row, task in done if task.folder == folder)
            task = next(task for _, task in done if task.folder == folder)
            seconds = _seconds(plan.tasks[rows[0]], task, out)
            # a figure is expected of rows that are one run where all that print it agree
            expected = Expected.parse(_intersect([row.expected[step].model_dump() for row in plan.recipe.rows
                                                    if row.name in rows and step in row.expected]))
            lines += [_line(result, one, expected if one.is_comparable else Expected.parse({}), rows, task, seconds)
                      for one in result.measurements(at)]
    return RecipeComparison(plan, tuple(lines), tuple(_best(plan, lines)))


def _intersect(printed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the values, nested or not, that several mappings have in common wherever they have any."""
    values = {name: [one[name] for one in printed if one.get(name) is not None] for one in printed for name in one}
    return {name: _intersect(found) if isinstance(found[0], dict) else found[0] for name, found in values.items()
            if found and (isinstance(found[0], dict) or all(value == found[0] for value in found))}


def _line(result: StoreResult, one: Measured, expected: Expected, rows: tuple[str, ...], task: Task, seconds: float
          ) -> Line:
    """Return measured figures with the expected ones, and the intervals of shares.

    Radii that the run did not decide are left out: what it has of them is a lower bound, and no figure to compare.
    """
    printed: Mapping[float, float] = getattr(expected, one.measure, {})
    figures = []
    for at, value, out in zip(one.at, one.values, one.out_of_reach or [False] * len(one.at), strict=True):
        if not (out or result.is_decided(at)):
            continue
        low = high = None
        if one.measure != "bound":
            count = round(value * one.images)
            low, high = (float(clopper_pearson(count, one.images, RHO / 2, side)) for side in ("lower", "upper"))
        figures.append(Figure(at, value, low, high, printed.get(at), out))
    return Line(rows, task.step, task.verb, task.folder, one.images, seconds, tuple(figures), one.setting, one.measure,
                one.acr, expected.acr if one.acr is not None else None, one.abstained,
                expected.abstained if one.abstained is not None else None)


def _points(plan: RecipePlan, step: str, results: Sequence[StoreResult]) -> list[float]:
    """Return the radii of a step's table: those printed in the paper or asked for, of this step, or else of any.

    Where there are none, they are evenly spaced.
    """
    def collect(steps: Collection[str]) -> list[float]:
        printed = [row.expected[name].accuracy for row in plan.recipe.rows for name in steps if name in row.expected]
        printed += [best.accuracy for best in plan.recipe.best if best.step in steps]
        asked = [task.options.get("radii", ()) for tasks in plan.tasks.values() for task in tasks if task.step in steps]
        return sorted({float(r) for radii in (*printed, *asked) for r in radii})

    if not results:
        return []
    return collect([step]) or collect([other.name for other in plan.recipe.steps if other.verb == "certify"]) \
        or type(results[0]).default_radii(results)


def _best(plan: RecipePlan, lines: Sequence[Line]) -> Iterator[BestLine]:
    for best in plan.recipe.best:
        chosen = [line for line in lines if line.step == best.step and set(line.rows) & set(best.rows)]
        if not chosen:
            continue
        points = np.array([[figure.obtained for figure in line.figures] for line in chosen]).max(axis=0)
        beyond = [all(line.figures[k].out_of_reach for line in chosen) for k in range(len(points))]
        figures = tuple(Figure(figure.at, float(value), None, None, best.accuracy.get(figure.at), out)
                        for figure, value, out in zip(chosen[0].figures, points, beyond, strict=True))
        of = {task.folder for row in best.rows for task in plan.tasks[row] if task.step == best.step}
        yield BestLine(best.name, best.step, len(chosen), len(of), figures)


def _seconds(tasks: Sequence[Task], task: Task, out: Path) -> float:
    """Return how many seconds the models that a task uses, and those they come from, were trained."""
    used, open_ = set(), {task.folder}
    while open_:
        used |= open_
        open_ = {folder for other in tasks if other.folder in open_ for folder in other.needs} - used
    files = [other.path(out) / "metrics.jsonl" for other in tasks if other.verb == "train" and other.folder in used]
    seconds = 0.0
    for file in files:
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError, TypeError, KeyError, RecursionError, OverflowError):  # a kill cut the line off
                seconds += float(json.loads(line)["seconds"])
    return seconds


_MEASURES = {
    ("certify", "accuracy"): ", certified accuracy by radius",
    ("recertify", "accuracy"): ", certified accuracy by radius",
    ("predict", "accuracy"): ", accuracy",
    ("attack", "accuracy"): ", accuracy under attack by eps",
    ("attack", "changed"): ", answers changed by attack, by multiples of the certified radius",
    ("distributional", "bound"): ", bound on the expected loss by transport cost rho",
}


def write_comparison(comparison: RecipeComparison, out: Path) -> None:
    """Write reproduced.md and reproduced.json into `out`."""
    write_text(out / "reproduced.md", render_markdown(comparison) + "\n")
    write_json(out / "reproduced.json", comparison.to_json())


def render_markdown(comparison: RecipeComparison) -> str:
    """Return headings, notes, and a table for each step, in Markdown."""
    recipe = comparison.plan.recipe
    blocks = [f"# {recipe.title}", f"{recipe.source}. Recipe `{recipe.name}`, {_scale_words(comparison)}"]
    for step, table in _tables(comparison):
        blocks += [f"## {step}", table.to_markdown()]
    return "\n\n".join([*blocks, _legend(comparison), *([recipe.notes.strip()] if recipe.notes else [])])


def render_text(comparison: RecipeComparison) -> str:
    """Return the same for a terminal, without the notes."""
    recipe = comparison.plan.recipe
    head = f"{recipe.title} ({recipe.source})\n{_scale_words(comparison)}"
    tables = [f"{step}:\n{table.to_text()}" for step, table in _tables(comparison)]
    return Page([head, *tables], legend=_legend(comparison)).to_text()


def list_recipes(recipes: Sequence[Recipe]) -> str:
    """Return titles, rows, and what each scale takes."""
    blocks = []
    for recipe in recipes:
        scales = [f"  {name}: {scale.about.strip()}" for name, scale in recipe.scales.items()]
        blocks.append("\n".join([f"{recipe.name}: {recipe.title} ({recipe.source})",
                                 f"  rows: {', '.join(row.name for row in recipe.rows)}", *scales]))
    return "\n\n".join(blocks)


def _tables(comparison: RecipeComparison) -> Iterator[tuple[str, Table]]:
    """Yield (step, table) for every step measured."""
    for step in dict.fromkeys(line.step for line in comparison.lines):
        lines = [line for line in comparison.lines if line.step == step]
        at = sorted({figure.at for line in lines for figure in line.figures})
        heads, rows = ["row", "", "images", "training", "ACR", "abstained", *(f"{point:g}" for point in at)], []
        for line in lines:
            rows += _cells(comparison, line, at)
        for best in comparison.best:
            if best.step == step:
                figures = {figure.at: figure for figure in best.figures}
                points = [figures.get(point) for point in at]
                rows.append([best.name, "paper", "", "", "", "",
                             *(_percent(f.expected, round) if f else "" for f in points)])
                rows.append(["", f"best of {best.rows} of {best.of} runs", "", "", "", "", *(
                    "" if f is None else "-" if f.out_of_reach else _percent(f.obtained, math.floor) for f in points)])
        filled = [i for i in range(len(heads)) if i < 2 or any(row[i] for row in rows)]
        table = Table.of([heads[i] for i in filled], [[row[i] for i in filled] for row in rows], left=(0, 1))
        yield step + _MEASURES[lines[0].verb, lines[0].measure], table


def _cells(comparison: RecipeComparison, line: Line, at: Sequence[float]) -> Iterator[list[str]]:
    figures = {figure.at: figure for figure in line.figures}
    points = [figures.get(point) for point in at]
    marked = comparison.plan.scale == "paper"
    name = f"{line.row}, {line.setting}" if line.setting else line.row
    expected = ["", "", _acr(line.expected_acr), _percent(line.expected_abstained, round),
                *(_percent(f.expected, round) if f else "" for f in points)]
    if any(expected):
        yield [name, "paper", *expected]
    yield ["" if any(expected) else name, "obtained", str(line.images), f"{line.seconds:,.0f} s" if line.seconds
           else "", _acr(line.acr), _percent(line.abstained, round),
           *("" if f is None else ("-" if f.out_of_reach else up(f.obtained) if line.measure == "bound"
                                   else _percent(f.obtained, math.floor)) + "*" * (marked and f.excludes_expected)
             for f in points)]
    if line.measure != "bound":
        yield ["", f"{1 - RHO:.0%}", "", "", "", "", *(
            "" if f is None else "-" if f.out_of_reach
            else f"{_percent(f.low, math.floor)}-{_percent(f.high, math.ceil)}" for f in points)]


def _scale_words(comparison: RecipeComparison) -> str:
    recipe, scale = comparison.plan.recipe, comparison.plan.scale
    words = f"scale {scale}: {recipe.scales[scale].about.strip()}"  # type: ignore[index]
    if scale == "paper" or not (recipe.best or any(row.expected for row in recipe.rows)):
        return words
    belong = "belong to scale paper" if "paper" in recipe.scales else "are of another network, which the source names"
    return f"{words} The paper's figures {belong}: they need not agree."


def _legend(comparison: RecipeComparison) -> str:
    words = ""
    if groups := dict.fromkeys(line.rows for line in comparison.lines if len(line.rows) > 1):
        equal = "; ".join(" = ".join(rows) for rows in groups)
        words = (f"Equal rows are one run at this scale, trained and measured once: {equal}. The paper's figures stand "
                 f"beside them where they agree. ")
    words += (f"Percent, rounded down. {1 - RHO:.0%}: Clopper-Pearson interval of the share of new images of the "
             f"same kind. Training: seconds of all models that the line used.")
    if any(line.measure == "bound" for line in comparison.lines):
        words += " Bounds on the loss are in its own units, rounded up."
    if comparison.best:
        words += " The best of several runs is chosen by the images it is measured on, so it leans upwards."
    if any(figure.out_of_reach for line in comparison.lines for figure in line.figures):
        words += " A dash: the samples that were drawn could not have proved this radius, even if all had agreed."
    if comparison.plan.scale == "paper":
        words += " *: the paper's figure lies outside the interval; it has sampling error of its own."
    return words


def _percent(value: float | None, rounding: Callable[[float], int]) -> str:
    return "" if value is None else f"{rounding(round(1000 * value, 6)) / 10:.1f}"


def _acr(value: float | None) -> str:
    return "" if value is None else down(value, 3)
