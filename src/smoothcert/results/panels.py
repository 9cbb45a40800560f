"""One image under noise: at several sigma, and at several sizes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smoothcert.checks import check_positive
from smoothcert.errors import InputError
from smoothcert.noise import Noise, build_noise


@dataclass(frozen=True)
class Panels:
    """An image (C, H, W), and a noisy copy (S, C, H, W) at each sigma (S,). Copies are not clipped."""

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


def noisy_copy(image: np.ndarray, noise: Noise, seed: int, key: int, stage: str = "estimate",
               format: str | None = None) -> np.ndarray:
    """The first noisy copy that (seed, key, stage) draws around an image: float32, of its shape, not clipped."""
    copy = np.empty((1, image.size), dtype=np.float32)
    centre = noise.centre(image)
    noise.fill(copy, centre, noise.stream(seed, key, stage, centre, format=format))
    return copy.reshape(image.shape)


def noise_panels(image: np.ndarray, sigmas: Sequence[float], seed: int = 0, key: int = 0) -> Panels:
    """An image under the same standard normals, scaled by each sigma; `key` is its index in the data set.

    >>> noise_panels(np.zeros((1, 2, 2), np.float32), [0.25, 0.5]).noisy.shape
    (2, 1, 2, 2)
    """
    if not len(sigmas):
        raise InputError("sigma: give at least one noise level, such as 0.25,0.5,1")
    noisy = [noisy_copy(image, build_noise("gaussian", check_positive("sigma", s)), seed, key) for s in sigmas]
    return Panels(image, np.asarray(sigmas, dtype=float), np.stack(noisy))


def resolution_study(image: np.ndarray, sigma: float, factors: Sequence[int] = (1, 2, 4), seed: int = 0,
                     key: int = 0) -> Resolution:
    """Noise of one sigma at the image's own size and at smaller ones, then all average-pooled to the smallest.

    Pooling over k x k pixels leaves sigma / k of the noise and all of the image that the smaller one has: at a larger
    size the same sigma hides less.

    Args:
        image: (C, H, W), as it is or cropped at its right and lower edge to a multiple of the largest factor.
        factors: by how much the image is made smaller; each must divide the largest.
    Raises:
        InputError: factors that do not nest, or an image smaller than the largest.
    """
    sigma, most = check_positive("sigma", sigma), max(factors)
    if min(factors) < 1 or any(most % factor for factor in factors):
        raise InputError(f"factors must be whole numbers that divide the largest, got {tuple(factors)}")
    height, width = (length - length % most for length in image.shape[1:])
    if not height or not width:
        raise InputError(f"an image of {image.shape[1]} x {image.shape[2]} pixels cannot be pooled by {most}")
    noise = build_noise("gaussian", sigma)
    clean = [average_pooled(image[:, :height, :width], factor) for factor in factors]
    noisy = [noisy_copy(part, noise, seed, key) for part in clean]
    left = [most // factor for factor in factors]
    pooled = [average_pooled(part, k) for part, k in zip(noisy, left, strict=True)]
    return Resolution(sigma, np.array([min(height, width) // factor for factor in factors]), clean, noisy, pooled,
                      sigma / np.array(left))


def average_pooled(image: np.ndarray, factor: int) -> np.ndarray:
    """The means (C, H/k, W/k) of blocks of k x k pixels; k must divide H and W.

    >>> average_pooled(np.arange(4.0).reshape(1, 2, 2), 2).tolist()
    [[[1.5]]]
    """
    channels, height, width = image.shape
    return image.reshape(channels, height // factor, factor, width // factor, factor).mean(axis=(2, 4))
