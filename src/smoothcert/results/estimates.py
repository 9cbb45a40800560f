"""What a denoiser does to noisy copies of images: panels, and how far it contracts noise and moves the image."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from smoothcert.checks import check_count
from smoothcert.errors import InputError
from smoothcert.noise import Noise

Estimate = Callable[[np.ndarray], np.ndarray]
"""Noisy images (N, C, H, W) float32 -> estimates of the clean ones, of the same shape."""


@dataclass(frozen=True)
class Estimates:
    """A denoiser's estimate x_hat, and what a walk or a flow makes of it, where one follows."""

    estimate: Estimate
    walked: Estimate | None = None


@dataclass(frozen=True)
class Denoised:
    """Images, noisy copies of them, and what became of those: (M, C, H, W) each, nothing clipped.

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
        """||image - clean||^2 of each of `noisy`, `estimates` or `walked`, (M,)."""
        return np.square(of.astype(float) - self.clean).sum(axis=(1, 2, 3))


@dataclass(frozen=True)
class Contraction:
    """Of each image x, estimates from noisy copies x + e (Saremi & Srivastava 2020):

        contraction    ||x_hat(x + e) - E x_hat(x + e)|| / ||e||, root mean squares over e
        slide          ||E x_hat(x + e) - x||, in pixel units

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


def denoised(clean: np.ndarray, noisy: np.ndarray, how: Estimates, sigma: float) -> Denoised:
    """Noisy copies of images, one each or all of one (C, H, W), with what a denoiser makes of them."""
    return Denoised(np.broadcast_to(clean, noisy.shape), noisy, how.estimate(noisy),
                    how.walked(noisy) if how.walked else None, sigma)


def contraction_and_slide(
    images: np.ndarray, index: np.ndarray, estimate: Estimate, noise: Noise, copies: int = 64, seed: int = 0
) -> Contraction:
    """Contraction ratio and slide of each image (M, C, H, W), estimated from `copies` noisy ones.

    Copies come in pairs x + e and x - e, so that E x_hat is estimated without error where x_hat is affine. What the
    mean m over p pairs misses, E ||m - E x_hat||^2, is estimated by the spread of the pairs' own means, added to the
    mean square of x_hat - m and taken off that of m - x; both squares are then unbiased. The noise is that of stage
    "attack": no sample of a certificate is used.

    Raises InputError for an odd number of copies, or fewer than 4.
    """
    if check_count("copies", copies, least=4) % 2:
        raise InputError(f"noisy copies come in pairs: their number must be even, got {copies}")
    found = [_one(image, noisy_copies(image, noise, copies // 2, seed, int(key), "attack"), estimate)
             for image, key in zip(images, index, strict=True)]
    contraction, slide = np.array(found, dtype=float).reshape(-1, 2).T
    return Contraction(np.asarray(index), contraction, slide, copies, noise.sigma)


def noisy_copies(image: np.ndarray, noise: Noise, count: int, seed: int, key: int, stage: str) -> np.ndarray:
    """The first copies that (seed, key, stage) draws around an image: float32 (count, C, H, W), not clipped."""
    copies = np.empty((count, image.size), dtype=np.float32)
    centre = noise.centre(image)
    noise.fill(copies, centre, noise.stream(seed, key, stage, centre))
    return copies.reshape(count, *image.shape)


def _one(image: np.ndarray, noisy: np.ndarray, estimate: Estimate) -> tuple[float, float]:
    """The contraction ratio and the slide of one image, from p copies and their mirror images."""
    pairs = np.stack([estimate(noisy), estimate(2 * image - noisy)]).reshape(2, len(noisy), -1).astype(float)
    x, means = image.ravel().astype(float), pairs.mean(axis=0)
    mean = means.mean(axis=0)
    missed = np.square(means - mean).sum() / (len(means) * (len(means) - 1))
    spread = np.square(pairs - mean).sum(axis=2).mean() + missed
    length = np.square(noisy.reshape(len(noisy), -1).astype(float) - x).sum(axis=1).mean()
    return float(np.sqrt(spread / length)), float(np.sqrt(max(np.square(mean - x).sum() - missed, 0.0)))
