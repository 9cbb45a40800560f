"""The hot loop: a base classifier, an image and a noise stream in, votes out.

One compute batch of memory, whatever n and however many images: noisy copies are drawn straight into a buffer that
every batch reuses, votes are counted on the device, and the host waits once per stage.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from smoothcert.checks import check_count
from smoothcert.errors import ModelError
from smoothcert.noise import Centre, Noise, NormalStream
from smoothcert.smoothing.protocols import BaseClassifier, Denoiser, check_finite, check_logits, device_of
from smoothcert.stats import ClassCounts

CLOSE_CALL = 1e-4
"""A vote whose two top logits differ by less than this share of the largest is judged again, alone.

Floating-point sums depend on the batch they are computed in, by about 1e-6 of a logit. A sample judged alone always
gives the same answer, so results are equal whatever the batch size.
"""


class Sampler:
    """Counts the votes of a base classifier over noisy copies of images of one shape.

    Args:
        model: base classifier, ready for use (see `protocols.check_ready`).
        noise: what is added.
        num_classes: K.
        shape: (C, H, W) of the images.
        seed: run seed of every stream.
        denoiser: placed between noise and model, or None.
        batch_size: images per forward pass; None picks one that stays in the processor's cache. Never changes results.
        device: where the model runs; None means where its parameters are.
    """

    def __init__(
        self, model: BaseClassifier, noise: Noise, num_classes: int, shape: tuple[int, int, int], seed: int,
        denoiser: Denoiser | None = None, batch_size: int | None = None, device: torch.device | None = None,
    ):
        self._model, self._noise, self._denoiser = model, noise, denoiser
        self._num_classes, self._shape, self._seed = num_classes, shape, seed
        self._dimension = int(np.prod(shape))
        self._device = device or device_of(model)
        self._batch = default_batch(self._dimension) if batch_size is None else check_count("batch_size", batch_size)
        self._buffer = np.empty((0, self._dimension), dtype=np.float32)
        self._judges_alone = not getattr(model, "batch_invariant", False)

    def count(self, centre: Centre, key: int, stage: str, n: int, start: int = 0) -> ClassCounts:
        """Votes of samples start ... start + n - 1 of (key, stage): the same whatever the batch size.

        Args:
            centre: the image as `noise.centre` prepares it.
            key: the image's index in its data set, or `image_key` of its bytes.
            stage: a name from `smoothcert.noise.STAGES`.
        """
        stream = NormalStream(self._seed, key, stage, self._dimension, start)
        counts = torch.zeros(self._num_classes, dtype=torch.int64, device=self._device)
        ordered = torch.ones((), dtype=torch.bool, device=self._device)
        if len(self._buffer) < min(n, self._batch):
            self._buffer = np.empty((min(n, self._batch), self._dimension), dtype=np.float32)
        with torch.no_grad():
            for done in range(0, n, self._batch):
                rows = self._buffer[: min(self._batch, n - done)]
                self._noise.sample(centre, stream, rows)
                noisy = torch.from_numpy(rows).view(-1, *self._shape).to(self._device)
                votes, comparable = self._vote(noisy)
                counts += torch.bincount(votes, minlength=self._num_classes)
                ordered &= comparable
        check_finite(bool(ordered))
        return ClassCounts(counts.cpu().numpy())

    def logits(self, noisy: Tensor) -> Tensor:
        """The base classifier behind its denoiser: (N, C, H, W) -> checked logits (N, K)."""
        if self._denoiser is not None:
            noisy = denoise(self._denoiser, noisy, self._noise.sigma)
        return check_logits(self._model(noisy), len(noisy), self._num_classes)

    def _vote(self, noisy: Tensor) -> tuple[Tensor, Tensor]:
        """Votes (N,) and whether every logit could be compared; close calls are judged one at a time."""
        logits = self.logits(noisy)
        votes = logits.argmax(dim=1)
        if self._judges_alone and len(noisy) > 1:
            first, second = logits.topk(2, dim=1).values.unbind(dim=1)
            scale = logits.abs().nan_to_num(posinf=0.0).amax(dim=1)
            for row in (first - second <= CLOSE_CALL * scale).nonzero().flatten().tolist():
                votes[row] = self.logits(noisy[row : row + 1]).argmax()
        return votes, ~logits.isnan().any()


def denoise(denoiser: Denoiser, noisy: Tensor, sigma: float) -> Tensor:
    """The denoiser's estimate, or ModelError where its shape differs from its input's."""
    estimate: Any = denoiser(noisy, sigma)
    if not isinstance(estimate, Tensor) or estimate.shape != noisy.shape:
        got = tuple(estimate.shape) if isinstance(estimate, Tensor) else type(estimate).__name__
        raise ModelError(f"the denoiser must return a tensor of its input's shape {tuple(noisy.shape)}, got {got}")
    return estimate


def default_batch(dimension: int) -> int:
    """Images per forward pass that keep a small network's activations in cache (measured: benchmarks/RESULTS.md)."""
    return int(np.clip(100_000 // dimension, 16, 1000))
