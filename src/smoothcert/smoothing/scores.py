"""Scores of the classes that are smooth in the image: log G, G the mean softmax over noisy copies of one noise for all.

`predict` and `certify` key the noise by the image, so that the votes of two images are independent. A gradient wants
the opposite: under the same noise for every image, G is one smooth function.
"""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smoothcert.noise import Noise, NoiseCentre
from smoothcert.smoothing.precision import isolate
from smoothcert.smoothing.protocols import Normals, check_logits
from smoothcert.smoothing.rows import Segment, Subject, walk_normals
from smoothcert.smoothing.soft import log_soft

_EVERY_IMAGE = 2**256
"""The key of the noise that all images share: above every index, and every key of an image's bytes."""


class Scores:
    """log G of a smoothed classifier, from the noise of stage "attack", which no certificate draws from."""

    def __init__(self, noise: Noise, num_classes: int, seed: int):
        self._noise, self._num_classes, self._seed = noise, num_classes, seed
        self._kept: dict[Any, Tensor] = {}

    def of(self, run: Any, images: Tensor, m: int, start: int, rows: int, random: bool) -> Tensor:
        """Return log G, (N, K) float32, differentiable in the images and in the parameters of `run`.

        Args:
            run: (N, *shape) -> (N, K) logits, with `Normals` after the rows where `random`.
            images: (N, *shape) float32 on the device of `run`.
            m: noisy copies.
            start: the place of the first one's noise in its stream.
            rows: copies in a pass.
        """
        shape, device = tuple(images.shape[1:]), images.device
        segment = partial(Segment, Subject(_EVERY_IMAGE, NoiseCentre(np.zeros(0))), "attack")

        def logits(part: Tensor, first: int, shifts: Tensor) -> Tensor:
            n, k = len(part), len(shifts)
            noisy = (part.unsqueeze(1) + shifts).flatten(0, 1)
            normals: list[Normals] = []
            if random:
                normals.append(lambda t, like: walk_normals(self._seed, [segment(start + first, k)], t, shape)
                               .repeat(n, *[1] * len(shape)).to(like))
            with isolate(device):  # also on the way back
                answers = check_logits(run(noisy, *normals), n * k, self._num_classes)
                return answers.to(device, torch.float32).unflatten(0, (n, k))

        return log_soft(logits, images, self._shifts(shape, m, start, device), rows)

    def _shifts(self, shape: tuple[int, ...], m: int, start: int, device: torch.device) -> Tensor:
        """Return m noise vectors, (m, *shape) on the device: those of an image of zeros. The last ones are kept."""
        key = (shape, m, start, device)
        if key not in self._kept:
            centre = self._noise.centre(np.zeros(shape, dtype=np.float32))
            shifts = np.empty((m, int(np.prod(shape))), dtype=np.float32)
            self._noise.fill(shifts, centre, self._noise.stream(self._seed, _EVERY_IMAGE, "attack", centre, start))
            with torch.inference_mode(False):  # a graph may need them later
                self._kept = {key: torch.from_numpy(shifts).view(m, *shape).to(device)}
        return self._kept[key]
