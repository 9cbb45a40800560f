"""The one training loop: any objective, one process or many, exact resume after a kill."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smoothcert.classifiers.classifier import Classifier
from smoothcert.classifiers.denoisers import warn_if_useless
from smoothcert.classifiers.folder import (
    DENOISER,
    ModelCard,
    checkpoints,
    is_model_dir,
    read_card,
    read_state,
    runs_code,
    write_card,
    write_denoiser,
)
from smoothcert.data import ImageData, channel_statistics, load_data, select_indices
from smoothcert.draws import derive_seed
from smoothcert.errors import ConfigError, FileError, InputError
from smoothcert.io.files import claim_folder, lock_folder
from smoothcert.machine import pick_device
from smoothcert.models import model_names, model_sources
from smoothcert.objectives import Objective, Trained, build_objective
from smoothcert.progress import Progress, silent
from smoothcert.smoothing.isolation import isolated
from smoothcert.store.store import check_identity
from smoothcert.training.begun import as_begun
from smoothcert.training.distributed import Ranks, joined
from smoothcert.training.front import Front, read_front
from smoothcert.training.initial import Initial, read_initial, settled
from smoothcert.training.loop import Loop
from smoothcert.training.options import TrainConfig
from smoothcert.training.self_training import Unlabelled, open_teacher, open_unlabelled
from smoothcert.training.streams import Stream
from smoothcert.training.trainee import Trainee, new_trainee
from smoothcert.training.workers import train_by_workers

_MACHINE = {"device", "threads", "workers", "out", "data_dir"}
_ORDER = {"classes", "numeric_classes"}
"""Options that identity holds by the hash of the labels that they lead to."""
_SOURCES = {"init", "new_head", "weights", "trust", "output", "unlabelled", "unlabelled_split", "max_unlabelled",
            "pseudo_labels", "unlabelled_weight", "denoiser", "classifier"}
"""Options that identity holds by what they stand for: the hashes of other models and of unlabelled images."""


def train(config: TrainConfig, progress: Progress = silent) -> ModelCard:
    """Train a base classifier or a denoiser and leave a model folder; the same call resumes where a killed one stopped.

    With `workers`, or under torchrun, several processes share every batch. Weights are a function of the configuration
    and the data; in the last bits, of the number of processes and threads too, and under dropout, whose draws are each
    process's own, more than that.

    Raises:
        ConfigError, InputError, DataError, ...: before anything is written.
        IdentityError: `config.out` holds another training run; the differing options are named.
        LostProcessError: of several processes, another one has ended.
    """
    config = as_begun(config, pick_device(config.device))
    if config.workers and config.workers > 1:
        return train_by_workers(config, config.workers, progress)
    return train_share(config, progress)


@isolated()
def train_share(config: TrainConfig, progress: Progress) -> ModelCard:
    """Train as the one process, or as the one of several that the environment names, with all options settled.

    Raises what `train` raises.
    """
    device = pick_device(config.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    data = load_data(config.data, "train", data_dir=config.data_dir, resize=config.resize, crop=config.crop,
                     num_classes=config.num_classes, classes=config.classes, numeric_classes=config.numeric_classes)
    initial = read_initial(config)
    if initial and config.classes is None:
        data = initial.ordered(data)
    front, config = read_front(config, data, initial)
    teacher = open_teacher(config.classifier, config, data, device) if config.classifier else None
    objective = _objective(config, teacher, front)
    config = preferred(config, objective)
    fit, held_out = split_indices(data, config)
    config = settled(config, data, initial, objective.trains)
    with joined(device) as ranks:
        if min(len(fit), config.batch_size) < ranks.world:
            raise InputError(f"{ranks.world} processes share batches of {min(len(fit), config.batch_size)} images: "
                             f"there must be one at least for each")
        unlabelled = open_unlabelled(config, data, np.union1d(fit, held_out), device)
        card = _card(config, objective.trains, data, (fit, held_out), ranks,
                     normalisation(config, objective.trains, data, initial))
        card.identity.update(_sources(initial, unlabelled, front, teacher))
        trainee = new_trainee(config, card, device, ranks, initial, front.module if front else None)
        if runs_code(card):
            card.identity["sources"] = model_sources(card.model, trainee.network)
        card = replace(card, held_out=len(held_out), parameters=sum(p.numel() for p in trainee.network.parameters()),
                       init=initial.described(trainee.fresh) if initial else None,
                       denoiser=front.card.told() if front else None)
        if ranks.is_main:
            claim_folder(config.out, "model.json")
        ranks.wait()
        with lock_folder(config.out) if ranks.is_main else nullcontext():
            _begin(config.out, card, ranks, front)
            streams = [Stream("", data, data.labels, fit)]
            if unlabelled:
                streams.append(unlabelled.stream(config.out, ranks, progress))
            del unlabelled, initial  # these other models need not stay in memory
            card = _resume(config.out, card, trainee, ranks, device)
            loop = Loop(config, objective, streams, held_out, trainee, ranks, device, progress)
            for epoch in range(card.epochs_done, config.epochs):
                card = loop.epoch(epoch, card)
        if ranks.is_main:
            warn_if_useless(card, str(config.out))
        return card


def split_indices(data: ImageData, config: TrainConfig) -> tuple[np.ndarray, np.ndarray]:
    """(training, held-out) indices: an evenly spaced subset of at most `max_images`, then a share drawn by the seed;
    nothing is held out where validation is 0."""
    chosen = select_indices(len(data), max_images=config.max_images)
    held = round(config.validation * len(chosen))
    if held >= len(chosen) or (config.validation > 0 and held < 1):
        raise InputError(f"validation = {config.validation} of {len(chosen)} training images leaves {held} to hold out "
                         f"and {len(chosen) - held} to train on: give more images or another share")
    order = np.random.default_rng(derive_seed(config.seed, "held out")).permutation(chosen)
    return np.sort(order[held:]), np.sort(order[:held])


def normalisation(config: TrainConfig, trains: str, data: ImageData, initial: Initial | None) -> dict[str, Any]:
    """The mean and std inside a named network: those of the weights it starts from, else the data's.

    `normalise: auto` standardises colour images and leaves grey ones, as CIFAR-10, ImageNet and MNIST recipes do.
    """
    if trains == "denoiser" and config.normalise not in ("auto", "none"):
        raise InputError(f"normalise is {config.normalise}, but a denoiser takes and gives images as they are: leave "
                         f"it out")
    if trains == "denoiser" or config.model not in model_names():
        return {}
    if initial:
        return initial.normalisation(config.normalise)
    kind = config.normalise
    if kind == "auto":
        kind = "standard" if data.shape[0] == 3 else "none"
    if kind == "none":
        return {}
    mean, std = channel_statistics(data)
    return {"mean": list(mean)} | ({"std": list(std)} if kind == "standard" else {})


def preferred(config: TrainConfig, objective: Objective) -> TrainConfig:
    """The configuration with what the objective prefers for the options that were not given."""
    return config.model_copy(update={name: value for name, value in objective.prefers.items()
                                     if name not in config.model_fields_set})


def _objective(config: TrainConfig, teacher: Classifier | None, front: Front | None) -> Objective:
    """The objective, or what keeps it from training what the options name, as a ConfigError."""
    options = {**config.objective_option, **({"classifier": teacher.model} if teacher else {})}
    try:
        if "classifier" in config.objective_option:
            raise InputError("objective_option: the classifier is given by its model directory: --classifier DIR")
        objective = build_objective(config.objective, config.sigma, **options)
        if front and objective.trains == "denoiser":
            raise InputError(f"denoiser: objective {config.objective} trains one; none can stand in front of it")
        if config.new_head and objective.trains == "denoiser":
            raise InputError("new_head: a denoiser has no head")
        if config.objective == "xhat" and not front:
            raise InputError("objective xhat trains a classifier behind a denoiser: give denoiser, its directory, or "
                             "take objective smoothadv")
        if config.objective == "deen" and config.model == "direct":
            raise InputError("objective deen trains an energy: take model energy-residual or energy-scalar, or "
                             "objective denoise")
        return objective
    except ConfigError:
        raise
    except InputError as error:
        raise ConfigError([str(error)]) from None


def _card(
    config: TrainConfig, trains: Trained, data: ImageData, indices: tuple[np.ndarray, np.ndarray], ranks: Ranks,
    normalise: dict[str, Any],
) -> ModelCard:
    """The card of a run on its training and held-out images, without what it takes from other models."""
    left_out = _MACHINE | _ORDER | _SOURCES
    settings = {name: value for name, value in config.model_dump(mode="json").items() if name not in left_out}
    fit, held_out = indices
    return ModelCard(
        model=str(config.model), options={**config.model_option, **normalise},
        input_shape=data.shape, num_classes=data.num_classes, class_names=data.class_names, levels=data.levels,
        sigma=config.sigma, data={"data": config.data, "resize": config.resize, "crop": config.crop}, kind=trains,
        identity={"kind": "train", "settings": settings, "processes": ranks.world,
                  "data": {"fit": data.fingerprint(fit), "held_out": data.fingerprint(held_out)}},
    )


def _sources(
    initial: Initial | None, unlabelled: Unlabelled | None, front: Front | None, teacher: Classifier | None
) -> dict[str, Any]:
    """What of other models and of unlabelled images determines the run's weights."""
    sources = {"init": initial, "unlabelled": unlabelled, "denoiser": front, "classifier": teacher}
    return {name: source.identity for name, source in sources.items() if source}


def _begin(folder: Path, card: ModelCard, ranks: Ranks, front: Front | None) -> None:
    """Refuse a folder of another run, before anything in it changes, and leave the card in a new one, with what the
    network stands behind."""
    if is_model_dir(folder):
        check_identity(folder, read_card(folder).identity, card.identity)
    ranks.wait()
    if ranks.is_main and not is_model_dir(folder):
        write_card(folder, card)
    if ranks.is_main and front and not is_model_dir(folder / DENOISER):
        write_denoiser(folder, front.module, front.card)


def _resume(folder: Path, card: ModelCard, trainee: Trainee, ranks: Ranks, device: torch.device) -> ModelCard:
    """Take up the latest whole checkpoint in `folder`, if there is one. Raises FileError where processes see others."""
    found = checkpoints(folder)
    if found:
        state = read_state(found[-1])
        trainee.restore(state)
        card = replace(card, **state["card"])
    if not ranks.agree(card.epochs_done, device):
        raise FileError(f"this process finds {card.epochs_done} finished epoch(s) in {folder}, another one does not: "
                        f"all processes need the same folder, on a file system that their machines share")
    if ranks.is_main:
        write_card(folder, card)
    return card
