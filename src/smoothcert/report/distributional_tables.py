"""Tables of distributional robustness: text, Markdown, CSV and LaTeX. Certificates are rounded up, never down."""

import math
from collections.abc import Sequence
from typing import Any

from smoothcert.checks import check_known
from smoothcert.report.listings import csv_lines, laid_out
from smoothcert.report.tables import FORMATS, aligned
from smoothcert.results.distributional import FORMS, Robustness, loss_words
from smoothcert.store.names import few, grouped

_LEGEND = (
    "A certificate holds for every law within rho (mean squared l2 move of the images) with probability 1 - alpha; "
    "'these images' is the same for laws around these very images. Rounded up.",
    "outside: the bound of Yang et al. 2021 for the smoothed classifier; inside: WRM's, of the base classifier without "
    "noise, whose rho (rho with noise) is the cost of its input, noise included. An estimate may be too low.",
    "found: the worst case that the ascents found at that cost, an estimate from below: compare it with the bound on "
    "its left.",
)


_RHO = {"inside": "rho with noise"}
"""The head of the transport cost of a form whose cost is not that of the certificate."""

_BESIDE = ["rho + noise", "smoothed", "base"]
"""The head of the table of both bounds at one cost."""

_EQUIVALENT = ["gamma", "eps"]
"""The head of the table of the eps that each gamma stands for."""

_BESIDE_LEGEND = (
    "rho + noise: both bounds at one cost, rho for the moves of the adversary and d sigma^2 for the noise. "
    "Estimates; of the suprema themselves the smoothed one is never the larger (Theorem 3 of Yang et al.)."
)

_EPS_LEGEND = "eps: what a gamma stands for, the root mean square move after a short ascent, without the noise."


def render_robustness(runs: Sequence[Robustness], rhos: Sequence[float], style: str) -> str:
    """Every run at every rho (those that the runs named where none are given), in a format of `table`.

    In Markdown and LaTeX, tables of their own follow for both bounds at one cost and for the eps of each gamma; in CSV
    they are further columns.
    """
    check_known("format", style, FORMATS)
    rhos = list(rhos) or named_rhos(runs)
    if style == "csv":
        gammas = sorted({gamma for run in runs for gamma in run.equivalent})
        return csv_lines([{**_facts(run), **run.at(rho),
                           **{f"eps_equivalent_of_gamma_{gamma:g}": run.equivalent.get(gamma) for gamma in gammas}}
                          for run in runs for rho in rhos])
    if style == "text":
        legends = [_legend(runs), *[_BESIDE_LEGEND] * any(run.beside for run in runs),
                   *[_EPS_LEGEND] * any(run.equivalent for run in runs)]
        return "\n\n".join([*(_block(run, rhos) for run in runs), "\n".join(legends)])
    head = ["run", "images", "sigma", "loss", "alpha", *_head(runs)]
    rows = [[_name(run), str(run.images), f"{run.sigma:g}", loss_words(run), f"{run.alpha:g}", *_cells(run, rho, runs)]
            for run in runs for rho in rhos]
    beside = [[_name(run), *cells] for run in runs if run.beside for cells in _beside(run, rhos)]
    equal = [[_name(run), *cells] for run in runs for cells in _equivalent(run)]
    refuted = [f"{_name(run)}: {line}" for run in runs for line in _refuted(run, rhos)]
    tables = (([head, *rows], "\n".join([*refuted, _legend(runs)])), ([["run", *_BESIDE], *beside], _BESIDE_LEGEND),
              ([["run", *_EQUIVALENT], *equal], _EPS_LEGEND))
    return "\n\n".join(laid_out([], table, style, legend) for table, legend in tables if len(table) > 1)


def named_rhos(runs: Sequence[Robustness]) -> list[float]:
    """All transport costs that runs named."""
    return sorted({rho for run in runs for rho in run.rho})


def up(value: float, digits: int = 4) -> str:
    """`value` with `digits` decimals, rounded up; the tiny step undoes the error of the product before it.

    >>> up(0.10001), up(0.25)
    ('0.1001', '0.2500')
    """
    scale = 10**digits
    return f"{math.ceil(value * scale - 1e-9) / scale:.{digits}f}"


