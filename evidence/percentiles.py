"""Exact failure probabilities of the intervals of median smoothing; deterministic, in 50-digit arithmetic."""

from itertools import product

from mpmath import mp, mpf

from smoothcert.stats.percentiles import interval_ranks

TRIALS = (20, 100, 1000, 10_000)
ALPHAS = (0.001, 0.01, 0.1)
SHIFTS = (0.0, 0.25, 1.0, 2.0)
PERCENTILES = (0.05, 0.5, 0.9)

HEADER = """# Exact coverage of the intervals of median smoothing

No simulation is involved. For a function whose outputs have no ties, the two ends of an interval fail with exactly the
binomial probabilities P(Bin(n, p_-) <= k - 1) and P(Bin(n, p_+) >= k'), where k and k' are their ranks; ties and steps
only make them fail less (`smoothcert.stats.percentiles`). Both are summed here in 50-digit arithmetic, which shares
no formula with smoothcert, at percentiles {percentiles}, radii of {shifts} sigma and alpha in {alphas}.
The ends at the next narrower ranks fail with more than alpha / 2 each, so no ranks could be narrower.

| n | cases that n can give | largest failure / alpha | least failure / alpha of narrower ranks, times 2 |
|---|---|---|---|
"""


def upper_tail(k: int, n: int, p: mpf) -> mpf:
    """P(Bin(n, p) >= k), summed from the term of k on."""
    if k <= 0 or k > n:
        return mpf(k <= 0)
    term = total = mp.binomial(n, k) * p**k * (1 - p) ** (n - k)
    for j in range(k, n):
        term *= mpf(n - j) / (j + 1) * p / (1 - p)
        total += term
        if term < total * mpf(10) ** -40:
            break
    return total


def failures(n: int, percentile: float, shift: float, ranks: tuple[int, int]) -> tuple[mpf, mpf]:
    """The failure probabilities of the lower and the upper end."""
    z = mp.sqrt(2) * mp.erfinv(2 * mpf(percentile) - 1)
    low, high = mp.ncdf(z - mpf(shift)), mp.ncdf(z + mpf(shift))
    return upper_tail(n - ranks[0] + 1, n, 1 - low), upper_tail(ranks[1], n, high)


def row(n: int) -> str:
    cases, worst, narrower = 0, mpf(0), mpf("inf")
    for alpha, shift, percentile in product(ALPHAS, SHIFTS, PERCENTILES):
        if (ranks := interval_ranks(n, percentile, shift, alpha)) is None:
            continue
        cases += 1
        worst = max(worst, sum(failures(n, percentile, shift, ranks)) / mpf(alpha))
        beyond = failures(n, percentile, shift, (ranks[0] + 1, ranks[1] - 1))
        narrower = min(narrower, 2 * min(beyond) / mpf(alpha))
    assert worst <= 1 < narrower
    return f"| {n:,} | {cases} | {mp.ceil(worst * 10**4) / 10**4} | {mp.floor(narrower * 10**4) / 10**4} |\n"


def main() -> str:
    with mp.workdps(50):
        lists = {name: ", ".join(f"{value:g}" for value in values) for name, values in (
            ("percentiles", PERCENTILES), ("shifts", SHIFTS), ("alphas", ALPHAS))}
        return HEADER.format(**lists) + "".join(map(row, TRIALS))
