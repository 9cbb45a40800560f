"""A whole training run: any objective, one process or many, exact resumption after a kill."""

import warnings
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smoothcert.classifiers.card import ModelCard, describe_data, is_model_dir, read_card, write_card
from smoothcert.classifiers.classifier import Classifier
from smoothcert.classifiers.denoisers import warn_if_useless
from smoothcert.classifiers.folder import DENOISER, builders_of, checkpoints, read_state, write_denoiser
from smoothcert.data import ImageData, channel_statistics, load_data, select_indices
from smoothcert.draws import derive_seed
from smoothcert.errors import ConfigError, FileError, InputError, QualityWarning
from smoothcert.io.files import claim_folder, lock_folder
from smoothcert.loggers import Figures, open_loggers
from smoothcert.machine import has_bf16_units, pick_device
from smoothcert.models import model_names, model_sources
from smoothcert.models.layers import channel_constants
from smoothcert.objectives import OBJECTIVES, Objective, Trained, describe_values
from smoothcert.progress import Kept, Progress, keep, phase, reporting
from smoothcert.smoothing.precision import isolate
from smoothcert.store.store import check_identity
from smoothcert.training.batches import TrainingSet, batch_sizes
from smoothcert.training.distributed import (
    Ranks,
    is_main_process,
    join_processes,
    leave_processes,
    world_size,
)
from smoothcert.training.loop import Loop, augmentation
from smoothcert.training.options import TrainConfig
from smoothcert.training.pretrained import (
    FrozenDenoiser,
    InitialWeights,
    read_frozen_denoiser,
    read_initial_weights,
)
from smoothcert.training.self_training import match_teacher, open_teacher, open_unlabelled
from smoothcert.training.state import TrainState, build_state
from smoothcert.training.workers import train_by_workers

_MACHINE = {"device", "threads", "workers", "out", "data_dir", "log_to"}
_ORDER = {"classes", "numeric_classes"}
"""Options that the identity represents by the hash of the labels that they lead to."""
_SOURCES = {"init", "new_head", "weights", "trust", "output", "unlabelled", "unlabelled_split", "max_unlabelled",
            "pseudo_labels", "unlabelled_weight", "denoiser", "classifier"}
"""Options that the identity represents by the hashes of other models and of unlabelled images."""
_USUAL_CLASSIFIERS = {3: "cnn", 2: "conv1d"}
"""By the number of axes of one input; mlp for others."""


def train(config: TrainConfig, progress: Progress | None = None, *, verbose: bool = False) -> ModelCard:
    """Train a base classifier or a denoiser and write a model folder; the same call resumes a run that was killed.

    With `workers`, or under torchrun, several processes share every batch. The weights are a function of the
    configuration and the data; their last bits depend on the number of processes and threads too, and with dropout,
    which each process draws by itself, more than the last bits.

    Args:
        progress: is called with every `smoothcert.progress.Event`.
        verbose: shows a bar, in a terminal or a notebook, and plain lines elsewhere.
    Raises:
        ConfigError, InputError, DataError, ...: before anything is written.
        IdentityError: `config.out` holds another training run; the message names the options that differ.
        LostProcessError: one of several processes has ended.
    """
    config = resolve_machine_options(config, pick_device(config.device))
    with reporting(progress, verbose), open_loggers(config.log_to if is_main_process() else (), config.out) as log:
        keep(lambda: _describe_kept(config))
        if config.workers and config.workers > 1:
            return train_by_workers(config, config.workers, log)
        return train_share(config, log)


def _describe_kept(config: TrainConfig) -> Kept | None:
    """Return what a run that is stopped now leaves, or None for no epoch."""
    done = read_card(config.out).epochs_done if is_model_dir(config.out) else 0
    return Kept(f"{done} of {config.epochs} epochs are done and kept in {config.out}") if done else None


