"""The one training loop: any objective, one process or many, exact resume after a kill."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from smoothcert.data import ImageData, channel_statistics, load_data, select_indices
from smoothcert.data.augment import augment
from smoothcert.errors import ConfigError, InputError, ModelError
from smoothcert.models import model_names
from smoothcert.objectives import Objective, Step, add_noise, build_objective
from smoothcert.runs.config import TrainConfig
from smoothcert.runs.distributed import Ranks, joined, pick_device
from smoothcert.runs.files import claim_folder, explained, locked, write_text
from smoothcert.runs.modeldir import (
    ModelCard,
    checkpoints,
    is_model_dir,
    read_card,
    read_state,
    write_card,
    write_checkpoint,
    write_weights,
)
from smoothcert.runs.progress import Progress, silent
from smoothcert.runs.schedule import learning_rate, momentum
from smoothcert.runs.store import check_identity
from smoothcert.runs.trainee import Trainee, derived_seed, new_trainee, peak_rate, seeded

_MACHINE = {"device", "threads", "out", "data_dir"}


def train(config: TrainConfig, progress: Progress = silent) -> ModelCard:
    """Train a base classifier and leave a model folder; the same call resumes where a killed one stopped.

    Weights are a function of the configuration, the data, the number of processes and, in the last bits, of threads.

    Raises:
        ConfigError, InputError, DataError, ...: before anything is written.
        IdentityError: `config.out` holds another training run; the differing options are named.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    device = pick_device(config.device)
    data = load_data(config.data, "train", data_dir=config.data_dir, resize=config.resize,
                     crop=config.crop, num_classes=config.num_classes)
    objective = _objective(config)
    fit, held_out = split_indices(data, config)
    with joined(device) as ranks:
        card = _card(config, data, fit, held_out, ranks)
        trainee = new_trainee(config, card, device, ranks)
        if ranks.is_main:
            claim_folder(config.out, "model.json")
        ranks.wait()
        with locked(config.out) if ranks.is_main else nullcontext():
            card = _resume(config.out, card, trainee, ranks)
            ranks.wait()
            loop = Loop(config, data, objective, fit, held_out, trainee, ranks, device, progress)
            for epoch in range(card.epochs_done, config.epochs):
                card = loop.epoch(epoch, card)
        return card


