"""Studies of a denoiser in a run: its images denoised, images where it lost, and how it contracts noise."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from smoothcert.checks import check_count
from smoothcert.errors import InputError
from smoothcert.noise import Noise
from smoothcert.results.base import check_kind, check_records, check_same_data
from smoothcert.results.certified import Result
from smoothcert.results.gallery import ImagesOf, gallery_of, noisy_copies, noisy_copy
from smoothcert.store.recertify import noise_of
from smoothcert.store.store import Store

Estimate = Callable[[np.ndarray], np.ndarray]
"""Noisy inputs (N, *shape) float32 -> estimates of the clean ones, of the same shape."""


@dataclass(frozen=True)
class Estimates:
    """A denoiser's estimate x_hat, and the result of a walk or a flow that follows it, where there is one."""

    estimate: Estimate
    walked: Estimate | None = None


@dataclass(frozen=True)
class Denoised:
    """Images, noisy copies of them, and the copies denoised: (M, *shape) each, nothing clipped.

    Attributes:
        walked: after a walk or a flow that follows the estimates, or None.
        sigma: of the noise.
    """

    clean: np.ndarray
    noisy: np.ndarray
    estimates: np.ndarray
    walked: np.ndarray | None
    sigma: float

    def error(self, of: np.ndarray) -> np.ndarray:
        """Return ||image - clean||^2 of each image of `noisy`, `estimates` or `walked`, (M,)."""
        return np.square(of.astype(float) - self.clean).reshape(len(of), -1).sum(axis=1)


@dataclass(frozen=True)
class Contraction:
    """Two figures of each image x, estimated from noisy copies x + e (Saremi & Srivastava 2020):

        contraction    ||x_hat(x + e) - E x_hat(x + e)|| / ||e||, root mean squares over e
        slide          ||E x_hat(x + e) - x||, in the data's units

    For the Gaussian denoiser x_hat = beta y they are beta and (1 - beta) ||x||.

    Attributes:
        index, contraction, slide: (M,).
        copies: noisy copies an image, on which both rest.
        sigma: of the noise.
    """

    index: np.ndarray
    contraction: np.ndarray
    slide: np.ndarray
    copies: int
    sigma: float


@dataclass(frozen=True)
class Captioned:
    """Denoised images, and a caption for each."""

    data: Denoised
    words: tuple[str, ...]


@dataclass(frozen=True)
class Failures:
    """Images that the first run certifies at a larger radius than the second (Saremi & Srivastava 2020, Fig. 4).

    Attributes:
        names: of the two runs.
        count, of: how many such images there are, and how many the runs share.
        index, first, second: (G,) those shown, the largest difference first, and their radii; 0 for a wrong answer.
        words: (G,) their classes.
        clean, noisy: (G, *shape), the noisy ones as the second run drew them.
        estimates: the noisy ones denoised, or None.
    """

    names: tuple[str, str]
    count: int
    of: int
    index: np.ndarray
    first: np.ndarray
    second: np.ndarray
    words: tuple[str, ...]
    clean: np.ndarray
    noisy: np.ndarray
    estimates: np.ndarray | None


@dataclass(frozen=True)
class Contracted:
    """Contraction and slide of images of a run; which of them it answered rightly, or not at all; (M,) each."""

    data: Contraction
    right: np.ndarray
    abstained: np.ndarray
    dimension: int


def denoise_gallery(store: Store, images_of: ImagesOf, how: Estimates, count: int) -> Captioned:
    """Return the images of `gallery_of`, denoised; it raises what `gallery_of` raises."""
    found = gallery_of(store, images_of, count)
    return Captioned(denoise_copies(found.clean, found.noisy, how, noise_of(store).sigma),
                     tuple(found.words(k) for k in range(len(found.clean))))


def denoise_image(store: Store, image: np.ndarray, key: int, how: Estimates, count: int) -> Captioned:
    """Return the first `count` noisy copies of one input of a store, denoised; its index is `key`."""
    noise = noise_of(store)
    noisy = noisy_copies(image, noise, check_count("count", count), store.identity.seed, key, "estimate")
    return Captioned(denoise_copies(image, noisy, how, noise.sigma), tuple(f"copy {k + 1}" for k in range(count)))


