"""The page put together: words, tables, charts, gallery, and the script that moves them."""

from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path

from smoothcert.errors import InputError, SmoothcertError
from smoothcert.io.files import make_folder, write_whole
from smoothcert.report.html.charts import LOWER, chart_data, pack, points_legend, swatch
from smoothcert.report.html.facts import ASSUMES, SAYS, SAYS_NOT, find_untested, settings, warnings
from smoothcert.report.html.figures import show_attacks, show_classes, show_tables
from smoothcert.report.html.images import show_pictures, show_single_images
from smoothcert.report.html.quote import quoted_radius, show_quotes
from smoothcert.report.selftest import SelfTest
from smoothcert.report.tables import Markup, Table, element, join_parts
from smoothcert.results.attacks import AttackResult
from smoothcert.results.base import why_not_side_by_side
from smoothcert.results.certified import default_radii
from smoothcert.results.figures import confidence, down
from smoothcert.results.gather import PageRun
from smoothcert.store.names import few, group_by_words
from smoothcert.version import __version__

_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def report_page(
    runs: Sequence[PageRun], radii: Sequence[float] = (), rho: float = 0.05, title: str = "",
    attacks: Sequence[AttackResult] = (), problems: Sequence[SmoothcertError] = (), selftest: SelfTest | None = None,
) -> str:
    """Return a self-contained HTML page on `runs`, with the `attacks` beside them.

    Args:
        radii: those of the table; evenly spaced by default.
        rho: failure probability of each lower bound.
        title: a heading; by default it names the runs.
        problems: what went wrong with runs that the page was to show too.
        selftest: of the installation that made the runs.
    """
    asked, radii = radii, list(radii) or default_radii([run.result for run in runs])
    title = title or f"Certified robustness: {', '.join(run.name for run in runs[:4])}{' ...' if runs[4:] else ''}"
    words = (f"{len(runs):,} run{'s' if len(runs) > 1 else ''} with {sum(run.result.images for run in runs):,} "
             f"certificates. Percentages and radii are rounded down. Lower bounds hold with probability "
             f"{confidence(rho)} at one radius chosen beforehand.")
    meaning = [join_parts(element(f"h{level}", title), element("ul", *(element("li", line) for line in lines)))
               for level, title, lines in ((2, "What this says", SAYS), (3, "What it does not say", SAYS_NOT),
                                           (3, "What it assumes", ASSUMES))]
    return frame(title, words, [
        missing_section(problems), show_quotes(runs, asked, rho), _warnings(runs, attacks), _selftest(selftest, runs),
        _curves(runs, attacks, quoted_radius(runs[0].result, asked)), *show_tables(runs, radii, rho),
        show_classes(runs, radii), show_attacks(attacks), element("section", *meaning, id="meaning"), _charts(),
        show_pictures(runs), show_single_images(runs), _details(runs)],
        [element("script", pack(chart_data(runs, rho), attacks), type="application/json", id="data"),
         element("script", _own("chart.js")), element("script", _own("page.js"))])


def frame(title: str, words: str, sections: Iterable[str], scripts: Sequence[str] = ()) -> str:
    """Return a page of its own around sections: nothing in it asks anything of a network."""
    head = join_parts(
        element("meta", charset="utf-8"), element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title), element("style", _own("page.css")),
    )
    themes = [element("option", word, value=word.lower()) for word in ("Auto", "Light", "Dark")]
    header = element("header", element("div", element("h1", title), element("p", words)),
                     element("label", "Colours ", element("select", *themes, id="theme")) if scripts else "")
    return "".join([  # in one step: of many runs these are megabytes
        '<!doctype html>\n<html lang="en">', element("head", head), "<body>",
        element("a", "Skip to the figures", href="#curves", class_="skip"), header, "<main>", *sections, "</main>",
        element("footer", f"Made by smoothcert {__version__} from stored counts. This page asks nothing of a network."),
        *scripts, "</body></html>\n"])


def missing_section(problems: Sequence[SmoothcertError]) -> str:
    """Return a section on the runs that a page was to show too; "" where there are none."""
    return element(
        "section", element("h2", "Missing from this page"), element("p", "It was to show these too:"),
        element("ul", *(element("li", str(problem)) for problem in problems)), class_="warn", id="missing",
    ) if problems else ""


def _warnings(runs: Sequence[PageRun], attacks: Sequence[AttackResult]) -> Markup:
    """Return warnings: first why the runs are not to be compared, then each run's own."""
    why_not, lacking = why_not_side_by_side([*(run.result for run in runs), *attacks])
    items = [element("li", element("strong", "Not to be compared"), f": {'; '.join([why_not, *lacking])}.")
             ] if why_not else []
    found = [(run.name, line) for run in runs for line in warnings(run)]
    found += [(attack.name, f"{note[:1].upper()}{note[1:]}.") for attack in attacks for note in attack.remarks]
    items += [element("li", element("strong", few(names)), ": ", line) for names, line in group_by_words(found)]
    if not items:
        words = "No warnings: the runs are finished, in full precision, on the noise's grid."
        return element("p", words, id="warnings")
    return element("section", element("h2", "To beware of"), element("ul", *items), class_="warn", id="warnings")


