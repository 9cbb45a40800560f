"""Sequential procedures: exact and simulated failure, samples saved on published logs."""

from functools import partial

import numpy as np
from curves import exact_predict, failures, replayed_curve, replayed_predict, simulated_curves, simulated_predict, up
from enumeration import simplex
from lookwise import (
    certificate_failure,
    jumps,
    path_failure,
    path_points,
    path_radii,
    paths,
    radii_by_look,
    stops_by_look,
)
from replay import ABSTAINED, RADII, N, curve_replay, logs_dir, populations, radii_replay
from scipy import special

from smoothcert.stats import RadiiCertify, gaussian_radius
from smoothcert.stats.sequential import RunningBounds, close_looks, early_spending

ALPHAS = (0.001, 0.05, 0.3)
SIMULATED = 20_000


def main() -> str:
    return "\n".join([
        "# Sequential procedures\n",
        "Failure probabilities are in units of alpha, rounded up: at most 1 is claimed.\n",
        *exact_fixed_radii(), *exact_three_classes(), *exact_predict(), *simulated(), *replayed(),
    ]) + "\n"


def exact_fixed_radii() -> list[str]:
    """Two classes, dynamic programming over the looks."""
    lines = ["## Fixed radii, two classes, exact\n",
             "The count's law is carried from look to look exactly. Adversary: stops as soon as the certificate is "
             "false. Largest failure over probabilities p a hair below each one that some count at some look would "
             "certify (up to 300 of them), and 1/2.\n",
             "| method | n_max | looks | alpha | adversary | at p | the plan's own stop, radius .5 sigma |",
             "|---|---|---|---|---|---|---|"]
    for method in ("cohen", "two-sided"):
        for n_max in (100, 400, 1600):
            for alpha in ALPHAS:
                plan = RadiiCertify(100, n_max, (0.5,), alpha, method, None, partial(gaussian_radius, sigma=1.0))
                radii, stops = radii_by_look(plan), stops_by_look(plan)
                p = jumps(1.0, radii)
                p = p[np.unique(np.linspace(0, len(p) - 1, 300).astype(int))]
                free = np.array([certificate_failure(plan, 1.0, at, radii)[0] for at in p]) / alpha
                own = max(certificate_failure(plan, 1.0, at, radii, stops)[0] for at in p) / alpha
                lines.append(f"| {method} | {n_max} | {len(plan.looks)} | {alpha} | {up(free.max())} | "
                             f"{p[free.argmax()]:.5f} | {up(own)} |")
    return [*lines, ""]


def exact_three_classes() -> list[str]:
    """Two-sided, all paths of counts."""
    lines = ["## Fixed radii, two-sided, three classes, exact\n",
             "All paths of counts over the looks of small designs; the radius only grows along a path, so its end is "
             "the worst stop.\n",
             "| looks | paths | alpha | largest failure | at p | points |", "|---|---|---|---|---|---|"]
    for looks in ((5, 20), (4, 8, 16), (6, 12, 24), (3, 6, 9, 18)):
        counts, log_orders = paths(looks)
        for alpha in ALPHAS[1:]:
            radius = path_radii(running(looks, alpha, "two-sided"), counts)
            p = np.concatenate([simplex(20), path_points(radius, 60, 6)])
            failure = path_failure(p, counts, log_orders, radius) / alpha
            at = ", ".join(f"{value:.4f}" for value in p[failure.argmax()])
            lines.append(f"| {', '.join(map(str, looks))} | {len(counts):,} | {alpha} | {up(failure.max())} | {at} | "
                         f"{len(p)} |")
    return [*lines, ""]


