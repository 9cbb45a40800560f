"""The tables of a page: certified accuracy and its bounds, accuracy by class, and accuracy under attack."""

from collections.abc import Iterator, Sequence

from smoothcert.report.html.charts import LOWER
from smoothcert.report.tables import Cell, Markup, Row, Table, element
from smoothcert.results.attacks import AttackResult
from smoothcert.results.by_class import shares_by_class
from smoothcert.results.certified import accuracies
from smoothcert.results.figures import alpha_words, down, percent, sigma_words
from smoothcert.results.gather import PageRun

_RUNS, _CLASSES = 24, 100
"""Runs that are shown by class, and the most classes of each."""


def show_tables(runs: Sequence[PageRun], radii: Sequence[float], rho: float) -> Iterator[Markup | str]:
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


def show_classes(runs: Sequence[PageRun], radii: Sequence[float]) -> Markup:
    """Return clean and certified accuracy by class, for each of the first runs; at most `_CLASSES` of each."""
    parts, radii = [], [radius for radius in radii if radius > 0]
    for run in runs[:_RUNS]:
        result, found = run.result, shares_by_class(run.result, radii)
        if found is None:
            parts.append(element("p", element("strong", run.name), ": the labels of its images are not known."))
            continue
        beyond = [result.is_out_of_reach(radius) for radius in radii]
        marks = ["" if result.is_decided(radius) else ">=" for radius in radii]
        shown = found.weakest(_CLASSES)
        rows: list[Row] = [
            [Cell(found.names[k], int(found.label[k])), Cell(f"{found.images[k]:,}", int(found.images[k])),
             percent(float(found.right[k])), *("-" if out else mark + percent(value)
                                        for value, out, mark in zip(found.certified[k], beyond, marks, strict=True)),
             percent(float(found.abstained[k])), down(float(found.acr[k]), 3)] for k in shown.tolist()]
        head = ["class", "images", "clean", *(f"r {r:g}" for r in radii), "abstained", "ACR"]
        which = f"the {len(shown)} of {len(found.names):,} classes with the lowest ACR" if len(shown) < len(
            found.names) else f"{len(shown)} classes"
        table = Table.of(head, rows).to_html(f"{run.name}: clean and certified accuracy by class (%), {which}")
        parts.append(element("details", element("summary", run.name), table, open=len(runs) == 1))
    words = ("Clean: the share of a class's images that the smoothed classifier answers correctly; the columns r: also "
             "certified at that radius. These are shares of the images of the run, without a bound: a class with few "
             "images says little.")
    more = f" The first {_RUNS} of {len(runs):,} runs." if len(runs) > _RUNS else ""
    return element("section", element("h2", "By class"), element("p", words + more), *parts, id="classes")


def show_attacks(attacks: Sequence[AttackResult]) -> Markup:
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