@dataclass
class Loop:
    """One epoch after another."""

    config: TrainConfig
    data: ImageData
    objective: Objective
    fit: np.ndarray
    held_out: np.ndarray
    trainee: Trainee
    ranks: Ranks
    device: torch.device
    progress: Progress

    def epoch(self, epoch: int, card: ModelCard) -> ModelCard:
        """Train one epoch (from 0), validate, and keep the result."""
        started = time.perf_counter()
        with seeded(self.config.seed, epoch, self.ranks.rank) as generator:
            if self.device.type != "cpu":
                generator = torch.Generator(self.device).manual_seed(generator.initial_seed())
            averages = self._fit(epoch, generator)
        figures = {"epoch": epoch + 1, **averages, **self._validate(),
                   "seconds": round(time.perf_counter() - started, 2)}
        better = not card.best or figures["validation_accuracy"] >= card.best["validation_accuracy"]
        chosen = {name: figures[name] for name in ("validation_accuracy", "validation_loss")}
        card = replace(card, epochs_done=epoch + 1, complete=epoch + 1 == self.config.epochs,
                       **({"best_epoch": epoch + 1, "best": chosen} if better else {}))
        if self.ranks.is_main:
            keep_epoch(self.config.out, card, self.trainee, figures, better)
        self.ranks.wait()
        return card

    def _fit(self, epoch: int, generator: torch.Generator) -> dict[str, float]:
        trainee, config = self.trainee, self.config
        order = np.random.default_rng(derived_seed(config.seed, "order", epoch)).permutation(self.fit)
        batches = [order[i : i + config.batch_size].tolist() for i in range(0, len(order), config.batch_size)]
        if self.ranks.world > 1 and len(batches[-1]) < self.ranks.world:
            batches.pop()
        peak, rate, sums, seen = peak_rate(config), 0.0, {}, 0
        trainee.parallel.train()
        for number, (images, labels) in enumerate(self._batches(batches)):
            images = augment(images, augmentation(config), generator)
            rate = learning_rate(config, peak, trainee.steps, len(batches))
            trainee.steer(rate, momentum(config, trainee.steps, len(batches)))
            for x, y in self.objective.split(images, labels):
                parts = self._step(x, y, Step(generator, epoch + number / len(batches)))
                for name, value in parts.items():
                    sums[name] = sums.get(name, 0.0) + value.detach() * len(x)
                seen += len(x)
            trainee.steps += 1
            if number % 10 == 9 or number + 1 == len(batches):
                loss = float(sums["loss"]) / seen
                self.progress(epoch * len(batches) + number + 1, config.epochs * len(batches),
                              f"epoch {epoch + 1}/{config.epochs}  loss {loss:.4f}")
                if not np.isfinite(loss):
                    raise ModelError(f"the loss is {loss} in epoch {epoch + 1}: training has diverged; lower --lr, or "
                                     f"set --clip-norm. The last finished epoch is kept")
        totals = self.ranks.sum(torch.stack([*sums.values(), torch.as_tensor(float(seen), device=self.device)]))
        return {"lr": rate, **{name: float(total / totals[-1]) for name, total in zip(sums, totals, strict=False)}}

    def _step(self, images: Tensor, labels: Tensor, step: Step) -> dict[str, Tensor]:
        trainee, config = self.trainee, self.config
        with _precision(config, self.device):
            loss = self.objective.loss(trainee.parallel, images, labels, step)
        trainee.optimizer.zero_grad(set_to_none=True)
        trainee.scaler.scale(loss.total).backward()
        if config.clip_norm:
            trainee.scaler.unscale_(trainee.optimizer)
            nn.utils.clip_grad_norm_(trainee.network.parameters(), config.clip_norm)
        trainee.scaler.step(trainee.optimizer)
        trainee.scaler.update()
        if trainee.average:
            trainee.average.update_parameters(trainee.network)
        return {"loss": loss.total, **loss.parts}

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Accuracy and loss on the held-out images under one fixed draw of noise (none where sigma is not given)."""
        network = self.trainee.result.eval()
        generator = torch.Generator(self.device).manual_seed(derived_seed(self.config.seed, "validation"))
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        batches = [self.held_out[i : i + 256].tolist() for i in range(0, len(self.held_out), 256)]
        for images, labels in self._batches(batches, shared=False):
            if self.config.sigma:
                images = add_noise(images, self.config.sigma, generator)
            logits = network(images)
            sums[0] += (logits.argmax(dim=1) == labels).sum()
            sums[1] += cross_entropy(logits, labels, reduction="sum")
        accuracy, loss = (sums / len(self.held_out)).tolist()
        return {"validation_accuracy": accuracy, "validation_loss": loss}

    def _batches(self, batches: list[list[int]], shared: bool = True) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels on the device, the next batch read while this one is worked on."""

        def read(indices: list[int]) -> tuple[Tensor, Tensor]:
            mine = self.ranks.share(indices) if shared else indices
            return torch.from_numpy(self.data.batch(mine)), torch.from_numpy(self.data.labels[mine])

        with ThreadPoolExecutor(1) as reader:
            upcoming = reader.submit(read, batches[0])
            for following in [*batches[1:], None]:
                images, labels = upcoming.result()
                if following is not None:
                    upcoming = reader.submit(read, following)
                yield images.to(self.device), labels.to(self.device)


