"""Open again what a store was made from, for pictures: its data set, its base classifier and a denoiser."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smoothcert.classifiers.classifier import open_classifier
from smoothcert.classifiers.denoisers import put_behind_denoiser
from smoothcert.config.sampling import RunConfig
from smoothcert.data import ImageData
from smoothcert.data.load import DATA, DATA_DIR_VARIABLE, HUB_SETS, open_data
from smoothcert.denoise import DenoisedClassifier, generator_normals
from smoothcert.errors import InputError
from smoothcert.runs.inputs import in_classes_of
from smoothcert.smoothing import evaluation
from smoothcert.store.comparison import differences, without_unrecorded
from smoothcert.store.store import Store

Estimate = Callable[[np.ndarray], np.ndarray]
"""Noisy images (N, C, H, W) float32 -> estimates of the clean ones, of the same shape."""


def reopen_data(
    store: Store, data: Any = None, data_dir: Path | None = None, resize: int | None = None,
    crop: int | None = None, numeric_classes: bool = False,
) -> ImageData:
    """Return the data set of a store, in its classes, checked to be the same: shape, labels, hash of the run's images.

    Nothing is fetched: a set of the public hub has to lie in `data_dir` or in the environment's folder.

    Args:
        data: the forms of `smoothcert.data.load_data`, names or objects; None takes the name in the store.
        resize, crop, numeric_classes: as the run was given them; classes that the store names need no order.
    Raises:
        InputError: it must be named, or is another one. FileError, DataError: it cannot be read.
    """
    if not store.identity.data_or_none.raw:
        raise InputError(f"{store.folder} does not say which data set it is of: this needs a store")
    stored = store.identity.data
    name = stored.name if data is None else data
    if isinstance(name, str) and name in HUB_SETS and not (data_dir or os.environ.get(DATA_DIR_VARIABLE)):
        raise InputError(f"the images of {store.folder} are those of {name}: give --data-dir, or set "
                         f"{DATA_DIR_VARIABLE}")
    if data is None and name not in DATA:
        raise InputError(f"the images of {store.folder} came from {name!r}: give --data parquet:PATH or "
                         f"imagefolder:PATH")
    images = open_data(name, stored.split, data_dir=data_dir, resize=resize, crop=crop,
                       num_classes=store.num_classes, numeric_classes=numeric_classes)
    return in_classes_of(store, images)


def reopen_answers(store: Store, model: str, *, weights: str = "best", trust: bool = False
                   ) -> Callable[[np.ndarray], np.ndarray]:
    """Return the base classifier of a store as a function: images (N, C, H, W) -> classes (N,); its hash is checked.

    Raises:
        InputError: another model. FileError, ModelError: it cannot be opened.
    """
    shape: Any = tuple(store.identity.data.shape)
    stored = store.identity.model
    opened = open_classifier(model, shape, store.num_classes, classes=store.class_names, weights=weights, trust=trust,
                             output=stored.output)
    found = differences({"model": stored.raw}, {"model": opened.identity})
    if stored.by != "id" and without_unrecorded(found, store.identity.raw):
        raise InputError(f"{model} is not the model of {store.folder}: the store names {stored.by} "
                         f"{(stored.sha256 or '')[:12]}, this one is {opened.identity['by']} "
                         f"{opened.identity.get('sha256', '')[:12]}")

    def answers(images: np.ndarray) -> np.ndarray:
        with torch.no_grad(), evaluation(opened.model):
            logits = opened.model(torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)))
        return np.asarray(logits).argmax(axis=1)

    return answers


def reopen_estimates(
    store: Store, denoiser: Path, walk_jump: Path | None = None, front_option: Any = None
) -> tuple[Estimate, Estimate | None]:
    """Return a trained denoiser, and a walk that follows it, as functions of the noisy images of a store.

    The normals of the walk are drawn from the store's seed: equal for equal calls, and no sample of a certificate.

    Args:
        denoiser, walk_jump, front_option: as `certify` takes them.
    Raises:
        ConfigError: options that do not fit together. InputError: another sigma than the store's. FileError,
        ModelError: a denoiser cannot be read, or is for other images.
    """
    given = {"denoiser": denoiser, "walk_jump": walk_jump, "front_option": front_option}
    config = RunConfig.parse({"model": "", "out": store.folder,
                                **{name: value for name, value in given.items() if value}})
    first = config.model_copy(update={"walk_jump": None, "front_option": {}})
    estimate, walked = (_estimate(store, options) for options in (first, config))
    return estimate, walked if walk_jump else None


def _estimate(store: Store, config: RunConfig) -> Estimate:
    shape: Any = tuple(store.identity.data.shape)
    front: DenoisedClassifier = put_behind_denoiser(lambda images: images, config, shape, store.identity.noise.sigma)
    normals = generator_normals(torch.Generator().manual_seed(store.identity.seed % 2**63))

    def estimate(noisy: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return front.estimate(torch.from_numpy(np.ascontiguousarray(noisy, dtype=np.float32)),
                                  normals if front.random else None).numpy()

    return estimate