def simulated() -> list[str]:
    """Coverage at the default sizes."""
    alpha, rng = 0.05, np.random.default_rng(11)
    looks = close_looks(N)
    lines = [f"## Default sizes, alpha = {alpha}, {SIMULATED:,} simulated images\n",
             "Fixed radii: all 64 looks up to 100,000 are taken by the rule 'union', the worst for failure. Full "
             "curve: a pilot of 1,000, loss .01. The rest is split .9 and .1. P: probability of so many failures or "
             "more at exactly alpha "
             "(t-certify: at 2 alpha).\n",
             "| design | method | p_A | failures / alpha | P |", "|---|---|---|---|---|"]
    for method in ("cohen", "two-sided"):
        for p_a in (0.501, float(special.ndtr(1.0)), 0.99):
            p = np.array([p_a, 0.9 * (1 - p_a), 0.1 * (1 - p_a)])
            steps = rng.multinomial(np.diff(looks, prepend=0), p, size=(SIMULATED, len(looks)))
            radius = path_radii(running(looks, alpha, method), steps.cumsum(axis=1))
            lines.append(f"| fixed radii | {method} | {p_a:.4f} | {failures(radius > truth(p, method), alpha)} |")
    return [*lines, *simulated_curves(rng), "", *simulated_predict(rng)]


def replayed() -> list[str]:
    folder = logs_dir()
    if folder is None:
        return ["## Samples saved on the published logs\n", "Skipped: set SMOOTHCERT_LOGS_DIR to the published logs."]
    rng, found = np.random.default_rng(12), populations(folder)
    return [
        "## Samples saved on the published logs of Cohen et al. 2019\n",
        f"Binomial votes with each image's logged p_A (abstained: .45), {len(found)} populations, one-sided, alpha = "
        f".001, n_max = {N:,}; samples of the selection and of the pilot are counted.\n",
        *replayed_radii(found, rng), *replayed_curve(found, rng), *replayed_predict(found, rng), *hardest(found, rng),
    ]


DESIGNS = {
    "one-sided, first version": {"version": 1}, "one-sided": {}, "one-sided, labels known": {"labels_known": True},
    "two-sided, first version": {"version": 1, "method": "two-sided"}, "two-sided": {"method": "two-sided"},
}


def replayed_radii(found, rng) -> list[str]:
    """Every design at one radius, and at the list of all quarter radii, in one run."""
    lines = ["Fixed radii, all samples counted: one radius, the mean over the pairs of population and radius of the "
             "paper's tables; and the list 0, .25, .5, ... up to what n_max could certify.\n",
             "| design | pairs | samples an image | fewer than n_max by | loss in points: mean, worst "
             "| list: samples an image |", "|---|---|---|---|---|---|"]
    for name, options in DESIGNS.items():
        samples, losses, lists = [], [], []
        for (data, sigma), p in found.items():
            reach = sigma * float(special.ndtri(0.0008 ** (1 / N)))
            for r in (r for r in RADII[data] if r < reach):
                mean, claimed, fixed = radii_replay(p, sigma, (r,), 20, rng, **options)
                samples.append(mean)
                losses.append(100 * float((fixed - claimed).max()))
            lists.append(radii_replay(p, sigma, np.arange(0, reach, 0.25), 3, rng, **options)[0])
        mean = float(np.mean(samples))
        lines.append(f"| {name} | {len(samples)} | {mean:,.0f} | {N / mean:.1f} | {np.mean(losses):.3f}, "
                     f"{max(losses):.3f} | {np.mean(lists):,.0f} |")
    return [*lines, ""]


def hardest(found, rng) -> list[str]:
    """What hangs on the guess for the images that were abstained from: they might lie at 1/2 and need every sample."""
    grid, curve = [], []
    for (_, sigma), p in found.items():
        p = np.where(p == ABSTAINED, 0.5, p)
        reach = sigma * float(special.ndtri(0.0008 ** (1 / N)))
        grid.append(radii_replay(p, sigma, np.arange(0, reach, 0.25), 3, rng)[0])
        curve.append(curve_replay(p, 0.01, 3, rng)[0])
    wide, full = float(np.mean(grid)), float(np.mean(curve))
    return [f"\nWith the abstained at .5, the hardest value: whole grid {wide:,.0f} samples ({N / wide:.1f} times "
            f"fewer), full curve {full:,.0f} ({N / full:.2f} times)."]


def running(looks, alpha: float, method: str) -> RunningBounds:
    spent = alpha * np.array(early_spending(looks))
    return RunningBounds(looks, tuple(np.diff(spent, prepend=0.0).tolist()), method)


def truth(p: np.ndarray, method: str) -> float:
    rival = 1 - p[0] if method == "cohen" else p[1]
    return float(special.ndtri(p[0]) - special.ndtri(rival)) / 2
