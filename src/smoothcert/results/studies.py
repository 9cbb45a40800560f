"""What stored counts and radii show beyond the curve of a run: arrays for pictures, no drawing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from smoothcert.checks import check_count, check_probability
from smoothcert.errors import InputError
from smoothcert.results.base import check_same_data
from smoothcert.results.certified import Result, accuracies
from smoothcert.results.curves import Curve
from smoothcert.results.thin import corners, drawn_curve
from smoothcert.results.votes import Votes, collapsed, votes_of
from smoothcert.stats import METHODS, cohen_radius, lecuyer_radius, li_radius, max_radius
from smoothcert.store.recertify import noise_of, recertify
from smoothcert.store.store import Store

BOUNDS: dict[str, Callable[..., np.ndarray | np.float64]] = {
    "Cohen et al. 2019": cohen_radius, "Li et al. 2018": li_radius, "Lecuyer et al. 2019": lecuyer_radius,
}
"""Radii from (p_a, p_b, sigma), by their papers, the largest first."""

WALL = 0.01
"""A radius within this share of r_max is said to stand at the wall."""

_CHUNK = 4096


@dataclass(frozen=True)
class Envelope:
    """The best of several runs at each radius.

    Attributes:
        curves: those of the runs, each bound at rho.
        radius, accuracy: the largest certified accuracy of any run at each radius; (P,).
        lower: the largest bound on this test set of any run, each at rho / number of runs, so that all hold together
            with probability 1 - rho at one radius chosen beforehand; (P,).
        best: (P,) which run has that accuracy.
        name: the method whose runs they are; "" where none is told.
    """

    curves: list[Curve]
    radius: np.ndarray
    accuracy: np.ndarray
    lower: np.ndarray
    best: np.ndarray
    name: str = ""


@dataclass(frozen=True)
class Shares:
    """Of each run: the shares of images that are certified and right, certified and wrong, and abstained; (R,) each."""

    names: list[str]
    right: np.ndarray
    wrong: np.ndarray
    abstained: np.ndarray


@dataclass(frozen=True)
class TopShares:
    """Of each run, the observed share of the chosen class and its lower bound, counted in bins with `edges` (B+1,).

    `observed` and `lower` are (R, B) shares of the run's images; the lower bound is Clopper-Pearson's at the run's
    alpha, one-sided.
    """

    names: list[str]
    edges: np.ndarray
    observed: np.ndarray
    lower: np.ndarray


@dataclass(frozen=True)
class Wall:
    """Certified radii in falling order against r_max, the radius when all n samples agree.

    Attributes:
        names, radii: of each run, its radii from the largest down (right or wrong, without the abstained), thinned.
        share: of each run, at which share of its images each of these radii stands.
        wall: r_max of each run; NaN where a log does not say its sigma, alpha or n.
        at_wall: share of each run's images with a radius within `WALL` of it: more samples would raise those.
    """

    names: list[str]
    radii: list[np.ndarray]
    share: list[np.ndarray]
    wall: np.ndarray
    at_wall: np.ndarray


@dataclass(frozen=True)
class Pairs:
    """The radii of the same images in two runs, (M,) each; 0 for a wrong answer or an abstention."""

    names: tuple[str, str]
    first: np.ndarray
    second: np.ndarray


def envelopes(results: Sequence[Result], rho: float) -> list[Envelope]:
    """An envelope for each method (group), every run's bounds at rho / number of all runs."""
    check_same_data(results)
    groups = dict.fromkeys(result.group for result in results)
    return [replace(envelope([one for one in results if one.group == group], rho, len(results)), name=group)
            for group in groups]


def envelope(results: Sequence[Result], rho: float, runs: int | None = None) -> Envelope:
    """The envelope over `results`, with every run's own curve; `runs` of which all bounds hold together."""
    check_same_data(results)
    radius = np.unique(np.concatenate([corners(result) for result in results]))
    at = accuracies(results, radius, check_probability("rho", rho) / (runs or len(results)))
    accuracy = np.stack([one.accuracy for one in at])
    return Envelope([drawn_curve(result, rho) for result in results], radius, accuracy.max(axis=0),
                    np.stack([one.test_set for one in at]).max(axis=0), accuracy.argmax(axis=0))


