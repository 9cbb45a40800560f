"""NAL and its rivals under attack, by the recipe `yang2021-mnist`, and certificates against worst cases found.

All rows, or those that ROWS names: `ROWS=nal-0.25,wrm-0.25,undefended make evidence PART=distributional`. Finished
rows are kept from run to run.
"""

import os
import subprocess
from pathlib import Path

import numpy as np
from workplace import CLI, WORK, data_dir

from smoothcert.recipes.plan import RecipePlan, plan
from smoothcert.recipes.recipe import read_recipe
from smoothcert.results.attacks import empirical_curve
from smoothcert.results.distributional import Robustness
from smoothcert.results.figures import up
from smoothcert.store.provenance import machine_line
from smoothcert.store.store import Store, read_store

RECIPE = "yang2021-mnist"
ROWS = ("nal-0.25", "nal-1.5", "nal-elu-0.25", "wrm-0.25", "nal-elu-1.5", "wrm-1.5", "nal-elu-3", "wrm-3",
        "smoothadv", "stability", "trades", "undefended")
BOUNDED = ("nal-0.25", "nal-1.5", "undefended")
"""The rows whose certificates and worst cases are compared."""
PRICES = (0.25, 1.5, 3.0)
MORE_PRICES = (10.0, 30.0, 100.0)
EVERY = 100


def main() -> str:
    planned, out = plan(read_recipe(RECIPE), "cpu"), WORK / "distributional"
    rows = os.environ["ROWS"].split(",") if os.environ.get("ROWS") else list(ROWS)
    subprocess.run([CLI, "reproduce", RECIPE, "--scale", "cpu", "-o", str(out), "--threads", "1", "--quiet",
                    "--row", ",".join(rows), "--data-dir", str(data_dir())], check=True, stdout=subprocess.DEVNULL)
    stores = {row: read_store(_folder(planned, row, "attack", out)) for row in rows}
    bounds = {row: bounded(_folder(planned, row, "train", out), out / f"bounds-{row}") for row in rows
              if row in BOUNDED}
    left = [row for row in planned.tasks if row not in rows]
    return page(planned, stores) + certificates(bounds) + (f"\nNot run: {', '.join(left)}.\n" if left else "")


def bounded(model: Path, out: Path) -> Robustness:
    """The closed certificate and the worst cases found of a trained model."""
    subprocess.run([CLI, "distributional", str(model), "--gamma", _listed(PRICES), "--gamma-adv", _listed(MORE_PRICES),
                    "--n", "500", "--every", str(EVERY), "--seed", "0", "--search-option", "steps=20",
                    "--search-option", "draws=4", "--search-option", "check=100", "--threads", "1", "--quiet",
                    "--data-dir", str(data_dir()), "-o", str(out)], check=True, stdout=subprocess.DEVNULL)
    return Robustness.of(read_store(out))


def page(planned: RecipePlan, stores: dict[str, Store]) -> str:
    """Accuracy of every row at every radius, and NAL less WRM on one network at the same gamma."""
    curves = {row: empirical_curve(store) for row, store in stores.items()}
    size = next(iter(curves.values())).size
    told = next(iter(stores.values())).identity
    lines = ["# Distributional robustness on MNIST: cnn3, sigma 0.05, equal images and epochs for all\n",
             f"{machine_line()}.\n",
             f"`smoothcert reproduce {RECIPE} --scale cpu`. {planned.recipe.scales['cpu'].about.strip()}\n",
             f"Accuracy in percent on {told.images.count} test images under l2 PGD, 20 steps, by radius; answers "
             f"by the mean softmax of {told.procedure.n} noisy copies.\n",
             f"| row | {' | '.join(f'{radius:g}' for radius in size)} |", "|---" * (len(size) + 1) + "|"]
    lines += [f"| {row} | {' | '.join(f'{100 * share:.1f}' for share in curve.accuracy)} |"
              for row, curve in curves.items()]
    lines += ["", "NAL less WRM, in points: on one network, with ELU, and on the same images, averaged over all radii "
                  "above 0, with the standard error of its mean over the images (an estimate; it knows nothing of "
                  "other trainings).\n"]
    for row in stores:
        other = row.replace("nal-elu-", "wrm-")
        if row.startswith("nal-elu-") and other in stores:
            above = 100 * (robust_share(stores[row]) - robust_share(stores[other]))
            error = above.std(ddof=1) / np.sqrt(len(above))
            lines.append(f"- gamma {row.removeprefix('nal-elu-')}: {above.mean():+.1f} ({error:.1f})")
    return "\n".join(lines) + "\n"


def certificates(bounds: dict[str, Robustness]) -> str:
    """Every worst case found beside the certificate at its cost, and whether the certificate lies above."""
    if not bounds:
        return ""
    first = next(iter(bounds.values()))
    lines = ["\n## Certificates and worst cases\n",
             f"`smoothcert distributional` on {first.images} test images: cross-entropy clipped at "
             f"{first.ceiling:.4f}, alpha {first.alpha:g}. `found`: the expected loss after an ascent at gamma, at "
             f"transport cost rho (mean squared l2 move; gamma inf: nothing is moved). `certificate`: for every law "
             f"within rho of that of the images; `these images`: for laws around these very images. `outside`: the "
             f"bound of Yang et al. with the best of their gammas {_listed(PRICES)}, an estimate at this sigma. "
             f"`above`: both certificates lie above the worst case found.\n",
             "| row | gamma | rho | found | certificate | these images | outside | above |", "|---" * 8 + "|"]
    above, points = 0, 0
    for row, run in bounds.items():
        worst = run.found["outside"]
        for gamma, rho, loss in zip(worst.gamma, worst.rho, worst.loss, strict=True):
            at = run.at(float(rho))
            holds = min(at["certificate"], at["sample"]) > loss
            above, points = above + holds, points + 1
            lines.append(f"| {row} | {gamma:g} | {rho:.5f} | {loss:.4f} | {up(at['certificate'])} | "
                         f"{up(at['sample'])} | {at['outside']:.4f} | {'yes' if holds else 'NO'} |")
    lines.append(f"\nBoth lie above at {above} of {points} points.")
    return "\n".join(lines) + "\n"


def robust_share(store: Store) -> np.ndarray:
    """(M,): at what share of the radii above 0 each image, by rising index, is answered with its label."""
    index, eps = store.column("index"), store.column("eps")
    right = (store.column("prediction") == store.column("label")).astype(float)
    return np.array([right[(index == image) & (eps > 0)].mean() for image in np.unique(index)])


def _folder(planned: RecipePlan, row: str, verb: str, out: Path) -> Path:
    return next(task for task in planned.tasks[row] if task.verb == verb).path(out)


def _listed(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)
