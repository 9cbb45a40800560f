"""The page put together: words, tables, charts, gallery, and the script that moves them."""

import base64
import io
import re
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

import numpy as np

from smoothcert.errors import InputError, SmoothcertError
from smoothcert.io.files import make_folder, write_whole
from smoothcert.report.html.charts import LOWER, chart_data, pack, points_legend, swatch
from smoothcert.report.html.facts import ASSUMES, SAYS, SAYS_NOT, find_untested, settings, warnings
from smoothcert.report.selftest import SelfTest
from smoothcert.report.tables import Cell, Markup, Row, Table, element, join_parts
from smoothcert.results.attacks import AttackResult
from smoothcert.results.base import why_not_side_by_side
from smoothcert.results.certified import accuracies, default_radii
from smoothcert.results.figures import alpha_words, down, percent, sigma_words
from smoothcert.results.gallery import Gallery
from smoothcert.results.gather import PageRun
from smoothcert.store.names import few, group_by_words
from smoothcert.version import __version__

LARGEST_SIDE = 96
"""Images of the gallery are shrunk to this many pixels."""

_ROWS = 400
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
    radii = list(radii) or default_radii([run.result for run in runs])
    title = title or f"Certified robustness: {', '.join(run.name for run in runs[:4])}{' ...' if runs[4:] else ''}"
    head = join_parts(
        element("meta", charset="utf-8"), element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title), element("style", _own("page.css")),
    )
    words = (f"{len(runs):,} run{'s' if len(runs) > 1 else ''}, {sum(run.result.images for run in runs):,} images. "
             f"Percentages and radii are rounded down. Lower bounds hold with probability {1 - rho:g} at one radius "
             f"chosen beforehand.")
    themes = [element("option", word, value=word.lower()) for word in ("Auto", "Light", "Dark")]
    header = element("header", element("div", element("h1", title), element("p", words)),
                     element("label", "Colours ", element("select", *themes, id="theme")))
    missing = element(
        "section", element("h2", "Missing from this page"), element("p", "It was to show these too:"),
        element("ul", *(element("li", str(problem)) for problem in problems)), class_="warn", id="missing")
    meaning = [join_parts(element(f"h{level}", title), element("ul", *(element("li", line) for line in lines)))
               for level, title, lines in ((2, "What this says", SAYS), (3, "What it does not say", SAYS_NOT),
                                           (3, "What it assumes", ASSUMES))]
    galleries = [_gallery(run.name, run.gallery) for run in runs if run.gallery]
    galleries += [element("p", element("strong", few(names)), f": no images shown. {why}", class_="missing")
                  for names, why in group_by_words((run.name, run.no_gallery) for run in runs if not run.gallery)]
    script = resources.files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")
    # The few characters of Plotly's script that are no ASCII stand in expressions, so escapes do for them; one of them
    # as it is would double the memory that the whole page takes.
    script = Markup(re.sub("[\u0080-\uffff]", lambda found: f"\\u{ord(found[0]):04x}", script))
    return "".join([  # in one step: of many runs these are megabytes
        '<!doctype html>\n<html lang="en">', element("head", head), "<body>",
        element("a", "Skip to the figures", href="#curves", class_="skip"), header, "<main>",
        missing if problems else "", _warnings(runs, attacks), _selftest(selftest, runs), _curves(runs, attacks),
        *_tables(runs, radii, rho), _attacks(attacks), element("section", *meaning, id="meaning"), _charts(),
        element("section", element("h2", "Images, by radius"), *galleries, id="gallery"), _images(runs), _details(runs),
        "</main>",
        element("footer", f"Made by smoothcert {__version__} from stored counts. This page asks nothing of a network."),
        element("script", pack(chart_data(runs, rho), attacks), type="application/json", id="data"),
        element("script", script), element("script", _own("page.js")), "</body></html>\n",
    ])


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