@dataclass(frozen=True)
class Theorems:
    """Certified radius against p_A, the lower bound of the top class's probability, with p_B = 1 - p_A; and against n.

    Attributes:
        sigma: noise level, the unit of the radii. alpha: of each certificate. n: samples an image, at most.
        p_a: (P,). radii: of each theorem in `BOUNDS`, (P,).
        images: p_A of a run's certified images, sorted.
        samples, most: (Q,) numbers of samples, and the radius where all of them agree.
    """

    sigma: float
    alpha: float
    n: int
    p_a: np.ndarray
    radii: dict[str, np.ndarray]
    images: np.ndarray
    samples: np.ndarray
    most: np.ndarray


def theorems(store: Store, points: int = 400) -> Theorems:
    """The radii of all theorems at a run's sigma, and what n samples can prove (Cohen et al. 2019, Figure 5).

    There sigma is 1 and alpha .001; here they are the run's, and its own images and n are marked.
    """
    run, votes = Result.of(store), votes_of(store)
    q_a = 2e-5 + (0.5 - 2e-5) * np.linspace(1, 0, points) ** 3  # dense where p_A is near 1
    p_a = 1 - q_a
    alpha, n = store.identity["procedure"]["alpha"], int(run.n or votes.n.max())
    samples = np.unique(np.geomspace(10, max(1e7, 10.0 * n), points).astype(np.int64))
    lower, _ = votes.lower(run.level)
    radii = {name: np.asarray(radius_of(p_a, q_a, run.sigma)) for name, radius_of in BOUNDS.items()}
    return Theorems(run.sigma, alpha, n, p_a, radii, np.sort(lower[lower > 0.5]), samples,
                    np.asarray(max_radius(samples, alpha, run.sigma)))


def bounds_compared(store: Store, name: str, rho: float) -> list[Curve]:
    """Curves of one run's counts under the radii of `BOUNDS`, each from p_A >= CP_lo(N_A, n, alpha), p_B <= 1 - p_A."""
    run, votes = Result.of(store, name), votes_of(store)
    n_a, n, where = collapsed(votes.n_a, votes.n)
    p_a, q_a = Votes(n_a, n_a, n_a, n).lower(run.level)
    curves = []
    for words, radius_of in BOUNDS.items():
        parts = [radius_of(p, q, run.sigma) for p, q in zip(_pieces(p_a), _pieces(q_a), strict=True)]
        radius = np.concatenate(parts)[where]
        curves.append(drawn_curve(replace(_recast(run, votes, store, radius, words), method="cohen"), rho))
    return curves


def projected_over_n(store: Store, name: str, sizes: Sequence[int], rho: float) -> list[Curve]:
    """Curves that n samples would give if the observed shares stayed as they are: estimates, no certificates.

    Cohen et al. 2019, Fig. 8 (middle): the counts are taken in proportion, N_A n' / n rounded down, and certified by
    the run's own method. The run's own n is the first curve, as it was certified.
    """
    run, votes, noise = Result.of(store, name), votes_of(store), noise_of(store)
    curves = [drawn_curve(replace(run, name=f"n = {run.n:,} (as certified)"), rho)]
    for size in sizes:
        n = check_count("n", size)
        n_a = np.floor(votes.share * n * (1 + 1e-15)).astype(np.int64)
        rival = np.minimum(np.ceil(votes.rival / np.maximum(votes.n, 1) * n * (1 - 1e-15)).astype(np.int64), n - n_a)
        top, second, where = collapsed(n_a, rival)
        method = METHODS[store.identity["procedure"]["method"]]
        bounds = method(top, second[:, None], np.full(len(top), n), run.level)
        radius = noise.radius(bounds, run.margin)[where]
        curve = drawn_curve(_recast(run, votes, store, radius, f"n = {n:,} (projected)"), rho)
        curves.append(replace(curve, lower=curve.accuracy))  # an estimate has no bound
    return curves


