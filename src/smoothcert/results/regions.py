"""The classes that a base classifier gives on a plane through an image, and to noisy copies of it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from smoothcert.checks import check_count
from smoothcert.noise import Noise

Answers = Callable[[np.ndarray], np.ndarray]
"""Images (N, C, H, W) float32 -> classes (N,) int64."""

_BATCH = 256


@dataclass(frozen=True)
class Regions:
    """A plane through an image x, x + a u + b v, and the votes around x (Cohen et al. 2019, Fig. 1).

    Attributes:
        offsets: (G,) the values of a, and of b, in pixel units; 0 is x itself.
        classes: (G, G) class at (b, a): rows go with b.
        counts: (K,) votes of the noisy copies.
        typical: sigma sqrt(d), the length of a typical noise in d dimensions, in pixel units.
        directions: (2, d) u and v, orthonormal.
    """

    offsets: np.ndarray
    classes: np.ndarray
    counts: np.ndarray
    typical: float
    directions: np.ndarray


def decision_regions(
    answers: Answers, image: np.ndarray, noise: Noise, num_classes: int, *, points: int = 101, n: int = 1000,
    seed: int = 0, key: int = 0,
) -> Regions:
    """Classes on a square of 2.4 sigma sqrt(d) around an image (C, H, W), and the votes of n noisy copies.

    In many dimensions a plane of random directions shows one class: noise has the length sigma sqrt(d), and hardly any
    of it lies in the plane. So u points to the mean of the copies that voted for the runner-up, v to that of those
    that voted for the third class, made orthogonal; where no copy did, to the first copies. The noise is that of stage
    "attack": no sample of a certificate is used.
    """
    check_count("points", points, least=2)
    check_count("n", n)
    votes, copies = _voted(answers, image, noise, n, seed, key)
    counts = np.bincount(votes, minlength=num_classes)
    directions = _plane(copies, votes, counts)
    typical = noise.sigma * float(np.sqrt(image.size))
    offsets = np.linspace(-1.2, 1.2, points) * typical
    b, a = np.meshgrid(offsets, offsets, indexing="ij")
    plane = np.stack([a.ravel(), b.ravel()], axis=1)
    flat = np.ravel(image)
    classes = [answers((flat + part @ directions).astype(np.float32).reshape(-1, *image.shape))
               for part in np.array_split(plane, -(-len(plane) // _BATCH))]
    return Regions(offsets, np.concatenate(classes).reshape(points, points), counts, typical, directions)


def _voted(answers: Answers, image: np.ndarray, noise: Noise, n: int, seed: int, key: int
           ) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """The vote of each noisy copy (n,), and by class the sum of the noises that voted for it; and -1: first noises."""
    centre, flat = noise.centre(image), image.ravel()
    stream = noise.stream(seed, key, "attack", centre)
    votes, sums = [], {-1: np.zeros((0, image.size))}
    for begin in range(0, n, _BATCH):
        noisy = np.empty((min(_BATCH, n - begin), image.size), dtype=np.float32)
        noise.fill(noisy, centre, stream)
        given = answers(noisy.reshape(-1, *image.shape))
        votes.append(given)
        shifts = noisy.astype(float) - flat
        if not begin:
            sums[-1] = shifts[:4]
        for c in np.unique(given).tolist():
            sums[c] = sums.get(c, 0.0) + shifts[given == c].sum(axis=0)
    return np.concatenate(votes), sums


def _plane(sums: dict[int, np.ndarray], votes: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Two orthonormal directions, (2, d)."""
    d = sums[-1].shape[1]
    order = [c for c in np.argsort(-counts, kind="stable").tolist() if counts[c]]
    wanted = [*(sums[c] for c in order[1:3]), *sums[-1], *np.eye(d)[:2]]
    chosen: list[np.ndarray] = []
    for vector in wanted:
        rest = vector - sum((vector @ u) * u for u in chosen)
        length = np.linalg.norm(rest)
        if length > 1e-9 * max(np.linalg.norm(vector), 1e-300) and len(chosen) < 2:
            chosen.append(rest / length)
    return np.stack(chosen) if len(chosen) == 2 else np.concatenate([chosen, np.zeros((2 - len(chosen), d))])
