"""Sequential plans replayed on published per-image logs: binomial votes with each image's logged p_A.

The logs hold a radius per image, from n = 100,000 samples at alpha = .001, one-sided: it is inverted to the share of
votes that gave it. Rivals are not logged, so all that is replayed is one-sided. Images that were abstained from have
no logged p_A; they are given .45.
"""

import os
from functools import partial
from pathlib import Path

import numpy as np

from smoothcert.stats import certify_counts, certify_plan, gaussian_radius, predict_plan
from smoothcert.stats.planning import find_votes
from smoothcert.stats.procedures import predict_counts
from smoothcert.stats.sequential import Seen

N, ALPHA, ABSTAINED = 100_000, 0.001, 0.45
NETWORKS = {"cifar10": "resnet110", "imagenet": "resnet50"}
SIGMAS = (0.25, 0.5, 1.0)
RADII = {"cifar10": (0.25, 0.5, 0.75, 1.0, 1.25, 1.5), "imagenet": (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)}
"""Radii of the paper's tables."""


def logs_dir() -> Path | None:
    """Where the logs are, laid out as their authors published them, or None where they are not told."""
    told = os.environ.get("SMOOTHCERT_LOGS_DIR")
    return Path(told) if told else None


def populations(folder: Path) -> dict[tuple[str, float], np.ndarray]:
    """p_A of every image, by data set and sigma (those trained and certified at the same one)."""
    found = {}
    for data, network in NETWORKS.items():
        for sigma in SIGMAS:
            path = folder / "certify" / data / network / f"noise_{sigma:.2f}" / "test" / f"sigma_{sigma:.2f}.tsv"
            predicted, radius = np.loadtxt(path, skiprows=1, usecols=(2, 3), unpack=True)
            found[data, sigma] = np.where(predicted >= 0, votes_share(radius / sigma), ABSTAINED)
    return found


def votes_share(z: np.ndarray) -> np.ndarray:
    """N_A / N of the count (as a real number) whose lower limit is Phi(z)."""
    return find_votes(z, N, ALPHA) / N


def vote_paths(p: np.ndarray, looks, rng: np.random.Generator) -> np.ndarray:
    """Cumulative votes for c_A at every look, (M, looks)."""
    return rng.binomial(np.diff(looks, prepend=0), p[:, None]).cumsum(axis=1)


def radii_replay(
    p: np.ndarray, sigma: float, radii, times: int, rng, version: int | None = None, method: str = "cohen",
    labels_known: bool = False,
) -> tuple[float, np.ndarray, np.ndarray]:
    """(mean samples with the selection, claimed share of images at each radius, the same for CERTIFY on the votes).

    All rivals are taken for one class. The one-sided designs that follow the leading class are given c_A's votes, which
    differ from the leader's only where p_A is near 1/2 or below.
    """
    plan = certify_plan(partial(gaussian_radius, sigma=sigma), radii=tuple(radii), n_max=N, alpha=ALPHA, method=method,
                        labels_known=labels_known, version=version)
    looks, targets = np.array(plan.looks), np.array(plan.radii)
    p = np.tile(p, times)
    votes = vote_paths(p, looks, rng)
    samples, claimed = np.zeros(len(p)), np.zeros((len(p), len(targets)), dtype=bool)
    alive = np.arange(len(p))
    for k in range(len(looks)):
        m, taken = len(alive), votes[alive, :k + 1]
        seen = Seen(m, np.repeat(np.arange(m), k + 1), np.tile(np.arange(k + 1), m), taken.ravel(),
                    (looks[:k + 1] - taken).ravel())
        claimed[alive], still_open = plan.weigh(seen)
        samples[alive] = looks[k]
        alive = alive[still_open.any(axis=1)]
    radius = sigma * certified(votes[:, -1], np.full(len(p), N), method)[:, None]
    return float(samples.mean()) + plan.n0, claimed.mean(axis=0), ((radius >= targets) & (radius > 0)).mean(axis=0)


def curve_replay(
    p: np.ndarray, loss: float, times: int, rng, to: float | None = None, version: int | None = None
) -> tuple[float, float, float]:
    """(mean samples, pilot included; share of the mean radius lost; abstentions beyond those of CERTIFY, a share)."""
    plan = certify_plan(partial(gaussian_radius, sigma=1.0), curve_loss=loss, curve_to=to, n_max=N, alpha=ALPHA,
                        method="cohen", version=version)
    p = np.tile(p, times)
    pilot = rng.binomial(plan.n0, p)
    n = plan.sizes(pilot, plan.n0 - pilot)
    part = rng.binomial(n, p)
    radius = np.where(n > 0, certified(part, np.maximum(n, 1)), 0.0)
    fixed = certified(part + rng.binomial(N - n, p), np.full(len(p), N))
    lost = 1 - np.minimum(radius, to or np.inf).mean() / np.minimum(fixed, to or np.inf).mean()
    return float((plan.n0 + n).mean()), float(lost), float((fixed > 0).mean() - (radius > 0).mean())


def certified(votes: np.ndarray, trials: np.ndarray, method: str = "cohen") -> np.ndarray:
    """Radii of CERTIFY, sigma = 1."""
    return certify_counts(np.tile([1, 0], (len(votes), 1)), np.column_stack([votes, trials - votes]), 1.0, ALPHA,
                          method).radius


def predict_replay(
    p: np.ndarray, n_max: int, times: int, rng, version: int | None = None
) -> tuple[float, float, float]:
    """(mean samples, abstention, abstention of PREDICT with n_max samples), all rivals taken for one."""
    plan = predict_plan(ALPHA, n_max=n_max, version=version)
    looks, p = np.array(plan.looks), np.tile(p, times)
    votes = vote_paths(p, looks, rng)
    counts = np.stack([votes, looks - votes], axis=-1).reshape(-1, 2)
    number = np.tile(np.arange(len(looks)), len(p))
    rejects = (plan.p_values(number, counts) <= ALPHA).reshape(votes.shape)
    ends = rejects | plan.is_futile(number, counts).reshape(votes.shape)
    stop = np.where(ends.any(axis=1), ends.argmax(axis=1), len(looks) - 1)
    answered = rejects[np.arange(len(p)), stop]
    fixed = predict_counts(counts[number == len(looks) - 1], ALPHA).prediction
    return float(looks[stop].mean()), float(1 - answered.mean()), float((fixed < 0).mean())
