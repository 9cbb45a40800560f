"""Answers by the mean softmax of noisy copies, as Yang et al. 2021 (section 5) measure accuracy under attack.

The class is argmax_c (1/n) sum_j F_c(x + z_j). There is no test behind it, no level, and no abstention.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smoothcert.noise import Noise
from smoothcert.smoothing.packing import Finished
from smoothcert.stats import Look

STAGE = "predict"
ROWS = 256
"""Noisy copies in one pass: fixed, since the last bits of a network's answers depend on it."""


def soft_answers(
    model: Any, images: np.ndarray, keys: Sequence[int], noise: Noise, format: str, n: int, num_classes: int, *,
    seed: int, device: torch.device,
) -> Iterator[Finished]:
    """The answer for each image, tagged by its place, with the votes of the same n copies as its history.

    Args:
        model: (N, C, H, W) -> (N, K) logits, in eval mode.
        images: float32 (B, C, H, W).
        keys: their indices in the data set. The noise is that of PREDICT: stream `predict` of (seed, key).
        format: of the noise's streams.
    """
    with torch.no_grad():
        for place, (image, key) in enumerate(zip(images, keys, strict=True)):
            started = time.perf_counter()
            centre = noise.centre(image)
            stream = noise.stream(seed, key, STAGE, centre, format=format)
            total, votes = np.zeros(num_classes), np.zeros(num_classes, dtype=np.int64)
            for start in range(0, n, ROWS):
                noisy = np.empty((min(ROWS, n - start), image.size), dtype=np.float32)
                noise.fill(noisy, centre, stream)
                shares = _softmax(model, torch.from_numpy(noisy).view(-1, *image.shape).to(device))
                total += shares.sum(axis=0)
                votes += np.bincount(shares.argmax(axis=1), minlength=num_classes)
            yield Finished(place, centre.off_grid, [Look(STAGE, votes)], int(total.argmax()), {},
                           time.perf_counter() - started)


def _softmax(model: Any, noisy: Tensor) -> np.ndarray:
    """(m, C, H, W) -> (m, K) float64."""
    return torch.as_tensor(model(noisy)).double().softmax(dim=1).cpu().numpy()