def _curves(runs: Sequence[PageRun], attacks: Sequence[AttackResult], radius: float) -> Markup:
    has_curve = [run.result.decided is None for run in runs]
    acr = [f"ACR {'>=' if run.result.is_lower_bound else ''}{down(run.result.acr, 3)}" for run in runs]
    boxes = [element("label", element("input", type="checkbox", checked=True, data_run=k), swatch(k, has_curve[k]),
                     run.name, element("small", acr[k]))
             for k, run in enumerate(runs)]
    stopped = ("A run that stopped sampling when its radii were decided is drawn as bars at those radii alone: "
               "elsewhere only lower bounds are known.")
    bounds = [element("option", words, value=name) for name, words in (*LOWER, ("", "none"))]
    axes = [element("option", words, value=value) for value, words in (
        ("l2", "l2 radius"), ("sigma", "l2 radius / sigma"), ("linf", "l-infinity radius (l2 / square root of d)"))]
    return element(
        "section", element("h2", "Certified accuracy against radius"),
        element("fieldset", element("legend", "Runs"), *boxes, class_="runs"),
        element("div", element("label", "Lower bound ", element("select", *bounds, id="bound")),
                element("label", "Axis ", element("select", *axes, id="axis")), class_="controls"),
        element("div", class_="chart", id="curve", role="img",
                aria_label="Curves of certified accuracy against radius; the table below holds the same figures"),
        "" if all(has_curve) else element("p", element("small", stopped)), points_legend(attacks, len(runs)),
        element("p", element("label", "Read the curves at l2 radius ",
                             element("input", type="number", id="at", min="0", step="any", value=f"{radius:g}"))),
        element("div", id="read", aria_live="polite"),
        element("noscript", element("p", "The curves need JavaScript; the tables do not.")), id="curves",
    )


def _charts() -> Markup:
    figures = (("wall", "Radii under the most that the samples could prove",
                "All images of a run, the largest radius first. The level line is r_max, the radius when all samples "
                "agree; images that stand at it would gain from more samples."),
               ("observed", "Share of the votes for the chosen class",
                "Images by the observed share; the upright scale is logarithmic. Near 1/2 the answer is in doubt."),
               ("bounded", "Lower bound of that class's probability",
                "The same after a lower bound: Clopper-Pearson, one-sided, at alpha. The method two-sided takes "
                "0.9 alpha for its radius, so that its bound is a little lower."))
    parts = [element("figure", element("figcaption", element("strong", title), element("br"), words),
                     element("div", class_="chart", id=name, role="img", aria_label=title))
             for name, title, words in figures]
    return element("section", element("h2", "Votes and radii"), *parts, id="votes")


def _details(runs: Sequence[PageRun]) -> Markup:
    """Return the settings of each run; runs with the same ones, as many logs have, share them."""
    parts = []
    for names, facts in group_by_words((run.name, fact_table(settings(run))) for run in runs):
        parts.append(element("details", element("summary", few(names)), Markup(facts), open=len(runs) == 1))
    command = element("code", "smoothcert recertify STORE")
    check = join_parts("Anyone who has a store can recompute its certificates: ", command, ".")
    return element("section", element("h2", "What was certified, and with what"), *parts, element("p", check),
                   id="details")


def _selftest(found: SelfTest | None, runs: Sequence[PageRun]) -> Markup:
    """Return a section: verdict, date, what was tested and where, and every check; empty without a selftest."""
    if found is None:
        return Markup("")
    words = (f"Of {found.date}. By chance alone a right installation gets a red check with probability at most "
             f"{found.false_alarm:g}. The result is what its file says; it is not signed.")
    facts = fact_table([*found.settings.items(), *found.environment.items()])
    heads = ["group", "check", "verdict", "measured", "allowed"]
    rows = [[check.group, check.name, check.verdict, check.measured, check.allowed] for check in found.checks]
    others = [element("li", element("strong", name), ": ", line) for name, line in find_untested(found, runs)]
    return element(
        "section", element("h2", "Selftest of the installation"), element("p", element("strong", found.summary)),
        element("p", words), element("ul", *others) if others else "",
        element("details", element("summary", "Checks, settings and versions"),
                facts, Table.of(heads, rows, left=range(len(heads))).to_html("Checks"),
                open=found.verdict == "red"),
        class_="warn" if found.verdict == "red" or others else None, id="selftest")


def fact_table(facts: Sequence[tuple[str, str]]) -> Markup:
    """Return (name, value) pairs, a line each."""
    lines = [element("tr", element("th", name, scope="row"), element("td", value)) for name, value in facts]
    return element("table", *lines, class_="facts")


def _own(name: str) -> Markup:
    """Return a file of this package."""
    return Markup(resources.files("smoothcert.report.html").joinpath(name).read_text(encoding="utf-8"))


def check_page(file: Path) -> None:
    """Raise InputError unless a file's name is that of a page."""
    if file.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{file.name} must end in .html")


def write_page(file: Path, page: str) -> None:
    """Write a page whole; a character that is no text in a name (bytes that are no UTF-8) becomes a question mark."""
    make_folder(file.parent)
    write_whole(file, lambda temporary: temporary.write_bytes(page.encode("utf-8", "replace")))
