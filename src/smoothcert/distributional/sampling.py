"""Expected losses by sampling, under the keyed noise of certification, and the closed certificate made from them."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smoothcert.checks import check_count, check_probability, check_seed
from smoothcert.distributional.closed import ClosedCertificate
from smoothcert.distributional.limits import CLIP_IT
from smoothcert.distributional.losses import PointLoss
from smoothcert.distributional.moments import LossMoments, certificate_from_moments
from smoothcert.errors import InputError, ModelError
from smoothcert.noise import Noise, image_key
from smoothcert.smoothing.protocols import check_ready

Batches = Iterable[tuple[Tensor, Tensor]]
"""A data set in pieces: images (B, C, H, W) and labels (B,), read once."""


def sample_losses(
    model: Any, loss: PointLoss, images: Tensor, labels: Tensor, noise: Noise, n: int, *, seed: int,
    keys: Sequence[int] | None = None, gradient: bool = False, rows: int | None = None,
) -> LossMoments:
    """The losses of n noisy copies of each image.

    The noise is that of certification: stage "estimate" of (seed, image), whatever the batch.

    Args:
        model: (N, C, H, W) -> (N, K) logits, in eval mode.
        loss: one with a ceiling.
        images, labels: (B, C, H, W) float32 and (B,), on the model's device.
        keys: an image's index in its data set; None takes a hash of its bytes.
        gradient: also estimate the gradient of l_hat.
        rows: at most this many noisy images in one pass; None is 128 on a CPU and 512 elsewhere.
    Raises:
        InputError: a loss without ceiling, one that leaves [0, ceiling], or n or seed out of range.
        ModelError: a network in train mode, or losses that are not numbers.
    """
    check_ready(model)
    check_count("n", n)
    check_seed(seed)
    ceiling_of(loss)
    rows = (128 if images.device.type == "cpu" else 512) if rows is None else check_count("rows", rows)
    arrays = images.detach().cpu().numpy().astype(np.float32, copy=False)
    keys = [image_key(image) for image in arrays] if keys is None else keys
    with torch.no_grad():
        found = [_one(model, loss, image, label, noise, n, (seed, key), gradient, rows, images.device)
                 for image, label, key in zip(arrays, labels, keys, strict=True)]
    gradients = np.stack([part[2] for part in found]) if gradient and found else None
    return LossMoments(n, np.array([part[0] for part in found]), np.array([part[1] for part in found]), gradients)


def _one(
    model: Any, loss: PointLoss, image: np.ndarray, label: Tensor, noise: Noise, n: int, key: tuple[int, int],
    gradient: bool, rows: int, device: torch.device,
) -> tuple[float, float, np.ndarray]:
    """Mean, variance and Stein's gradient of one image (C, H, W)."""
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
        values = in_range(loss, values)
        total, squares = total + values.sum(), squares + (values**2).sum()
        if normals is not None:
            slope += (values - 0.5) @ normals
    mean = total / n
    return mean, max(squares - n * mean**2, 0.0) / max(n - 1, 1), slope / (n * noise.sigma)


def certify_losses(
    model: Any, loss: PointLoss, batches: Batches, noise: Noise, n: int, *, alpha: float, seed: int,
    rows: int | None = None,
) -> ClosedCertificate:
    """The closed certificate of a clipped (or the 0-1) loss by sampling: n noisy copies of each of m images.

    Args:
        model, loss, noise, n, seed, rows: as for `sample_losses`.
        batches: the images and labels, in pieces; m independent draws of the law P0.
        alpha: failure probability of the certificate.
    Raises:
        InputError: as there, and for no images, or a loss without a ceiling. ModelError: as there.
    """
    ceiling, alpha = ceiling_of(loss), check_probability("alpha", alpha)
    parts = [sample_losses(model, loss, images, labels, noise, n, seed=seed, rows=rows) for images, labels in batches]
    if not any(len(part.mean) for part in parts):
        raise InputError("there are no images to certify")
    moments = LossMoments(n, *(np.concatenate([getattr(part, name) for part in parts])
                               for name in ("mean", "variance")))
    return certificate_from_moments(moments, noise.sigma, ceiling, alpha, loss.binary)


def ceiling_of(loss: PointLoss) -> float:
    """The loss's ceiling, or InputError where it has none."""
    if loss.ceiling is None:
        raise InputError(f"a certificate needs a loss with a ceiling, and {loss.name} has none: {CLIP_IT}")
    return loss.ceiling


def in_range(loss: PointLoss, values: np.ndarray) -> np.ndarray:
    """Losses in units of the ceiling, or an error where they are not in [0, 1] but for rounding."""
    if np.isnan(values).any():
        raise ModelError("the base classifier's losses are NaN: check its weights and its input scale")
    if values.min() < 0 or values.max() > 1 + 1e-6:
        raise InputError(f"the loss {loss.name} must lie in [0, {loss.ceiling}], got values from "
                         f"{values.min() * ceiling_of(loss):.9g} to {values.max() * ceiling_of(loss):.9g}")
    return np.minimum(values, 1.0)
