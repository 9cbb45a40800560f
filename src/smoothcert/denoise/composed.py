"""A classifier behind a denoiser, as one base classifier, and the normals that a random one needs."""

from typing import Any

import torch
from torch import Tensor, nn

from smoothcert.checks import check_positive
from smoothcert.denoise.estimators import agreed
from smoothcert.errors import InputError
from smoothcert.smoothing.protocols import Normals, is_random
from smoothcert.smoothing.sampling import denoise


class DenoisedClassifier(nn.Module):
    """pi(y) = h(x_hat(y)): images (N, C, H, W) -> logits (N, K), h the classifier and x_hat the denoiser at sigma.

    Smoothed with noise of this same sigma it is the empirical-Bayes smoothed classifier (Saremi & Srivastava 2020).
    It starts in the classifier's mode, and `train()` reaches the classifier alone: the denoiser stays in eval mode.
    Gradients go through both, and reach the denoiser's parameters only where these require them; frozen, x_hat is
    detached wherever the images are.

    Attributes:
        denoiser: (y, sigma) -> x_hat, or (y, sigma, normals) where it is random.
        classifier: images -> logits; a module or any callable.
        sigma: the noise level that the denoiser is told.
    """

    def __init__(self, denoiser: Any, classifier: Any, sigma: float):
        super().__init__()
        self.denoiser, self.classifier = denoiser, classifier
        self.sigma = agreed(getattr(denoiser, "sigma", None), check_positive("sigma", sigma))
        self.train(getattr(classifier, "training", True))

    @property
    def random(self) -> bool:
        """Whether two calls differ; each then needs `normals`."""
        return is_random(self.denoiser)

    @property
    def draws(self) -> int:
        """Standard normals needed per pixel of each row: `normals` is asked for t = 0 ... draws - 1."""
        return int(getattr(self.denoiser, "draws", 0))

    def train(self, mode: bool = True) -> "DenoisedClassifier":
        super().train(mode)
        if isinstance(self.denoiser, nn.Module):
            self.denoiser.eval()
        return self

    def forward(self, images: Tensor, normals: Normals | None = None) -> Tensor:
        """Raises InputError where the denoiser is random and `normals` is missing, ModelError for a denoiser that
        changes the shape."""
        return self.classifier(self.estimate(images, normals))

    def estimate(self, images: Tensor, normals: Normals | None = None) -> Tensor:
        """x_hat(images), (N, C, H, W): what the classifier sees."""
        return denoise(self.denoiser, images, self.sigma, *([needed(normals)] if self.random else []))


def generator_normals(generator: torch.Generator) -> Normals:
    """Standard normals from a generator on the images' device; another batch size then means other noise."""
    return lambda t, like: torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)


def needed(normals: Normals | None) -> Normals:
    """`normals`, or InputError where a random denoiser was given none."""
    if normals is None:
        raise InputError("this base classifier is random and was given no randomness: pass normals, a function of "
                         "(t, rows) that gives the t-th standard-normal field, such as generator_normals(generator)")
    return normals
