"""Open again what a store was made from, for pictures: its data set, its base classifier and a denoiser."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smoothcert.classifiers.classifier import open_classifier
from smoothcert.classifiers.denoisers import put_behind_denoiser
from smoothcert.classifiers.ensembles import is_ensemble
from smoothcert.config.model import ModelConfig
from smoothcert.config.sampling import RunConfig
from smoothcert.data import ImageData
from smoothcert.data.load import DATA, is_own_code, open_data
from smoothcert.data.named import DATA_DIR_VARIABLE, HUB_SETS, data_folder
from smoothcert.denoise import DenoisedClassifier, generator_normals
from smoothcert.errors import InputError, SmoothcertError
from smoothcert.io.paths import local_path
from smoothcert.parts import Registry
from smoothcert.runs.inputs import check_has_classes, in_classes_of
from smoothcert.smoothing import evaluation
from smoothcert.smoothing.engines.runtimes import RUNTIMES
from smoothcert.store.comparison import differences, without_unrecorded
from smoothcert.store.source import Source, read_source
from smoothcert.store.store import Store

_ABOVE = 3
"""Folders above a store in which the data of its run are looked for."""

Estimate = Callable[[np.ndarray], np.ndarray]
"""Noisy inputs (N, *shape) float32 -> estimates of the clean ones, of the same shape."""


def reopen_data(
    store: Store, data: Any = None, data_dir: Path | None = None, **prepared: Any
) -> ImageData:
    """Return the data set of a store, in its classes, checked to be the same: shape, labels, hash of the run's images.

    Nothing is fetched. Data that are not named here are looked for in `data_dir`, where the run found them, in the
    working folder, and in the folders above the store.

    Args:
        data: the forms of `smoothcert.data.load_data`, names or objects; None takes those of the store.
        data_dir: the folder of a named set; or one that holds the run's data under their own name.
        prepared: the run's `numeric_classes` and options of how inputs are read; what is None or False is taken as the
            run noted it, if it did.
    Raises:
        InputError: they are nowhere, or are other ones. FileError, DataError: they cannot be read.
    """
    check_has_classes(store)
    if not store.identity.data_or_none.raw:
        raise InputError(f"{store.folder} does not say which data set it is of: this needs a store")
    stored, noted = store.identity.data, read_source(store.folder)
    prepared = {**(noted.prepared if noted else {}), **{name: value for name, value in prepared.items() if value},
                "num_classes": store.num_classes}
    of_hub = stored.name in HUB_SETS
    if data is not None or (stored.name in DATA and not of_hub) or (data_dir and of_hub):
        chosen = stored.name if data is None else data
        return in_classes_of(store, open_data(chosen, stored.split, data_dir=data_dir, **prepared))
    if noted is None and not stored.name.partition(":")[1] and not of_hub:
        raise InputError(f"the images of {store.folder} were given as an object, {stored.name}: give them again as "
                         f"data")
    if is_own_code(stored.name):
        raise InputError(f"the images of {store.folder} came from code, {stored.name}: give its place as --data")
    kind, colon, _ = stored.name.partition(":")
    told = []
    for place in likely_places(store, noted, data_dir):
        if not os.path.exists(place):
            told.append(f"there is no {place}")
            continue
        where = {"spec": f"{kind}:{place}"} if colon else {"spec": kind, "data_dir": place}
        try:
            return in_classes_of(store, open_data(split=stored.split, **where, **prepared))
        except SmoothcertError as error:
            told.append(f"{place} is not it: {error}")
    tried = f" ({'; '.join(told)})" if told else ""
    advice = f"--data {kind}:PATH" if colon else f"--data-dir, or set {DATA_DIR_VARIABLE}"
    raise InputError(f"the images of {store.folder} are those of {stored.name}, which was not found"
                     f"{tried}: give {advice}")


def likely_places(store: Store, noted: Source | None, data_dir: Path | None) -> list[Path]:
    """Return where the data of a store may lie: the folder of a named set, or data of the store's own name."""
    kind, colon, name = store.identity.data.name.partition(":")
    places = noted.places(store.folder) if noted is not None and noted.data == kind else []
    if not colon:
        first = data_folder(kind, data_dir)
        return [*([] if data_dir else places), *([first] if first else [])]
    near = [Path.cwd(), *(store.folder.resolve().parents[:_ABOVE] if isinstance(store.folder, Path) else ())]
    places = [*([data_dir / name] if data_dir else []), *places, *(folder / name for folder in near)]
    return [place for place in dict.fromkeys(places)
            if name in (place.name, os.path.basename(os.path.realpath(place)))]  # as the run called them


def data_options(store: Store, asked: Any) -> dict[str, Any]:
    """Return the options of the images of a store for another run of them.

    They are as asked, else as the store names them or where its run found them, else those of a model folder's
    training, which the run takes by itself.

    Args:
        asked: options that have `model`, `data`, `data_dir`, `numeric_classes` and those of how inputs are read.
    Raises:
        InputError: nothing says where the images are.
    """
    given = {"data": asked.data, "data_dir": asked.data_dir, "numeric_classes": asked.numeric_classes, **asked.reading}
    name = store.identity.data.name
    if asked.data is not None:
        return given
    kind, colon, _ = name.partition(":")
    noted = read_source(store.folder)
    places = [place for place in likely_places(store, noted, asked.data_dir) if place.exists()]
    if name in DATA:
        return {**given, "data": name, **({"data_dir": places[0]} if name in HUB_SETS and places else {})}
    if colon and not is_own_code(name) and places:
        given = {name: value for name, value in given.items() if value}
        return {**(noted.prepared if noted else {}), **given, "data": f"{kind}:{places[0]}"}
    if is_ensemble(asked.model) or (isinstance(asked.model, str) and local_path(asked.model).is_dir()):
        return given
    raise InputError(f"the images of {store.folder} are {name}, and nothing says where they are: give --data")


def find_part(option: str, asked: Any, stored: str, registry: Registry[Any]) -> Any:
    """Return the part that was asked for, else the one that a store names, if it is registered: code that a store
    names is never run. Raises InputError."""
    if asked is None and stored not in registry:
        raise InputError(f"{option}: the run's was {stored}, a user's own code: give its place, FILE.py:NAME or "
                         f"package.module:NAME")
    return stored if asked is None else asked


def reopen_answers(store: Store, asked: ModelConfig | str) -> Callable[[np.ndarray], np.ndarray]:
    """Return the base classifier of a store as a function: inputs (N, *shape) -> classes (N,); its hash is checked.

    Args:
        asked: the options that name it, or the name alone.
    Raises:
        InputError: another model. FileError, ModelError: it cannot be opened.
    """
    shape: Any = tuple(store.identity.data.shape)
    stored = store.identity.model
    runtime = stored.runtime.name if stored.runtime is not None and stored.runtime.name in RUNTIMES else None
    opened = open_classifier(asked, shape, store.num_classes, classes=store.class_names, output=stored.output,
                             bounds=store.identity.data.bounds,
                             runtime=runtime)
    found = differences({"model": stored.raw}, {"model": opened.identity})
    if stored.by != "id" and without_unrecorded(found, store.identity.raw):
        name = asked if isinstance(asked, str) else asked.model
        raise InputError(f"{name} is not the model of {store.folder}: the store names {stored.by} "
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