def projected_over_alpha(store: Store, name: str, alphas: Sequence[float], rho: float) -> list[Curve]:
    """Curves of the same counts certified at other alphas (Cohen et al. 2019, Fig. 8, right).

    Each is a valid certificate at its alpha, if that alpha was chosen without looking at the counts.
    """
    run = Result.of(store, name)
    curves = [drawn_curve(replace(run, name=f"alpha = {run.alpha:g} (as certified)"), rho)]
    for alpha in alphas:
        answers, procedure = recertify(store, check_probability("alpha", alpha))
        again = Result.build(store, f"alpha = {alpha:g}", procedure, answers.prediction, answers.radius)
        curves.append(drawn_curve(again, rho))
    return curves


def shares(results: Sequence[Result]) -> Shares:
    """Right, wrong and abstained of each run."""
    right = np.array([result.correct.mean() for result in results])
    abstained = np.array([result.abstained.mean() for result in results])
    return Shares([result.name for result in results], right, 1 - right - abstained, abstained)


def top_shares(runs: Sequence[tuple[str, Votes, float]], bins: int = 50) -> TopShares:
    """Histograms of the chosen class's share, of (name, votes, alpha) each."""
    edges = np.linspace(0, 1, bins + 1)
    counted = [[np.histogram(values, edges)[0] / len(values) for values in (votes.share, votes.lower(alpha)[0])]
               for _, votes, alpha in runs]
    observed, lower = (np.stack(part) for part in zip(*counted, strict=True))
    return TopShares([name for name, _, _ in runs], edges, observed, lower)


def wall(results: Sequence[Result], most: int = 2000) -> Wall:
    """How the radii of each run, `most` of them, lie under the most that its samples could prove."""
    walls = np.array([np.nan if r.ceiling is None else r.ceiling for r in results])
    ranked = [np.sort(r.radius[~r.abstained])[::-1] for r in results]
    ranks = [_ranks(len(radii), most) for radii in ranked]
    at_wall = [float(np.mean(r.radius >= (1 - WALL) * top)) for r, top in zip(results, walls, strict=True)]
    return Wall([r.name for r in results], [radii[k] for radii, k in zip(ranked, ranks, strict=True)],
                [(k + 1) / r.images for k, r in zip(ranks, results, strict=True)], walls, np.array(at_wall))


def pairs(first: Result, second: Result) -> Pairs:
    """The radii of the images that two runs share.

    Raises:
        InputError: they are of different data sets, or have no image in common.
    """
    check_same_data([first, second])
    _, one, two = np.intersect1d(first.index, second.index, assume_unique=True, return_indices=True)
    if not len(one):
        raise InputError(f"{first.name} and {second.name} have no image in common")
    return Pairs((first.name, second.name), np.where(first.correct, first.radius, 0.0)[one],
                 np.where(second.correct, second.radius, 0.0)[two])


def among(result: Result, index: np.ndarray) -> Result:
    """A run's images that are among `index`, alone.

    Raises:
        InputError: there are none.
    """
    kept = np.isin(result.index, index)
    if not kept.any():
        raise InputError(f"{result.name} has none of the images of the other runs")
    parts = {name: getattr(result, name)[kept] for name in ("index", "radius", "correct", "abstained")}
    return replace(result, **parts, label=None if result.label is None else result.label[kept])


def _recast(run: Result, votes: Votes, store: Store, radius: np.ndarray, name: str) -> Result:
    """The run with other radii for the same chosen classes."""
    correct = (votes.chosen == store.column("label")) & (radius > 0)
    return replace(run, name=name, radius=radius, correct=correct, abstained=radius <= 0, decided=None)


def _pieces(values: np.ndarray) -> list[np.ndarray]:
    return [values[start:start + _CHUNK] for start in range(0, max(len(values), 1), _CHUNK)]


def _ranks(count: int, most: int) -> np.ndarray:
    """At most `most` evenly spaced ranks of `count`, the first and the last among them."""
    return np.unique(np.linspace(0, max(count - 1, 0), min(count, most)).round().astype(np.int64))
