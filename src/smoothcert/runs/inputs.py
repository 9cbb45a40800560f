"""The inputs of a run, loaded and checked: the model, the images and the noise that its options name.

Images may be those that an attack store kept, in place of the clean ones, and are checked to be those of a store.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from smoothcert.classifiers.card import ModelCard
from smoothcert.classifiers.classifier import Classifier, model_card, open_classifier
from smoothcert.classifiers.denoisers import denoiser_sigma
from smoothcert.classifiers.ensembles import is_ensemble, name_ensemble
from smoothcert.config.sampling import ATTACKED, RunConfig
from smoothcert.data import ImageData, select_indices, take_evenly
from smoothcert.data.base import PixelSource, scaled
from smoothcert.data.load import DATA, is_own_code, names_from_indices, open_data
from smoothcert.data.named import data_folder
from smoothcert.errors import InputError, ModelError, QualityWarning, StoreError
from smoothcert.machine import list_cards, pick_device
from smoothcert.models import label_model
from smoothcert.noise import Noise, SoundNoise, build_noise, fresh_seed, reach_of
from smoothcert.progress import phase
from smoothcert.runs.options import PredictConfig
from smoothcert.smoothing.engines.runtimes import RUNTIMES
from smoothcert.store.adversaries import read_adversaries
from smoothcert.store.identity import Identity
from smoothcert.store.identity_parts import are_first, describe_images
from smoothcert.store.manifest import is_store, read_manifest
from smoothcert.store.source import Source
from smoothcert.store.store import Store, read_store

AnyRun = TypeVar("AnyRun", bound=RunConfig)


def model_title(model: Any) -> str:
    """Return a model as a store shows it: without the folders that lead to it."""
    name = label_model(model)
    if is_ensemble(name):
        return name_ensemble(name)
    return Path(name).name if Path(name).exists() else name


@dataclass(frozen=True, eq=False)
class Attacked:
    """Attacked images under the indices of the clean ones.

    Attributes:
        data: the data set, with the attacked images in their places.
        index: (M,) of those.
        attack: its name and setting, for a store's identity.
    """

    data: ImageData
    index: np.ndarray
    attack: dict[str, Any]


class AttackedSource:
    """A PixelSource that gives other pixels for some images."""

    def __init__(self, clean: PixelSource, index: np.ndarray, images: np.ndarray) -> None:
        self._clean, self._images = clean, images
        self._rows = {int(i): row for row, i in enumerate(index)}
        self.shape, self.levels, self.bounds = clean.shape, clean.levels, clean.bounds
        self.preprocessing = clean.preprocessing
        self.where = clean.where

    def __len__(self) -> int:
        return len(self._clean)

    def pixels(self, indices: np.ndarray) -> np.ndarray:
        """(B, *shape) float32."""
        found = scaled(self._clean.pixels(indices), self.levels)
        for place, index in enumerate(indices.tolist()):
            if index in self._rows:
                found[place] = self._images[self._rows[index]]
        return found

    def read_raw(self, index: int) -> bytes:
        """Return the float32 pixels of an attacked image, and other images as they are stored."""
        row = self._rows.get(index)
        return self._clean.read_raw(index) if row is None else self._images[row].astype("<f4").tobytes()


def complete_from(config: AnyRun, store: Store) -> AnyRun:
    """Return the options with sigma, data and split of a store, where they name none."""
    identity, changes = store.identity, dict[str, Any]()
    if config.sigma is None:
        changes["sigma"] = identity.noise.sigma
    if config.data is None and identity.data.name in DATA:
        changes["data"] = identity.data.name
    if "split" not in config.model_fields_set:
        changes["split"] = identity.data.split
    return config.model_copy(update=changes)


def replace_by_attacked(data: ImageData, config: PredictConfig, store: Store) -> Attacked:
    """Return the data set with the attacked images that `config` names.

    Raises:
        StoreError: `store` is not an attack store, or keeps images of another shape. InputError: no or several
        such settings, or images of other data. FileError: it keeps no attacked images.
    """
    if store.kind != "attack":
        raise StoreError(f"{store.folder} is a {store.kind} store: adversaries takes an attack store")
    index, images = read_adversaries(store.folder, **config.setting)
    in_classes_of(store, data, "give the data and the split that were attacked")
    if images.shape[1:] != data.shape:
        raise StoreError(f"{store.folder} keeps attacked images of shape {images.shape[1:]}, but attacked images of "
                         f"shape {data.shape}: attack again into another folder")
    attack = store.identity.attack
    listed = {**{name: attack.raw[name] for name in ATTACKED if name in attack.raw}, **config.setting}
    setting = {name: value[0] if isinstance(value, list) else value for name, value in listed.items()}
    return Attacked(replace(data, source=AttackedSource(data.source, index, images)), index,
                    {"attack": attack.name, **setting})


def check_has_classes(store: Store) -> None:
    """Raise StoreError for the store of a task whose data have no classes."""
    if store.identity.of_outputs:
        raise StoreError(f"{store.folder} is a {store.kind} store, whose data have no classes: this shows those of a "
                         f"classifier")


def in_classes_of(store: Store, data: ImageData, advice: str = "give the data of the run") -> ImageData:
    """Return the data with the classes of a store, checked to hold the images of its run.

    Args:
        advice: what to do where they do not.
    Raises:
        InputError: they do not, or have other classes; it says what differs.
    """
    told = store.identity.data
    check_has_classes(store)
    if list(data.shape) != told.shape:
        raise _other(store, data, f"those have shape {tuple(told.shape)}, these {data.shape}: give the run's "
                                  f"--resize and --crop, or --features")
    data = data.with_classes(store.class_names, store.num_classes, str(store.folder), advice)
    index = store.column("index")
    if index.size and index.max() >= len(data):
        raise _other(store, data, f"image {index.max()} is among those, and here are {len(data)} images: {advice}")
    unlike = np.flatnonzero(data.labels[index] != store.column("label"))
    if len(unlike):
        image, label = index[unlike[0]], store.column("label")[unlike[0]]
        raise _other(store, data, f"they have other labels: image {image} is of class {data.class_names[label]} there "
                                  f"and of class {data.class_names[data.labels[image]]} here: {advice}")
    run = store.identity.images.at(np.arange(store.identity.images.count))
    if run is None and store.complete:
        run = np.array(list(dict.fromkeys(index.tolist())), dtype=np.int64)
    if run is not None and data.fingerprint(run) != told.sha256:
        raise _other(store, data, f"their labels are the same, but not their SHA-256, so the files or what is done to "
                                  f"them (--resize, --crop, --features) are others: {advice}")
    return data


def _other(store: Store, data: ImageData, what: str) -> InputError:
    return InputError(f"{store.folder} is of other images than those of {data.name} ({data.split}): {what}")


def _in_classes(data: ImageData, config: RunConfig, classifier: Classifier) -> ImageData:
    """Return the data with the classes of the model, so that an index means the same to both."""
    count, names = classifier.num_classes, classifier.class_names
    if config.num_classes not in (None, count):
        raise InputError(f"num_classes is {config.num_classes}, but {label_model(config.model)} has {count} classes: "
                         f"leave it out")
    if names is None and config.numeric_classes:
        names = names_from_indices(data, count)
    return data.with_classes(names, count)


def _asks_for(config: RunConfig, data: str) -> bool:
    """Tell whether the options name this data set, or none."""
    return config.data is None or (isinstance(config.data, str) and config.data == data)


def _open_as_fitted(config: RunConfig, card: ModelCard | None, spec: Any, reading: dict[str, Any], real: bool
                    ) -> tuple[ImageData, dict[str, Any]]:
    """Return the data, and how they are read.

    A table is read with the columns that a model folder was trained on, in their order, unless the options name others.
    """
    def opened() -> ImageData:
        return open_data(spec, config.split, data_dir=config.data_dir, real=real,
                         num_classes=config.num_classes or (card.num_classes if card else None), **reading)

    data = opened()
    fitted: tuple[str, ...] = tuple(card.data.get("features") or ()) if card and config.features is None else ()
    if fitted and data.columns and fitted != data.columns:
        _check_columns(config, fitted, tuple(name for name in fitted if name in data.columns), data)
        reading = {**reading, "features": list(fitted)}
        data = opened()
    return data, reading


def _check_columns(config: RunConfig, fitted: tuple[str, ...], found: tuple[str, ...], data: ImageData) -> None:
    """Raise InputError where the columns that are found in a table are not those that a model was fitted on."""
    if fitted != found:
        raise InputError(f"{label_model(config.model)} was fitted on the columns {', '.join(fitted)}, and the inputs "
                         f"have {', '.join(data.columns)}: name its own in their order, --features")


def _warn_of_training_inputs(config: RunConfig, spec: str) -> None:
    warnings.warn(f"{spec} has no splits, so these are inputs that {label_model(config.model)} was trained on, and the "
                  f"figures say nothing of new ones: train on a part of them, and give the other, --data",
                  QualityWarning, stacklevel=3)


def noise_for(data: ImageData, part: Any, sigma: float) -> Noise:
    """Return the noise that the options name, or the usual one, for the levels and bounds of the data.

    Raises InputError as `build_noise` does, or for sound noise on data without bounds.
    """
    noise = build_noise(part, sigma, data.levels, reach_of(data.bounds))
    if noise.kind == SoundNoise.kind and data.bounds is None:
        raise InputError(f"noise: sound noise needs to know how far values reach, and {data.name} has no bounds: "
                         f"declare bounds where the data are made, or take gaussian noise")
    return noise


Keep = Callable[[ImageData, np.ndarray], np.ndarray]
"""Of the images at some indices, those that a run can work on."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """The model, images and noise that the options of a run name.

    Attributes:
        indices: of the images to work on, in order.
        stored: the identity of the store that the run goes on with; None where it starts one.
        attacked: the attack whose images stand in place of the clean ones; {} where they are clean.
        source: where the data lie; None where they lie in no file.
    """

    data: ImageData
    indices: np.ndarray
    noise: Noise
    classifier: Classifier
    device: torch.device
    seed: int
    stored: Identity | None
    attacked: dict[str, Any] = field(default_factory=dict)
    source: Source | None = None

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Model, data, images and seed, as a store's identity has them."""
        bounds = self.data.bounds
        return {
            "model": self.classifier.identity,
            "num_classes": self.data.num_classes,
            "data": {"name": self.data.name, "split": self.data.split, "shape": list(self.data.shape),
                     "sha256": self.data.fingerprint(self.indices),
                     **({} if bounds == (0, 1) else {"bounds": bounds and list(bounds)})},
            "images": describe_images(self.indices),
            "seed": self.seed,
            **({"adversaries": self.attacked} if self.attacked else {}),
        }

    def noise_format(self, asked: str) -> str:
        """Return the format to draw in: a store of sound noise goes on in its own, which on a GPU was once another."""
        goes_on = asked == "auto" and self.stored is not None and self.noise.kind == "sound"
        return self.stored.noise.format if goes_on and self.stored else asked

    def provenance(self, config: RunConfig) -> dict[str, Any]:
        """Return model and data as a store shows them, without the folders that lead to them, and the GPU if any."""
        cards = list_cards(self.device, config.processes)
        return {**({"cards": cards} if cards else {}), "model": model_title(config.model), "data": self.data.name,
                "classes": list(self.data.class_names),
                **({"weights": self.classifier.note} if self.classifier.note else {})}

    def resolve(self, config: RunConfig, **more: Any) -> Any:
        """Return the options by which another process, which may not see the store, takes the same seed and images."""
        return config.model_copy(update={"seed": self.seed, "indices": tuple(self.indices.tolist()), "start": 0,
                                         "every": 1, "max_images": None, **more})


