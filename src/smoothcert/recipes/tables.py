"""The comparison of a recipe as tables, for a terminal and in Markdown; and the list of recipes."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from smoothcert.io.files import write_json, write_text
from smoothcert.recipes.comparison import RHO, BestLine, Figure, Line, RecipeComparison
from smoothcert.recipes.recipe import Recipe
from smoothcert.report.tables import Page, Table
from smoothcert.results.figures import down, up

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
                rows += _best_cells(best, at)
        filled = [i for i in range(len(heads)) if i < 2 or any(row[i] for row in rows)]
        table = Table.of([heads[i] for i in filled], [[row[i] for i in filled] for row in rows], left=(0, 1))
        yield step + _MEASURES[lines[0].verb, lines[0].measure], table


def _cells(comparison: RecipeComparison, line: Line, at: Sequence[float]) -> Iterator[list[str]]:
    figures = {figure.at: figure for figure in line.figures}
    points = [figures.get(point) for point in at]
    marked = comparison.plan.scale == "paper"
    named = f"{line.row}, {line.setting}" if line.setting else line.row
    expected = ["", "", _acr(line.expected_acr), _percent(line.expected_abstained, round),
                *(_percent(f.expected, round) if f else "" for f in points)]
    if any(expected):
        yield [named, "paper", *expected]
    yield ["" if any(expected) else named, "obtained", str(line.images), f"{line.seconds:,.0f} s" if line.seconds
           else "", _acr(line.acr), _percent(line.abstained, round),
           *(_obtained(line, f) + ("*" if marked and f.excludes_expected else "") if f else "" for f in points)]
    if line.measure != "bound":
        yield ["", f"{1 - RHO:.0%}", "", "", "", "", *(
            "" if f is None else "-" if f.out_of_reach
            else f"{_percent(f.low, math.floor)}-{_percent(f.high, math.ceil)}" for f in points)]


def _obtained(line: Line, figure: Figure) -> str:
    if figure.out_of_reach:
        return "-"
    return up(figure.obtained) if line.measure == "bound" else _percent(figure.obtained, math.floor)


def _best_cells(best: BestLine, at: Sequence[float]) -> Iterator[list[str]]:
    figures = {figure.at: figure for figure in best.figures}
    points = [figures.get(point) for point in at]
    yield [best.name, "paper", "", "", "", "", *(_percent(f.expected, round) if f else "" for f in points)]
    yield ["", f"best of {best.rows} of {best.of} runs", "", "", "", "",
           *("" if f is None else "-" if f.out_of_reach else _percent(f.obtained, math.floor) for f in points)]


def _scale_words(comparison: RecipeComparison) -> str:
    recipe, scale = comparison.plan.recipe, comparison.plan.scale
    words = f"scale {scale}: {recipe.scales[scale].about.strip()}"  # type: ignore[index]
    if scale == "paper" or not (recipe.best or any(row.expected for row in recipe.rows)):
        return words
    belong = "belong to scale paper" if "paper" in recipe.scales else "are of another network, which the source names"
    return f"{words} The paper's figures {belong}: they need not agree."


def _legend(comparison: RecipeComparison) -> str:
    words = _equal_words(comparison)
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


def _equal_words(comparison: RecipeComparison) -> str:
    """Return which rows are one run at this scale."""
    groups = dict.fromkeys(line.rows for line in comparison.lines if len(line.rows) > 1)
    if not groups:
        return ""
    equal = "; ".join(" = ".join(rows) for rows in groups)
    return (f"Equal rows are one run at this scale, trained and measured once: {equal}. The paper's figures stand "
            f"beside them where they agree. ")


def _percent(value: float | None, rounding: Callable[[float], int]) -> str:
    return "" if value is None else f"{rounding(round(1000 * value, 6)) / 10:.1f}"


def _acr(value: float | None) -> str:
    return "" if value is None else down(value, 3)
