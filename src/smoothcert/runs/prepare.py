"""What a sampling run works with, made from its options: images, noise, plan, votes, and the identity of it all."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smoothcert.classifiers.classifier import Classifier, model_card, open_classifier
from smoothcert.classifiers.denoisers import denoiser_sigma
from smoothcert.classifiers.folder import ModelCard
from smoothcert.config.sampling import RunConfig, SamplingConfig
from smoothcert.data import ImageData, even_places, select_indices, take_evenly
from smoothcert.data.load import names_from_indices, open_data
from smoothcert.denoise.walks import FrontEnd
from smoothcert.errors import InputError
from smoothcert.machine import pick_device
from smoothcert.noise import Noise, build_noise, fresh_seed
from smoothcert.runs.attacked_images import attacked_data, like_store
from smoothcert.runs.options import PredictConfig
from smoothcert.runs.run import Done, Task
from smoothcert.smoothing import Finished, Sampling, evaluation, open_voter, run_plan
from smoothcert.smoothing.voters import Voter
from smoothcert.stats import Plan
from smoothcert.store.manifest import is_store, read_manifest
from smoothcert.store.records import Record, Tally
from smoothcert.store.store import read_store

PlanFor = Callable[[Noise], Plan]
Keep = Callable[[ImageData, np.ndarray], np.ndarray]
"""Of the images at some indices, those that a run can work on."""

_UNLISTED = "see the records"


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to sample (see `work.Run`): a record an image, each image a task."""

    config: SamplingConfig
    data: ImageData
    indices: np.ndarray
    plan: Plan
    voter: Voter
    model: Any
    identity: dict[str, Any]
    plan_for: PlanFor

    @property
    def told(self) -> dict[str, Any]:
        behind = getattr(self.model, "denoiser", None)
        cost = {"each_sample": behind.cost} if isinstance(behind, FrontEnd) else {}
        return {**shown(self.config, self.data), **cost}

    @property
    def most(self) -> int:
        return self.plan.most()

    @property
    def reopen(self) -> Callable[[], "Prepared"]:
        return partial(prepare, self.config, self.plan_for)

    def tasks(self, pending: Sequence[int]) -> list[Task]:
        return [(position,) for position in pending]

    def records(self, tasks: Iterable[Task]) -> Iterator[Done]:
        images = ((p, self.data.image(int(self.indices[p])), int(self.indices[p])) for p, in tasks)
        for done in self.answered(images):
            index = int(self.indices[done.tag])
            yield done.tag, Record(index, int(self.data.labels[index]), done.prediction, done.values,
                                   done.off_grid, tallies(done)), done.seconds

    def answered(self, images: Iterable[tuple[Any, np.ndarray, int]]) -> Iterator[Finished]:
        """Images (tag, float32 (C, H, W), noise key) through the plan, each as it is done."""
        with evaluation(self.model):
            yield from run_plan(self.plan, self.voter, images, self.data.num_classes)


def shown(config: RunConfig, data: ImageData) -> dict[str, Any]:
    """Model and data as they may be shown: without the folders that lead to them."""
    path = Path(config.model)
    return {"model": path.name if path.exists() else config.model, "data": data.name,
            "classes": list(data.class_names)}


def tallies(done: Finished) -> list[Tally]:
    """The looks at an image as its record keeps them."""
    return [Tally.of(look.stage, look.counts) for look in done.history]


@dataclass(frozen=True, eq=False)
class Opened:
    """What the options of a run name, loaded and checked.

    Attributes:
        indices: of the images to work on, in order.
        stored: the identity of the store that the run goes on with; {} where it starts one.
        attacked: the attack whose images stand in place of the clean ones; {} where they are clean.
    """

    data: ImageData
    indices: np.ndarray
    noise: Noise
    classifier: Classifier
    device: torch.device
    seed: int
    stored: dict[str, Any]
    attacked: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Model, data, images and seed, as a store's identity has them."""
        return {
            "model": self.classifier.identity,
            "num_classes": self.data.num_classes,
            "data": {"name": self.data.name, "split": self.data.split, "shape": list(self.data.shape),
                     "sha256": self.data.fingerprint(self.indices)},
            "images": index_summary(self.indices),
            "seed": self.seed,
            **({"adversaries": self.attacked} if self.attacked else {}),
        }

    @property
    def settled(self) -> dict[str, Any]:
        """The options by which another process, which may not see the store, takes the same seed and images."""
        return {"seed": self.seed, "indices": tuple(self.indices.tolist()), "start": 0, "every": 1, "max_images": None}


