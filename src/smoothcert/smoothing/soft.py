"""The soft smoothed classifier G(x) = (1/m) sum_j F(x + e_j): the mean softmax F over m noisy copies of an input.

Attacks and training follow gradients of G. Certificates are about something else, the vote over the copies. Nothing
here is clipped to the range of pixels.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, nll_loss
from torch.utils.checkpoint import checkpoint

from smoothcert.draws import standard_normals
from smoothcert.noise import Noise
from smoothcert.progress import count_passes
from smoothcert.smoothing.protocols import evaluation
from smoothcert.smoothing.voters import Finished
from smoothcert.stats import Look

ROWS = 256
"""Noisy copies in one pass of `predict_softly`: fixed, since the last bits of a network's answers depend on it."""


def add_noise(images: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Return x + e, e ~ N(0, sigma^2 I), for images (B, ...) of any shape."""
    return images + sigma * standard_normals(images.shape, generator, images)


def draw_noise(images: Tensor, m: int, sigma: float, generator: torch.Generator) -> Tensor:
    """Return e ~ N(0, sigma^2 I) for m copies of each image: (B, *shape) -> (B, m, *shape)."""
    shape = (len(images), m, *images.shape[1:])
    return standard_normals(shape, generator, images).mul_(sigma)


def noisy_logits(model: Any, images: Tensor, noise: Tensor) -> Tensor:
    """Return the logits of the m noisy copies in one pass: (b, *shape), (b, m, *shape) -> (b, m, K).

    16-bit logits, as autocast gives them, are widened, because their probabilities would round to 0 and 1.
    """
    logits = torch.as_tensor(model((images.unsqueeze(1) + noise).flatten(0, 1)))
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).unflatten(0, noise.shape[:2])


def log_mean_softmax(logits: Tensor) -> Tensor:
    """Return log G for the logits of the noisy copies: (b, m, K) -> (b, K). No logarithm of a rounded sum is taken."""
    return log_softmax(logits, dim=-1).logsumexp(dim=1) - math.log(logits.shape[1])


def log_soft(
    logits: Callable[[Tensor, int, Tensor], Tensor], images: Tensor, noise: Tensor, rows: int
) -> Tensor:
    """Return log G for images that share their noise: (b, *shape), (m, *shape) -> (b, K), in passes of at most `rows`
    copies.

    Where a gradient is wanted and one pass does not do, each is computed again on the way back, so that no more than
    the graph of one pass is in memory.

    Args:
        logits: (inputs (n, *shape), place of the first copy, noise of the copies (k, *shape)) -> (n, k, K).
    """
    copies = min(len(noise), rows)
    together = max(1, rows // copies)

    def compute(part: Tensor, first: int, shifts: Tensor) -> Tensor:
        if torch.is_grad_enabled() and len(images) * len(noise) > rows:
            return torch.as_tensor(checkpoint(logits, part, first, shifts, use_reentrant=False,
                                              preserve_rng_state=False))
        return logits(part, first, shifts)

    return torch.cat([
        log_mean_softmax(torch.cat([compute(part, first, noise[first : first + copies])
                                    for first in range(0, len(noise), copies)], dim=1))
        for part in images.split(together)])


def soft_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return -log G_y = -log (1/m) sum_j F_y(x + e_j): (b, m, K), (b,) -> (b,).

    This is the objective (S) of Salman et al. 2019, section 3.
    """
    return nll_loss(log_mean_softmax(logits), labels, reduction="none")


def mean_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (1/m) sum_j -log F_y(x + e_j): (b, m, K), (b,) -> (b,).

    Salman et al. 2019 warn against it as an attack's objective; it is the cross-entropy of the base classifier.
    """
    return nll_loss(log_softmax(logits, dim=-1).mean(dim=1), labels, reduction="none")


def normal_gap(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return Phi^-1(first) - Phi^-1(second) for probabilities (b,), and where it is finite.

    Elsewhere the gap is 0 and has no gradient.
    """
    finite = (first < 1) & (second > torch.finfo(second.dtype).tiny)
    half = torch.full_like(first, 0.5)
    gap = torch.special.ndtri(torch.where(finite, first, half)) - torch.special.ndtri(torch.where(finite, second, half))
    return gap, finite


def unwrap(model: Any) -> Any:
    """Return the network itself where it is wrapped for training in several processes."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


@contextmanager
def freeze(model: Any) -> Iterator[Any]:
    """Yield the model in eval mode with frozen parameters; restore modes and `requires_grad` on the way out.

    BatchNorm statistics stay as they are, and no backward pass computes a gradient of a weight. A network that is
    wrapped for several processes is unwrapped, because they need not take the same number of steps. A callable that is
    no module is yielded as it is.
    """
    model = unwrap(model)
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    trained = [p for p in parameters if p.requires_grad]
    with evaluation(model):
        try:
            for parameter in trained:
                parameter.requires_grad_(False)
            yield model
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)


def predict_softly(
    model: Any, images: np.ndarray, keys: Sequence[int], noise: Noise, format: str, n: int, num_classes: int, *,
    seed: int, device: torch.device,
) -> Iterator[Finished]:
    """Yield argmax_c G_c over n noisy copies of each image, as Yang et al. 2021 (section 5) measure accuracy.

    There is no test behind the answer, no level, and no abstention. Each answer is tagged by its image's place, and its
    history is the votes of the same n copies.

    Args:
        model: (N, *shape) -> (N, K) logits, in eval mode.
        images: float32 (B, *shape).
        keys: their indices in the data set. The noise is that of PREDICT: stream `predict` of (seed, key).
        format: of the noise's streams.
    """
    with torch.no_grad():
        for place, (image, key) in enumerate(zip(images, keys, strict=True)):
            started = time.perf_counter()
            centre = noise.centre(image)
            stream = noise.stream(seed, key, "predict", centre, format=format)
            total, votes = np.zeros(num_classes), np.zeros(num_classes, dtype=np.int64)
            for start in range(0, n, ROWS):
                noisy = np.empty((min(ROWS, n - start), image.size), dtype=np.float32)
                noise.fill(noisy, centre, stream)
                logits = torch.as_tensor(model(torch.from_numpy(noisy).view(-1, *image.shape).to(device)))
                shares = logits.double().softmax(dim=1).cpu().numpy()
                total += shares.sum(axis=0)
                votes += np.bincount(shares.argmax(axis=1), minlength=num_classes)
                count_passes(len(noisy))
            yield Finished(place, centre.off_grid, [Look("predict", votes)], int(total.argmax()), {},
                           time.perf_counter() - started)
