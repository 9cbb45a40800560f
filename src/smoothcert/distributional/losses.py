"""Losses of single images with their ceilings, and their expectation under noise by sampling.

The noise is the keyed noise of certification, and the closed certificate is made from the moments of its losses.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from smoothcert.attacks.loop import default_rows
from smoothcert.checks import check_count, check_optional_positive, check_positive, check_probability, check_seed
from smoothcert.distributional.certificates import ClosedCertificate, LossMoments, certificate_from_moments
from smoothcert.distributional.limits import CLIP_IT
from smoothcert.errors import InputError, ModelError
from smoothcert.noise import Noise, image_key
from smoothcert.smoothing.protocols import check_ready

Batches = Iterable[tuple[Tensor, Tensor]]
"""A data set in pieces, read once: inputs (B, *shape) and labels (B,)."""


@dataclass(frozen=True)
class PointLoss:
    """0 <= l <= ceiling, image by image.

    Attributes:
        name: its name in messages and tables.
        values: (logits (N, K), labels (N,)) -> losses (N,).
        ceiling: M, the largest value; None if nothing bounds it.
        binary: the loss is 0 or 1, so that no ascent can follow its gradient.
    """

    name: str
    values: Callable[[Tensor, Tensor], Tensor]
    ceiling: float | None = None
    binary: bool = False

    def __post_init__(self) -> None:
        check_optional_positive("ceiling", self.ceiling)

    def each(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the losses of m copies of each image: (b, m, K), (b,) -> (b, m)."""
        copies = logits.shape[1]
        return self.values(logits.flatten(0, 1), labels.repeat_interleave(copies, dim=0)).unflatten(0, (-1, copies))

    def mean(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return (1/m) sum_j l, which an ascent follows: (b, m, K), (b,) -> (b,)."""
        return self.each(logits, labels).mean(dim=1)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits, labels, reduction="none")


cross_entropy = PointLoss("cross-entropy", _cross_entropy)
"""-log softmax_y, which is unbounded: for estimates only."""

zero_one = PointLoss("0-1", lambda logits, labels: (logits.argmax(dim=1) != labels).to(logits.dtype), 1.0, binary=True)
"""1 if the likeliest class is not the label, else 0: its mean under noise is the noisy base classifier's error."""


def clipped_cross_entropy(ceiling: float) -> PointLoss:
    """Return the loss min(cross-entropy, ceiling); ln K is the cross-entropy of a uniform guess among K classes.

    >>> clipped_cross_entropy(2.0).name
    'cross-entropy clipped at 2'
    """
    ceiling = check_positive("ceiling", ceiling)
    return PointLoss(f"cross-entropy clipped at {ceiling:g}",
                     lambda logits, labels: _cross_entropy(logits, labels).clamp(max=ceiling), ceiling)


def sample_losses(
    model: Any, loss: PointLoss, images: Tensor, labels: Tensor, noise: Noise, n: int, *, seed: int,
    keys: Sequence[int] | None = None, gradient: bool = False, rows: int | None = None,
) -> LossMoments:
    """Return the moments of the losses of n noisy copies of each image.

    The noise is that of certification, stage "estimate" of (seed, image), and does not depend on the batch.

    Args:
        model: (N, *shape) -> (N, K) logits, in eval mode.
        loss: one with a ceiling.
        images, labels: (B, *shape) float32 and (B,), on the model's device.
        keys: each image's index in its data set; None uses a hash of its bytes.
        gradient: also estimate the gradient of l_hat.
        rows: at most this many noisy images in one pass; None is 128 on a CPU and 512 elsewhere.
    Raises:
        InputError: a loss without a ceiling or outside [0, ceiling], or n or seed out of range.
        ModelError: a network in train mode, or losses that are not numbers.
    """
    check_ready(model)
    check_count("n", n)
    check_seed(seed)
    ceiling_of(loss)
    rows = default_rows(images) if rows is None else check_count("rows", rows)
    arrays = images.detach().cpu().numpy().astype(np.float32, copy=False)
    keys = [image_key(image) for image in arrays] if keys is None else keys
    with torch.no_grad():
        found = [_sample_one(model, loss, image, label, noise, n, (seed, key), gradient, rows, images.device)
                 for image, label, key in zip(arrays, labels, keys, strict=True)]
    gradients = np.stack([part[2] for part in found]) if gradient and found else None
    return LossMoments(n, np.array([part[0] for part in found]), np.array([part[1] for part in found]), gradients)


def _sample_one(
    model: Any, loss: PointLoss, image: np.ndarray, label: Tensor, noise: Noise, n: int, key: tuple[int, int],
    gradient: bool, rows: int, device: torch.device,
) -> tuple[float, float, np.ndarray]:
    """Return mean, variance and Stein's gradient for one input."""
    centre = noise.centre(image)
    stream = noise.stream(*key, "estimate", centre)
    total = squares = 0.0
    slope = np.zeros(image.size)
    for start in range(0, n, rows):
        noisy = np.empty((min(rows, n - start), image.size), dtype=np.float32)
        stream.fill(noisy)
        normals = noisy.astype(np.float64) / noise.unit if gradient else None
        noise.place(noisy, centre.values, centre.fraction)
        logits = torch.as_tensor(model(torch.from_numpy(noisy).view(-1, *image.shape).to(device)))
        values = loss.values(logits, label.expand(len(logits), *label.shape)).double().cpu().numpy() / ceiling_of(loss)
        values = check_losses(loss, values)
        total, squares = total + values.sum(), squares + (values**2).sum()
        if normals is not None:
            slope += (values - 0.5) @ normals
    mean = total / n
    return mean, max(squares - n * mean**2, 0.0) / max(n - 1, 1), slope / (n * noise.sigma)


def certify_losses(
    model: Any, loss: PointLoss, batches: Batches, noise: Noise, n: int, *, alpha: float, seed: int,
    rows: int | None = None,
) -> ClosedCertificate:
    """Return the closed certificate of a clipped (or the 0-1) loss from n noisy copies of each of m images.

    Args:
        model, loss, noise, n, seed, rows: as for `sample_losses`.
        batches: the images and labels, in pieces; m independent draws of the law P0.
        alpha: failure probability of the certificate.
    Raises:
        InputError, ModelError: as for `sample_losses`, and for no images.
    """
    ceiling, alpha = ceiling_of(loss), check_probability("alpha", alpha)
    parts = [sample_losses(model, loss, images, labels, noise, n, seed=seed, rows=rows) for images, labels in batches]
    if not any(len(part.mean) for part in parts):
        raise InputError("there are no images to certify")
    moments = LossMoments(n, *(np.concatenate([getattr(part, name) for part in parts])
                               for name in ("mean", "variance")))
    return certificate_from_moments(moments, noise.sigma, ceiling, alpha, loss.binary)


def ceiling_of(loss: PointLoss) -> float:
    """Return the loss's ceiling. Raises InputError if it has none."""
    if loss.ceiling is None:
        raise InputError(f"a certificate needs a loss with a ceiling, and {loss.name} has none: {CLIP_IT}")
    return loss.ceiling


def check_losses(loss: PointLoss, values: np.ndarray) -> np.ndarray:
    """Return losses, in units of the ceiling if there is one, or raise an error for other numbers.

    Raises:
        ModelError: a loss is NaN. InputError: a loss with a ceiling is outside [0, 1] by more than rounding.
    """
    if np.isnan(values).any():
        raise ModelError("the base classifier's losses are NaN: check its weights and its input scale")
    if loss.ceiling is None:
        return values
    if values.min() < 0 or values.max() > 1 + 1e-6:
        raise InputError(f"the loss {loss.name} must lie in [0, {loss.ceiling}], got values from "
                         f"{values.min() * ceiling_of(loss):.9g} to {values.max() * ceiling_of(loss):.9g}")
    return np.minimum(values, 1.0)
