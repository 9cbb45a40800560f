"""The page of distributional robustness. Certificates of losses are rounded up, never down."""

from collections.abc import Sequence
from typing import Any

from smoothcert.report.tables import Page, Table
from smoothcert.results.distributional import FORMS, Robustness, RobustnessRuns, loss_words
from smoothcert.results.figures import up
from smoothcert.store.names import few, group_by_words

_CERTIFICATE = (
    "A certificate holds for every law within rho (mean squared l2 move of the images) with probability 1 - alpha; "
    "'these images' is the same for laws around these very images. Rounded up.")
_BOUNDS = (
    "outside: the bound of Yang et al. 2021 for the smoothed classifier; inside: WRM's, of the base classifier without "
    "noise, whose rho (rho with noise) is the cost of its input, noise included. An estimate may be too low.")
_FOUND = (
    "found: the worst case that the ascents found at that cost, an estimate from below: compare it with the bound on "
    "its left.")
_BESIDE = (
    "rho + noise: both bounds at one cost, rho for the moves of the adversary and d sigma^2 for the noise. "
    "Estimates; of the suprema themselves the smoothed one is never the larger (Theorem 3 of Yang et al.).")
_EPS = "eps: what a gamma stands for, the root mean square move after a short ascent, without the noise."


def robustness_page(runs: RobustnessRuns, style: str) -> Page:
    """Return bounds at every transport cost: in text the tables of each run, else one table of all for each figure."""
    results = runs.results
    legend = "\n".join(_legend_lines(results))
    if style == "text":
        blocks = [table for run in results for table in _text_tables(run, runs.costs)]
        legends = [legend, *[_BESIDE] * any(run.beside for run in results),
                   *[_EPS] * any(run.equivalent for run in results)]
        return Page(blocks, legend="\n".join(legends))
    rows = [[_name(run), str(run.images), f"{run.sigma:g}", loss_words(run), f"{run.alpha:g}",
             *_cells(run.at(rho), results)] for run in results for rho in runs.costs]
    refuted = [f"{_name(run)}: {line}" for run in results for line in _refutations(run, runs.costs)]
    tables = [Table.of(["run", "images", "sigma", "loss", "alpha", *_heads(results)], rows, below=[*refuted, legend])]
    beside = [[_name(run), *cells] for run in results if run.beside for cells in _beside_rows(run, runs.costs)]
    if beside:
        tables.append(Table.of(["run", "rho + noise", "smoothed", "base"], beside, below=[_BESIDE]))
    equal = [[_name(run), f"{gamma:g}", f"{eps:.3g}"] for run in results for gamma, eps in run.equivalent.items()]
    if equal:
        tables.append(Table.of(["run", "gamma", "eps"], equal, below=[_EPS]))
    return Page(tables)


def _text_tables(run: Robustness, rhos: Sequence[float]) -> list[Table]:
    """Return the tables of one run: its figures, both bounds at one cost, its searches, and the eps of each gamma."""
    alpha = "" if run.certificate is None else f", alpha {run.alpha:g}"
    tables = [Table.of(_heads([run]), [_cells(run.at(rho), [run]) for rho in rhos],
                       above=[f"{_name(run)}: {run.images} images, sigma {run.sigma:g}, {loss_words(run)}{alpha}"])]
    if run.beside:
        tables.append(Table.of(["rho + noise", "smoothed", "base"], _beside_rows(run, rhos)))
    if run.bounds:
        heads = ["search", "gamma", "rho found", "loss found", "phi", "label", "residual", "solved"]
        rows = [[form, f"{one.gamma:g}", f"{one.rho:.4g}", f"{one.loss:.4f}", _bound_words(one.value, one.label),
                 one.label, f"{one.residual:.2g}", f"{one.solved:.0%}"]
                for form, bound in run.bounds.items() for one in bound.surrogates]
        tables.append(Table.of(heads, rows, below=_refutations(run, rhos)))
    if run.equivalent:
        gammas, eps = zip(*((f"{gamma:g}", f"{eps:.3g}") for gamma, eps in run.equivalent.items()), strict=True)
        tables.append(Table.of(["gamma", *gammas], [["eps", *eps]]))
    return tables


def _heads(runs: Sequence[Robustness]) -> list[str]:
    heads = ["rho", *(["certificate", "these images"] if any(run.certificate for run in runs) else [])]
    for form in FORMS:
        shown = [form] * any(form in run.bounds for run in runs) + ["found"] * any(form in run.found for run in runs)
        heads += ["rho with noise", *shown] if shown and form == "inside" else shown
    return heads


def _cells(at: dict[str, Any], runs: Sequence[Robustness]) -> list[str]:
    """Return the figures `at` a transport cost, under the heads of `runs`; a dash where a run has none."""
    cells = [f"{at['rho']:g}"]
    if any(run.certificate for run in runs):
        cells += ["-" if at[name] is None else up(at[name]) for name in ("certificate", "sample")]
    for form in FORMS:
        is_bounded, is_found = (any(form in forms for forms in shown) for shown in (
            [run.bounds for run in runs], [run.found for run in runs]))
        if form == "inside" and (is_bounded or is_found):
            cells.append(f"{at['rho']:g}")
        if is_bounded:
            label = at[f"{form}_label"]
            cells.append("-" if label is None else f"{_bound_words(at[form], label)} {label}")
        if is_found:
            worst = at[f"{form}_found"]
            cells.append("-" if worst is None else f"{worst:.4f}")
    return cells


def _bound_words(value: float, label: str) -> str:
    return up(value) if label == "certificate" else f"{value:.4f}"


def _beside_rows(run: Robustness, rhos: Sequence[float]) -> list[list[str]]:
    """Return both bounds at one cost."""
    return [[f"{rho:g}", f"{at['beside_smoothed']:.4f}", f"{at['beside_base']:.4f}"]
            for rho, at in zip(rhos, map(run.at, rhos), strict=True)]


def _refutations(run: Robustness, rhos: Sequence[float]) -> list[str]:
    """Return a warning for each form whose estimate an ascent at another gamma has proved too low."""
    warnings = []
    for form in run.bounds:
        low = [f"{at['rho']:g}" for at in map(run.at, rhos) if at[form] < at[f"{form}_found"]]
        if low:
            warnings.append(f"WARNING: {form} lies below the worst case found at rho {', '.join(low)}: the search "
                            f"stopped short of a supremum, and that estimate is no bound. More steps may help.")
    return warnings


def _name(run: Robustness) -> str:
    return run.name if run.complete else f"{run.name} (UNFINISHED)"


def _legend_lines(runs: Sequence[Robustness]) -> list[str]:
    lines = [f"note: {few(names)}: {note}" for names, note in
             group_by_words((run.name, note) for run in runs for note in run.remarks)]
    lines += [_CERTIFICATE] * any(run.certificate for run in runs) + [_BOUNDS] * any(run.bounds for run in runs)
    lines += [_FOUND] * any(run.found for run in runs)
    if any(run.loss == "0-1" for run in runs):
        lines.append("The 0-1 loss is that of the base classifier under noise.")
    return lines
