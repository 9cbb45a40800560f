"""The pages of regressions and of multi-label runs: a picture, tables, what they say, and what was run."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from smoothcert.errors import SmoothcertError
from smoothcert.report.html.page import fact_table, frame, missing_section
from smoothcert.report.plots.labels import draw_labels, label_curves
from smoothcert.report.plots.style import Picture
from smoothcert.report.plots.widths import curves_of, draw_widths
from smoothcert.report.shown import PAGES
from smoothcert.report.tables import Markup, element
from smoothcert.results.base import Points
from smoothcert.results.gather import RESULTS, PageOutputs
from smoothcert.results.networks import describe_network
from smoothcert.results.regression import CertifiedIntervals


@dataclass(frozen=True)
class Words:
    """The parts of a page that depend on the kind of its runs.

    Attributes:
        title, heading: of the page, before the names of its runs, and of the picture.
        drawn: the picture in words.
        draw: the picture of some results.
        says, says_not: what the figures mean, and what they do not.
    """

    title: str
    heading: str
    drawn: str
    draw: Callable[[Sequence[Any]], Picture]
    says: tuple[str, ...]
    says_not: tuple[str, ...]


WORDS = {
    "regression": Words(
        "Certified intervals", "Width against radius", "Mean widths of the intervals against radius",
        lambda results: draw_widths(curves_of(results)),
        ("For each input, the percentile of the function's outputs under noise stays in the stated interval, wherever "
         "the input is moved by less than the radius in l2 norm. This is a theorem (Chiang et al. 2020), not the "
         "outcome of attacks that failed.",
         "All intervals of an input at one radius hold together with probability at least 1 - alpha over the noise "
         "that was drawn for it."),
        ("It does not say that the function is right: the share of targets inside is observed.",
         "It says nothing about the function without noise: the guarantee is for the percentile over noisy copies.",
         "It is void when the weights, sigma or the preprocessing change, or when radii were chosen after a look at "
         "the outputs.")),
    "multi-label": Words(
        "Certified labels", "Labels against radius",
        "Inputs with all labels right and certified, and the mean label, against radius",
        lambda results: draw_labels(label_curves(results)),
        ("For each input, every label that counts as certified is answered alike, present or absent, wherever the "
         "input is moved by less than the radius in l2 norm. This is a theorem (Cohen et al. 2019), not the outcome of "
         "attacks that failed.",
         "All certified labels of an input at one radius hold together with probability at least 1 - alpha over the "
         "noise that was drawn for it (Holm 1979)."),
        ("It does not say that a certified label is right: which are is counted by the labels of the data.",
         "It says nothing about the network without noise: the guarantee is for the smoothed classifier of each label.",
         "It is void when the weights, sigma, the threshold or the preprocessing change, or when the radius was chosen "
         "after a look at the figures.")),
}


def outputs_report(
    runs: Sequence[PageOutputs], radii: Sequence[float] = (), title: str = "",
    problems: Sequence[SmoothcertError] = (),
) -> str:
    """Return a self-contained HTML page on runs of one kind, of regressions or of labels.

    Args:
        radii: those of the tables; by default the runs' own.
        title: a heading; by default it names the runs.
        problems: what went wrong with runs that the page was to show too.
    """
    results, kind = [run.result for run in runs], runs[0].result.kind
    words = WORDS[kind]
    page = PAGES[kind](RESULTS[kind].runs.of(results, Points(tuple(radii))), "html")
    tables = [block.to_html(block.above[0]) for block in page.blocks if not isinstance(block, str)]
    drawn = base64.b64encode(words.draw(results).to_png()).decode()
    picture = element("img", src=f"data:image/png;base64,{drawn}", style="max-width:100%",
                      alt=f"{words.drawn}; the tables hold the same figures")
    details = [element("details", element("summary", run.result.name), fact_table(_facts(run)), open=len(runs) == 1)
               for run in runs]
    counts = f"{len(runs):,} run{'s' if len(runs) > 1 else ''}, {sum(one.images for one in results):,} inputs."
    return frame(title or f"{words.title}: {', '.join(one.name for one in results[:4])}", counts, [
        missing_section(problems),
        element("section", element("h2", words.heading), picture, id="curves"),
        element("section", element("h2", "Tables"), *tables, *(element("p", line) for line in page.legend.split("\n")),
                id="tables"),
        element("section", element("h2", "What this says"), _list(words.says), element("h3", "What it does not say"),
                _list(words.says_not), id="meaning"),
        element("section", element("h2", "What was certified, and with what"), *details, id="details")])


def _list(lines: Sequence[str]) -> Markup:
    return element("ul", *(element("li", line) for line in lines))


def _facts(run: PageOutputs) -> list[tuple[str, str]]:
    """Return what was certified, how, and with what, in (name, value) lines."""
    result, identity = run.result, run.store.identity
    own = ([("percentile", f"{result.percentile:g}")] if isinstance(result, CertifiedIntervals) else
           [("labels", f"{identity.multi_label.labels}"), ("threshold", f"{identity.multi_label.threshold:g}")])
    return [("inputs", f"{result.images:,}"), *own, ("sigma", f"{result.sigma:g}"),
            ("alpha", f"{result.alpha:g}"), ("samples an input", f"{result.n:,}"),
            ("model", describe_network(run.store)),
            ("data", f"{identity.data.name}, {identity.data.split}, inputs {tuple(identity.data.shape)}"),
            ("SHA-256 of the data", identity.data.sha256), ("seed", str(identity.seed)),
            ("complete", "yes" if result.complete else "no: the run has inputs left")]

