"""Results as verbs print them."""

from typing import Any

from smoothcert.report.shown import render, render_result, result_json, under_attack_page
from smoothcert.results.base import Points
from smoothcert.results.compare import under_attack
from smoothcert.results.gather import Gathered, put_side_by_side, read_result
from smoothcert.store.store import Store


def table(results, radii=(), rho: float = 0.05, style: str = "text", envelopes: bool = False,
          intervals: str = "one") -> str:
    """The table of results of one kind."""
    return render([put_side_by_side(results, Points(tuple(radii), rho, envelopes, intervals))], style)


def plain(result, radii=(), rho: float = 0.05) -> dict[str, Any]:
    """A result as plain values."""
    return result_json(result, Points(tuple(radii), rho))


def gathered_table(found: Gathered, radii=(), style: str = "text") -> str:
    """The table of results of any kinds."""
    return render(found.at(Points(tuple(radii))), style)


def gathered_json(found: Gathered) -> list[dict[str, Any]]:
    """Results of any kinds as plain values."""
    return [entry for runs in found.at(Points()) for entry in runs.to_json()]


def store_text(store: Store, certified: Store | None = None) -> str:
    """A store as text; of attacks also beside certificates."""
    text = render_result(read_result(store))
    return text if certified is None else f"{text}\n\n{under_attack_page(under_attack(store, certified)).to_text()}"
