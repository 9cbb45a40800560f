"""The page of a forecast: what a run takes, its parts, and what went in."""

from smoothcert.report.tables import Page, Table
from smoothcert.results.cost import HOUR, LEVEL, Costing

_GIVEN = "An estimate: machines that are busier or slower than those measured take longer."
_PILOTED = (f"An estimate. The interval ({LEVEL:.0%}) has the spread over the pilot's images and the ways that blocks "
            f"can fall to workers; machines that are busier or slower than the pilot's take longer.")


def render_cost(costing: Costing) -> str:
    """Return a forecast for people."""
    found, fleet = costing.forecast, costing.fleet
    limits = (found.seconds, found.low, found.high)
    lines = ["time   " + _between(*(None if s is None else duration(s) for s in limits))]
    if fleet.price is not None:
        prices = map(costing.price, limits)
        lines.append("price  " + _between(*(None if price is None else f"{price:,.2f}" for price in prices)))
    parts = [("startup", found.startup), (f"work, shared by {fleet.all_workers:,}", found.work),
             ("tail: the last block", found.tail), ("redone after preemptions", found.redone)]
    shown = Table.of(["part", "time"], [[name, duration(seconds)] for name, seconds in parts if seconds])
    inputs = Table.of(["input", "value", "from"], [
        [name, "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.4g}", source]
        for name, value, source in costing.sources], left=(0, 2))
    legend = "\n".join([*(f"note: {note}" for note in costing.notes), _GIVEN if found.low is None else _PILOTED])
    return Page(["\n".join(lines), shown, inputs], legend=legend).to_text()


def duration(seconds: float) -> str:
    """Return seconds in a unit that suits them, to three digits.

    >>> duration(0.5), duration(75), duration(5000), duration(1e6)
    ('0.5 s', '75 s', '1.39 h', '11.6 days')
    """
    for size, unit in ((86400.0, "days"), (HOUR, "h"), (60.0, "min")):
        if seconds >= 2 * size or (unit == "h" and seconds >= size):
            value = seconds / size
            return f"{f'{value:,.0f}' if value >= 100 else f'{value:.3g}'} {unit}"
    return f"{seconds:.3g} s"


def _between(value: str | None, low: str | None, high: str | None) -> str:
    return f"{value}" if low is None else f"{value}  ({low} to {high})"
