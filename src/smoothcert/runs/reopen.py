"""What a store was made from, opened again for pictures: its data set, and its model's answers."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smoothcert.classifiers.classifier import open_classifier
from smoothcert.data import ImageData
from smoothcert.data.load import DATA_DIR_VARIABLE, HUB_SETS, open_data
from smoothcert.errors import InputError
from smoothcert.runs.images import in_classes_of
from smoothcert.smoothing import evaluation
from smoothcert.store.comparison import differences, without_unrecorded
from smoothcert.store.store import Store


def stored_data(
    store: Store, data: str | None = None, data_dir: Path | None = None, resize: int | None = None,
    crop: int | None = None, numeric_classes: bool = False,
) -> ImageData:
    """The data set of a store, in its classes, checked to be the same: shape, labels, and the hash of the run's images.

    Nothing is fetched: a set of the public hub has to lie in `data_dir` or in the environment's folder.

    Args:
        data: the forms of `smoothcert.data.load_data`; None takes the name in the store.
        resize, crop, numeric_classes: as the run was given them; classes that the store names need no order.
    Raises:
        InputError: it must be named, or is another one. FileError, DataError: it cannot be read.
    """
    if not store.identity.data_or_none.raw:
        raise InputError(f"{store.folder} does not say which data set it is of: this needs a store")
    told = store.identity.data
    name = data or told.name
    if name in HUB_SETS and not (data_dir or os.environ.get(DATA_DIR_VARIABLE)):
        raise InputError(f"the images of {store.folder} are those of {name}: give --data-dir, or set "
                         f"{DATA_DIR_VARIABLE}")
    if data is None and name not in ("digits", *HUB_SETS):
        raise InputError(f"the images of {store.folder} came from {name!r}: give --data parquet:PATH or "
                         f"imagefolder:PATH")
    images = open_data(name, told.split, data_dir=data_dir, resize=resize, crop=crop,
                       num_classes=store.num_classes, numeric_classes=numeric_classes)
    return in_classes_of(store, images)


def stored_answers(store: Store, model: str, *, weights: str = "best", trust: bool = False
                   ) -> Callable[[np.ndarray], np.ndarray]:
    """The base classifier of a store as images (N, C, H, W) -> classes (N,), checked to be the same by its hash.

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
