"""Planned claims: samples for a bound on new images, against 500 images of fixed n and of the sequential design.

On the published logs votes are drawn with the p_A of every image (`evidence/replay.py`), 50 images are the pilot, and
the others are the population that runs draw from. On MNIST (or the digits) all runs are real.
"""

import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from networks import SIGMA
from pages import Section, section, table
from trained import data_options, trained_folder

import smoothcert
from smoothcert.results.cost import samples_of
from smoothcert.results.planning import ClaimOutcome
from smoothcert.stats import AtRadii, gaussian_radius
from smoothcert.stats.intervals import population_bound
from smoothcert.stats.planning import foresee, highest, likely_probabilities
from smoothcert.store.store import Store

sys.path.append(str(Path(__file__).parents[1] / "evidence"))
from replay import ABSTAINED, ALPHA, NETWORKS, SIGMAS, N, logs_dir, radii_replay, votes_share

IMAGES, PILOT, RHO, CHANCE = 500, 50, 0.05, 0.5
FEWER = 1.6
"""The plan may take so many times fewer samples than the sequential design at its defaults."""
ASKED = {"cifar10": (0.25, 0.5, 1.0), "imagenet": (0.5, 1.0, 2.0)}
PILOTS, RUNS, TIMES = 6, 40, 4
HEADER = ["images of", "radius", "fixed n: bound", "samples", "sequential: samples", "plan: images", "n_max", "alpha",
          "bound", "samples", "fewer than fixed n by", "than sequential by"]


def main(figures: dict[str, float]) -> Section:
    rows, ratios = [], []
    folder = logs_dir()
    for data in NETWORKS if folder else ():
        for sigma in SIGMAS:
            p, p_a, right = population(folder, data, sigma)
            for radius in (r for r in ASKED[data] if r <= 2 * sigma):
                found = replayed(p, p_a, right, sigma, radius)
                rows.append([f"{data}, sigma {sigma:g}", f"{radius:g}", *found[0]])
                ratios.append(found[1])
    for radius in (SIGMA, 2 * SIGMA):
        found = measured(radius)
        rows.append([f"{data_options()['data']}, LeNet, sigma {SIGMA:g}", f"{radius:g}", *found[0]])
        ratios.append(found[1])
    fixed, sequential, gained = (min(values) for values in zip(*ratios, strict=True))
    return section("Planned claims: samples for a bound on new images", [*table(HEADER, rows), *notes()], {
        "plan over fixed": fixed, "plan over sequential": sequential, "plan bound minus fixed": gained})


def population(folder: Path, data: str, sigma: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The probability of the label and of c_A of every image, and whether c_A is the label."""
    path = (folder / "certify" / data / NETWORKS[data] / f"noise_{sigma:.2f}" / "test" / f"sigma_{sigma:.2f}.tsv")
    label, predicted, radius = np.loadtxt(path, skiprows=1, usecols=(1, 2, 3), unpack=True)
    p_a = np.where(predicted >= 0, votes_share(radius / sigma), ABSTAINED)
    return np.where((predicted < 0) | (predicted == label), p_a, 1 - p_a), p_a, predicted == label


def replayed(p: np.ndarray, p_a: np.ndarray, right: np.ndarray, sigma: float, radius: float):
    """The cells of a row, and (fixed / plan, sequential / plan, bound of the plan - bound of fixed n)."""
    rng = np.random.default_rng(7)
    sequential = IMAGES * radii_replay(p_a, sigma, (radius,), TIMES, rng)[0]

    def design(n_max: int, alpha: float) -> AtRadii:
        return AtRadii(n_max=n_max, radii=(radius,), alpha=alpha, method="cohen", labels_known=True,
                       radius_of=partial(gaussian_radius, sigma=sigma))

    fixed, planned, taken, plans = [], [], [], []
    for _ in range(PILOTS):
        order = rng.permutation(len(p))
        pilot, others = order[:PILOT], order[PILOT:]
        votes = rng.binomial(1000, p[pilot])
        chosen = highest(foresee(design, likely_probabilities(votes, np.full(PILOT, 1000)), RHO), CHANCE, 10**6,
                         sequential / FEWER)
        plans.append(chosen)
        claimed, samples = design(chosen.n_max, chosen.alpha).expect(p[others])
        full = design(N, ALPHA).expect(p[others])[0] * right[others]
        for _ in range(RUNS):
            drawn = rng.integers(len(others), size=chosen.images)
            count = (rng.random(chosen.images) < claimed[drawn]).sum()
            planned.append(float(population_bound(count, chosen.images, chosen.alpha, RHO)))
            taken.append(float(samples[drawn].sum()))
            count = (rng.random(IMAGES) < full[rng.integers(len(others), size=IMAGES)]).sum()
            fixed.append(float(population_bound(count, IMAGES, ALPHA, RHO)))
    middle = sorted(plans, key=lambda one: one.images)[len(plans) // 2]
    return cells(np.mean(fixed), sequential, middle.images, middle.n_max, middle.alpha, np.mean(planned),
                 np.mean(taken))


def measured(radius: float):
    """The same by real runs of a LeNet; the claims of fixed n are taken from the sequential run."""
    with tempfile.TemporaryDirectory() as folder:
        model, options = str(trained_folder("lenet")), {**data_options(), "sigma": SIGMA, "threads": 1}
        run = partial(smoothcert.certify, model, **options)
        pilot = run(n=1000, max_images=PILOT, seed=1, out=f"{folder}/pilot")
        default = run(radii=[radius], n_max=N, max_images=IMAGES, seed=2, out=f"{folder}/default")
        planned = smoothcert.plan(pilot, radius=radius, samples=total(default) / FEWER, chance=CHANCE)
        chosen = planned.chosen
        outcome = ClaimOutcome.of(smoothcert.certify(model, seed=3, threads=1, out=f"{folder}/planned",
                                                     **planned.options))
        count = int((default.correct & (default.column("radius") >= radius)).sum())
        return cells(float(population_bound(count, IMAGES, ALPHA, RHO)), total(default), chosen.images, chosen.n_max,
                     chosen.alpha, outcome.bound, outcome.samples)


def total(store: Store) -> int:
    return int(samples_of(store).sum())


def cells(fixed: float, sequential: float, images: int, n_max: int, alpha: float, bound: float, taken: float):
    ratios = IMAGES * (100 + N) / taken, sequential / taken, bound - fixed
    told = [f"{100 * fixed:.1f}%", f"{IMAGES * (100 + N):,}", f"{sequential:,.0f}", f"{images:,}", f"{n_max:,}",
            f"{alpha:g}", f"{100 * bound:.1f}%", f"{taken:,.0f}", f"{ratios[0]:.0f}", f"{ratios[1]:.2f}"]
    return told, ratios


def notes() -> list[str]:
    return [
        f"The bound is on the share of new images that are right and certified at the radius, with confidence "
        f"{1 - RHO:g}. Fixed n and sequential: {IMAGES} images at alpha {ALPHA}, n or n_max {N:,}, the two with nearly "
        f"the same claims; the sequential design is that of its defaults, one-sided on the logs, where rivals are not "
        f"known, and two-sided on real runs. The plan is for a budget of {FEWER} times fewer samples than the "
        f"sequential design takes, with a chance of {CHANCE:g}, by a pilot of {PILOT} images and 1,000 votes each, "
        f"whose own {PILOT * 1000:,} samples are not counted. Logs: means over {PILOTS} pilots and {RUNS} runs of "
        f"each, and the plan of middle size; images are drawn from those that were not in the pilot. MNIST or digits: "
        f"one real run of each."
    ]
