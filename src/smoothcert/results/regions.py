"""Classes around an image: those on a plane through it and of noisy copies, and a linear classifier's margins."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from smoothcert.checks import check_count
from smoothcert.errors import InputError
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
        radius: the certified radius of the image; 0 where it is not known.
        class_names: (K,) names, by class.
    """

    offsets: np.ndarray
    classes: np.ndarray
    counts: np.ndarray
    typical: float
    directions: np.ndarray
    radius: float = 0.0
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Margins:
    """A linear classifier's class of each image, and the l2 distance to where another class wins, in pixel units."""

    prediction: np.ndarray
    margin: np.ndarray


def decision_regions(
    answers: Answers, image: np.ndarray, noise: Noise, num_classes: int, *, points: int = 101, n: int = 1000,
    seed: int = 0, key: int = 0,
) -> Regions:
    """Return the classes on a square of 2.4 sigma sqrt(d) around an image (C, H, W), and the votes of n noisy copies.

    In many dimensions a plane of random directions shows one class: noise has the length sigma sqrt(d), and hardly any
    of it lies in the plane. So u points to the mean of the copies that voted for the runner-up, v to that of those
    that voted for the third class, made orthogonal; where no copy did, to the first copies. The noise is that of stage
    "attack": no sample of a certificate is used.
    """
    check_count("points", points, least=2)
    check_count("n", n)
    votes, copies = _count_votes(answers, image, noise, n, seed, key)
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


def linear_margins(images: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> Margins:
    """Return the exact margins, min over c of (z_top - z_c) / ||w_top - w_c|| for logits z = W x + b.

    Smoothed with Gaussian noise of any sigma, the classifier gives its top class at x with probability at most
    Phi(margin / sigma). So no certified radius from that probability alone exceeds the margin, but where the bound on
    it fails; with two classes it tends to the margin.

    Args:
        images: (M, C, H, W). weight: (K, d). bias: (K,).
    Raises:
        InputError: other shapes.

    >>> found = linear_margins(np.array([[[[3.0, 1.0]]]]), np.eye(2), np.zeros(2))
    >>> found.prediction.tolist(), found.margin.round(4).tolist()
    ([0], [1.4142])
    """
    flat = np.asarray(images, dtype=float).reshape(len(images), -1)
    weight, bias = np.asarray(weight, dtype=float), np.asarray(bias, dtype=float)
    if weight.ndim != 2 or weight.shape[1] != flat.shape[1] or bias.shape != weight.shape[:1]:
        raise InputError(f"weight must be (K, {flat.shape[1]}) and bias (K,), got {weight.shape} and {bias.shape}")
    logits = flat @ weight.T + bias
    top = logits.argmax(axis=1)
    gaps = logits[np.arange(len(top)), top][:, None] - logits
    lengths = np.linalg.norm(weight[:, None] - weight, axis=2)[top]
    others = np.arange(len(weight)) != top[:, None]
    distances = np.divide(gaps, lengths, out=np.full_like(gaps, np.inf), where=others & (lengths > 0))
    return Margins(top, distances.min(axis=1))


def _count_votes(answers: Answers, image: np.ndarray, noise: Noise, n: int, seed: int, key: int
           ) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Return the vote of each noisy copy (n,), and for each class the sum of the noises that voted for it.

    The entry -1 of the sums holds the first four noises.
    """
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
    """Return two orthonormal directions, (2, d)."""
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