def resolve_machine_options(config: TrainConfig, device: torch.device) -> TrainConfig:
    """Return the configuration with its number of workers and its precision decided.

    A run in `config.out` keeps those that it was started with, since the last bits of its weights depend on them.

    Raises InputError where bf16 is asked for on hardware without units for it, or workers under torchrun.
    """
    identity = read_card(config.out).identity if is_model_dir(config.out) else {}
    autocast = identity.get("settings", {}).get("autocast")
    units = has_bf16_units(device)
    if config.autocast == "auto":
        config = config.model_copy(update={"autocast": autocast or ("bf16" if units else "none")})
    if config.autocast == "bf16" and not units:
        hardware = "GPU" if device.type == "cuda" else "processor"
        slow = f"this {hardware} has no units for bf16, and is slower with it than without"
        if not autocast:
            raise InputError(f"autocast: {slow}: leave it out, or give auto, which is bf16 where there are units")
        warnings.warn(f"the run in {config.out} was started with bf16 and continues with it: {slow}", stacklevel=2)
    started = world_size()
    if started > 1:
        if config.workers is not None:
            raise InputError(f"workers: torchrun has already started {started} processes: leave it out")
        return config
    before = identity.get("processes")
    if before and config.workers not in (None, before):
        warnings.warn(f"the run in {config.out} was started with {before} process(es) and continues with {before}, not "
                      f"{config.workers}", stacklevel=2)
    return config.model_copy(update={"workers": before or config.workers or 1})


@isolate()
def train_share(config: TrainConfig, log: Figures = lambda step, values: None) -> ModelCard:
    """Train as the only process, or as one of several that the environment describes, with all options decided.

    Args:
        log: is called in the main process with the figures of each finished epoch.

    Raises what `train` raises.
    """
    with leave_processes():
        return _train_jointly(config, log)


