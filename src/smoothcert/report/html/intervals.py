"""The page of regressions: widths of certified intervals, what they say, and what was run."""

import base64
from collections.abc import Sequence

from smoothcert.errors import SmoothcertError
from smoothcert.report.html.page import fact_table, frame, missing_section
from smoothcert.report.plots.widths import curves_of, draw_widths
from smoothcert.report.regression import intervals_page
from smoothcert.report.tables import Markup, element
from smoothcert.results.base import Points
from smoothcert.results.gather import PageIntervals
from smoothcert.results.networks import describe_network
from smoothcert.results.regression import IntervalRuns

SAYS = (
    "For each input, the percentile of the function's outputs under noise stays in the stated interval, wherever the "
    "input is moved by less than the radius in l2 norm. This is a theorem (Chiang et al. 2020), not the outcome of "
    "attacks that failed.",
    "All intervals of an input at one radius hold together with probability at least 1 - alpha over the noise that was "
    "drawn for it.",
)
SAYS_NOT = (
    "It does not say that the function is right: the share of targets inside is observed.",
    "It says nothing about the function without noise: the guarantee is for the percentile over noisy copies.",
    "It is void when the weights, sigma or the preprocessing change, or when radii were chosen after a look at the "
    "outputs.",
)


def intervals_report(
    runs: Sequence[PageIntervals], radii: Sequence[float] = (), title: str = "",
    problems: Sequence[SmoothcertError] = (),
) -> str:
    """Return a self-contained HTML page on regressions.

    Args:
        radii: those of the tables; by default each run's own.
        title: a heading; by default it names the runs.
        problems: what went wrong with runs that the page was to show too.
    """
    results = [run.result for run in runs]
    page = intervals_page(IntervalRuns.of(results, Points(tuple(radii))), "html")
    tables = [block.to_html(block.above[0]) for block in page.blocks if not isinstance(block, str)]
    drawn = base64.b64encode(draw_widths(curves_of(results)).to_png()).decode()
    picture = element("img", src=f"data:image/png;base64,{drawn}", style="max-width:100%",
                      alt="Mean widths of the intervals against radius; the tables hold the same figures")
    details = [element("details", element("summary", run.result.name), fact_table(_facts(run)), open=len(runs) == 1)
               for run in runs]
    words = f"{len(runs):,} run{'s' if len(runs) > 1 else ''}, {sum(one.images for one in results):,} inputs."
    return frame(title or f"Certified intervals: {', '.join(one.name for one in results[:4])}", words, [
        missing_section(problems),
        element("section", element("h2", "Width against radius"), picture, id="curves"),
        element("section", element("h2", "Tables"), *tables, *(element("p", line) for line in page.legend.split("\n")),
                id="tables"),
        element("section", element("h2", "What this says"), _list(SAYS), element("h3", "What it does not say"),
                _list(SAYS_NOT), id="meaning"),
        element("section", element("h2", "What was certified, and with what"), *details, id="details")])


def _list(lines: Sequence[str]) -> Markup:
    return element("ul", *(element("li", line) for line in lines))


def _facts(run: PageIntervals) -> list[tuple[str, str]]:
    """Return what was certified, how, and with what, in (name, value) lines."""
    result, identity = run.result, run.store.identity
    return [("inputs", f"{result.images:,}"), ("percentile", f"{result.percentile:g}"), ("sigma", f"{result.sigma:g}"),
            ("alpha", f"{result.alpha:g}"), ("samples an input", f"{result.n:,}"),
            ("model", describe_network(run.store)),
            ("data", f"{identity.data.name}, {identity.data.split}, inputs {tuple(identity.data.shape)}"),
            ("SHA-256 of the data", identity.data.sha256), ("seed", str(identity.seed)),
            ("complete", "yes" if result.complete else "no: the run has inputs left")]

