"""Pictures of images, as arrays: a run's by radius, one under noise or at several sizes, the classes around one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from smoothcert.checks import check_count, check_positive
from smoothcert.errors import InputError
from smoothcert.noise import Noise, build_noise
from smoothcert.results.base import check_records
from smoothcert.results.views import check_image
from smoothcert.stats import ABSTAIN
from smoothcert.store.recertify import noise_of
from smoothcert.store.store import Store

_JPEG = b"\xff\xd8\xff"


class Images(Protocol):
    """The part of a data set that pictures need; `smoothcert.data.ImageData` has it."""

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def source(self) -> Any: ...

    def batch(self, indices: Sequence[int] | np.ndarray) -> np.ndarray: ...


ImagesOf = Callable[[Store], Images]
"""A function that returns the data set of a store, or raises where it is not available."""


@dataclass(frozen=True)
class Gallery:
    """G images in falling order of radius, the abstained last.

    Attributes:
        clean, noisy: (G, *shape) float32; noisy copies are not clipped.
        index, label, prediction, radius: (G,); -1 for an abstention.
        class_names: (K,) names, by class.
        drawn: each noisy copy is the first of those that bounded its radius; else it is another of the same law.
        lossy: at least one of these images is stored in a lossy format (JPEG).
        of: number of images of the run.
    """

    clean: np.ndarray
    noisy: np.ndarray
    index: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    radius: np.ndarray
    class_names: tuple[str, ...]
    drawn: bool
    lossy: bool
    of: int

    def words(self, k: int) -> str:
        """Return the caption of image k: its label, an arrow to the answer where that is another, and the radius."""
        label, given = self.class_name(self.label[k]), self.class_name(self.prediction[k])
        answer = label if self.label[k] == self.prediction[k] else f"{label} → {given}"
        return answer if self.prediction[k] == ABSTAIN else f"{answer}, R {cut(self.radius[k])}"

    def class_name(self, number: int) -> str:
        if number == ABSTAIN:
            return "abstained"
        return self.class_names[number] if number < len(self.class_names) else str(number)


@dataclass(frozen=True)
class Panels:
    """An input, and noisy copies of it (S, *shape), one at each sigma (S,). Copies are not clipped."""

    image: np.ndarray
    sigma: np.ndarray
    noisy: np.ndarray


@dataclass(frozen=True)
class Resolution:
    """One image at several sizes under the same noise (Cohen et al. 2019, section 5 and Fig. 4).

    Attributes:
        sigma: standard deviation of the noise that was added at every size.
        side: (F,) length of the shorter side at each size, in pixels.
        clean, noisy: F images (C, H_f, W_f) each: the average-pooled image, and the same plus noise.
        pooled: F images of the smallest size: the noisy ones after average pooling.
        residual: (F,) the noise left after that pooling, sigma over the pooling factor.
    """

    sigma: float
    side: np.ndarray
    clean: list[np.ndarray]
    noisy: list[np.ndarray]
    pooled: list[np.ndarray]
    residual: np.ndarray


def gallery_of(store: Store, images_of: ImagesOf, count: int) -> Gallery:
    """Return at most `count` images of a certify store, evenly spaced in the order of their radius.

    Raises:
        InputError: a store of another kind. What `images_of` raises.
    """
    check_count("count", count)
    if "radius" not in store.at_hand.column_names:
        raise InputError(f"{store.folder} is a store of kind {store.kind}: a gallery is sorted by radius, and needs a "
                         f"certify store")
    check_records(store)
    if store.identity.seed_or_none is None:
        raise InputError(f"{store.folder} does not say of which data set and noise it is: a gallery needs a store")
    images = images_of(store)
    radius, prediction, index = (store.column(name) for name in ("radius", "prediction", "index"))
    order = np.lexsort((index, -radius, prediction == ABSTAIN))
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(np.int64))]
    clean = images.batch(index[chosen])
    noise, format = noise_of(store), store.identity.noise.format
    drawn = store.identity.space == "pixels" and format in noise.formats
    shown = [noisy_copy(image, noise, store.identity.seed, int(key), "estimate", format if drawn else None)
             for image, key in zip(clean, index[chosen], strict=True)]
    return Gallery(clean, np.stack(shown), index[chosen], store.column("label")[chosen], prediction[chosen],
                   radius[chosen], tuple(images.class_names), drawn, is_lossy(images, index[chosen]), len(order))


def is_lossy(images: Images, indices: np.ndarray) -> bool:
    """Return True where any of these images is stored as JPEG."""
    return any(images.source.read_raw(int(i)).startswith(_JPEG) for i in indices)


def cut(radius: float) -> str:
    """Return a radius with three decimals, rounded down."""
    return f"{np.floor(radius * 1000) / 1000:.3f}"


def noisy_copy(image: np.ndarray, noise: Noise, seed: int, key: int, stage: str = "estimate",
               format: str | None = None) -> np.ndarray:
    """Return the first noisy copy that (seed, key, stage) draws around an input."""
    return noisy_copies(image, noise, 1, seed, key, stage, format)[0]


def noisy_copies(image: np.ndarray, noise: Noise, count: int, seed: int, key: int, stage: str,
                 format: str | None = None) -> np.ndarray:
    """Return the first copies that (seed, key, stage) draws around an input: float32 (count, *shape), not clipped."""
    copies = np.empty((count, image.size), dtype=np.float32)
    centre = noise.centre(image)
    noise.fill(copies, centre, noise.stream(seed, key, stage, centre, format=format))
    return copies.reshape(count, *image.shape)


def noise_panels(image: np.ndarray, sigmas: Sequence[float], seed: int = 0, key: int = 0) -> Panels:
    """Return an image under the same standard normals, scaled by each sigma; `key` is its index in the data set.

    >>> noise_panels(np.zeros((1, 2, 2), np.float32), [0.25, 0.5]).noisy.shape
    (2, 1, 2, 2)
    """
    if not len(sigmas):
        raise InputError("sigma: give at least one noise level, such as 0.25,0.5,1")
    noisy = [noisy_copy(image, build_noise("gaussian", check_positive("sigma", s)), seed, key) for s in sigmas]
    return Panels(image, np.asarray(sigmas, dtype=float), np.stack(noisy))


def resolution_study(image: np.ndarray, sigma: float, factors: Sequence[int] = (1, 2, 4), seed: int = 0,
                     key: int = 0) -> Resolution:
    """Return an image under noise of one sigma at its own size and at smaller ones, all then pooled to the smallest.

    Pooling over k x k pixels leaves sigma / k of the noise and all of the image that the smaller one has: at a larger
    size the same sigma hides less.

    Args:
        image: (C, H, W), as it is or cropped at its right and lower edge to a multiple of the largest factor.
        factors: the image is made smaller by each of these; each must divide the largest.
    Raises:
        InputError: factors that do not nest, or an image smaller than the largest.
    """
    check_image(image, "a study of resolutions")
    sigma, most = check_positive("sigma", sigma), max(factors)
    if min(factors) < 1 or any(most % factor for factor in factors):
        raise InputError(f"factors must be whole numbers that divide the largest, got {tuple(factors)}")
    height, width = (length - length % most for length in image.shape[1:])
    if not height or not width:
        raise InputError(f"an image of {image.shape[1]} x {image.shape[2]} pixels cannot be pooled by {most}")
    noise = build_noise("gaussian", sigma)
    clean = [average_pool(image[:, :height, :width], factor) for factor in factors]
    noisy = [noisy_copy(part, noise, seed, key) for part in clean]
    left = [most // factor for factor in factors]
    pooled = [average_pool(part, k) for part, k in zip(noisy, left, strict=True)]
    return Resolution(sigma, np.array([min(height, width) // factor for factor in factors]), clean, noisy, pooled,
                      sigma / np.array(left))


def average_pool(image: np.ndarray, factor: int) -> np.ndarray:
    """Return the means (C, H/k, W/k) of blocks of k x k pixels; k must divide H and W.

    >>> average_pool(np.arange(4.0).reshape(1, 2, 2), 2).tolist()
    [[[1.5]]]
    """
    channels, height, width = image.shape
    return image.reshape(channels, height // factor, factor, width // factor, factor).mean(axis=(2, 4))


Answers = Callable[[np.ndarray], np.ndarray]
"""Inputs (N, *shape) float32 -> classes (N,) int64."""

_BATCH = 256


@dataclass(frozen=True)
class Regions:
    """A plane through an image x, x + a u + b v, and the votes around x (Cohen et al. 2019, Fig. 1).

    Attributes:
        offsets: (G,) the values of a, and of b, in the data's units; 0 is x itself.
        classes: (G, G) class at (b, a): rows go with b.
        counts: (K,) votes of the noisy copies.
        typical: sigma sqrt(d), the length of a typical noise in d dimensions, in the data's units.
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
    """A linear classifier's class of each image, and the l2 distance to where another class wins."""

    prediction: np.ndarray
    margin: np.ndarray


def decision_regions(
    answers: Answers, image: np.ndarray, noise: Noise, num_classes: int, *, points: int = 101, n: int = 1000,
    seed: int = 0, key: int = 0,
) -> Regions:
    """Return the classes on a square of 2.4 sigma sqrt(d) around an input, and the votes of n noisy copies.

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
        images: (M, *shape). weight: (K, d). bias: (K,).
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