def _curves(runs: Sequence[PageRun], attacks: Sequence[AttackResult]) -> Markup:
    boxes = [element("label", element("input", type="checkbox", checked=True, data_run=k), swatch(k), run.name,
                     element("small", f"ACR {down(run.result.acr, 3)}")) for k, run in enumerate(runs)]
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
        points_legend(attacks, len(runs)),
        element("p", element("label", "Read the curves at l2 radius ",
                             element("input", type="number", id="at", min="0", step="0.05", value="0.25"))),
        element("div", id="read", aria_live="polite"),
        element("noscript", element("p", "The curves need JavaScript; the tables do not.")), id="curves",
    )


def _tables(runs: Sequence[PageRun], radii: Sequence[float], rho: float) -> Iterator[Markup | str]:
    """Yield the section of tables in parts, for they are most of a page of many runs."""
    head = ["run", "images", "sigma", "method", "alpha", "n", "ACR", "abstained (%)", *(f"r {r:g}" for r in radii)]
    figures, bounds = [], []
    results = [run.result for run in runs]
    for result, at in zip(results, accuracies(results, radii, rho), strict=True):
        mark = ">=" if result.is_lower_bound else ""
        beyond = [result.is_out_of_reach(radius) for radius in radii]
        facts = [result.name, f"{result.images:,}", sigma_words(result.sigma), result.method or "?",
                 alpha_words(result.alpha), f"{result.n:,}" if result.n else "?", mark + down(result.acr, 3),
                 percent(result.abstained.mean())]
        figures.append([*facts, *("-" if out else ("" if result.is_decided(r) else ">=") + percent(a)
                                  for r, a, out in zip(radii, at.accuracy, beyond, strict=True))])
        bounds += [[result.name, words, *("-" if out else percent(value)
                                          for value, out in zip(getattr(at, name), beyond, strict=True))]
                   for name, words in LOWER]
    yield '<section id="tables">'
    yield element("h2", "Tables")
    yield Table.of(head, figures, left=(0, 3)).to_html("Certified accuracy (%) at each radius")
    head = ["run", "bound", *(f"r {r:g}" for r in radii)]
    yield Table.of(head, bounds, left=(0, 1)).to_html(f"Lower bounds (%), each at rho {rho:g}")
    yield element("p", "Press a column's head to sort by it. A dash: the run's samples could prove no such radius.")
    yield "</section>"


def _attacks(attacks: Sequence[AttackResult]) -> Markup:
    """Return accuracy under attack, and what it does and does not show."""
    if not attacks:
        return Markup("")
    head = ["run", "size", "m", "steps", "n", "accuracy (%)", "changed (%)", "abstained (%)", "mean l2 norm"]
    rows = [[attack.name, Cell(f"{one.size:g}{' R' if attack.axis == 'times' else ''}", one.size),
             *(Cell(f"{value:,}", value) for value in (one.m, one.steps, one.n)),
             *(Cell(percent(share), float(share)) for share in (one.accuracy, one.changed, one.abstained)),
             Cell(f"{one.l2:.3f}", one.l2)] for attack in attacks for one in attack.outcomes]
    norms = ", ".join(sorted({attack.norm for attack in attacks}))
    words = (f"Accuracy of the smoothed classifier under attacks bounded in {norms}. What an attack leaves is no "
             f"guarantee: a stronger one may leave less. On the same images, accuracy below the certified one at that "
             f"size shows a false certificate, a false answer of PREDICT, or an abstention for want of samples; "
             f"certificates do not speak of answers by mean softmax.")
    return element("section", element("h2", "Under attack"), element("p", words),
                   Table.of(head, rows).to_html("Accuracy under attack, by size"), id="attacks")


