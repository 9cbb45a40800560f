"""The page put together: words, tables, charts, gallery, and the script that moves them."""

import base64
import io
import re
from collections.abc import Iterator, Sequence
from importlib import resources

import numpy as np

from smoothcert.errors import SmoothcertError
from smoothcert.report.html.charts import LOWER, chart_data, packed
from smoothcert.report.html.facts import ASSUMES, SAYS, SAYS_NOT, Run, settings, warnings
from smoothcert.report.html.legends import points_legend, swatch
from smoothcert.report.html.markup import Markup, element, joined, sortable
from smoothcert.report.html.selftested import selftested
from smoothcert.report.selftest import SelfTest
from smoothcert.results.attacked import Attack
from smoothcert.results.attacks import axis_of, norm_of, outcomes
from smoothcert.results.certified import accuracies, default_radii
from smoothcert.results.compare import why_not_side_by_side
from smoothcert.results.figures import alpha_words, down, percent, sigma_words
from smoothcert.results.gallery import Gallery
from smoothcert.store.names import few, grouped
from smoothcert.version import __version__

LARGEST_SIDE = 96
"""Images of the gallery are shrunk to this many pixels."""

_ROWS = 400
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def report_page(
    runs: Sequence[Run], radii: Sequence[float] = (), rho: float = 0.05, title: str = "",
    attacks: Sequence[Attack] = (), problems: Sequence[SmoothcertError] = (), selftest: SelfTest | None = None,
) -> str:
    """A self-contained HTML page on `runs`, with the `attacks` beside them.

    Args:
        radii: those of the table; evenly spaced by default.
        rho: failure probability of each lower bound.
        title: a heading; by default it names the runs.
        problems: what went wrong with runs that the page was to show too.
        selftest: of the installation that made the runs.
    """
    radii = list(radii) or default_radii([run.result for run in runs])
    title = title or f"Certified robustness: {', '.join(run.name for run in runs[:4])}{' ...' if runs[4:] else ''}"
    head = joined(
        element("meta", charset="utf-8"), element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title), element("style", _own("page.css")),
    )
    return "".join([  # in one step: of many runs these are megabytes
        '<!doctype html>\n<html lang="en">', element("head", head), "<body>",
        element("a", "Skip to the figures", href="#curves", class_="skip"), _header(title, runs, rho), "<main>",
        _missing(problems), _warned(runs, attacks), selftested(selftest, runs), _curves(runs, attacks),
        *_tables(runs, radii, rho), _attacked(attacks), _meaning(), _charts(), _galleries(runs), _images(runs),
        _details(runs), "</main>",
        element("footer", f"Made by smoothcert {__version__} from stored counts. This page asks nothing of a network."),
        element("script", packed(chart_data(runs, rho), attacks), type="application/json", id="data"),
        element("script", _plotly()), element("script", _own("page.js")), "</body></html>\n",
    ])


def _header(title: str, runs: Sequence[Run], rho: float) -> Markup:
    images = sum(run.result.images for run in runs)
    words = (f"{len(runs):,} run{'s' if len(runs) > 1 else ''}, {images:,} images. Percentages and radii are "
             f"rounded down. Lower bounds hold with probability {1 - rho:g} at one radius chosen beforehand.")
    theme = element("label", "Colours ", element("select", *(element("option", word, value=word.lower()) for word in
                                                             ("Auto", "Light", "Dark")), id="theme"))
    return element("header", element("div", element("h1", title), element("p", words)), theme)


def _missing(problems: Sequence[SmoothcertError]) -> Markup:
    if not problems:
        return Markup("")
    return element("section", element("h2", "Missing from this page"), element("p", "It was to show these too:"),
                   element("ul", *(element("li", str(problem)) for problem in problems)), class_="warn", id="missing")


def _warned(runs: Sequence[Run], attacks: Sequence[Attack]) -> Markup:
    """What to beware of: first what speaks against holding the runs against each other, then each run's own."""
    why_not, lacking = why_not_side_by_side([*(run.result for run in runs), *attacks])
    items = [element("li", element("strong", "Not to be compared"), f": {'; '.join([why_not, *lacking])}.")
             ] if why_not else []
    found = [(run.name, line) for run in runs for line in warnings(run)]
    found += [(attack.name, f"{note[:1].upper()}{note[1:]}.") for attack in attacks for note in attack.remarks]
    items += [element("li", element("strong", few(names)), ": ", line) for names, line in grouped(found)]
    if not items:
        words = "No warnings: the runs are finished, in full precision, on the noise's grid."
        return element("p", words, id="warnings")
    return element("section", element("h2", "To beware of"), element("ul", *items), class_="warn", id="warnings")


def _curves(runs: Sequence[Run], attacks: Sequence[Attack]) -> Markup:
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


def _tables(runs: Sequence[Run], radii: Sequence[float], rho: float) -> Iterator[Markup | str]:
    """The section of tables in parts, for they are most of a page of many runs."""
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
    yield sortable("Certified accuracy (%) at each radius", head, figures, set(range(1, len(head))) - {3})
    yield sortable(f"Lower bounds (%), each at rho {rho:g}", ["run", "bound", *(f"r {r:g}" for r in radii)], bounds,
                   set(range(2, 2 + len(radii))))
    yield element("p", "Press a column's head to sort by it. A dash: the run's samples could prove no such radius.")
    yield "</section>"