def opened(config: RunConfig, keep: Keep | None = None) -> Opened:
    """Load and check model, images and noise.

    Args:
        keep: which of the images that `start`, `every` or `indices` leave can be worked on; None are all.
    """
    if config.threads or config.cluster or config.processes > 1:
        torch.set_num_threads(config.threads or 1)
    card = model_card(config.model)
    store = read_store(config.adversaries) if isinstance(config, PredictConfig) and config.adversaries else None
    config = config if store is None else like_store(config, store)
    data = _data(config, card)
    noise = build_noise(config.noise, _sigma(config, card), data.levels)
    device = pick_device(config.device)
    classifier = open_classifier(config.model, data.shape, config.num_classes or data.num_classes,
                                 classes=config.classes, weights=config.weights, trust=config.trust,
                                 model_id=config.model_id, device=device, sigma=noise.sigma, front=config,
                                 output=config.output)
    data = _matched(config, classifier, data)
    indices = select_indices(len(data), start=config.start, every=config.every, indices=config.indices)
    attacked: dict[str, Any] = {}
    if store is not None and isinstance(config, PredictConfig):
        found = attacked_data(data, config, store)
        data, attacked, indices = found.data, found.told, indices[np.isin(indices, found.index)]
        if not len(indices):
            raise InputError(f"none of the images selected was attacked in {config.adversaries}")
    indices = indices if keep is None else keep(data, indices)
    stored = read_manifest(config.out)["identity"] if is_store(config.out) else {}
    kept = config.seed if config.seed is not None else stored.get("seed")
    seed = fresh_seed() if kept is None else int(kept)
    return Opened(data, _at_most(config.max_images, indices, stored), noise, classifier, device, seed, stored, attacked)


def prepare(
    config: SamplingConfig, plan_for: PlanFor, keep: Keep | None = None, answers: int = 1,
) -> Prepared:
    """Load and check everything that the options name.

    Args:
        plan_for: the plan, once the noise is known.
        keep: as for `opened`.
        answers: how often each image is judged.
    """
    found = opened(config, keep)
    data, indices, noise, model = found.data, found.indices, found.noise, found.classifier.model
    plan = plan_for(noise)
    engine = found.stored.get("engine", "auto") if config.engine == "auto" else config.engine
    how = Sampling("plain" if engine == "exact" else engine, config.space, config.precision, config.noise_format,
                   config.batch_size, found.device, _expected(plan) * len(indices) * answers)
    ready = open_voter(model, noise, data.num_classes, data.shape, found.seed, None, how, found.classifier.conduct)
    identity = {
        "kind": plan.kind, **found.identity, "procedure": plan.identity(),
        "noise": {**noise.identity(), "format": ready.voter.format},
        **ready.identity(config.precision, found.device),
    }
    settled = config.model_copy(update={**found.settled, "engine": ready.engine})
    return Prepared(settled, data, indices, plan, ready.voter, model, identity, plan_for)


def _at_most(max_images: int | None, indices: np.ndarray, stored: dict[str, Any]) -> np.ndarray:
    """Return at most `max_images` of the indices, evenly spaced; but the first ones where a store holds just those, as
    an older smoothcert chose, so that the same command goes on with it."""
    first = indices[:max_images]
    told = index_summary(first)
    is_same = told == stored.get("images") and told.get("indices") != _UNLISTED
    return first if is_same else take_evenly(indices, max_images)


def _expected(plan: Plan) -> int:
    """Samples an image, to weigh what an engine costs to start: sequential plans rarely take a tenth of their most."""
    return plan.most() // 10 if "n_max" in plan.identity() else plan.most()


def index_summary(indices: np.ndarray) -> dict[str, Any]:
    """Describe which images, briefly: as a range where they are one, else listed up to 1,000; of more as those that are
    evenly spaced over `of` images in a range, else left to the data's hash."""
    count, start = len(indices), int(indices[0])
    every = int(indices[1] - indices[0]) if count > 1 else 1
    if every > 0 and np.array_equal(indices, start + every * np.arange(count)):
        return {"count": count, "start": start, "every": every}
    if count <= 1000:
        return {"count": count, "indices": indices.tolist()}
    every = int(np.gcd.reduce(np.diff(indices)))
    of = (int(indices[-1]) - start) // every + 1
    if of > count and np.array_equal(indices, start + every * even_places(np.arange(count), count, of)):
        return {"count": count, "start": start, "every": every, "of": of}
    return {"count": count, "indices": _UNLISTED}


def _data(config: RunConfig, card: ModelCard | None) -> ImageData:
    """The data set asked for, else the one the model was trained on, with the same preprocessing, else digits."""
    trained_on = card.data if card and config.data in (None, card.data["data"]) else {}
    return open_data(
        config.data or trained_on.get("data") or "digits", config.split, data_dir=config.data_dir,
        resize=config.resize or trained_on.get("resize"), crop=config.crop or trained_on.get("crop"),
        num_classes=config.num_classes or (card.num_classes if card else None), numeric_classes=config.numeric_classes,
    )


def _matched(config: RunConfig, classifier: Classifier, data: ImageData) -> ImageData:
    """The data with the model's classes, so that an index means the same to both."""
    count, names = classifier.num_classes, classifier.class_names
    if config.num_classes not in (None, count):
        raise InputError(f"num_classes is {config.num_classes}, but {config.model} has {count} classes: leave it out")
    if names is None and config.numeric_classes:
        names = names_from_indices(data, count)
    return data.with_classes(names, count)


def _sigma(config: RunConfig, card: ModelCard | None) -> float:
    sigma = config.sigma or denoiser_sigma(config.denoiser) or (card.sigma if card else None)
    if sigma is None:
        raise InputError(f"sigma: the noise level is required, because {config.model} was not trained with one here")
    return sigma