def _charts() -> Markup:
    figures = (("wall", "Radii under the most that the samples could prove",
                "All images of a run, the largest radius first. The level line is r_max, the radius when all samples "
                "agree; images that stand at it would gain from more samples."),
               ("observed", "Share of the votes for the chosen class",
                "Images by the observed share; the scale is logarithmic. Near 1/2 the answer is in doubt."),
               ("bounded", "Lower bound of that class's probability",
                "The same after the bound that the radius is computed from (Clopper-Pearson, one-sided, at alpha)."))
    parts = [element("figure", element("figcaption", element("strong", title), element("br"), words),
                     element("div", class_="chart", id=name, role="img", aria_label=title))
             for name, title, words in figures]
    return element("section", element("h2", "Votes and radii"), element("div", *parts, class_="two"), id="votes")


def _gallery(name: str, gallery: Gallery) -> Markup:
    origin = ("the first of the noisy copies that bounded its radius" if gallery.drawn else
              "a noisy copy of the same law")
    cards = []
    for k, answer in enumerate(gallery.prediction):
        verdict = "abstained" if answer < 0 else "right" if answer == gallery.label[k] else "wrong"
        cards.append(element("figure", _image(gallery.clean[k], f"image {gallery.index[k]}"),
                             _image(gallery.noisy[k], f"image {gallery.index[k]} with noise"),
                             element("figcaption", gallery.words(k)), class_=verdict))
    words = (f"{name}: {len(cards)} of {gallery.of:,} images, evenly spaced in the order of their radius. Each beside "
             f"{origin}, clipped to [0, 1] for the eye alone. An arrow leads from the label to another answer.")
    show = element("label", "Show ", element("select", *(element("option", word, value=value) for value, word in (
        ("", "all"), ("right", "right"), ("wrong", "wrong"), ("abstained", "abstained"))), class_="filter"))
    return element("div", element("p", words), element("p", show), element("div", *cards, class_="cards"))


def _image(pixels: np.ndarray, words: str) -> Markup:
    """Return an image (C, H, W) as a data URI, clipped to [0, 1], and shrunk where it is large."""
    from PIL import Image

    levels = np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
    shown = levels.transpose(1, 2, 0) if len(levels) == 3 else np.rint(levels.mean(axis=0)).astype(np.uint8)
    picture = Image.fromarray(shown)
    if (longer := max(picture.size)) > LARGEST_SIDE:
        size = [max(1, round(side * LARGEST_SIDE / longer)) for side in picture.size]
        picture = picture.resize((size[0], size[1]), Image.Resampling.BOX)
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    source = "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
    return element("img", src=source, alt=words, width=LARGEST_SIDE, height=LARGEST_SIDE)


def _images(runs: Sequence[PageRun]) -> Markup:
    """Return at most `_ROWS` images of all runs together, evenly spaced in the order of their radius."""
    each = max(1, _ROWS // len(runs))
    rows: list[Row] = []
    for run in runs[:_ROWS]:
        result = run.result
        order = np.argsort(-result.radius, kind="stable")
        for i in order[np.unique(np.linspace(0, len(order) - 1, min(each, len(order))).round().astype(int))]:
            answer = "abstained" if result.abstained[i] else "right" if result.correct[i] else "wrong"
            index, radius = int(result.index[i]), float(result.radius[i])
            rows.append([run.name, Cell(f"{index:,}", index), answer, Cell(down(radius, 3), radius)])
    total = sum(run.result.images for run in runs)
    table = Table.of(["run", "image", "answer", "radius"], rows, left=(0, 2)).to_html(
        f"{len(rows):,} of {total:,} images, evenly spaced by radius")
    return element("section", element("details", element("summary", "Single images"), table), id="images")


def _details(runs: Sequence[PageRun]) -> Markup:
    """Return the settings of each run; runs with the same ones, as many logs have, share them."""
    parts = []
    for names, facts in group_by_words((run.name, _fact_table(settings(run))) for run in runs):
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
    facts = _fact_table([*found.settings.items(), *found.environment.items()])
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


def _fact_table(facts: Sequence[tuple[str, str]]) -> Markup:
    """Return (name, value) pairs, a line each."""
    lines = [element("tr", element("th", name, scope="row"), element("td", value)) for name, value in facts]
    return element("div", element("table", *lines), class_="wide", tabindex="0")


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
