"""Tables of certified accuracy: text, Markdown, CSV and LaTeX. Every figure is rounded down, never up."""

import csv
import io
import math
from collections.abc import Callable, Sequence
from typing import Any

from smoothcert.checks import check_known
from smoothcert.report.results import Result

BOUNDS = (
    ("accuracy", "certified accuracy"),
    ("test_set", "this test set, at least"),
    ("bernstein", "this test set, Bernstein"),
    ("population", "new images, at least"),
    ("all_radii", "this test set, all radii at once"),
)
"""What is printed at each radius: fields of `smoothcert.stats.CertifiedAccuracy`, and their names."""


def render(results: Sequence[Result], radii: Sequence[float], rho: float, style: str) -> str:
    """A table of `results` at `radii`, with intervals that hold with probability 1 - rho."""
    return FORMATS[check_known("format", style, FORMATS)](results, radii, rho)


def summary(result: Result, radii: Sequence[float], rho: float) -> dict[str, Any]:
    """One result as plain numbers, for programs."""
    at = result.at(radii, rho)
    return {
        "name": result.name, "images": result.images, "complete": result.complete, "sigma": result.sigma,
        "method": result.method, "alpha": result.alpha, "n": result.n, "margin": result.margin, "rho": rho,
        "lower_bound": result.is_lower_bound, "decided": result.decided,
        "acr": result.acr, "abstained": int(result.abstained.sum()), "radii": at.radii.tolist(),
        "claimed": at.claimed.tolist(),
        **{field: getattr(at, field).tolist() for field, _ in BOUNDS},
    }


def text(results: Sequence[Result], radii: Sequence[float], rho: float) -> str:
    """For a terminal: a line of facts, then percentages at each radius."""
    blocks = []
    for result in results:
        rows = [["radius", *(f"{r:g}" for r in radii)], *_percentages(result, radii, rho, BOUNDS)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [[row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
                 for row in rows]
        blocks.append("\n".join([_facts(result), *("  ".join(line) for line in lines)]))
    return "\n\n".join([*blocks, _legend(rho)])


def markdown(results: Sequence[Result], radii: Sequence[float], rho: float) -> str:
    """One table, a row for each run and bound."""
    head = ["run", "images", "sigma", "method", "alpha", "ACR", "abstained", "%", *(f"{r:g}" for r in radii)]
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join('---' for _ in head)}|"]
    for result in results:
        facts = [result.name, str(result.images), f"{result.sigma:g}", _method(result), f"{result.alpha:g}",
                 _acr(result), _share(result)]
        for number, row in enumerate(_percentages(result, radii, rho, BOUNDS)):
            cells = [*(facts if number == 0 else [""] * len(facts)), *row]
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join([*lines, "", _legend(rho)])


def tidy(results: Sequence[Result], radii: Sequence[float], rho: float) -> str:
    """CSV, one line for each run and radius, fractions in full precision."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["run", "images", "sigma", "method", "alpha", "n", "margin", "acr", "lower_bound", "abstained",
                     "rho", "radius", "decided", "claimed", *(field for field, _ in BOUNDS)])
    for result in results:
        facts = [result.name, result.images, result.sigma, result.method, result.alpha, result.n, result.margin,
                 result.acr, result.is_lower_bound, int(result.abstained.sum()), rho]
        at = result.at(radii, rho)
        for i, radius in enumerate(at.radii):
            bounds = (getattr(at, field)[i] for field, _ in BOUNDS)
            writer.writerow([*facts, radius, result.is_decided(radius), at.claimed[i], *bounds])
    return out.getvalue().rstrip("\n")


def latex(results: Sequence[Result], radii: Sequence[float], rho: float) -> str:
    """A booktabs table of certified accuracy and its exact test-set bound."""
    head = " & ".join(["run", r"$\sigma$", "ACR", "abst.\\ (\\%)", "", *(f"{r:g}" for r in radii)])
    columns = "lrrrl" + "r" * len(radii)
    lines = [f"% {_legend(rho)}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head + r" \\", r"\midrule"]
    for result in results:
        rows = _percentages(result, radii, rho, BOUNDS[:2])
        facts = [_escaped(result.name), f"{result.sigma:g}", _acr(result, r"$\ge$ "), _share(result).rstrip("%")]
        lines += [" & ".join([*(facts if i == 0 else [""] * 4), *row]) + r" \\" for i, row in enumerate(rows)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


FORMATS: dict[str, Callable[[Sequence[Result], Sequence[float], float], str]] = {
    "text": text, "markdown": markdown, "csv": tidy, "latex": latex,
}


def _percentages(
    result: Result, radii: Sequence[float], rho: float, bounds: Sequence[tuple[str, str]]
) -> list[list[str]]:
    at = result.at(radii, rho)
    return [[words, *(_cell(result, field, radius, value)
                      for radius, value in zip(at.radii, getattr(at, field), strict=True))] for field, words in bounds]


def _cell(result: Result, field: str, radius: float, value: float) -> str:
    """Percent, rounded down; certified accuracy that more samples could raise is marked."""
    mark = ">=" if field == "accuracy" and not result.is_decided(radius) else ""
    return mark + _down(100 * value, 1)


def _facts(result: Result) -> str:
    unfinished = "" if result.complete else "  (UNFINISHED: the run has images left)"
    return (f"{result.name}: {result.images} images, sigma {result.sigma:g}, {_method(result)}, "
            f"alpha {result.alpha:g}, n {_samples(result)}{unfinished}\n"
            f"ACR {_acr(result)}, abstained {_share(result)}{_bounded(result)}")


def _samples(result: Result) -> str:
    return f"<= {result.n:,}" if "n_max" in result.setting.get("procedure", {}) else f"{result.n:,}"


def _acr(result: Result, mark: str = ">= ") -> str:
    return (mark if result.is_lower_bound else "") + _down(result.acr, 3)


def _bounded(result: Result) -> str:
    if not result.is_lower_bound:
        return ""
    where = f"decided at radius {', '.join(f'{r:g}' for r in result.decided or ())}" if result.decided else "undecided"
    return f"\nsequential, {where}; the curve elsewhere and the ACR are a lower bound"


def _legend(rho: float) -> str:
    return (f"Percent, rounded down; certified accuracy = right class and radius >= r. Lower bounds hold with "
            f"probability {1 - rho:g} at one radius chosen beforehand; ACR = average certified radius.")


def _method(result: Result) -> str:
    return result.method if result.margin is None else f"{result.method} with margin {result.margin:g}"


def _share(result: Result) -> str:
    return f"{100 * result.abstained.mean():.1f}%"


def _down(value: float, digits: int) -> str:
    """`value` with `digits` decimals, rounded down; the tiny step undoes the error of the division before it."""
    scale = 10**digits
    return f"{math.floor(value * scale + 1e-9) / scale:.{digits}f}"


def _escaped(name: str) -> str:
    for character in "&%$#_{}":
        name = name.replace(character, "\\" + character)
    return name
