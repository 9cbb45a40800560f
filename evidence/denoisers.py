"""Denoisers: closed forms, g[pi] against g[h] (Saremi & Srivastava 2020, Table 1), XHAT against XHAT_0, the pictures.

What is trained and certified is kept from run to run. ROWS in the environment names the rows of `saremi2020-figure5`
that are run, all at sigma 0.3 and 0.6 if it is not set: `ROWS=h-0.6,xhat-0.6 make evidence PART=denoisers`.
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import torch
from kept import in_points
from objectives import certified
from scipy import stats
from torch import nn
from workplace import CLI, WORK, data_dir

from smoothcert import SmoothedClassifier, load_data
from smoothcert.classifiers.folder import read_denoiser, read_network
from smoothcert.denoise import DenoisedClassifier, GaussianDenoiser, asymmetry
from smoothcert.recipes.comparison import compare_recipe
from smoothcert.recipes.plan import RecipePlan, plan
from smoothcert.recipes.recipe import read_recipe
from smoothcert.results.certified import Result
from smoothcert.results.compare import compare
from smoothcert.results.gallery import linear_margins
from smoothcert.store.provenance import machine_line
from smoothcert.store.store import read_store

OUT, PICTURES = WORK / "denoisers", Path(__file__).parents[1] / "docs" / "results" / "denoisers"
RADII, SIGMAS = (0.5, 1.0, 1.5, 2.0), (0.3, 0.6)
PAPER = {"g[h]": (71, 30, 7, 1), "g[pi]": (88, 77, 56, 28)}
S0, CASES = 0.7, 500
BEYOND = "A dash: the samples could not have proved this radius, even if all had agreed."


def main() -> str:
    OUT.mkdir(parents=True, exist_ok=True)
    PICTURES.mkdir(parents=True, exist_ok=True)
    table1, figure5 = (plan(read_recipe(f"saremi2020-{name}"), "cpu") for name in ("table1", "figure5"))
    trained = [f"{name}-{sigma:g}" for name in ("h", "xhat0", "xhat", "smoothadv") for sigma in SIGMAS]
    rows = os.environ["ROWS"].split(",") if os.environ.get("ROWS") else trained
    reproduce(table1, list(table1.tasks))
    reproduce(figure5, rows)
    lines = ["# Denoisers: closed forms, and the empirical-Bayes smoothed classifier on MNIST\n",
             f"{machine_line()}. Seconds are the clock's, with whatever else ran.\n",
             *closed_forms(), "", *linear(table1), "", *errors(table1), "", *adversarial(figure5, rows), "",
             *pictures(table1)]
    return "\n".join(lines) + "\n"


def reproduce(planned: RecipePlan, rows: list[str]) -> None:
    subprocess.run([CLI, "reproduce", planned.recipe.name, "--scale", "cpu", "-o", str(OUT), "--threads", "1",
                    "--quiet", "--row", ",".join(rows), "--data-dir", str(data_dir())], check=True,
                   stdout=subprocess.DEVNULL)


def folder(planned: RecipePlan, row: str, step: str) -> Path:
    return next(task for task in planned.tasks[row] if task.step == step).path(OUT)


# Proposition 2.3: X ~ N(0, s0^2 I), a linear h: g(x) = h(beta x), radius |<w, beta x> + b| / (beta ||w||)


def closed_forms() -> list[str]:
    exceeded = sum(_exceeds(case) for case in range(CASES))
    lines = ["## Proposition 2.3\n",
             f"Gaussian data, s0 = {S0}, sigma 0.6, {CASES} random linear classifiers and images, n = 1,000, alpha = "
             f".05: {exceeded} certificates exceed the true radius or name the other class; at most {CASES * 0.05:.0f} "
             f"are expected, and "
             f"P(Bin({CASES}, .05) >= {exceeded}) = {stats.binom.sf(exceeded - 1, CASES, 0.05):.3f}.\n",
             "Certified radius over the true one at n = 1,000,000 and alpha = 1e-6 (wanted: within 2 %):\n",
             "| p_A | ratio |", "|---|---|"]
    return lines + [f"| {p_a} | {_tightness(p_a):.4f} |" for p_a in (0.7, 0.8, 0.9, 0.99, 0.999)]


def _composed(w: torch.Tensor, b: float, sigma: float, seed: int) -> SmoothedClassifier:
    h = nn.Sequential(nn.Flatten(), nn.Linear(len(w), 2)).double()
    h[1].weight.data, h[1].bias.data = torch.stack([w, -w]) / 2, torch.tensor([b, -b], dtype=torch.float64) / 2  # type: ignore[union-attr]

    def pi(images: torch.Tensor) -> torch.Tensor:
        return DenoisedClassifier(GaussianDenoiser(S0), h, sigma).eval()(images.double())

    return SmoothedClassifier(pi, sigma, 2, seed, noise="gaussian", bounds=None)


def _exceeds(case: int, sigma: float = 0.6) -> bool:
    draw, beta = np.random.default_rng([1, case]), 1 / (1 + sigma**2 / S0**2)
    w, b = torch.from_numpy(draw.normal(size=16)), float(draw.normal())
    x = torch.from_numpy(draw.normal(size=(1, 4, 4))).float()
    score = beta * float(x.flatten().double() @ w) + b
    found = _composed(w, b, sigma, seed=3).certify(x, n0=50, n=1000, alpha=0.05, method="cohen", index=case)
    if found.prediction is None:
        return False
    return found.prediction != int(score < 0) or found.radius > abs(score) / (beta * float(w.norm()))


def _tightness(p_a: float, sigma: float = 0.6) -> float:
    beta = 1 / (1 + sigma**2 / S0**2)
    w, x = torch.tensor([1.0, -2.0, 0.5, 1.0], dtype=torch.float64), torch.full((1, 2, 2), 0.5)
    radius = sigma * float(stats.norm.ppf(p_a))
    b = beta * (radius * float(w.norm()) - float(x.flatten().double() @ w))
    found = _composed(w, b, sigma, seed=4).certify(x, n=1_000_000, alpha=1e-6, method="cohen", batch_size=10_000)
    return found.radius / radius


# Table 1


def linear(planned: RecipePlan) -> list[str]:
    results = {row: certified(planned, row, OUT) for row in planned.tasks}
    seconds = {row: line.seconds for line in compare_recipe(planned, OUT).lines for row in line.rows}
    count = next(iter(results.values())).images
    lines = ["## A linear classifier, smoothed as it is (g[h]) and behind an energy (g[pi])\n",
             f"`smoothcert reproduce saremi2020-table1 --scale cpu`: {count} test images, `--radii .5,1,1.5,2 --n-max "
             f"100000`, alpha = .001. Certified accuracy in %, rounded down; the envelope is the better sigma at each "
             f"radius.\n",
             f"| | training, s | {' | '.join(f'at {r:g}' for r in RADII)} |", "|---" * (2 + len(RADII)) + "|"]
    for row in ("h-0.3", "h-0.6", "pi-0.3", "pi-0.6"):
        lines.append(_row(row, f"{seconds[row]:.0f}", _best([results[row]])))
    for name, start in (("g[h]", "h-"), ("g[pi]", "pi-")):
        lines.append(_row(f"envelope of {name}", "", _best([results[f"{start}{sigma:g}"] for sigma in SIGMAS])))
        lines.append(_row(f"paper, {name}, 10,000 images", "", np.array(PAPER[name])))
    right, margin = _margins(planned, results["h-0.6"].index)
    beyond = 100 * np.array([np.mean(right & (margin > r)) for r in RADII])
    lines.append(_row("control: h right, with an exact margin beyond the radius", "", beyond))
    more = Result.of(read_store(wider(planned, "pi")))
    lines += ["", f"h itself is right on {_accuracy(planned, results['h'].index):.1f} % of these images and on "
                  f"{_accuracy(planned, np.arange(10_000)):.1f} % of all 10,000: these are the harder ones. On "
                  f"{more.images:,} images, every fifth, pi at sigma 0.6 with a fixed n = 1,000 is certified at .5 on "
                  f"{100 * more.at([0.5], 0.05).accuracy[0]:.1f} % and at 1 on "
                  f"{100 * more.at([1.0], 0.05).accuracy[0]:.1f} %."]
    behind = [compare(results[f"pi-{s:g}"], results[f"h-{s:g}"], RADII, 0.05) for s in SIGMAS]
    lines += ["", "g[pi] minus g[h] on the same images, in points, with 95 % paired intervals:\n",
              f"| sigma | {' | '.join(f'at {r:g}' for r in RADII)} |", "|---" * (1 + len(RADII)) + "|"]
    for sigma, found in zip(SIGMAS, behind, strict=True):
        lines.append(f"| {sigma:g} | {' | '.join(map(in_points, found.differences))} |")
    return [*lines, "", BEYOND]


def _row(name: str, seconds: str, values: np.ndarray) -> str:
    cells = ("-" if np.isnan(v) else f"{np.floor(10 * v + 1e-9) / 10:.1f}" for v in values)
    return f"| {name} | {seconds} | {' | '.join(cells)} |"


def _best(results: list[Result]) -> np.ndarray:
    """Percent at each radius; NaN where no run's samples could prove it."""
    found = 100 * np.max([result.at(RADII, 0.05).accuracy for result in results], axis=0)
    return np.where([all(result.is_out_of_reach(r) for result in results) for r in RADII], np.nan, found)


