"""A denoiser opened for pictures: what it makes of noisy images, as arrays."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smoothcert.classifiers.denoisers import fronted
from smoothcert.config.sampling import RunConfig
from smoothcert.denoise import DenoisedClassifier, generator_normals
from smoothcert.store.store import Store

Estimate = Callable[[np.ndarray], np.ndarray]
"""Noisy images (N, C, H, W) float32 -> estimates of the clean ones, of the same shape."""


def stored_estimates(
    store: Store, denoiser: Path, walk_jump: Path | None = None, front_option: Any = None
) -> tuple[Estimate, Estimate | None]:
    """What a trained denoiser, and a walk from there, make of the noisy images of a store.

    The normals of the walk are drawn from the store's seed: equal for equal calls, and no sample of a certificate.

    Args:
        denoiser, walk_jump, front_option: as `certify` takes them.
    Raises:
        ConfigError: options that do not fit together. InputError: another sigma than the store's. FileError,
        ModelError: a denoiser cannot be read, or is for other images.
    """
    given = {"denoiser": denoiser, "walk_jump": walk_jump, "front_option": front_option}
    config = RunConfig.checked({"model": "", "out": store.folder,
                                **{name: value for name, value in given.items() if value}})
    first = config.model_copy(update={"walk_jump": None, "front_option": {}})
    estimate, walked = (_estimate(store, options) for options in (first, config))
    return estimate, walked if walk_jump else None


def _estimate(store: Store, config: RunConfig) -> Estimate:
    shape: Any = tuple(store.identity.data.shape)
    front: DenoisedClassifier = fronted(lambda images: images, config, shape, store.identity.noise.sigma)
    normals = generator_normals(torch.Generator().manual_seed(store.identity.seed % 2**63))

    def estimate(noisy: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return front.estimate(torch.from_numpy(np.ascontiguousarray(noisy, dtype=np.float32)),
                                  normals if front.random else None).numpy()

    return estimate
