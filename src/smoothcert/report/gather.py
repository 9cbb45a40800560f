"""What tables are made of: any number of stores, logs and count files, opened; what cannot be opened is told apart."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from smoothcert.checks import check_count, check_known
from smoothcert.errors import InputError, SmoothcertError
from smoothcert.report.best import Board, best_content
from smoothcert.report.compare import Comparison, Run, compare
from smoothcert.report.interop import Named, named, open_records
from smoothcert.report.listings import prediction_content, render_predictions
from smoothcert.report.predictions import Predicted
from smoothcert.report.results import Result, default_radii, merged
from smoothcert.report.robustness import Robustness
from smoothcert.report.robustness_tables import named_rhos, render_robustness
from smoothcert.report.tables import render, summary

NORMS = ("l2", "linf")


@dataclass(frozen=True)
class Gathered:
    """Runs of certification, of PREDICT and of distributional bounds, and what went wrong with the others, in the order
    they were named."""

    results: list[Result]
    predicted: list[Predicted]
    problems: list[SmoothcertError]
    robust: list[Robustness] = field(default_factory=list)


def gather(
    texts: Sequence[str], *, alpha: float | None = None, norm: str = "l2", dimension: int | None = None,
    merge: bool = False, whole: bool = False,
) -> Gathered:
    """Open every `PATH` or `METHOD=PATH`.

    Args:
        alpha: failure probability of the answers of logs and count files.
        norm: "l2", or "linf": see `Result.in_linf`.
        dimension: values of an image, where a run does not say.
        merge: take them all as parts of one run over different images.
        whole: raise what goes wrong with any; so does `merge`, and so it is where nothing can be opened.
    """
    check_known("norm", norm, NORMS)
    if dimension is not None:
        check_count("dimension", dimension)
        if norm != "linf":
            raise InputError("--dimension is for --norm linf: leave it out, or give both")
    runs: list[Run | Robustness] = []
    problems: list[SmoothcertError] = []
    for one in named(texts):
        try:
            runs.append(_opened(one, alpha, norm, dimension))
        except SmoothcertError as error:
            if whole or merge or len(texts) == 1 or isinstance(error, InputError):
                raise
            problems.append(error)
    if problems and not runs:
        raise type(problems[0])("\n".join(map(str, problems)))
    results = [run for run in runs if isinstance(run, Result)]
    predicted = [run for run in runs if isinstance(run, Predicted)]
    robust = [run for run in runs if isinstance(run, Robustness)]
    if merge and predicted:
        raise InputError(f"{predicted[0].name} holds predictions: only runs of certification can be merged")
    if merge and robust:
        raise InputError(f"{robust[0].name} holds distributional bounds: only runs of certification can be merged")
    return Gathered([merged(results)] if merge else results, predicted, problems, robust)


def table_text(runs: Gathered, radii: Sequence[float], rho: float, style: str, envelopes: bool) -> str:
    """The table of the runs of certification, below it that of the runs of PREDICT, and that of distributional bounds,
    where a radius r is the transport cost r^2."""
    if style == "csv" and sum(map(bool, (runs.results, runs.predicted, runs.robust))) > 1:
        raise InputError("CSV has one kind of run in a table: give runs of certification, of PREDICT, or of "
                         "distributional bounds")
    parts = []
    if runs.results:
        parts.append(render(runs.results, radii or default_radii(runs.results), rho, style, envelopes))
    if runs.predicted:
        parts.append(render_predictions(runs.predicted, rho, style))
    if runs.robust:
        parts.append(render_robustness(runs.robust, [radius**2 for radius in radii], style))
    return "\n\n".join(parts)


def table_content(runs: Gathered, radii: Sequence[float], rho: float, envelopes: bool) -> list[dict[str, Any]]:
    """The same as plain values: a run an entry, and an entry for each envelope."""
    content = []
    if runs.results:
        board = Board.of(runs.results, radii or default_radii(runs.results), rho, envelopes)
        content += [{**summary(result, board.radii, rho), "group": result.group, "best": stars.tolist()}
                    for result, stars in zip(board.results, board.stars, strict=True)]
        content += [best_content(one, rho) for one in board.envelopes] if envelopes else []
    content += [prediction_content(run, rho) for run in runs.predicted]
    costs = [radius**2 for radius in radii] or named_rhos(runs.robust)
    return content + [run.content(costs) for run in runs.robust]


def compared(runs: Gathered, radii: Sequence[float], rho: float) -> Comparison:
    """The two runs gathered, against each other."""
    if runs.robust:
        raise InputError(f"{runs.robust[0].name} holds distributional bounds, and no answers for single images to "
                         f"compare: `smoothcert table` shows several side by side")
    if len(runs.results) == 1:
        raise InputError(f"{runs.results[0].name} has radii and {runs.predicted[0].name} the answers of PREDICT: "
                         f"they cannot be compared")
    first, second = runs.results or runs.predicted
    return compare(first, second, list(radii) or (default_radii(runs.results) if runs.results else []), rho)


def radius_list(text: str | None) -> list[float]:
    """'0.5,1' or '2/255' as numbers; nothing for None.

    >>> radius_list("0.5, 1/4")
    [0.5, 0.25]
    """
    try:
        return [float(Fraction(part.strip())) for part in (text or "").split(",") if part.strip()]
    except (ValueError, ZeroDivisionError):
        raise InputError(f"radii must be numbers or fractions separated by commas, such as 0.5,1,1.5 or 2/255, "
                         f"got {text!r}") from None


def _opened(one: Named, alpha: float | None, norm: str, dimension: int | None) -> Run | Robustness:
    store = open_records(one.path, alpha)
    if store.kind == "distributional":
        if norm != "l2":
            raise InputError(f"{one.name} holds distributional bounds, whose rho is the mean squared l2 move: leave "
                             f"--norm {norm} out")
        return Robustness.of(store, one.name)
    if store.kind == "predict":
        return Predicted.of(store, one.name)
    result = replace(Result.of(store, one.name), group=one.group)
    return result if norm == "l2" else result.in_linf(dimension)