def keep_epoch(folder: Path, card: ModelCard, trainee: Trainee, figures: dict[str, Any], better: bool) -> None:
    """Write what an epoch leaves behind, the checkpoint last: killed before it, the epoch is trained again."""
    if better:
        write_weights(folder / "best.safetensors", trainee.result)
    path = folder / "metrics.jsonl"
    try:
        earlier = path.read_text().splitlines()[: card.epochs_done - 1] if path.exists() else []
    except OSError as error:
        raise explained(error, path) from error
    write_text(path, "\n".join([*earlier, json.dumps(figures)]) + "\n")
    write_checkpoint(folder, card.epochs_done, trainee.result, {**trainee.state(), "card": _progress_of(card)})
    write_card(folder, card)


def split_indices(data: ImageData, config: TrainConfig) -> tuple[np.ndarray, np.ndarray]:
    """(training, held-out) indices: an evenly spaced subset of at most `max_images`, then a share drawn by the seed."""
    chosen = select_indices(len(data))
    if config.max_images and config.max_images < len(data):
        chosen = chosen[np.linspace(0, len(data) - 1, config.max_images).round().astype(np.int64)]
    held = round(config.validation * len(chosen))
    if not 0 < held < len(chosen):
        raise InputError(f"validation = {config.validation} of {len(chosen)} training images leaves {held} to hold out "
                         f"and {len(chosen) - held} to train on: give more images or another share")
    order = np.random.default_rng(derived_seed(config.seed, "held out")).permutation(chosen)
    return np.sort(order[held:]), np.sort(order[:held])


def augmentation(config: TrainConfig) -> str:
    """What `augment: auto` means for the data set."""
    if config.augment == "auto":
        return "crop-flip" if config.data == "cifar10" else "none"
    return config.augment


def normalisation(config: TrainConfig, data: ImageData) -> str:
    """What `normalise: auto` means for the data set: CIFAR-10 and ImageNet recipes standardise, MNIST ones do not."""
    if config.normalise == "auto":
        return "standard" if data.shape[0] == 3 else "none"
    return config.normalise


def _objective(config: TrainConfig) -> Objective:
    try:
        return build_objective(config.objective, config.sigma, **config.objective_option)
    except InputError as error:
        raise ConfigError([str(error)]) from None


def _card(config: TrainConfig, data: ImageData, fit: np.ndarray, held_out: np.ndarray, ranks: Ranks) -> ModelCard:
    options = dict(config.model_option)
    layer = normalisation(config, data)
    if config.model in model_names() and layer != "none":
        mean, std = channel_statistics(data)
        options |= {"mean": list(mean)} | ({"std": list(std)} if layer == "standard" else {})
    settings = {name: value for name, value in config.model_dump(mode="json").items() if name not in _MACHINE}
    return ModelCard(
        model=config.model, options=options, input_shape=data.shape, num_classes=data.num_classes,
        class_names=data.class_names, levels=data.levels, sigma=config.sigma,
        data={"data": config.data, "resize": config.resize, "crop": config.crop},
        identity={"kind": "train", "settings": settings, "processes": ranks.world,
                  "data": {"fit": data.fingerprint(fit), "held_out": data.fingerprint(held_out)}},
    )


def _resume(folder: Path, card: ModelCard, trainee: Trainee, ranks: Ranks) -> ModelCard:
    """Take up the latest whole checkpoint in `folder`, if there is one and it belongs to this run."""
    if is_model_dir(folder):
        check_identity(folder, read_card(folder).identity, card.identity)
    found = checkpoints(folder)
    if found:
        state = read_state(found[-1])
        trainee.restore(state)
        card = replace(card, **state["card"])
    if ranks.is_main:
        write_card(folder, card)
    return card


def _progress_of(card: ModelCard) -> dict[str, Any]:
    return {name: getattr(card, name) for name in ("epochs_done", "best_epoch", "best", "complete")}


def _precision(config: TrainConfig, device: torch.device) -> Any:
    if config.autocast == "none":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16 if config.autocast == "bf16" else torch.float16)


