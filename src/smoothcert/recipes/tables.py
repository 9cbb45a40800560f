"""The comparison of a recipe as tables, for a terminal and in Markdown."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from smoothcert.io.files import write_json, write_text
from smoothcert.recipes.comparison import RHO, Best, Comparison, Figure, Line
from smoothcert.report.distributional_tables import up
from smoothcert.report.tables import down


def write_comparison(comparison: Comparison, out: Path) -> None:
    """reproduced.md and reproduced.json in `out`."""
    write_text(out / "reproduced.md", markdown(comparison) + "\n")
    write_json(out / "reproduced.json", comparison.content())


def markdown(comparison: Comparison) -> str:
    """Headings, notes, and a table for each step."""
    recipe = comparison.plan.recipe
    blocks = [f"# {recipe.title}", f"{recipe.source}. Recipe `{recipe.name}`, {_scale_words(comparison)}"]
    for step, rows in _tables(comparison):
        head, *body = [f"| {' | '.join(row)} |" for row in rows]
        rule = f"|{'|'.join('---' for _ in rows[0])}|"
        blocks += [f"## {step}", "\n".join([head, rule, *body])]
    return "\n\n".join([*blocks, _legend(comparison), *([recipe.notes.strip()] if recipe.notes else [])])


def text(comparison: Comparison) -> str:
    """The same for a terminal, without the notes."""
    recipe = comparison.plan.recipe
    blocks = [f"{recipe.title} ({recipe.source})\n{_scale_words(comparison)}"]
    for step, rows in _tables(comparison):
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join([*(c.ljust(w) for c, w in zip(row[:2], widths[:2], strict=True)),
                            *(c.rjust(w) for c, w in zip(row[2:], widths[2:], strict=True))]).rstrip() for row in rows]
        blocks.append("\n".join([f"{step}:", *lines]))
    return "\n\n".join([*blocks, _legend(comparison)])


_MEASURES = {
    ("certify", "accuracy"): ", certified accuracy by radius",
    ("recertify", "accuracy"): ", certified accuracy by radius",
    ("predict", "accuracy"): ", accuracy",
    ("attack", "accuracy"): ", accuracy under attack by eps",
    ("attack", "changed"): ", answers changed by attack, by multiples of the certified radius",
    ("distributional", "bound"): ", bound on the expected loss by transport cost rho",
}


def _tables(comparison: Comparison) -> Iterator[tuple[str, list[list[str]]]]:
    """(step, rows of cells, the first of them the head) for every step measured."""
    for step in dict.fromkeys(line.step for line in comparison.lines):
        lines = [line for line in comparison.lines if line.step == step]
        at = sorted({figure.at for line in lines for figure in line.figures})
        rows = [["row", "", "images", "training", "ACR", "abstained", *(f"{point:g}" for point in at)]]
        for line in lines:
            rows += _cells(comparison, line, at)
        for best in comparison.best:
            if best.step == step:
                rows += _best_cells(best, at)
        filled = [i for i in range(len(rows[0])) if i < 2 or any(row[i] for row in rows[1:])]
        yield step + _MEASURES[lines[0].verb, lines[0].measure], [[row[i] for i in filled] for row in rows]


def _cells(comparison: Comparison, line: Line, at: Sequence[float]) -> Iterator[list[str]]:
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


def _best_cells(best: Best, at: Sequence[float]) -> Iterator[list[str]]:
    figures = {figure.at: figure for figure in best.figures}
    points = [figures.get(point) for point in at]
    yield [best.name, "paper", "", "", "", "", *(_percent(f.expected, round) if f else "" for f in points)]
    yield ["", f"best of {best.rows} of {best.of} runs", "", "", "", "",
           *("" if f is None else "-" if f.out_of_reach else _percent(f.obtained, math.floor) for f in points)]


def _scale_words(comparison: Comparison) -> str:
    recipe, scale = comparison.plan.recipe, comparison.plan.scale
    words = f"scale {scale}: {recipe.scales[scale].about.strip()}"  # type: ignore[index]
    if scale == "paper" or not (recipe.best or any(row.expected for row in recipe.rows)):
        return words
    belong = "belong to scale paper" if "paper" in recipe.scales else "are of another network, which the source names"
    return f"{words} The paper's figures {belong}: they need not agree."


def _legend(comparison: Comparison) -> str:
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


def _equal_words(comparison: Comparison) -> str:
    """Which rows are one run at this scale."""
    groups = dict.fromkeys(line.rows for line in comparison.lines if len(line.rows) > 1)
    if not groups:
        return ""
    told = "; ".join(" = ".join(rows) for rows in groups)
    return (f"Equal rows are one run at this scale, trained and measured once: {told}. The paper's figures stand "
            f"beside them where they agree. ")


def _percent(value: float | None, rounding: Callable[[float], int]) -> str:
    return "" if value is None else f"{rounding(round(1000 * value, 6)) / 10:.1f}"


def _acr(value: float | None) -> str:
    return "" if value is None else down(value, 3)