def _attacked(attacks: Sequence[Attack]) -> Markup:
    """Accuracy under attack, with what it does and does not show."""
    if not attacks:
        return Markup("")
    head = ["run", "size", "m", "steps", "n", "accuracy (%)", "changed (%)", "abstained (%)", "mean l2 norm"]
    rows = [[attack.name, (f"{one.size:g}{' R' if axis_of(attack.store) == 'times' else ''}", one.size),
             _number(one.m), _number(one.steps), _number(one.n), *(_percent(share) for share in
                                                                  (one.accuracy, one.changed, one.abstained)),
             (f"{one.l2:.3f}", one.l2)] for attack in attacks for one in outcomes(attack.store)]
    norms = ", ".join(sorted({norm_of(attack.store) for attack in attacks}))
    words = (f"Accuracy of the smoothed classifier under attacks bounded in {norms}. What an attack leaves is no "
             f"guarantee: a stronger one may leave less. On the same images, accuracy below the certified one at that "
             f"size shows a false certificate, a false answer of PREDICT, or an abstention for want of samples; "
             f"certificates do not speak of answers by mean softmax.")
    return element("section", element("h2", "Under attack"), element("p", words),
                   sortable("Accuracy under attack, by size", head, rows, set(range(1, len(head)))), id="attacks")


def _meaning() -> Markup:
    def listed(lines: Sequence[str]) -> Markup:
        return element("ul", *(element("li", line) for line in lines))

    return element("section", element("h2", "What this says"), listed(SAYS), element("h3", "What it does not say"),
                   listed(SAYS_NOT), element("h3", "What it assumes"), listed(ASSUMES), id="meaning")


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


def _galleries(runs: Sequence[Run]) -> Markup:
    parts = [_gallery(run.name, run.gallery) for run in runs if run.gallery]
    parts += [element("p", element("strong", few(names)), f": no images shown. {why}", class_="missing")
              for names, why in grouped((run.name, run.no_gallery) for run in runs if not run.gallery)]
    return element("section", element("h2", "Images, by radius"), *parts, id="gallery")


def _gallery(name: str, gallery: Gallery) -> Markup:
    origin = ("the first of the noisy copies that bounded its radius" if gallery.drawn else
              "a noisy copy of the same law")
    cards = [element("figure", _image(gallery.clean[k], f"image {gallery.index[k]}"),
                     _image(gallery.noisy[k], f"image {gallery.index[k]} with noise"),
                     element("figcaption", gallery.words(k)), class_=_verdict(gallery, k))
             for k in range(len(gallery.clean))]
    words = (f"{name}: {len(cards)} of {gallery.of:,} images, evenly spaced in the order of their radius. Each beside "
             f"{origin}, clipped to [0, 1] for the eye alone. An arrow leads from the label to another answer.")
    show = element("label", "Show ", element("select", *(element("option", word, value=value) for value, word in (
        ("", "all"), ("right", "right"), ("wrong", "wrong"), ("abstained", "abstained"))), class_="filter"))
    return element("div", element("p", words), element("p", show), element("div", *cards, class_="cards"))


def _verdict(gallery: Gallery, k: int) -> str:
    if gallery.prediction[k] < 0:
        return "abstained"
    return "right" if gallery.prediction[k] == gallery.label[k] else "wrong"


def _image(pixels: np.ndarray, words: str) -> Markup:
    """An image (C, H, W) as a data URI, clipped to [0, 1], and shrunk where it is large."""
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


def _images(runs: Sequence[Run]) -> Markup:
    """At most `_ROWS` images of all runs together, evenly spaced in the order of their radius."""
    each, rows = max(1, _ROWS // len(runs)), []
    for run in runs[:_ROWS]:
        result = run.result
        order = np.argsort(-result.radius, kind="stable")
        for i in order[np.unique(np.linspace(0, len(order) - 1, min(each, len(order))).round().astype(int))]:
            answer = "abstained" if result.abstained[i] else "right" if result.correct[i] else "wrong"
            rows.append([run.name, _number(int(result.index[i])), answer,
                         (down(float(result.radius[i]), 3), float(result.radius[i]))])
    total = sum(run.result.images for run in runs)
    table = sortable(f"{len(rows):,} of {total:,} images, evenly spaced by radius",
                     ["run", "image", "answer", "radius"], rows, {1, 3})
    return element("section", element("details", element("summary", "Single images"), table), id="images")


def _details(runs: Sequence[Run]) -> Markup:
    """The settings of each run; of runs with the same ones, as many logs are, once."""
    parts = []
    for names, lines in grouped((run.name, joined(*_setting_lines(run))) for run in runs):
        parts.append(element("details", element("summary", few(names)),
                             element("div", element("table", lines), class_="wide", tabindex="0"), open=len(runs) == 1))
    check = joined("Anyone who has a store can recompute its certificates: ", element("code", "smoothcert recertify "
                                                                                              "STORE"), ".")
    return element("section", element("h2", "What was certified, and with what"), *parts, element("p", check),
                   id="details")


def _setting_lines(run: Run) -> list[Markup]:
    return [element("tr", element("th", name, scope="row"), element("td", value)) for name, value in settings(run)]


def _number(value: float) -> tuple[str, float]:
    return (f"{value:,}" if isinstance(value, int) else f"{value:g}"), value


def _percent(value: float) -> tuple[str, float]:
    return percent(value), float(value)


def _own(name: str) -> Markup:
    return Markup(resources.files("smoothcert.report.html").joinpath(name).read_text(encoding="utf-8"))


def _plotly() -> Markup:
    """Plotly's script, as its package brings it; the few characters that are no ASCII, all in expressions, as escapes:
    one of them would double the memory that the whole page takes."""
    script = resources.files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")
    return Markup(re.sub("[\u0080-\uffff]", lambda found: f"\\u{ord(found[0]):04x}", script))
