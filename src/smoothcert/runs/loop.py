"""The training loop's inside: epochs of steps on batches of every stream, validation, and what an epoch leaves."""

import json
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from smoothcert.data.augment import augment
from smoothcert.errors import ModelError
from smoothcert.objectives import Objective, Step, add_noise
from smoothcert.runs.config import TrainConfig
from smoothcert.runs.distributed import Ranks
from smoothcert.runs.files import explained, write_text
from smoothcert.runs.measures import MEASURES, Measure
from smoothcert.runs.modeldir import ModelCard, write_card, write_checkpoint, write_weights
from smoothcert.runs.progress import Progress
from smoothcert.runs.schedule import learning_rate, momentum
from smoothcert.runs.seeds import generator, seeded
from smoothcert.runs.streams import Stream, batch_sizes, read_ahead
from smoothcert.runs.trainee import Trainee, peak_rate

Part = tuple[Stream, Tensor, Tensor, Step]
"""What one stream gives to one optimiser step: images (B, C, H, W), labels (B,), and where training stands."""


@dataclass
class Loop:
    """One epoch after another.

    Every optimiser step takes a part of every stream and minimises the sum over streams of weight x mean loss; the
    first stream is the labelled one, whose images make an epoch.
    """

    config: TrainConfig
    objective: Objective
    streams: Sequence[Stream]
    held_out: np.ndarray
    trainee: Trainee
    ranks: Ranks
    device: torch.device
    progress: Progress

    @property
    def measure(self) -> Measure:
        """What validation looks at."""
        return MEASURES[self.objective.trains]

    def epoch(self, epoch: int, card: ModelCard) -> ModelCard:
        """Train one epoch (from 0), validate, and keep the result."""
        started = time.perf_counter()
        with seeded(self.config.seed, epoch, self.ranks.rank):
            averages = self._fit(epoch)
        figures = {"epoch": epoch + 1, **averages, **self._validate(),
                   "seconds": round(time.perf_counter() - started, 2)}
        better = self.measure.better(figures, card.best)
        chosen = {name: figures[name] for name in self.measure.figures}
        card = replace(card, epochs_done=epoch + 1, complete=epoch + 1 == self.config.epochs,
                       **({"best_epoch": epoch + 1, "best": chosen} if better else {}))
        if self.ranks.is_main:
            keep_epoch(self.config.out, card, self.trainee, figures, better)
        self.ranks.wait()
        return card

    def _fit(self, epoch: int) -> dict[str, float]:
        trainee, config = self.trainee, self.config
        images = len(self.streams[0].indices)
        sizes = batch_sizes(images, config.batch_size, self.ranks.world)
        drawn = [stream.batches(config.seed, epoch, sizes, images) for stream in self.streams]
        generators = [generator(self.device, config.seed, epoch, self.ranks.rank, *s.key) for s in self.streams]
        peak, rate, averages = peak_rate(config), 0.0, Averages(self.device)
        trainee.parallel.train()
        for number, batches in enumerate(read_ahead(list(zip(*drawn, strict=True)), self._read)):
            rate = learning_rate(config, peak, trainee.steps, len(sizes))
            trainee.steer(rate, momentum(config, trainee.steps, len(sizes)))
            steps = [Step(g, epoch + number / len(sizes)) for g in generators]
            for parts in zip(*map(self._split, self.streams, batches, steps), strict=True):
                self._step(parts, averages)
            trainee.steps += 1
            if number % 10 == 9 or number + 1 == len(sizes):
                self._tell(epoch, number + 1, len(sizes), averages)
        return {"lr": rate, **averages.over(self.ranks)}

    def _split(self, stream: Stream, batch: tuple[Tensor, Tensor], step: Step) -> list[Part]:
        """The parts of a stream's batch that get an optimiser step each."""
        images, labels = (values.to(self.device) for values in batch)
        images = augment(images, augmentation(self.config), step.generator)
        return [(stream, x, y, step) for x, y in self.objective.split(images, labels)]

    def _step(self, parts: Sequence[Part], averages: "Averages") -> None:
        """One optimiser step: the streams' losses one after another, so that memory holds one graph at a time."""
        trainee, config = self.trainee, self.config
        trainee.optimizer.zero_grad(set_to_none=True)
        for left, (stream, images, labels, step) in zip(reversed(range(len(parts))), parts, strict=True):
            with _gathering(trainee.parallel, last=left == 0):
                with _precision(config, self.device):
                    loss = self.objective.loss(trainee.parallel, images, labels, step)
                trainee.scaler.scale(stream.weight * loss.total).backward()
            for name, value in {"loss": loss.total, **loss.parts}.items():
                averages.add(stream.titled(name), value, len(images))
        if config.clip_norm:
            trainee.scaler.unscale_(trainee.optimizer)
            nn.utils.clip_grad_norm_(trainee.network.parameters(), config.clip_norm)
        trainee.scaler.step(trainee.optimizer)
        trainee.scaler.update()
        if trainee.average:
            trainee.average.update_parameters(trainee.network)

    def _tell(self, epoch: int, done: int, steps: int, averages: "Averages") -> None:
        """Report the losses so far, or raise ModelError where one is not finite."""
        losses = {stream.titled("loss"): averages.value(stream.titled("loss")) for stream in self.streams}
        fresh = f"  fresh: {', '.join(self.trainee.fresh)}" if self.trainee.fresh else ""
        self.progress(epoch * steps + done, self.config.epochs * steps, f"epoch {epoch + 1}/{self.config.epochs}  "
                      + "  ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in losses.items()) + fresh)
        for name, value in losses.items():
            if not np.isfinite(value):
                raise ModelError(f"the {name.replace('_', ' ')} is {value} in epoch {epoch + 1}: training has "
                                 f"diverged; lower --lr, or set --clip-norm. The last finished epoch is kept")

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """The figures of `measure` on the held-out images under one fixed draw of noise (none where sigma is not
        given)."""
        network, sigma = self.trainee.judged.eval(), self.config.sigma
        source = generator(self.device, self.config.seed, "validation")
        sums = torch.zeros(len(self.measure.figures), dtype=torch.float64, device=self.device)
        batches = [self.held_out[i : i + 256].tolist() for i in range(0, len(self.held_out), 256)]
        for images, labels in read_ahead(batches, lambda indices: _read(self.streams[0], indices)):
            images, labels = images.to(self.device), labels.to(self.device)
            noisy = add_noise(images, sigma, source) if sigma else images
            sums += torch.stack([s.double() for s in self.measure.sums(network, images, noisy, labels, sigma)])
        return dict(zip(self.measure.figures, (sums / len(self.held_out)).tolist(), strict=True))

    def _read(self, batches: Sequence[list[int]]) -> list[tuple[Tensor, Tensor]]:
        """This process's share of a batch of every stream."""
        return [_read(stream, self.ranks.share(indices))
                for stream, indices in zip(self.streams, batches, strict=True)]


class Averages:
    """Running means of named figures over images, kept on the device until asked for."""

    def __init__(self, device: torch.device):
        self._device = device
        self._sums: dict[str, Tensor | float] = {}
        self._counts: dict[str, int] = {}

    def add(self, name: str, value: Tensor, images: int) -> None:
        """Count the mean of a figure over so many images."""
        self._sums[name] = self._sums.get(name, 0.0) + value.detach() * images
        self._counts[name] = self._counts.get(name, 0) + images

    def value(self, name: str) -> float:
        """The mean so far, in this process."""
        return float(self._sums[name]) / self._counts[name]

    def over(self, ranks: Ranks) -> dict[str, float]:
        """The means over all processes."""
        sums = torch.stack([torch.as_tensor(value, device=self._device) for value in self._sums.values()])
        counts = torch.tensor(list(self._counts.values()), dtype=sums.dtype, device=self._device)
        totals = ranks.sum(torch.stack([sums, counts]))
        return {name: float(total / count) for name, total, count in zip(self._sums, *totals, strict=True)}


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
    write_checkpoint(folder, card.epochs_done, trainee.result, {**trainee.state(), "card": card.progress})
    write_card(folder, card)


def augmentation(config: TrainConfig) -> str:
    """What `augment: auto` means for the data set."""
    if config.augment == "auto":
        return "crop-flip" if config.data == "cifar10" else "none"
    return config.augment


def _read(stream: Stream, indices: list[int]) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(stream.data.batch(indices)), torch.from_numpy(stream.labels[indices])


def _gathering(network: nn.Module, last: bool) -> AbstractContextManager[Any]:
    """Processes average their gradients once a step, in its last backward pass."""
    if last or not isinstance(network, nn.parallel.DistributedDataParallel):
        return nullcontext()
    return network.no_sync()


def _precision(config: TrainConfig, device: torch.device) -> AbstractContextManager[Any]:
    if config.autocast == "none":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16 if config.autocast == "bf16" else torch.float16)
