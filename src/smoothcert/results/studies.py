"""Studies of stored counts and radii beyond the curve of a run: arrays for pictures, no drawing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from smoothcert.checks import check_count, check_probability
from smoothcert.errors import InputError, StoreError
from smoothcert.results.base import check_kind, check_records, check_same_data
from smoothcert.results.certified import ASSUMED_ALPHA, Result
from smoothcert.results.curves import CertifiedCurve, curve_of
from smoothcert.stats import METHODS, cohen_radius, lecuyer_radius, li_radius, max_radius
from smoothcert.stats.binomial import SAFETY, lower_limit
from smoothcert.store.recertify import noise_of, recertify
from smoothcert.store.records import dense_counts
from smoothcert.store.store import Store

BOUNDS: dict[str, Callable[..., np.ndarray | np.float64]] = {
    "Cohen et al. 2019": cohen_radius, "Li et al. 2018": li_radius, "Lecuyer et al. 2019": lecuyer_radius,
}
"""Radii from (p_a, p_b, sigma), by their papers, the largest first."""

WALL = 0.01
"""A radius within this share of r_max counts as being at the wall."""

_CHUNK = 4096


@dataclass(frozen=True)
class Votes:
    """The votes of each image (M,): the chosen class, its votes `n_a`, the largest rival's, and the samples `n`.

    n is 0 where the pilot of a sequential run settled the image.
    """

    chosen: np.ndarray
    n_a: np.ndarray
    rival: np.ndarray
    n: np.ndarray

    @property
    def share(self) -> np.ndarray:
        """The observed share N_A / n; 0 where there are no samples."""
        return self.n_a / np.maximum(self.n, 1)

    def lower(self, alpha: float) -> tuple[np.ndarray, np.ndarray]:
        """Return (p, 1 - p): the one-sided Clopper-Pearson lower limit p of p_A at level `alpha`; 0 without samples."""
        n_a, trials, where = distinct_pairs(self.n_a, np.maximum(self.n, 1))
        p, q = lower_limit(n_a, trials, alpha)
        return (p * (1 - SAFETY))[where], np.minimum(q * (1 + SAFETY), 1.0)[where]


@dataclass(frozen=True)
class Shares:
    """Shares of each run's images that are certified and right, certified and wrong, and abstained; (R,) each."""

    names: list[str]
    right: np.ndarray
    wrong: np.ndarray
    abstained: np.ndarray


@dataclass(frozen=True)
class TopShares:
    """Histograms, for each run, of the observed share of the chosen class and of its lower bound.

    The bins have the edges `edges` (B+1,).

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
        wall: r_max of each run; NaN where a log does not give sigma, alpha or n.
        at_wall: share of each run's images with a radius within `WALL` of it: more samples would raise those.
    """

    names: list[str]
    radii: list[np.ndarray]
    share: list[np.ndarray]
    wall: np.ndarray
    at_wall: np.ndarray


@dataclass(frozen=True)
class Pairs:
    """Radii of the same images in two runs, (M,) each; 0 for a wrong answer or an abstention."""

    names: tuple[str, str]
    first: np.ndarray
    second: np.ndarray


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


