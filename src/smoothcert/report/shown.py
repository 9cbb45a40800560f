"""Results as every verb prints them: the text, or the plain values, of one store are the same wherever it is shown."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from smoothcert.errors import InputError
from smoothcert.report.attacks import attacks_page
from smoothcert.report.certified import certified_page
from smoothcert.report.distributional import robustness_page
from smoothcert.report.predictions import predictions_page
from smoothcert.report.tables import Page, write
from smoothcert.results.base import Points, Runs, StoreResult
from smoothcert.results.gather import put_side_by_side

PAGES: dict[str, Callable[[Any, str], Page]] = {
    "certify": certified_page, "predict": predictions_page, "distributional": robustness_page, "attack": attacks_page,
}
"""The page of results of each kind, for a format."""


def render(runs: Sequence[Runs], style: str) -> str:
    """Return the tables of results in one of `tables.FORMATS`, those of each kind below those of the one before.

    Raises:
        UnknownNameError: no such format. InputError: CSV of several kinds.
    """
    if style == "csv" and len(runs) > 1:
        raise InputError("CSV has one kind of run in a table: give runs of certification, of PREDICT, of "
                         "distributional bounds, or attacks")
    return "\n\n".join(write(partial(PAGES[one.kind], one), one.rows, style) for one in runs)


def render_result(result: StoreResult, points: Points = Points()) -> str:  # noqa: B008
    """Return the text of one result."""
    return render([put_side_by_side([result], points)], "text")


def result_json(result: StoreResult, points: Points = Points()) -> dict[str, Any]:  # noqa: B008
    """Return one result as plain values."""
    return put_side_by_side([result], points).to_json()[0]
