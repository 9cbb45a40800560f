"""The training loop's inside: epochs of steps on batches of every stream, validation, and what an epoch leaves."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from smoothcert.classifiers.folder import ModelCard, write_card, write_checkpoint, write_weights
from smoothcert.data.augment import augment
from smoothcert.draws import RowGenerator, generator, seeded
from smoothcert.errors import ModelError
from smoothcert.io.files import explained, write_text
from smoothcert.objectives import Objective, Step
from smoothcert.progress import Progress
from smoothcert.smoothing.soft import add_noise
from smoothcert.training.distributed import Ranks, Share
from smoothcert.training.options import TrainConfig
from smoothcert.training.schedule import learning_rate, momentum
from smoothcert.training.streams import Stream, batch_sizes, read_ahead
from smoothcert.training.trainee import Trainee, peak_rate
from smoothcert.training.validation import MEASURES, Measure


@dataclass(frozen=True)
class Part:
    """What one stream gives to one optimiser step in this process: images (B, C, H, W), labels (B,), the share that
    they are, the stream's randomness, and the epochs done so far."""

    stream: Stream
    images: Tensor
    labels: Tensor
    share: Share
    generator: RowGenerator
    epoch: float


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
        self.ranks.spread(self.trainee.buffers)
        figures = {"epoch": epoch + 1, **averages, **self._validate(),
                   "seconds": round(time.perf_counter() - started, 2)}
        better = self.measure.better(figures, card.best)
        chosen = {name: figures[name] for name in self.measure.figures if name in figures}
        card = replace(card, epochs_done=epoch + 1, complete=epoch + 1 == self.config.epochs,
                       **({"best_epoch": epoch + 1, "best": chosen} if better else {}))
        if self.ranks.is_main:
            keep_epoch(self.config.out, card, self.trainee, figures, better)
        self.ranks.wait()
        return card

    def _fit(self, epoch: int) -> dict[str, float]:
        trainee, config = self.trainee, self.config
        images = len(self.streams[0].indices)
        sizes = batch_sizes(images, config.batch_size)
        drawn = [stream.batches(config.seed, epoch, sizes, images) for stream in self.streams]
        generators = [generator(self.device, config.seed, epoch, 0, *s.key) for s in self.streams]  # alike in all ranks
        peak, rate, averages = peak_rate(config), 0.0, Averages(self.device)
        trainee.parallel.train()
        for number, batches in enumerate(read_ahead(list(zip(*drawn, strict=True)), self._read)):
            rate = learning_rate(config, peak, trainee.steps, len(sizes))
            trainee.steer(rate, momentum(config, trainee.steps, len(sizes)))
            split = [self._split(stream, batch, sizes[number], source, epoch + number / len(sizes))
                     for stream, batch, source in zip(self.streams, batches, generators, strict=True)]
            for parts in zip(*split, strict=True):
                self._step(parts, averages)
            trainee.steps += 1
            if number % 10 == 9 or number + 1 == len(sizes):
                self._tell(epoch, number + 1, len(sizes), averages)
        return {"lr": rate, **averages.over(self.ranks)}

    def _split(
        self, stream: Stream, held: tuple[Tensor, Tensor], size: int, source: RowGenerator, epoch: float
    ) -> list[Part]:
        """The parts of a stream's batch that get an optimiser step each, from what this process holds of it."""
        rows, shares = self._held(size)
        source.hold(rows, size)
        images, labels = (values.to(self.device) for values in held)
        images = augment(images, augmentation(self.config), source)
        counts = [len(share.rows) for share in shares]
        return [Part(stream, x, y, share, source, epoch)
                for x, y, share in zip(images.split(counts), labels.split(counts), shares, strict=True)]

    def _held(self, size: int) -> tuple[list[int], list[Share]]:
        """This process's shares of the parts of a batch of a size, and all their rows' places in the batch."""
        parts = self.objective.split(size)
        shares = [self.ranks.share(len(part)) for part in parts]
        return [part[i] for part, share in zip(parts, shares, strict=True) for i in share.rows], shares

    def _step(self, parts: Sequence[Part], averages: "Averages") -> None:
        """One optimiser step: the streams' losses one after another, so that memory holds one graph at a time."""
        trainee, config = self.trainee, self.config
        trainee.optimizer.zero_grad(set_to_none=True)
        for left, part in zip(reversed(range(len(parts))), parts, strict=True):
            part.generator.hold(part.share.rows, part.share.whole)
            with _gathering(trainee.parallel, last=left == 0), _explain_single_rows(part.share.whole):
                with _precision(config, self.device):
                    loss = self.objective.loss(trainee.parallel, part.images, part.labels,
                                               Step(part.generator, part.epoch))
                trainee.scaler.scale(part.stream.weight * part.share.weight * loss.total).backward()
            for name, value in {"loss": loss.total, **loss.parts}.items():
                averages.add(part.stream.titled(name), value, part.share.counts)
        if config.clip_norm:
            trainee.scaler.unscale_(trainee.optimizer)
            nn.utils.clip_grad_norm_(trainee.network.parameters(), config.clip_norm)
        trainee.scaler.step(trainee.optimizer)
        trainee.scaler.update()
        if trainee.average:
            trainee.average.update_parameters(trainee.network)

    def _tell(self, epoch: int, done: int, steps: int, averages: "Averages") -> None:
        """Report the losses so far, or raise ModelError where one is not finite."""
        means = averages.over(self.ranks)
        losses = {name: means[name] for name in (stream.titled("loss") for stream in self.streams)}
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
        given); none where nothing is held out."""
        if not len(self.held_out):
            return {}
        network, sigma = self.trainee.judged.eval(), self.config.sigma
        source = generator(self.device, self.config.seed, "validation")
        sums = torch.zeros(len(self.measure.figures), dtype=torch.float64, device=self.device)
        batches = [self.held_out[i : i + 256] for i in range(0, len(self.held_out), 256)]
        shares = [self.ranks.own(len(batch)) for batch in batches]
        held = [batch[share].tolist() for batch, share in zip(batches, shares, strict=True)]
        read = read_ahead(held, lambda indices: _read(self.streams[0], indices))
        for batch, share, (images, labels) in zip(batches, shares, read, strict=True):
            source.hold(share, len(batch))
            images, labels = images.to(self.device), labels.to(self.device)
            noisy = add_noise(images, sigma, source) if sigma else images
            if len(images):
                sums += torch.stack([s.double() for s in self.measure.sums(network, images, noisy, labels, sigma)])
        sums = self.ranks.sum(sums)
        return dict(zip(self.measure.figures, (sums / len(self.held_out)).tolist(), strict=True))

    def _read(self, batches: Sequence[list[int]]) -> list[tuple[Tensor, Tensor]]:
        """What this process holds of a batch of every stream."""
        return [_read(stream, [indices[row] for row in self._held(len(indices))[0]])
                for stream, indices in zip(self.streams, batches, strict=True)]


class Averages:
    """Running means of named figures over images, kept on the device until asked for."""

    def __init__(self, device: torch.device):
        self._device = device
        self._sums: dict[str, Tensor | float] = {}
        self._counts: dict[str, float] = {}

    def add(self, name: str, value: Tensor, images: float) -> None:
        """Count the mean of a figure over so many images."""
        self._sums[name] = self._sums.get(name, 0.0) + value.detach() * images
        self._counts[name] = self._counts.get(name, 0.0) + images

    def over(self, ranks: Ranks) -> dict[str, float]:
        """The means so far, over all processes."""
        sums = torch.stack([torch.as_tensor(value, device=self._device) for value in self._sums.values()])
        counts = torch.tensor(list(self._counts.values()), dtype=sums.dtype, device=self._device)
        totals = ranks.sum(torch.stack([sums, counts]))
        return dict(zip(self._sums, (totals[0] / totals[1]).tolist(), strict=True))


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


@contextmanager
def _explain_single_rows(rows: int) -> Iterator[None]:
    """Turn what torch's BatchNorm raises on a single row into a ModelError that says what to do."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ModelError(f"BatchNorm trains on more than one value a channel, and a step of this run has {rows} "
                         f"image(s) ({error}): give a larger --batch-size, more training images, or a network "
                         f"without BatchNorm") from error


def _precision(config: TrainConfig, device: torch.device) -> AbstractContextManager[Any]:
    if config.autocast == "none":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16 if config.autocast == "bf16" else torch.float16)