def open_inputs(config: RunConfig, keep: Keep | None = None, real: bool = False) -> Inputs:
    """Load and check the model, the images and the noise that the options name.

    Args:
        real: whether the model's outputs are real values, and no scores of classes: it is then opened as
            `smoothing.outputs` says, and the data keep their labels.
        keep: which of the images that `start`, `every` or `indices` leave can be worked on; None keeps all.
    """
    device = pick_device(config.device)
    if config.threads or config.cluster or config.processes > 1:
        torch.set_num_threads(config.threads or 1)
    card = model_card(config)
    attacks = read_store(config.adversaries) if isinstance(config, PredictConfig) and config.adversaries else None
    config = config if attacks is None else complete_from(config, attacks)
    trained_on = card.data if card and _asks_for(config, card.data["data"]) else {}
    if is_own_code(trained_on.get("data")) and config.data is None and not config.trust:
        raise ModelError(f"{config.model} was trained on data of code that it names, {trained_on['data']}: give "
                         f"--data, or read that code and pass --trust")
    spec = trained_on.get("data", "digits") if config.data is None else config.data
    prepared = {**{name: value for name, value in trained_on.items() if name != "data" and value is not None},
                **config.reading, "numeric_classes": config.numeric_classes}
    with phase("loading the data"):
        data, prepared = _open_as_fitted(config, card, spec, prepared, real)
    if trained_on and not data.divided and config.split != "train":
        _warn_of_training_inputs(config, spec)
    source = Source.of(spec, data_folder(spec, config.data_dir), **prepared)
    sigma = config.sigma or denoiser_sigma(config.denoiser) or (card.sigma if card else None)
    if sigma is None:
        raise InputError(f"sigma: the noise level is required, because {label_model(config.model)} was not trained "
                         f"with one here")
    noise = noise_for(data, config.noise, sigma)
    stored = read_manifest(config.out).identity if is_store(config.out) else None
    engine = getattr(config, "engine", "auto")
    certified = stored.model_or_none.runtime if stored is not None and stored.model_or_none is not None else None
    if engine == "auto" and certified is not None:
        engine = certified.name
    with phase("loading the model"):
        classifier = open_classifier(config, data.shape, config.num_classes or data.num_classes, real=real,
                                     classes=config.classes, model_id=config.model_id, device=device,
                                     sigma=noise.sigma, bounds=data.bounds, front=config, output=config.output,
                                     runtime=engine if engine in RUNTIMES else None)
    if classifier.columns and data.columns:
        _check_columns(config, classifier.columns, data.columns, data)
    data = data if real else _in_classes(data, config, classifier)
    indices = select_indices(len(data), start=config.start, every=config.every, indices=config.indices)
    attacked: dict[str, Any] = {}
    if attacks is not None and isinstance(config, PredictConfig):
        found = replace_by_attacked(data, config, attacks)
        data, attacked, indices = found.data, found.attack, indices[np.isin(indices, found.index)]
        if not len(indices):
            raise InputError(f"none of the images selected was attacked in {config.adversaries}")
    indices = indices if keep is None else keep(data, indices)
    seed = config.seed if config.seed is not None else stored.seed_or_none if stored else None
    chosen = indices[: config.max_images]  # as an older smoothcert chose, whose stores the same command goes on with
    if stored is None or not are_first(chosen, stored.images):
        chosen = take_evenly(indices, config.max_images)
    return Inputs(data, chosen, noise, classifier, device, fresh_seed() if seed is None else seed, stored, attacked,
                  source)
