"""Tables of certified accuracy: text, Markdown, CSV and LaTeX. Every figure is rounded down, never up."""

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from smoothcert.checks import check_known
from smoothcert.results.best import Best, Board, best_method
from smoothcert.results.certified import Result
from smoothcert.results.compare import reach_notes
from smoothcert.results.figures import alpha_words, down, percent, sigma_words
from smoothcert.stats import CertifiedAccuracy
from smoothcert.store.names import few

BOUNDS = (
    ("accuracy", "certified accuracy"),
    ("test_set", "this test set, at least"),
    ("bernstein", "this test set, Bernstein"),
    ("population", "new images, at least"),
    ("all_radii", "this test set, all radii at once"),
)
"""What is printed at each radius: fields of `smoothcert.stats.CertifiedAccuracy`, and their names."""


_LATEX = {**{character: "\\" + character for character in "&%$#_{}"}, "\\": r"\textbackslash{}",
          "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}"}


def render(
    results: Sequence[Result], radii: Sequence[float], rho: float, style: str, envelopes: bool = False
) -> str:
    """A table of `results` at `radii`, with intervals that hold with probability 1 - rho.

    Of several runs over one data set the best at each radius is marked; with `envelopes` the envelope over the runs of
    each method is a row of its own.
    """
    make = FORMATS[check_known("format", style, FORMATS)]
    return make(Board.of(results, radii, rho, envelopes))


def summary(result: Result, radii: Sequence[float], rho: float, at: CertifiedAccuracy | None = None) -> dict[str, Any]:
    """One result as plain numbers, for programs; `at` spares computing its accuracies again."""
    at = at or result.at(radii, rho)
    return {
        "name": result.name, "images": result.images, "complete": result.complete,
        "sigma": None if math.isnan(result.sigma) else result.sigma,
        "method": result.method, "alpha": result.alpha, "n": result.n, "margin": result.margin, "rho": rho,
        "norm": result.norm, "rounded_up": result.printed, "notes": list(result.remarks),
        "lower_bound": result.is_lower_bound, "decided": result.decided, "r_max": result.ceiling,
        "acr": result.acr, "abstained": int(result.abstained.sum()), "radii": at.radii.tolist(),
        "claimed": at.claimed.tolist(),
        **{field: getattr(at, field).tolist() for field, _ in BOUNDS},
    }


def text(board: Board) -> str:
    """For a terminal: of each run a line of facts, then percentages at each radius; of several an overview below."""
    blocks = [f"WARNING: {board.warning}"] if board.warning else []
    for result, at in zip(board.results, board.at, strict=True):
        rows = [["radius", *_heads(board)], *_percentages(result, at, BOUNDS)]
        blocks.append("\n".join([_facts(result), aligned(rows)]))
    if len(board.results) > 1:
        blocks.append("certified accuracy; ACR beside it\n" + aligned(list(_overview(board))))
    if board.with_envelopes:
        blocks += ["\n".join([_envelope_facts(one, board), aligned([["radius", *_heads(board)], *_envelope_rows(one)])])
                   for one in board.envelopes]
    notes = "\n".join(f"note: {note}" for note in _notes(board))
    return "\n\n".join([*blocks, *([notes] if notes else []), _legend(board)])


def markdown(board: Board) -> str:
    """One table, a row for each run and bound; the best certified accuracy at each radius is bold."""
    head = ["run", "images", "sigma", "method", "alpha", "ACR", "abstained", "%", *_heads(board)]
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join('---' for _ in head)}|"]
    for result, at, stars in zip(board.results, board.at, board.stars, strict=True):
        facts = [result.name, str(result.images), sigma_words(result.sigma), _method(result), alpha_words(result.alpha),
                 _acr(result), _share(result)]
        rows = _percentages(result, at, BOUNDS)
        rows[0][1:] = [f"**{cell}**" if star else cell for cell, star in zip(rows[0][1:], stars, strict=True)]
        lines += _markdown_lines(facts, rows)
    for one in board.envelopes if board.with_envelopes else ():
        lines += _markdown_lines([one.name, "", "", "", "", "", ""], _envelope_rows(one))
    warning = [f"**Warning: {board.warning}.**\n"] if board.warning else []
    return "\n".join([*warning, *lines, "", *(f"Note: {note}.\n" for note in _notes(board)), _legend(board)])


