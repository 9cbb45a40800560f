"""Exact failure probabilities of sequential plans, look by look; used by the tests and by `sequential.py`.

Two classes: the count of the first is a random walk over the looks, whose law is carried forward exactly. Three
classes: every path of counts over the looks of a small design is listed.
"""

from itertools import product

import numpy as np
from enumeration import outcomes, true_radius
from scipy import special, stats

from smoothcert.stats import Look, gaussian_radius
from smoothcert.stats.sequential import RunningBounds, Seen

HAIR = 1e-9


def single_looks(n: int, first: str | None = "select", stage: str = "estimate") -> list[list[Look]]:
    """A history for each count 0 ... n of the first of two classes; with `first`, that class was selected."""
    head = [] if first is None else [Look(first, np.array([1, 0]))]
    return [[*head, Look(stage, np.array([k, n - k]))] for k in range(n + 1)]


def walk(looks, fails, stops, p: float) -> tuple[float, float]:
    """(probability that a look fails before or as the drawing stops, mean samples), success probability p.

    `fails` and `stops` have for each look a bool array over its counts; the last look stops.
    """
    law, before, failed, samples = np.ones(1), 0, 0.0, 0.0
    for n, fail, stop in zip(looks, fails, stops, strict=True):
        law = np.convolve(law, stats.binom.pmf(np.arange(n - before + 1), n - before, p))
        failed += law[fail].sum()
        ends = fail | stop if n != looks[-1] else np.ones_like(fail)
        samples += n * law[ends].sum()
        law[ends], before = 0.0, n
    return failed, samples


def radii_by_look(plan) -> list[np.ndarray]:
    """The certified radius of every count at every look, by the plan's own judgement."""
    return [plan.judge(single_looks(n)).values["radius"] for n in plan.looks]


def stops_by_look(plan) -> list[np.ndarray]:
    """Whether a plan at one fixed radius stops, for every count at every look."""
    return [~plan.decide(single_looks(n))[1].any(axis=1) for n in plan.looks]


def certificate_failure(plan, sigma: float, p: float, radii, stops=None) -> tuple[float, float]:
    """`walk` for a plan at fixed radii: failure is a certified radius above the true one, sigma Phi^-1(p).

    Without `stops` an adversary decides when to stop: whenever the certificate is false.
    """
    truth = max(sigma * float(special.ndtri(p)), 0.0)
    fails = [radius > truth for radius in radii]
    return walk(plan.looks, fails, stops or [np.zeros_like(fail) for fail in fails], p)


def jumps(sigma: float, radii, least: float = 0.0) -> np.ndarray:
    """Probabilities whose true radius lies a hair below a radius that some count is given; and 1/2, where all fail."""
    given = np.unique(np.concatenate(radii))
    return np.concatenate([[0.5], special.ndtr(given[given > least] / sigma * (1 - HAIR))])


def prediction_failure(plan, p: float, gives_up: bool = False) -> tuple[float, float]:
    """`walk` for sequential PREDICT: failure is the second class, or at p = 1/2 any; p >= 1/2 of the first class.

    With `gives_up` the plan's own rule stops hopeless images; without, they go on, which is the worst for failure.
    """
    counts = [np.column_stack([np.arange(n + 1), n - np.arange(n + 1)]) for n in plan.looks]
    answers = [plan.judge(single_looks(n, None, "predict")).prediction for n in plan.looks]
    fails = [(answer == 1) | ((answer == 0) & (p == 0.5)) for answer in answers]
    stops = [(answer >= 0) | (gives_up & plan.is_futile(np.full(len(answer), k), counts[k]))
             for k, answer in enumerate(answers)]
    return walk(plan.looks, fails, stops, p)


def paths(looks) -> tuple[np.ndarray, np.ndarray]:
    """(cumulative counts (T, looks, 3), log of the number of sample orders (T,)) of every path of three classes."""
    steps = [outcomes(n) for n in np.diff(looks, prepend=0)]
    index = np.array(list(product(*(range(len(counts)) for counts, _ in steps))))
    taken = np.stack([counts[index[:, k]] for k, (counts, _) in enumerate(steps)], axis=1)
    log_orders = sum(log[index[:, k]] for k, (_, log) in enumerate(steps))
    return taken.cumsum(axis=1), log_orders


def path_radii(bounds: RunningBounds, counts: np.ndarray) -> np.ndarray:
    """The certified radius, sigma = 1, at the end of each path, the first class selected: the largest on its way."""
    t, m, _ = counts.shape
    owner, look = np.repeat(np.arange(t), m), np.tile(np.arange(m), t)
    seen = Seen(t, owner, look, counts[..., 0].ravel(), counts[..., 1:].max(axis=2).ravel())
    return gaussian_radius(bounds.prove(seen), 1.0)


def path_failure(p: np.ndarray, counts: np.ndarray, log_orders: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """P(certified radius > true radius), sigma = 1, for points p (P, 3)."""
    final = counts[:, -1]
    failing = [np.flatnonzero(radius > truth) for truth in true_radius(p, 0)]
    return np.array([
        np.exp(log_orders[i] + special.xlogy(final[i], point).sum(axis=1)).sum()
        for i, point in zip(failing, p, strict=True)])


def path_points(radius: np.ndarray, at_most: int, shapes: int) -> np.ndarray:
    """Points (P, 3) whose true radius lies a hair below one that some path is given, for several splits of the rest."""
    given = np.unique(radius[radius > 0])
    given = given[np.linspace(0, len(given) - 1, min(at_most, len(given))).astype(int)] * (1 - HAIR)
    r, share = (a.ravel() for a in np.meshgrid(given, np.linspace(0.5, 1.0, shapes)))
    low, high = np.zeros_like(r), np.ones_like(r)
    for _ in range(80):
        p_a = (low + high) / 2
        short = special.ndtri(p_a) - special.ndtri(share * (1 - p_a)) < 2 * r
        low, high = np.where(short, p_a, low), np.where(short, high, p_a)
    return np.stack([low, share * (1 - low), (1 - share) * (1 - low)], axis=1)
