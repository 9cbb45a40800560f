"""Exact failure probabilities of every certification procedure on a fine grid: writes docs/results/coverage.md.

Run with `python evidence/coverage.py`. Deterministic; a few minutes on one core.
"""

from pathlib import Path

import numpy as np
from enumeration import failure_probability, near_jumps, return_probability, simplex

RESULT = Path(__file__).parents[1] / "docs" / "results" / "coverage.md"
TRIALS = (5, 10, 20, 30, 50, 75, 100)
ALPHAS = (0.001, 0.01, 0.05, 0.2)
TENTHS = tuple(t / 10 for t in range(1, 11))
METHODS = {  # claim in units of alpha; the levels at which its bounds on p_A and on p_B jump
    "cohen": (1, (1.0,), (1.0,)),
    "two-sided": (1, (0.9,), (0.1,)),
    "t-certify": (2, TENTHS, (0.1, 0.3, 0.5, 0.7, 0.9)),
}
MOST = 15_000
"""Points beside jumps, at most, for each (method, n, alpha): evenly thinned beyond."""

HEADER = """# Exact coverage of the certification procedures

Written by `evidence/coverage.py`; no simulation is involved. Three classes with probabilities p, n estimation samples,
a fixed selected class (every one in turn): the failure probability is the exact sum of the probabilities of all
outcomes whose certified radius exceeds the true one (for a class that is not on top: of all that certify it at all).
The points p are a regular grid of the simplex and, because failure jumps where a bound passes p, points a hair (1e-9)
beside the jumps of the bounds on both classes. n in {trials}; alpha in {alphas}.

| procedure | claim | largest failure / alpha | n | alpha | p of the classes | points |
|---|---|---|---|---|---|---|
"""

FOOTER = """
PREDICT fails when it returns a class that is not the one top class; where top classes tie, any answer counts.
T-CERTIFY is as published: it chooses its split of alpha after seeing the counts, which its theorem does not cover. Its
failure probability is proved to be at most 2 alpha; run at alpha / 2 it is sound at alpha.
"""


def worst_certificate(method: str) -> tuple[float, int, float, np.ndarray, int]:
    """(largest failure / alpha, n, alpha, p with the selected class first, number of points)."""
    _, shares, others = METHODS[method]
    best, points = (-1.0, 0, 0.0, np.zeros(3)), 0
    for n in TRIALS:
        for alpha in ALPHAS:
            jumps = near_jumps(n, alpha, shares, others)
            p = np.concatenate([simplex(40), jumps[:: -(-len(jumps) // MOST)]])
            for selected in range(3):
                ratio = failure_probability(p, n, alpha, method, selected) / alpha
                points += len(p)
                at = int(np.argmax(ratio))
                if ratio[at] > best[0] * (1 + 1e-9):
                    best = (float(ratio[at]), n, alpha, np.roll(p[at], -selected))
    return (*best, points)


def worst_prediction() -> tuple[float, int, float, np.ndarray, int]:
    """The same for PREDICT."""
    shares = np.linspace(1 / 3, 0.5, 200)
    ties = np.concatenate([np.stack([shares + gap, shares, 1 - 2 * shares - gap], axis=1) for gap in (0.0, 1e-12, 1e-6)])
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


def main() -> None:
    text = HEADER.format(trials=set_of(TRIALS), alphas=set_of(ALPHAS))
    text += "".join(row(method, METHODS[method][0], worst_certificate(method)) for method in METHODS)
    text += row("predict", 1, worst_prediction()) + FOOTER
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(text, encoding="utf-8")
    print(text)


def set_of(values: tuple) -> str:
    return "{" + ", ".join(str(value) for value in values) + "}"


if __name__ == "__main__":
    main()
