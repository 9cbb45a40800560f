"""Exact failure probabilities of every certification procedure on a fine grid; deterministic."""

import numpy as np
from enumeration import failure_probability, near_jumps, return_probability, simplex

TRIALS = (5, 10, 20, 30, 50, 75, 100)
ALPHAS = (0.001, 0.01, 0.05, 0.2)
CLAIMS = {"cohen": 1, "two-sided": 1, "t-certify": 2}
"""Failure probability that each method may have, in units of alpha."""

HEADER = """# Exact coverage of the certification procedures

No simulation is involved. Three classes with probabilities p, n estimation samples,
the first of them selected: the failure probability is the exact sum of the probabilities of all outcomes whose
certified radius exceeds the true one (where another class is on top: of all that certify it at all). The points p are
a regular grid of the simplex, in which the selected class is on top or not, and, because failure jumps where the true
radius passes one that some outcome is given, points a hair (1e-9) below such radii. n in {trials}; alpha in {alphas}.

| procedure | claim | largest failure / alpha | n | alpha | p, the selected class first | points |
|---|---|---|---|---|---|---|
"""

FOOTER = """
PREDICT fails when it returns a class that is not the one top class; where top classes tie, any answer counts.
T-CERTIFY is as published: it chooses its split of alpha after seeing the counts, which its theorem does not cover. Its
failure probability is proved to be at most 2 alpha; run at alpha / 2 it is sound at alpha.
"""


def worst_certificate(method: str) -> tuple[float, int, float, np.ndarray, int]:
    """(largest failure / alpha, n, alpha, p, its first class selected, number of points)."""
    best, points = (-1.0, 0, 0.0, np.zeros(3)), 0
    regular = simplex(40)
    for n in TRIALS:
        for alpha in ALPHAS:
            for p in (regular, near_jumps(n, alpha, method, radii=1000, shapes=15)):
                if not len(p):
                    continue
                ratio = failure_probability(p, n, alpha, method) / alpha
                points += len(p)
                at = int(np.argmax(ratio))
                if ratio[at] > best[0] * (1 + 1e-9):
                    best = (float(ratio[at]), n, alpha, p[at])
    return (*best, points)


def worst_prediction() -> tuple[float, int, float, np.ndarray, int]:
    """The same for PREDICT."""
    shares = np.linspace(1 / 3, 0.5, 200)
    gaps = (0.0, 1e-12, 1e-6)
    ties = np.concatenate([np.stack([shares + gap, shares, 1 - 2 * shares - gap], axis=1) for gap in gaps])
    p = np.concatenate([simplex(60), ties[ties[:, 2] >= 0], np.full((1, 3), 1 / 3)])
    is_top = p == p.max(axis=1, keepdims=True)
    is_the_top = is_top & (is_top.sum(axis=1) == 1)[:, None]
    best, points = (-1.0, 0, 0.0, np.zeros(3)), 0
    for n in TRIALS:
        for alpha in ALPHAS:
            ratio = (return_probability(p, n, alpha) * ~is_the_top).sum(axis=1) / alpha
            points += len(p)
            at = int(np.argmax(ratio))
            if ratio[at] > best[0] * (1 + 1e-9):
                best = (float(ratio[at]), n, alpha, p[at])
    return (*best, points)


def row(name: str, claim: int, worst: tuple[float, int, float, np.ndarray, int]) -> str:
    ratio, n, alpha, p, points = worst
    up = np.ceil(ratio * 1e4 - 1e-6) / 1e4
    where = ", ".join(f"{value:.4f}" for value in p)
    return f"| {name} | <= {claim} | {up:.4f} | {n} | {alpha} | {where} | {points:,} |\n"


def main() -> str:
    text = HEADER.format(trials=set_of(TRIALS), alphas=set_of(ALPHAS))
    text += "".join(row(method, claim, worst_certificate(method)) for method, claim in CLAIMS.items())
    return text + row("predict", 1, worst_prediction()) + FOOTER


def set_of(values: tuple) -> str:
    return "{" + ", ".join(str(value) for value in values) + "}"