def failures_of(
    first: tuple[Store, str], second: tuple[Store, str], images_of: ImagesOf, how: Estimates | None, count: int
) -> Failures:
    """Return at most `count` of the images that the first store certifies at a larger radius than the second.

    Raises:
        InputError: the stores are of different data sets, share no image, or hold radii that are lower bounds only.
    """
    one, two = Result.of(*first), Result.of(*second)
    check_same_data([one, two])
    for run in (one, two):
        if run.is_lower_bound:
            raise InputError(f"{run.name} stopped sampling when the radii that it was asked for were decided, so its "
                             f"radii are lower bounds and cannot be compared image by image: certify with a fixed n, "
                             f"or with curve-loss and without curve-to")
    index, at, also = np.intersect1d(one.index, two.index, assume_unique=True, return_indices=True)
    if not len(index):
        raise InputError(f"{one.name} and {two.name} have no image in common")
    radii = [np.where(run.correct, run.radius, 0.0)[where] for run, where in ((one, at), (two, also))]
    order = np.argsort(radii[1] - radii[0], kind="stable")
    larger = order[radii[0][order] > radii[1][order]]
    shown = larger[:check_count("count", count)]
    store, images = second[0], images_of(second[0])
    clean = images.batch(index[shown])
    noisy = np.stack([noisy_copy(image, noise_of(store), store.identity.seed, int(key))
                      for image, key in zip(clean, index[shown], strict=True)]) if len(shown) else clean
    words = tuple(images.class_names[c] for c in store.column("label")[also][shown])
    return Failures((one.name, two.name), len(larger), len(index), index[shown], radii[0][shown], radii[1][shown],
                    words, clean, noisy, how.estimate(noisy) if how and len(shown) else None)


def contraction_of(store: Store, images_of: ImagesOf, how: Estimates, count: int, copies: int) -> Contracted:
    """Return contraction and slide of at most `count` images of a store, evenly spaced among its records.

    Raises:
        InputError: a store without records or with several an image; and what `contraction_and_slide` raises.
    """
    check_kind(store, "certify", "predict", why=": contraction takes images and the answers about them")
    rows = store.num_records
    check_records(store)
    chosen = np.unique(np.linspace(0, rows - 1, min(check_count("count", count), rows)).round().astype(np.int64))
    index, prediction, label = (store.column(name)[chosen] for name in ("index", "prediction", "label"))
    clean = images_of(store).batch(index)
    found = contraction_and_slide(clean, index, how.walked or how.estimate, noise_of(store), copies,
                                  store.identity.seed)
    return Contracted(found, prediction == label, prediction < 0, clean[0].size)


def denoise_copies(clean: np.ndarray, noisy: np.ndarray, how: Estimates, sigma: float) -> Denoised:
    """Return noisy copies of images, one of each or all of one, beside their denoised versions."""
    return Denoised(np.broadcast_to(clean, noisy.shape), noisy, how.estimate(noisy),
                    how.walked(noisy) if how.walked else None, sigma)


def contraction_and_slide(
    images: np.ndarray, index: np.ndarray, estimate: Estimate, noise: Noise, copies: int = 64, seed: int = 0
) -> Contraction:
    """Return contraction ratio and slide of each input (M, *shape), estimated from `copies` noisy ones.

    Copies come in pairs x + e and x - e, so that E x_hat is estimated without error where x_hat is affine. What the
    mean m over p pairs misses, E ||m - E x_hat||^2, is estimated by the spread of the pairs' own means, added to the
    mean square of x_hat - m and taken off that of m - x; both squares are then unbiased. The noise is that of stage
    "attack": no sample of a certificate is used.

    Raises:
        InputError: an odd number of copies, or fewer than 4.
    """
    if check_count("copies", copies, least=4) % 2:
        raise InputError(f"noisy copies come in pairs: their number must be even, got {copies}")
    found = [_study_image(image, noisy_copies(image, noise, copies // 2, seed, int(key), "attack"), estimate)
             for image, key in zip(images, index, strict=True)]
    contraction, slide = np.array(found, dtype=float).reshape(-1, 2).T
    return Contraction(np.asarray(index), contraction, slide, copies, noise.sigma)


def _study_image(image: np.ndarray, noisy: np.ndarray, estimate: Estimate) -> tuple[float, float]:
    """Return the contraction ratio and the slide of one image, from p copies and their mirror images."""
    pairs = np.stack([estimate(noisy), estimate(2 * image - noisy)]).reshape(2, len(noisy), -1).astype(float)
    x, means = image.ravel().astype(float), pairs.mean(axis=0)
    mean = means.mean(axis=0)
    missed = np.square(means - mean).sum() / (len(means) * (len(means) - 1))
    spread = np.square(pairs - mean).sum(axis=2).mean() + missed
    length = np.square(noisy.reshape(len(noisy), -1).astype(float) - x).sum(axis=1).mean()
    return float(np.sqrt(spread / length)), float(np.sqrt(max(np.square(mean - x).sum() - missed, 0.0)))