def _margins(planned: RecipePlan, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of these test images, whether h is right, and the exact distance to where it changes its answer."""
    h, _ = read_network(folder(planned, "h", "classifier"))
    dense = next(module for module in h.modules() if isinstance(module, nn.Linear))
    test = load_data("mnist", "test", data_dir=data_dir())
    found = linear_margins(test.batch(index), dense.weight.detach().numpy(), dense.bias.detach().numpy())
    return found.prediction == test.labels[index], found.margin


def _accuracy(planned: RecipePlan, index: np.ndarray) -> float:
    return 100 * float(_margins(planned, index)[0].mean())


def wider(planned: RecipePlan, name: str) -> Path:
    """h or pi at sigma 0.6 on four times the images, with fewer samples, a fixed number."""
    out = OUT / f"wider-{name}"
    behind = ["--denoiser", str(folder(planned, "pi-0.6", "denoiser"))] if name == "pi" else ["--sigma", "0.6"]
    subprocess.run([CLI, "certify", str(folder(planned, "h", "classifier")), *behind, "--n0", "100", "--n", "1000",
                    "--method", "cohen", "--every", "5", "--seed", "0", "--threads", "1", "--quiet", "--data-dir",
                    str(data_dir()), "-o", str(out)], check=True, stdout=subprocess.DEVNULL)
    return out


# What x_hat leaves of the noise


def errors(planned: RecipePlan, count: int = 1000) -> list[str]:
    test, draw = load_data("mnist", "test", data_dir=data_dir()), torch.Generator().manual_seed(0)
    clean = torch.from_numpy(test.batch(range(count)))
    lines = ["## Squared error of x_hat\n",
             f"Mean ||x - x_hat(x + e)||^2 over the first {count:,} test images, beside that of x + e itself; "
             f"asymmetry of the Jacobian, ||J - J^T|| / ||J|| (0 for a gradient), estimated on 20 of them.\n",
             "| denoiser | sigma | x_hat | x + e | asymmetry |", "|---|---|---|---|---|"]
    for sigma in SIGMAS:
        noisy = clean + sigma * torch.randn(clean.shape, generator=draw)
        for name, where in (("energy (DEEN)", folder(planned, f"pi-{sigma:g}", "denoiser")), ("direct", direct(sigma))):
            x_hat = read_denoiser(where)[0]
            with torch.no_grad():
                left = torch.cat([x_hat(part) for part in noisy.split(100)])
            skew = asymmetry(x_hat, noisy[:20], 10, draw).mean()
            error, identity = (float((out - clean).square().flatten(1).sum(dim=1).mean()) for out in (left, noisy))
            lines.append(f"| {name} | {sigma:g} | {error:.2f} | {identity:.1f} | {float(skew):.1e} |")
    return lines


def direct(sigma: float) -> Path:
    """A direct network of the energies' size, trained for a few epochs."""
    out = OUT / f"direct-{sigma:g}"
    subprocess.run([CLI, "train", "-o", str(out), "--data", "mnist", "--data-dir", str(data_dir()), "--objective",
                    "denoise", "--model", "direct", "--model-option", "network=mlp", "--model-option", "width=1024",
                    "--sigma", str(sigma), "--epochs", "4", "--batch-size", "128", "--optimizer", "adam", "--lr",
                    "0.001", "--schedule", "cosine", "--weight-decay", "0", "--threads", "1", "--quiet"],
                   check=True, stdout=subprocess.DEVNULL)
    return out


# XHAT


def adversarial(planned: RecipePlan, rows: list[str]) -> list[str]:
    results = {row: certified(planned, row, OUT) for row in rows}
    seconds = {row: line.seconds for line in compare_recipe(planned, OUT).lines for row in line.rows if row in rows}
    first = next(iter(results.values()))
    lines = ["## XHAT: a classifier trained behind the frozen energy, against attacks\n",
             f"`smoothcert reproduce saremi2020-figure5 --scale cpu`: LeNet, the same images, epochs and batches for "
             f"all; {first.images} test images, sequential up to n = 10,000. xhat is at eps 1 with 4 PGD steps, xhat0 "
             f"at eps 0, smoothadv without a denoiser, h trained on clean images. ACR is a lower bound here, as "
             f"sampling stops when the radii are decided. Seconds are those of everything the row trained.\n",
             f"| | training, s | ACR | {' | '.join(f'at {r:g}' for r in RADII)} |", "|---" * (3 + len(RADII)) + "|"]
    for row, result in results.items():
        lines.append(_row(row, f"{seconds[row]:.0f} | {result.acr:.3f}", _best([result])))
    for name in ("h", "xhat0", "xhat", "smoothadv"):
        both = [results[row] for row in results if row.rsplit("-", 1)[0] == name]
        if len(both) == len(SIGMAS):
            lines.append(_row(f"envelope of {name}", " | ", _best(both)))
    lines.append(_row("paper, XHAT, n = 1e6, 10,000 images", " | ", np.array((98, 95, 81, 57))))
    lines += ["", "Differences on the same images at 0.5, 1, 1.5 and 2, in points, with 95 % paired intervals:\n"]
    for first, second in (("xhat", "xhat0"), ("xhat0", "h"), ("xhat", "smoothadv")):
        for sigma in SIGMAS:
            one, two = (results.get(f"{name}-{sigma:g}") for name in (first, second))
            if one and two:
                found = compare(one, two, RADII, 0.05).differences
                lines.append(f"- {first} less {second}, sigma {sigma:g}: {', '.join(map(in_points, found))}")
    left = [row for row in planned.tasks if row not in rows]
    return [*lines, "", BEYOND, "", f"Not run: {', '.join(left)}."]


# Pictures


def pictures(planned: RecipePlan) -> list[str]:
    stores = {row: folder(planned, row, "certified") for row in ("h-0.6", "pi-0.6")}
    behind = ["--denoiser", str(folder(planned, "pi-0.6", "denoiser"))]
    one = str(read_store(stores["pi-0.6"]).column("index")[3])
    plots = {
        "panels": ["denoised", stores["pi-0.6"], *behind],
        "copies": ["denoised", stores["pi-0.6"], *behind, "--image", one],
        "failures": ["failures", wider(planned, "h"), wider(planned, "pi"), *behind, "--count", "12"],
        "contraction": ["contraction", stores["pi-0.6"], *behind, "--count", "40"],
    }
    lines = ["## Pictures\n",
             "The failures are images that h certifies at a larger radius than pi, both at sigma 0.6 and n = 1,000 "
             "(the paper: 26 of 10,000 at n = 100,000).\n"]
    for name, words in plots.items():
        subprocess.run([CLI, "plot", *map(str, words), "-o", str(PICTURES / f"{name}.png"), "--data-dir",
                        str(data_dir())], check=True, stdout=subprocess.DEVNULL)
        lines.append(f"![{name}](denoisers/{name}.png)\n")
    return lines

