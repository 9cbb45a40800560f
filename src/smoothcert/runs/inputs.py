"""The inputs of a run, loaded and checked: the model, the images and the noise that its options name."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smoothcert.classifiers.card import ModelCard
from smoothcert.classifiers.classifier import Classifier, model_card, open_classifier
from smoothcert.classifiers.denoisers import denoiser_sigma
from smoothcert.config.sampling import RunConfig
from smoothcert.data import ImageData, select_indices, take_evenly
from smoothcert.data.load import names_from_indices, open_data
from smoothcert.errors import InputError
from smoothcert.machine import pick_device
from smoothcert.noise import Noise, build_noise, fresh_seed
from smoothcert.runs.images import attacked_data, with_settings_of
from smoothcert.runs.options import PredictConfig
from smoothcert.store.identity import Identity, are_first, describe_images
from smoothcert.store.manifest import is_store, read_manifest
from smoothcert.store.store import read_store

Keep = Callable[[ImageData, np.ndarray], np.ndarray]
"""Of the images at some indices, those that a run can work on."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """The model, images and noise that the options of a run name.

    Attributes:
        indices: of the images to work on, in order.
        stored: the identity of the store that the run goes on with; None where it starts one.
        attacked: the attack whose images stand in place of the clean ones; {} where they are clean.
    """

    data: ImageData
    indices: np.ndarray
    noise: Noise
    classifier: Classifier
    device: torch.device
    seed: int
    stored: Identity | None
    attacked: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Model, data, images and seed, as a store's identity has them."""
        return {
            "model": self.classifier.identity,
            "num_classes": self.data.num_classes,
            "data": {"name": self.data.name, "split": self.data.split, "shape": list(self.data.shape),
                     "sha256": self.data.fingerprint(self.indices)},
            "images": describe_images(self.indices),
            "seed": self.seed,
            **({"adversaries": self.attacked} if self.attacked else {}),
        }

    def provenance(self, config: RunConfig) -> dict[str, Any]:
        """Return model and data as a store shows them: without the folders that lead to them."""
        path = Path(config.model)
        return {"model": path.name if path.exists() else config.model, "data": self.data.name,
                "classes": list(self.data.class_names)}

    def resolve(self, config: RunConfig, **more: Any) -> Any:
        """Return the options by which another process, which may not see the store, takes the same seed and images."""
        return config.model_copy(update={"seed": self.seed, "indices": tuple(self.indices.tolist()), "start": 0,
                                         "every": 1, "max_images": None, **more})


def open_inputs(config: RunConfig, keep: Keep | None = None) -> Inputs:
    """Load and check the model, the images and the noise that the options name.

    Args:
        keep: which of the images that `start`, `every` or `indices` leave can be worked on; None keeps all.
    """
    if config.threads or config.cluster or config.processes > 1:
        torch.set_num_threads(config.threads or 1)
    card = model_card(config.model)
    attacks = read_store(config.adversaries) if isinstance(config, PredictConfig) and config.adversaries else None
    config = config if attacks is None else with_settings_of(config, attacks)
    data = _open_data(config, card)
    sigma = config.sigma or denoiser_sigma(config.denoiser) or (card.sigma if card else None)
    if sigma is None:
        raise InputError(f"sigma: the noise level is required, because {config.model} was not trained with one here")
    noise = build_noise(config.noise, sigma, data.levels)
    device = pick_device(config.device)
    classifier = open_classifier(config.model, data.shape, config.num_classes or data.num_classes,
                                 classes=config.classes, weights=config.weights, trust=config.trust,
                                 model_id=config.model_id, device=device, sigma=noise.sigma, front=config,
                                 output=config.output)
    data = _match_classes(config, classifier, data)
    indices = select_indices(len(data), start=config.start, every=config.every, indices=config.indices)
    attacked: dict[str, Any] = {}
    if attacks is not None and isinstance(config, PredictConfig):
        found = attacked_data(data, config, attacks)
        data, attacked, indices = found.data, found.attack, indices[np.isin(indices, found.index)]
        if not len(indices):
            raise InputError(f"none of the images selected was attacked in {config.adversaries}")
    indices = indices if keep is None else keep(data, indices)
    stored = read_manifest(config.out).identity if is_store(config.out) else None
    seed = config.seed if config.seed is not None else stored.seed if stored else None
    return Inputs(data, _choose(indices, config.max_images, stored), noise, classifier, device,
                  fresh_seed() if seed is None else seed, stored, attacked)


def _choose(indices: np.ndarray, max_images: int | None, stored: Identity | None) -> np.ndarray:
    """Return at most `max_images` of the indices, evenly spaced; but the first ones where a store holds just those, as
    an older smoothcert chose, so that the same command goes on with it."""
    first = indices[:max_images]
    return first if stored is not None and are_first(first, stored.images) else take_evenly(indices, max_images)


def _open_data(config: RunConfig, card: ModelCard | None) -> ImageData:
    """Open the data set asked for, else the one the model was trained on, preprocessed alike, else digits."""
    trained_on = card.data if card and config.data in (None, card.data["data"]) else {}
    return open_data(
        config.data or trained_on.get("data") or "digits", config.split, data_dir=config.data_dir,
        resize=config.resize or trained_on.get("resize"), crop=config.crop or trained_on.get("crop"),
        num_classes=config.num_classes or (card.num_classes if card else None), numeric_classes=config.numeric_classes,
    )


def _match_classes(config: RunConfig, classifier: Classifier, data: ImageData) -> ImageData:
    """Return the data with the model's classes, so that an index means the same to both."""
    count, names = classifier.num_classes, classifier.class_names
    if config.num_classes not in (None, count):
        raise InputError(f"num_classes is {config.num_classes}, but {config.model} has {count} classes: leave it out")
    if names is None and config.numeric_classes:
        names = names_from_indices(data, count)
    return data.with_classes(names, count)