def _train_jointly(config: TrainConfig, log: Figures) -> ModelCard:
    """Train together with the processes of the run; nothing of the network is left where this returns."""
    device = pick_device(config.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    with phase("loading the data"):
        data = load_data(config.data, "train", data_dir=config.data_dir, num_classes=config.num_classes,
                         classes=config.classes, numeric_classes=config.numeric_classes, **config.reading)
    initial = read_initial_weights(config, data)
    if augmentation(config) != "none" and len(data.shape) != 3:
        raise InputError(f"augment: {augmentation(config)} is for images (C, H, W), and {data.name} has inputs of "
                         f"shape {data.shape}: leave it out")
    if initial and config.classes is None:
        data = initial.order_classes(data)
    denoiser, config = read_frozen_denoiser(config, data, initial)
    teacher = open_teacher(config.classifier, config, data, device) if config.classifier else None
    objective = _build_objective(config, teacher, denoiser)
    _warn_of_warm_up(objective, config)
    if teacher and objective.trains == "classifier":
        _check_teacher(str(config.classifier), teacher, data)
    config = apply_preferences(config, objective)
    fit, held_out = split_indices(data, config)
    config = initial.name_network(config, data, objective.trains) if initial else \
        config.model_copy(update={"model": config.model or _name_network(objective.trains, data.shape)})
    ranks = join_processes(device)
    smallest = min(len(fit), config.batch_size)
    if smallest < ranks.world:
        raise InputError(f"{ranks.world} processes share batches of {smallest} images: each needs at least one")
    unlabelled = open_unlabelled(config, data, np.union1d(fit, held_out), device)
    card = _new_card(config, objective.trains, data, (fit, held_out), ranks,
                     normalisation(config, objective.trains, data, initial))
    sources = {"init": initial, "unlabelled": unlabelled, "denoiser": denoiser, "classifier": teacher}
    card.identity.update({name: source.identity for name, source in sources.items() if source})
    state = build_state(config, card, device, ranks, initial, denoiser.module if denoiser else None)
    if not builders_of(card).is_own(card.model):
        card.identity["sources"] = model_sources(card.model, state.network)
    if own_part := OBJECTIVES.identify(config.objective):
        card.identity["objective"] = {**own_part, "values": describe_values(objective)}
    card = replace(card, held_out=len(held_out), parameters=sum(p.numel() for p in state.network.parameters()),
                   init=initial.describe(state.fresh) if initial else None,
                   denoiser=denoiser.card.summary() if denoiser else None)
    if ranks.is_main:
        claim_folder(config.out, "model.json")
    ranks.wait()
    with lock_folder(config.out) if ranks.is_main else nullcontext():
        _prepare_folder(config.out, card, ranks, denoiser)
        sets = [TrainingSet("", data, data.labels, fit)]
        if unlabelled:
            sets.append(unlabelled.label(config.out, ranks))
        del sources, unlabelled, initial  # these models need not stay in memory
        card = _resume(config.out, card, state, ranks, device)
        steps = len(batch_sizes(len(fit), config.batch_size))
        with phase("training", config.epochs * steps, "steps", card.epochs_done * steps) as training:
            loop = Loop(config, objective, sets, held_out, state, ranks, device, training, log)
            for epoch in range(card.epochs_done, config.epochs):
                card = loop.run_epoch(epoch, card)
    if ranks.is_main:
        warn_if_useless(card, str(config.out))
    return card


def _name_network(trains: str, shape: tuple[int, ...]) -> str:
    """Return the network that is trained where none is named."""
    return "energy-residual" if trains == "denoiser" else _USUAL_CLASSIFIERS.get(len(shape), "mlp")


def split_indices(data: ImageData, config: TrainConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return (training, held-out) indices: an evenly spaced subset of at most `max_images`, of which the seed draws the
    share `validation` to hold out."""
    chosen = select_indices(len(data), max_images=config.max_images)
    held = round(config.validation * len(chosen))
    if held >= len(chosen) or (config.validation > 0 and held < 1):
        raise InputError(f"validation = {config.validation} of {len(chosen)} training images leaves {held} to hold out "
                         f"and {len(chosen) - held} to train on: give more images or another share")
    order = np.random.default_rng(derive_seed(config.seed, "held out")).permutation(chosen)
    return np.sort(order[held:]), np.sort(order[:held])


def normalisation(
    config: TrainConfig, trains: str, data: ImageData, initial: InitialWeights | None
) -> dict[str, list[float]]:
    """Return the mean and std inside a named network: those of the weights it starts from, else the given ones, else
    the data's.

    `normalise: auto` standardises colour images and leaves grey ones, as CIFAR-10, ImageNet and MNIST recipes do; and
    it standardises inputs that are no images.
    """
    if trains == "denoiser" and config.normalise not in ("auto", "none"):
        raise InputError(f"normalise is {config.normalise}, but a denoiser takes and returns images as they are: leave "
                         f"it out")
    named = trains == "classifier" and config.model in model_names()
    if config.mean and not named:
        raise InputError(f"mean and std stand in front of named classifiers ({', '.join(model_names())}); "
                         f"{config.model} normalises inside")
    if not named:
        return {}
    if initial and config.mean and initial.folder.is_dir():
        raise InputError(f"mean and std: {initial.folder} has its normalisation inside already: leave them out")
    if initial:
        return initial.normalisation(config.normalise)
    if config.mean:
        mean, std = channel_constants(config.mean, config.std, data.shape)
        return {name: values for name, values in (("mean", mean), ("std", std)) if values is not None}
    kind = config.normalise
    if kind == "auto":
        kind = "none" if len(data.shape) == 3 and data.shape[0] != 3 else "standard"
    if kind == "none":
        return {}
    mean, std = channel_statistics(data)
    return {"mean": list(mean)} | ({"std": list(std)} if kind == "standard" else {})


def apply_preferences(config: TrainConfig, objective: Objective) -> TrainConfig:
    """Return the configuration with the objective's preferences for options that were not given."""
    return config.model_copy(update={name: value for name, value in objective.prefers.items()
                                     if name not in config.model_fields_set})


def _build_objective(config: TrainConfig, teacher: Classifier | None, denoiser: FrozenDenoiser | None) -> Objective:
    """Build the objective, or raise a ConfigError that says why it cannot train as the options ask."""
    try:
        objective = config.build_objective(teacher.model if teacher else None)
        if denoiser and objective.trains == "denoiser":
            raise InputError(f"denoiser: objective {config.objective} trains a denoiser, and none can stand in front "
                             f"of it")
        if config.new_head and objective.trains == "denoiser":
            raise InputError("new_head: a denoiser has no head")
        if config.objective == "xhat" and not denoiser:
            raise InputError("objective xhat trains a classifier behind a denoiser: give denoiser, its directory, or "
                             "use objective smoothadv")
        if config.objective == "deen" and config.model == "direct":
            raise InputError("objective deen trains an energy: use model energy-residual or energy-scalar, or "
                             "objective denoise")
        return objective
    except ConfigError:
        raise
    except InputError as error:
        raise ConfigError([str(error)]) from None


def _warn_of_warm_up(objective: Objective, config: TrainConfig) -> None:
    """Warn where the training ends before the objective's own warm-up does, as with defaults made for 150 epochs."""
    warmup = getattr(objective, "warmup", 0.0)
    grown = next((name for name in ("eps", "eta") if getattr(objective, name, None) is not None), None)
    if grown and warmup > config.epochs and is_main_process():
        warnings.warn(f"objective {config.objective}: {grown} grows over {warmup:g} epochs, and this training has "
                      f"{config.epochs}: it only reaches {config.epochs / warmup:.0%} of the "
                      f"{getattr(objective, grown):g} asked for; train for longer, or give the objective's option "
                      f"warmup, at most {config.epochs}", QualityWarning, stacklevel=2)


def _check_teacher(spec: str, teacher: Classifier, data: ImageData) -> None:
    """Raise InputError or ModelError unless the model whose answers are targets has the classes of the data, in their
    order."""
    places = match_teacher(spec, teacher, data)
    if not np.array_equal(places, np.arange(data.num_classes)):
        raise InputError(f"classifier: {spec} has other classes than {data.name}, or the same in another order: use a "
                         f"model that was trained on the same classes, or give their order with --classes")


def _new_card(
    config: TrainConfig, trains: Trained, data: ImageData, indices: tuple[np.ndarray, np.ndarray], ranks: Ranks,
    normalise: dict[str, list[float]],
) -> ModelCard:
    """Return the card of a run on its training and held-out images, without the parts that depend on other models."""
    unset = {name for name in ("mean", "std", "features", "label", "bounds", "levels")
             if getattr(config, name) is None}  # older runs do not have them
    left_out = _MACHINE | _ORDER | _SOURCES | unset
    settings = {name: value for name, value in config.model_dump(mode="json").items() if name not in left_out}
    fit, held_out = indices
    return ModelCard(
        model=str(config.model), options={**config.model_option, **normalise},
        input_shape=data.shape, num_classes=data.num_classes, class_names=data.class_names, levels=data.levels,
        sigma=config.sigma, kind=trains,
        data=describe_data(config, data.name, data.columns),
        identity={"kind": "train", "settings": settings, "processes": ranks.world,
                  "data": {"fit": data.fingerprint(fit), "held_out": data.fingerprint(held_out)}},
    )


def _prepare_folder(folder: Path, card: ModelCard, ranks: Ranks, denoiser: FrozenDenoiser | None) -> None:
    """Refuse a folder of another run before anything in it changes; write the card and the denoiser into a new one."""
    if is_model_dir(folder):
        check_identity(folder, read_card(folder).identity, card.identity)
    ranks.wait()
    if ranks.is_main and not is_model_dir(folder):
        write_card(folder, card)
    if ranks.is_main and denoiser and not is_model_dir(folder / DENOISER):
        write_denoiser(folder, denoiser.module, denoiser.card)


def _resume(folder: Path, card: ModelCard, state: TrainState, ranks: Ranks, device: torch.device) -> ModelCard:
    """Continue from the latest checkpoint in `folder`, if there is one. Raises FileError where processes see others."""
    found = checkpoints(folder)
    if found:
        checkpoint: dict[str, Any] = read_state(found[-1])
        state.restore(checkpoint)
        card = replace(card, **checkpoint["card"])
    if not ranks.agree(card.epochs_done, device):
        raise FileError(f"this process finds {card.epochs_done} finished epoch(s) in {folder}, another one does not: "
                        f"all processes need the same folder, on a file system that their machines share")
    if ranks.is_main:
        write_card(folder, card)
    return card