def tidy(board: Board) -> str:
    """CSV, one line for each run and radius, fractions in full precision."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["run", "images", "sigma", "method", "alpha", "n", "margin", "acr", "lower_bound", "abstained",
                     "rho", "radius", "decided", "claimed", *(field for field, _ in BOUNDS),
                     "group", "norm", "rounded_up", "best"])
    for result, at, stars in zip(board.results, board.at, board.stars, strict=True):
        facts = [result.name, result.images, sigma_words(result.sigma).strip("?"), result.method, result.alpha,
                 result.n, result.margin, result.acr, result.is_lower_bound, int(result.abstained.sum()), board.rho]
        for i, radius in enumerate(at.radii):
            bounds = (getattr(at, field)[i] for field, _ in BOUNDS)
            writer.writerow([*facts, radius, result.is_decided(radius), at.claimed[i], *bounds, result.group,
                             result.norm, result.printed, bool(stars[i])])
    for one in board.envelopes if board.with_envelopes else ():
        for i, radius in enumerate(one.radii):
            writer.writerow([one.name, "", one.sigma[i], "", "", "", "", "", "", "", board.rho, radius, "", "",
                             *(one.values[field][i] for field, _ in BOUNDS), one.group, board.results[0].norm, "", ""])
    return out.getvalue().rstrip("\n")


def latex(board: Board) -> str:
    """A booktabs table of certified accuracy and its exact test-set bound; the best at each radius is bold."""
    head = " & ".join(["run", r"$\sigma$", "ACR", "abst.\\ (\\%)", "", *_heads(board)])
    columns = "lrrrl" + "r" * len(board.radii)
    warning = [f"WARNING: {board.warning}"] if board.warning else []
    lines = [*(f"% {note}" for note in (*warning, *_notes(board), _legend(board))),
             rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head + r" \\", r"\midrule"]
    for result, at, stars in zip(board.results, board.at, board.stars, strict=True):
        rows = _percentages(result, at, BOUNDS[:2])
        rows[0][1:] = [rf"\textbf{{{cell}}}" if star else cell for cell, star in zip(rows[0][1:], stars, strict=True)]
        facts = [escaped(result.name), sigma_words(result.sigma), _acr(result, r"$\ge$ "), _share(result).rstrip("%")]
        lines += [" & ".join([*(facts if i == 0 else [""] * 4), *row]) + r" \\" for i, row in enumerate(rows)]
    for one in board.envelopes if board.with_envelopes else ():
        facts = [escaped(one.name), "", "", ""]
        lines += [" & ".join([*(facts if i == 0 else [""] * 4), *row]) + r" \\"
                  for i, row in enumerate(_envelope_rows(one)[:2])]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


FORMATS: dict[str, Callable[[Board], str]] = {"text": text, "markdown": markdown, "csv": tidy, "latex": latex}


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Cells in columns, the first to the left and the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:],
                                                                                          strict=True))]).rstrip()
                     for row in rows)


def radius_words(radius: float, norm: str) -> str:
    """A radius as people write it; l_inf ones as k/255.

    >>> radius_words(0.5, "l2"), radius_words(2 / 255, "linf")
    ('0.5', '2/255')
    """
    levels = radius * 255
    if norm == "linf" and radius and abs(levels - round(levels)) < 1e-6:
        return f"{round(levels)}/255"
    return f"{radius:g}"


def _overview(board: Board) -> Iterator[list[str]]:
    """A row for each run, the best at each radius starred, and below them which sigma and which method is best."""
    yield ["run", "sigma", "ACR", *(f"{head} " for head in _heads(board))]
    for result, at, stars in zip(board.results, board.at, board.stars, strict=True):
        (row,) = _percentages(result, at, BOUNDS[:1])
        yield [result.name, sigma_words(result.sigma), _acr(result),
               *(cell + ("*" if star else " ") for cell, star in zip(row[1:], stars, strict=True))]
    for one in board.envelopes:
        yield [f"best sigma of {one.group}" if one.group else "best sigma", "", "", *(f"{s} " for s in one.sigma)]
    if len(board.envelopes) > 1:
        yield ["best method", "", "", *(f"{method} " for method in best_method(board.envelopes))]


def _percentages(result: Result, at: CertifiedAccuracy, bounds: Sequence[tuple[str, str]]) -> list[list[str]]:
    return [[words, *(_cell(result, at, field, k) for k in range(len(at.radii)))] for field, words in bounds]


def _cell(result: Result, at: CertifiedAccuracy, field: str, k: int) -> str:
    """Percent, rounded down; certified accuracy that more samples could raise is marked."""
    if result.is_out_of_reach(at.radii[k]):
        return "-"
    mark = ">=" if field == "accuracy" and not result.is_decided(at.radii[k]) else ""
    return mark + percent(getattr(at, field)[k])


def _envelope_rows(one: Best) -> list[list[str]]:
    return [[words, *map(percent, one.values[field])] for field, words in BOUNDS]


def _envelope_facts(one: Best, board: Board) -> str:
    count = len(board.results)
    return f"{one.name}: the best of {few(one.runs)} at each radius; bounds at rho = {board.rho:g} / {count} runs"


def _notes(board: Board) -> list[str]:
    """The notes of a board, and what a dash in it means."""
    return [*board.notes, *reach_notes(board.results, board.radii)]


def _heads(board: Board) -> list[str]:
    return [radius_words(r, board.results[0].norm) for r in board.radii]


def _markdown_lines(facts: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = ([*(facts if number == 0 else [""] * len(facts)), *row] for number, row in enumerate(rows))
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells]


def _facts(result: Result) -> str:
    unfinished = "" if result.complete else "  (UNFINISHED: the run has images left)"
    return (f"{result.name}: {result.images} images, sigma {sigma_words(result.sigma)}, {_method(result)}, "
            f"alpha {alpha_words(result.alpha)}, n {_samples(result)}{unfinished}\n"
            f"ACR {_acr(result)}, abstained {_share(result)}{_bounded(result)}")


def _samples(result: Result) -> str:
    if not result.n:
        return "?"
    return f"<= {result.n:,}" if result.setting.get("procedure", {}).get("n_max") else f"{result.n:,}"


def _acr(result: Result, mark: str = ">= ") -> str:
    return (mark if result.is_lower_bound else "") + down(result.acr, 3 if result.norm == "l2" else 5)


def _bounded(result: Result) -> str:
    if not result.is_lower_bound:
        return ""
    where = f"decided at radius {', '.join(f'{r:g}' for r in result.decided or ())}" if result.decided else "undecided"
    return f"\nsequential, {where}; the curve elsewhere and the ACR are a lower bound"


def _legend(board: Board) -> str:
    norm = "" if board.results[0].norm == "l2" else "l_inf radii, of the ball inside the l2 ball. "
    best = "* best at this radius. " if any(stars.any() for stars in board.stars) else ""
    return (f"{norm}{best}Percent, rounded down; certified accuracy = right class and radius >= r. Lower bounds hold "
            f"with probability {1 - board.rho:g} at one radius chosen beforehand; ACR = average certified radius.")


def _method(result: Result) -> str:
    method = result.method or "method ?"
    return method if result.margin is None else f"{method} with margin {result.margin:g}"


def _share(result: Result) -> str:
    return f"{percent(result.abstained.mean())}%"


def escaped(text: str) -> str:
    """Text as LaTeX shows it."""
    return "".join(_LATEX.get(character, character) for character in text)