def distinct_pairs(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the distinct pairs of two columns of counts, and which of them each row is: real runs have few."""
    base = int(second.max(initial=0)) + 1
    pairs, where = np.unique(first * base + second, return_inverse=True)
    return pairs // base, pairs % base, where


def votes_of(store: Store) -> Votes:
    """Return the votes of a `certify` store whose number of samples did not depend on the votes it bounds.

    Raises:
        StoreError: another kind of store; one without records or votes (a log); or a run that stopped when its radii
            were decided, whose counts at the end are no plain binomial sample.
    """
    check_kind(store, "certify", why=": its counts are needed")
    check_records(store)
    design = store.identity.procedure.design
    if store.identity.transferred_from is not None:
        raise StoreError(f"{store.folder} was transferred: most of its votes are of the original network, so take a "
                         f"store of that one, or one of `smoothcert certify` of this network")
    if (claim := store.identity.procedure.claim) is not None:
        raise StoreError(f"{store.folder} holds radii of another claim ({claim.words}), and this is about plain ones: "
                         f"take the store that it was made from")
    if design == "radii":
        raise StoreError(f"{store.folder} stopped sampling when its radii were decided, so its counts say nothing at "
                         f"another bound or n: take a run with a fixed n, or with --curve-loss")
    none = f"{store.folder} holds no votes, only answers: this needs the counts of a run"
    if store.provenance.log is not None:  # before (M, K) counts: the classes of a log may be any numbers
        raise StoreError(none)
    first = "pilot" if design == "curve" else "select"
    tallies = store.records.column("tallies")
    parts = []
    for start in range(0, len(tallies), _CHUNK):
        chosen = dense_counts(tallies.slice(start, _CHUNK), first, store.num_classes).argmax(axis=1)
        counts = dense_counts(tallies.slice(start, _CHUNK), "estimate", store.num_classes)
        rows = np.arange(len(chosen))
        n, n_a = counts.sum(axis=1), counts[rows, chosen]
        counts[rows, chosen] = -1
        parts.append((chosen, n_a, np.maximum(counts.max(axis=1), 0), n))
    votes = Votes(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    if not votes.n.any():
        raise StoreError(none)
    return votes


def theorems(store: Store, points: int = 400) -> Theorems:
    """Return the radii of all theorems at a run's sigma, and what n samples can prove (Cohen et al. 2019, Figure 5).

    There sigma is 1 and alpha .001; here they are the run's, and its own images and n are marked.
    """
    run, votes = Result.of(store), votes_of(store)
    q_a = 2e-5 + (0.5 - 2e-5) * np.linspace(1, 0, points) ** 3  # dense where p_A is near 1
    p_a = 1 - q_a
    alpha, n = ASSUMED_ALPHA if run.alpha is None else run.alpha, int(run.n or votes.n.max())
    samples = np.unique(np.geomspace(10, max(1e7, 10.0 * n), points).astype(np.int64))
    lower, _ = votes.lower(run.level)
    radii = {name: np.asarray(radius_of(p_a, q_a, run.sigma)) for name, radius_of in BOUNDS.items()}
    return Theorems(run.sigma, alpha, n, p_a, radii, np.sort(lower[lower > 0.5]), samples,
                    np.asarray(max_radius(samples, alpha, run.sigma)))


def compare_bounds(store: Store, name: str, rho: float) -> list[CertifiedCurve]:
    """Return curves of one run's counts under the radii of `BOUNDS`: p_A >= CP_lo(N_A, n, alpha), p_B <= 1 - p_A."""
    run, votes = Result.of(store, name), votes_of(store)
    n_a, n, where = distinct_pairs(votes.n_a, votes.n)
    p_a, q_a = Votes(n_a, n_a, n_a, n).lower(run.level)
    curves = []
    for words, radius_of in BOUNDS.items():
        parts = [radius_of(p_a[start:start + _CHUNK], q_a[start:start + _CHUNK], run.sigma)
                 for start in range(0, max(len(p_a), 1), _CHUNK)]
        radius = np.concatenate(parts)[where]
        curves.append(curve_of(replace(_recast(run, votes, store, radius, words), method="cohen"), rho))
    return curves


def project_over_n(store: Store, name: str, sizes: Sequence[int], rho: float) -> list[CertifiedCurve]:
    """Return the curves that n samples would give if the observed shares stayed the same: estimates, no certificates.

    Cohen et al. 2019, Fig. 8 (middle): the counts are taken in proportion, N_A n' / n rounded down, and certified by
    the run's own method. The run's own n is the first curve, as it was certified.
    """
    run, votes, noise = Result.of(store, name), votes_of(store), noise_of(store)
    if run.method is None:
        raise InputError(f"{name} does not say by which method it was certified: a projection certifies by the same")
    curves = [curve_of(replace(run, name=f"n = {run.n:,} (as certified)"), rho)]
    for size in sizes:
        n = check_count("n", size)
        n_a = np.floor(votes.share * n * (1 + 1e-15)).astype(np.int64)
        rival = np.minimum(np.ceil(votes.rival / np.maximum(votes.n, 1) * n * (1 - 1e-15)).astype(np.int64), n - n_a)
        top, second, where = distinct_pairs(n_a, rival)
        method = METHODS[run.method]
        bounds = method(top, second[:, None], np.full(len(top), n), run.level)
        radius = noise.radius(bounds, run.margin)[where]
        curve = curve_of(_recast(run, votes, store, radius, f"n = {n:,} (projected)"), rho)
        curves.append(replace(curve, lower=curve.accuracy))  # an estimate has no bound
    return curves


def project_over_alpha(store: Store, name: str, alphas: Sequence[float], rho: float) -> list[CertifiedCurve]:
    """Return curves of the same counts certified at other alphas (Cohen et al. 2019, Fig. 8, right).

    Each is a valid certificate at its alpha, if that alpha was chosen without looking at the counts.
    """
    run = Result.of(store, name)
    curves = [curve_of(replace(run, name=f"alpha = {run.alpha:g} (as certified)"), rho)]
    for alpha in alphas:
        answers, procedure = recertify(store, check_probability("alpha", alpha))
        again = Result.build(store, f"alpha = {alpha:g}", procedure, answers.prediction, answers.radius)
        curves.append(curve_of(again, rho))
    return curves


def shares(results: Sequence[Result]) -> Shares:
    """Return the shares of right, wrong and abstained answers of each run."""
    right = np.array([result.correct.mean() for result in results])
    abstained = np.array([result.abstained.mean() for result in results])
    return Shares([result.name for result in results], right, 1 - right - abstained, abstained)


def top_shares(runs: Sequence[tuple[str, Votes, float]], bins: int = 50) -> TopShares:
    """Return histograms of the chosen class's share for runs that are given as (name, votes, alpha)."""
    edges = np.linspace(0, 1, bins + 1)
    counted = [[np.histogram(values, edges)[0] / len(values) for values in (votes.share, votes.lower(alpha)[0])]
               for _, votes, alpha in runs]
    observed, lower = (np.stack(part) for part in zip(*counted, strict=True))
    return TopShares([name for name, _, _ in runs], edges, observed, lower)


def wall(results: Sequence[Result], most: int = 2000) -> Wall:
    """Return the radii of each run, at most `most` of them, and the largest radius that its samples could prove."""
    walls = np.array([np.nan if r.ceiling is None else r.ceiling for r in results])
    ranked = [np.sort(r.radius[~r.abstained])[::-1] for r in results]
    ranks = [np.unique(np.linspace(0, max(len(radii) - 1, 0), min(len(radii), most)).round().astype(np.int64))
             for radii in ranked]  # evenly spaced, the first and the last among them
    at_wall = [float(np.mean(r.radius >= (1 - WALL) * top)) for r, top in zip(results, walls, strict=True)]
    return Wall([r.name for r in results], [radii[k] for radii, k in zip(ranked, ranks, strict=True)],
                [(k + 1) / r.images for k, r in zip(ranks, results, strict=True)], walls, np.array(at_wall))


def pairs(first: Result, second: Result) -> Pairs:
    """Return the radii of the images that two runs share.

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
    """Return the run with only those of its images that are among `index`.

    Raises:
        InputError: there are none.
    """
    kept = np.isin(result.index, index)
    if not kept.any():
        raise InputError(f"{result.name} has none of the images of the other runs")
    parts = {name: getattr(result, name)[kept] for name in ("index", "radius", "correct", "abstained")}
    return replace(result, **parts, label=None if result.label is None else result.label[kept])


def _recast(run: Result, votes: Votes, store: Store, radius: np.ndarray, name: str) -> Result:
    """Return the run with other radii for the same chosen classes."""
    correct = (votes.chosen == store.column("label")) & (radius > 0)
    return replace(run, name=name, radius=radius, correct=correct, abstained=radius <= 0, decided=None)
