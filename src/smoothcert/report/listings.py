"""Comparisons of two runs and tables of predictions, in every format that tables have."""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from smoothcert.checks import check_known
from smoothcert.report.tables import FORMATS, aligned, escaped, radius_words
from smoothcert.results.compare import Comparison, Difference, run_notes, why_not_side_by_side
from smoothcert.results.figures import alpha_words, down, percent, sigma_words
from smoothcert.results.predictions import Predicted

_HEAD = ("radius", "first", "second", "first only", "second only", "first - second", "interval")


def render_comparison(comparison: Comparison, style: str) -> str:
    """Two runs side by side: text, markdown, csv or latex."""
    check_known("format", style, FORMATS)
    if style == "csv":
        return csv_lines([{**asdict(d), "difference": d.value} for d in comparison.differences])
    one, two = comparison.names
    facts = [f"{one} (first) against {two} (second): {comparison.images} images that both have{_left_out(comparison)}"]
    if comparison.acr is not None:
        error = "" if comparison.acr_error is None else f" (standard error {comparison.acr_error:.3f}, an estimate)"
        first, second = comparison.acr
        facts.append(f"ACR {down(first, 3)} and {down(second, 3)}: difference {first - second:+.3f}{error}")
    told = [*facts, *(f"note: {note}" for note in comparison.notes)]
    return laid_out(told, [_HEAD, *(_row(d, comparison.norm) for d in comparison.differences)], style,
                     _comparison_legend(comparison))


def comparison_content(comparison: Comparison) -> dict[str, Any]:
    """A comparison as plain values, for programs."""
    return {**asdict(comparison), "differences": [{**asdict(d), "difference": d.value} for d in comparison.differences]}


def render_predictions(runs: Sequence[Predicted], rho: float, style: str) -> str:
    """Accuracy and abstention of runs of PREDICT: text, markdown, csv or latex."""
    check_known("format", style, FORMATS)
    if style == "csv":
        return csv_lines([prediction_content(look, rho) for run in runs for look in run.looks])
    head = ["run", "images", "sigma", "alpha", "n", "accuracy", "abstained", "this test set, at least",
            "new images, at least"]
    rows = [[run.name + ("" if run.complete else " (UNFINISHED)"), str(run.images),
             sigma_words(run.sigma), alpha_words(run.alpha), f"{run.n:,}" if run.n else "?",
             *map(percent, _shares(run, rho))] for one in runs for run in one.looks]
    legend = (f"Percent, rounded down; an abstention counts as wrong. Lower bounds of the smoothed classifier's own "
              f"accuracy hold with probability {1 - rho:g}."
              + (" Each n of a run is judged at alpha by itself." if any(run.earlier for run in runs) else ""))
    why_not, lacking = why_not_side_by_side(runs)
    warning = [f"WARNING: not comparable: {why_not}"] if why_not else []
    notes = [f"note: {note}" for note in (*run_notes(runs), *lacking)]
    return laid_out(warning, [head, *rows], style, "\n".join([*notes, legend]))


def prediction_content(run: Predicted, rho: float) -> dict[str, Any]:
    """One run of PREDICT as plain values, for programs."""
    accuracy, abstained, test_set, population = _shares(run, rho)
    return {"name": run.name, "images": run.images, "complete": run.complete,
            "sigma": None if math.isnan(run.sigma) else run.sigma, "alpha": run.alpha, "n": run.n, "rho": rho,
            "accuracy": accuracy, "abstained": abstained, "test_set": test_set, "population": population}


def _shares(run: Predicted, rho: float) -> tuple[float, float, float, float]:
    at = run.bounds(rho)
    return float(at.accuracy[0]), float(run.abstained.mean()), float(at.test_set[0]), float(at.population[0])


def _row(d: Difference, norm: str) -> list[str]:
    mark = ">=" if d.lower_bound else ""
    radius = "predicted" if d.radius is None else radius_words(d.radius, norm)
    if all(d.out_of_reach):
        return [radius, *["-"] * (len(_HEAD) - 1)]
    shares = ("-" if out else mark + percent(v) for v, out in zip((d.first, d.second), d.out_of_reach, strict=True))
    return [radius, *shares, str(d.only_first), str(d.only_second), f"{100 * d.value:+.1f}",
            f"[{_outward(d.low, math.floor)}, {_outward(d.high, math.ceil)}]"]


def _outward(value: float, step: Callable[[float], int]) -> str:
    return f"{step(1000 * value) / 10:+.1f}"


def _left_out(comparison: Comparison) -> str:
    one, two = comparison.left_out
    return f" ({one} of the first and {two} of the second are left out)" if one or two else ""


def _comparison_legend(comparison: Comparison) -> str:
    words = ("Percent of the shared images; first only, second only: images that just one of them has right"
             + ("" if comparison.acr is None else " and certified at the radius") + ". ")
    undecided = (">=: a run stopped before this radius was decided, so its claims, and the difference, may be too few. "
                 if any(d.lower_bound for d in comparison.differences) else "")
    return words + undecided + (
        f"The interval holds the difference on new images with probability {1 - comparison.rho:g} at one radius chosen "
        f"beforehand.")


def laid_out(facts: Sequence[str], rows: Sequence[Sequence[str]], style: str, legend: str) -> str:
    """One table between facts and a legend, the first row its head: text, markdown or latex."""
    if style == "text":
        return "\n".join([*facts, aligned(rows), "", legend])
    if style == "markdown":
        lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
        lines.insert(1, f"|{'|'.join('---' for _ in rows[0])}|")
        return "\n".join([*(f"{fact}\n" for fact in facts), *lines, "", legend])
    body = [" & ".join(map(escaped, row)) + r" \\" for row in rows]
    comments = [f"% {line}" for line in "\n".join([*facts, legend]).splitlines()]
    columns = "l" + "r" * (len(rows[0]) - 1)
    return "\n".join([*comments, rf"\begin{{tabular}}{{{columns}}}", r"\toprule", body[0], r"\midrule", *body[1:],
                      r"\bottomrule", r"\end{tabular}"])


def csv_lines(rows: Sequence[dict[str, Any]]) -> str:
    """CSV of rows with the same keys."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().rstrip("\n")