def _block(run: Robustness, rhos: Sequence[float]) -> str:
    told = "" if run.certificate is None else f", alpha {run.alpha:g}"
    lines = [f"{_name(run)}: {run.images} images, sigma {run.sigma:g}, {loss_words(run)}{told}",
             aligned([_head([run]), *(_cells(run, rho, [run]) for rho in rhos)])]
    if run.beside:
        lines += ["", aligned([_BESIDE, *_beside(run, rhos)])]
    if run.bounds:
        lines += ["", aligned(_searches(run)), *_refuted(run, rhos)]
    if run.equivalent:
        lines += ["", aligned(list(zip(*[_EQUIVALENT, *_equivalent(run)], strict=True)))]
    return "\n".join(lines)


def _beside(run: Robustness, rhos: Sequence[float]) -> list[list[str]]:
    """Both bounds at one cost."""
    cells = ([at["beside_smoothed"], at["beside_base"]] for at in map(run.at, rhos))
    return [[f"{rho:g}", *(f"{value:.4f}" for value in values)] for rho, values in zip(rhos, cells, strict=True)]


def _equivalent(run: Robustness) -> list[list[str]]:
    """The eps that each gamma stands for."""
    return [[f"{gamma:g}", f"{eps:.3g}"] for gamma, eps in run.equivalent.items()]


def _refuted(run: Robustness, rhos: Sequence[float]) -> list[str]:
    """A warning for each form whose estimate an ascent at another gamma has proved too low."""
    warnings = []
    for form in run.bounds:
        low = [f"{at['rho']:g}" for at in map(run.at, rhos) if at[form] < at[f"{form}_found"]]
        if low:
            warnings.append(f"WARNING: {form} lies below the worst case found at rho {', '.join(low)}: the search "
                            f"stopped short of a supremum, and that estimate is no bound. More steps may help.")
    return warnings


def _searches(run: Robustness) -> list[list[str]]:
    head = ["search", "gamma", "rho found", "loss found", "phi", "label", "residual", "solved"]
    return [head, *([form, f"{one.gamma:g}", f"{one.rho:.4g}", f"{one.loss:.4f}", _bounded(one.value, one.label),
                     one.label, f"{one.residual:.2g}", f"{one.solved:.0%}"]
                    for form, bound in run.bounds.items() for one in bound.surrogates)]


def _head(runs: Sequence[Robustness]) -> list[str]:
    shown = {form: [form] * _any(runs, "bounds", form) + ["found"] * _any(runs, "found", form) for form in FORMS}
    return ["rho", *(["certificate", "these images"] if any(run.certificate for run in runs) else []),
            *shown["outside"], *([_RHO["inside"], *shown["inside"]] if shown["inside"] else [])]


def _cells(run: Robustness, rho: float, runs: Sequence[Robustness]) -> list[str]:
    at = run.at(rho)
    cells = [f"{rho:g}"]
    if any(other.certificate for other in runs):
        cells += ["-" if at[name] is None else up(at[name]) for name in ("certificate", "sample")]
    for form in FORMS:
        if form in _RHO and (_any(runs, "bounds", form) or _any(runs, "found", form)):
            cells.append(f"{rho:g}")
        if _any(runs, "bounds", form):
            label = at[f"{form}_label"]
            cells.append("-" if label is None else f"{_bounded(at[form], label)} {label}")
        if _any(runs, "found", form):
            cells.append("-" if at[f"{form}_found"] is None else f"{at[f'{form}_found']:.4f}")
    return cells


def _any(runs: Sequence[Robustness], what: str, form: str) -> bool:
    return any(form in getattr(run, what) for run in runs)


def _bounded(value: float, label: str) -> str:
    return up(value) if label == "certificate" else f"{value:.4f}"


def _facts(run: Robustness) -> dict[str, Any]:
    return {"run": run.name, "images": run.images, "sigma": run.sigma, "loss": run.loss, "ceiling": run.ceiling,
            "alpha": run.alpha}


def _name(run: Robustness) -> str:
    return run.name if run.complete else f"{run.name} (UNFINISHED)"


def _legend(runs: Sequence[Robustness]) -> str:
    wanted = (any(run.certificate for run in runs), any(run.bounds for run in runs), any(run.found for run in runs))
    losses = {run.loss for run in runs}
    words = ["The 0-1 loss is that of the base classifier under noise."] if "0-1" in losses else []
    notes = [f"note: {few(names)}: {note}" for names, note in
             grouped((run.name, note) for run in runs for note in run.remarks)]
    return "\n".join([*notes, *(line for line, is_shown in zip(_LEGEND, wanted, strict=True) if is_shown), *words])
