"""The certification run: images of a data set to records of a store, one pending image after another.

`predict` is the same run with another procedure: a procedure says which stages to sample, and what their counts mean.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smoothcert.data import ImageData, load_data, select_indices
from smoothcert.errors import InputError
from smoothcert.noise import Noise, build_noise, fresh_seed
from smoothcert.runs.classifiers import Classifier, model_card, open_classifier
from smoothcert.runs.config import CertifyConfig, PredictConfig, SamplingConfig
from smoothcert.runs.distributed import pick_device
from smoothcert.runs.modeldir import ModelCard
from smoothcert.runs.progress import Progress, silent
from smoothcert.runs.provenance import provenance
from smoothcert.runs.records import Record, Tally
from smoothcert.runs.store import Store, StoreWriter, is_store, open_store, read_manifest, read_store
from smoothcert.smoothing import Sampler, evaluation
from smoothcert.stats import ClassCounts, certify_with, predict_counts


@dataclass(frozen=True)
class Procedure:
    """What is sampled for an image, and what its counts mean.

    Attributes:
        kind: kind of the store.
        identity: the procedure's part of the store's identity.
        stages: (stage, samples), in order.
        judge: counts of each stage -> (prediction with -1 for abstention, values of the record).
    """

    kind: str
    identity: dict[str, Any]
    stages: tuple[tuple[str, int], ...]
    judge: Callable[[list[ClassCounts]], tuple[int, dict[str, float]]]


def certify(config: CertifyConfig, progress: Progress = silent) -> Store:
    """Certify the images of a data set, or what is left of them; the finished store."""

    def procedure(noise: Noise) -> Procedure:
        radius_of = partial(noise.radius, margin=config.margin)

        def judge(counts: list[ClassCounts]) -> tuple[int, dict[str, float]]:
            answer = certify_with(radius_of, counts[0], counts[1], config.alpha, config.method)
            return int(answer.prediction), {"radius": float(answer.radius)}

        identity = {"method": config.method, "alpha": config.alpha, "n0": config.n0, "n": config.n,
                    "margin": config.margin}
        return Procedure("certify", identity, (("select", config.n0), ("estimate", config.n)), judge)

    return _run(config, procedure, progress)


def predict(config: PredictConfig, progress: Progress = silent) -> Store:
    """Predict the images of a data set with the smoothed classifier, or what is left of them; the finished store."""

    def procedure(noise: Noise) -> Procedure:
        def judge(counts: list[ClassCounts]) -> tuple[int, dict[str, float]]:
            answer = predict_counts(counts[0], config.alpha)
            return int(answer.prediction), {"p_value": float(answer.p_value)}

        identity = {"method": "predict", "alpha": config.alpha, "n": config.n}
        return Procedure("predict", identity, (("predict", config.n),), judge)

    return _run(config, procedure, progress)


def _run(config: SamplingConfig, procedure_for: Callable[[Noise], Procedure], progress: Progress) -> Store:
    if config.threads:
        torch.set_num_threads(config.threads)
    card = model_card(config.model)
    data = _data(config, card)
    indices = select_indices(len(data), start=config.start, every=config.every, max_images=config.max_images,
                             indices=config.indices)
    noise = build_noise(config.noise, _sigma(config, card), data.levels)
    procedure = procedure_for(noise)
    device = pick_device(config.device)
    classifier = open_classifier(config.model, data.shape, data.num_classes, weights=config.weights,
                                 trust=config.trust, model_id=config.model_id, device=device)
    seed = _seed(config)
    identity = _identity(procedure, classifier, data, indices, noise, seed, device)
    sampler = Sampler(classifier.model, noise, data.num_classes, data.shape, seed, None, config.batch_size, device)
    with open_store(config.out, identity, _provenance(config, data)) as store, evaluation(classifier.model):
        _sample(store, data, indices, noise, sampler, procedure, progress)
        store.finish()
    return read_store(config.out)


def _sample(
    store: StoreWriter, data: ImageData, indices: np.ndarray, noise: Noise, sampler: Sampler, procedure: Procedure,
    progress: Progress,
) -> None:
    """Draw, count and keep, image by image; only what is pending."""
    pending = store.pending()
    done = len(indices) - len(pending)
    words = f"resumed, {done} images were done" if done else "sampling"
    progress(done, len(indices), words)
    for finished, position in enumerate(pending, start=done + 1):
        started = time.perf_counter()
        index = int(indices[position])
        centre = noise.centre(data.image(index))
        counts = [sampler.count(centre, index, stage, n) for stage, n in procedure.stages]
        prediction, values = procedure.judge(counts)
        tallies = [Tally.of(stage, votes) for (stage, _), votes in zip(procedure.stages, counts, strict=True)]
        record = Record(index, int(data.labels[index]), prediction, values, centre.off_grid, tallies)
        store.add(position, record, time.perf_counter() - started)
        progress(finished, len(indices), "sampling")


def _data(config: SamplingConfig, card: ModelCard | None) -> ImageData:
    """The data set asked for, else the one the model was trained on, with the same preprocessing, else digits."""
    trained_on = card.data if card and config.data in (None, card.data["data"]) else {}
    return load_data(
        config.data or trained_on.get("data") or "digits", config.split, data_dir=config.data_dir,
        resize=config.resize or trained_on.get("resize"), crop=config.crop or trained_on.get("crop"),
        num_classes=config.num_classes or (card.num_classes if card else None),
    )


def _sigma(config: SamplingConfig, card: ModelCard | None) -> float:
    sigma = config.sigma or (card.sigma if card else None)
    if sigma is None:
        raise InputError(f"sigma: the noise level is required, because {config.model} was not trained with one here")
    return sigma


def _seed(config: SamplingConfig) -> int:
    """The seed asked for, else the one that the store to be resumed was begun with, else a fresh one."""
    if config.seed is not None:
        return config.seed
    return read_manifest(config.out)["identity"].get("seed", 0) if is_store(config.out) else fresh_seed()


def _identity(
    procedure: Procedure, classifier: Classifier, data: ImageData, indices: np.ndarray, noise: Noise, seed: int,
    device: torch.device,
) -> dict[str, Any]:
    return {
        "kind": procedure.kind,
        "model": classifier.identity,
        "num_classes": data.num_classes,
        "data": {"name": data.name, "split": data.split, "shape": list(data.shape),
                 "sha256": data.fingerprint(indices)},
        "images": index_summary(indices),
        "noise": noise.identity(),
        "seed": seed,
        "procedure": procedure.identity,
        "space": "pixels", "engine": "eager", "precision": "float32", "device": device.type,
    }


def index_summary(indices: np.ndarray) -> dict[str, Any]:
    """Which images, briefly: as a range where they are one, else listed up to 1,000, then left to the data's hash."""
    count, start = len(indices), int(indices[0])
    every = int(indices[1] - indices[0]) if count > 1 else 1
    if every > 0 and np.array_equal(indices, start + every * np.arange(count)):
        return {"count": count, "start": start, "every": every}
    return {"count": count, "indices": indices.tolist() if count <= 1000 else "see the records"}


def _provenance(config: SamplingConfig, data: ImageData) -> dict[str, Any]:
    return provenance(model=_shown(config.model), data=data.name, classes=list(data.class_names))


def _shown(model: str) -> str:
    """A model as it may be shown: without the folders that lead to it."""
    return Path(model).name if Path(model).exists() else model


