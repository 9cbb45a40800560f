"""What tables are made of: any number of stores, logs and count files, opened; what cannot be opened is told apart."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from smoothcert.checks import check_count, check_known
from smoothcert.errors import InputError, SmoothcertError
from smoothcert.interop import Named, open_records
from smoothcert.report.attack_tables import attack_summary, render_attacks
from smoothcert.report.distributional_tables import named_rhos, render_robustness
from smoothcert.report.listings import prediction_content, render_predictions
from smoothcert.report.tables import render, summary
from smoothcert.results.attacked import Attack
from smoothcert.results.best import Board, best_content
from smoothcert.results.certified import Result, default_radii, merged
from smoothcert.results.compare import Comparison, Run, compare
from smoothcert.results.distributional import Robustness
from smoothcert.results.predictions import Predicted
from smoothcert.results.several import opened_apart

NORMS = ("l2", "linf")


@dataclass(frozen=True)
class Gathered:
    """Runs of certification, of PREDICT, of distributional bounds and of attacks, and what went wrong with the others,
    each in the order they were named."""

    results: list[Result]
    predicted: list[Predicted]
    problems: list[SmoothcertError]
    robust: list[Robustness] = field(default_factory=list)
    attacks: list[Attack] = field(default_factory=list)


def gather(
    texts: Sequence[str], *, alpha: float | None = None, norm: str = "l2", dimension: int | None = None,
    radius_column: str | None = None, merge: bool = False, whole: bool = False,
) -> Gathered:
    """Open every `PATH` or `METHOD=PATH`.

    Args:
        alpha: failure probability of the answers of count files, and of logs that do not say it.
        norm: "l2", or "linf": see `Result.in_linf`.
        dimension: values of an image, where a run does not say.
        radius_column: the column of logs that holds the radii; see `read_log`.
        merge: take them all as parts of one run over different images.
        whole: raise what goes wrong with any; so does `merge`, and so it is where nothing can be opened.
    """
    check_known("norm", norm, NORMS)
    if dimension is not None:
        check_count("dimension", dimension)
        if norm != "linf":
            raise InputError("--dimension is for --norm linf: leave it out, or give both")
    opening = partial(_opened, alpha=alpha, norm=norm, dimension=dimension, radius_column=radius_column)
    runs, problems = opened_apart(texts, opening, whole or merge)
    results = [run for run in runs if isinstance(run, Result)]
    predicted = [run for run in runs if isinstance(run, Predicted)]
    robust = [run for run in runs if isinstance(run, Robustness)]
    attacks = [run for run in runs if isinstance(run, Attack)]
    if merge and (other := [*predicted, *robust, *attacks]):
        raise InputError(f"{other[0].name} holds no certificates of single images: only runs of certification can be "
                         f"merged")
    return Gathered([merged(results)] if merge else results, predicted, problems, robust, attacks)


def check_asked(runs: Gathered, radii: Sequence[float], envelopes: bool) -> None:
    """Raise InputError for what was asked of a table and none of its runs can show."""
    if envelopes and len(runs.results) < 2:
        raise InputError(f"--envelope is the best of several runs of certification at each radius, and here "
                         f"{'is one' if runs.results else 'are none'}: leave it out, or name more")
    if radii and not (runs.results or runs.robust):
        raise InputError("--radii are for runs of certification and of distributional bounds, and here are none: leave "
                         "them out")


def table_text(runs: Gathered, radii: Sequence[float], rho: float, style: str, envelopes: bool) -> str:
    """The table of the runs of certification, below it those of the runs of PREDICT, of distributional bounds, where a
    radius r is the transport cost r^2, and of attacks."""
    check_asked(runs, radii, envelopes)
    if style == "csv" and sum(map(bool, (runs.results, runs.predicted, runs.robust, runs.attacks))) > 1:
        raise InputError("CSV has one kind of run in a table: give runs of certification, of PREDICT, of "
                         "distributional bounds, or attacks")
    parts = []
    if runs.results:
        parts.append(render(runs.results, radii or default_radii(runs.results), rho, style, envelopes))
    if runs.predicted:
        parts.append(render_predictions(runs.predicted, rho, style))
    if runs.robust:
        parts.append(render_robustness(runs.robust, [radius**2 for radius in radii], style))
    if runs.attacks:
        parts.append(render_attacks(runs.attacks, style))
    return "\n\n".join(parts)


def table_content(runs: Gathered, radii: Sequence[float], rho: float, envelopes: bool) -> list[dict[str, Any]]:
    """The same as plain values: a run an entry, and an entry for each envelope."""
    check_asked(runs, radii, envelopes)
    content = []
    if runs.results:
        board = Board.of(runs.results, radii or default_radii(runs.results), rho, envelopes)
        content += [{**summary(result, board.radii, rho, at), "group": result.group, "best": stars.tolist()}
                    for result, at, stars in zip(board.results, board.at, board.stars, strict=True)]
        content += [best_content(one, rho) for one in board.envelopes] if envelopes else []
    content += [{**prediction_content(look, rho), "notes": list(look.remarks)}
                for run in runs.predicted for look in run.looks]
    costs = [radius**2 for radius in radii] or named_rhos(runs.robust)
    return [*content, *(run.content(costs) for run in runs.robust),
            *({"name": attack.name, **attack_summary(attack.store)} for attack in runs.attacks)]


def compared(runs: Gathered, radii: Sequence[float], rho: float) -> Comparison:
    """The two runs gathered, against each other."""
    if other := [*runs.robust, *runs.attacks]:
        what = "distributional bounds" if runs.robust else "attacks"
        raise InputError(f"{other[0].name} holds {what}, which are not compared image by image: `smoothcert table` "
                         f"shows several side by side")
    if len(runs.results) == 1:
        raise InputError(f"{runs.results[0].name} has radii and {runs.predicted[0].name} the answers of PREDICT: "
                         f"they cannot be compared")
    first, second = runs.results or runs.predicted
    return compare(first, second, list(radii) or (default_radii(runs.results) if runs.results else []), rho)


def _opened(one: Named, alpha: float | None, norm: str, dimension: int | None, radius_column: str | None
            ) -> Run | Robustness | Attack:
    store = open_records(one.path, alpha, radius_column)
    if store.kind != "certify" and norm != "l2":
        raise InputError(f"{one.name} is a store of kind {store.kind}: --norm {norm} is for certified radii alone "
                         f"(rho is a mean squared l2 move): leave it out")
    if store.kind == "attack":
        return Attack.of(store, one.name)
    if store.kind == "distributional":
        return Robustness.of(store, one.name)
    if store.kind == "predict":
        return Predicted.of(store, one.name)
    return replace(Result.of(store, one.name), group=one.group).in_norm(norm, dimension)
