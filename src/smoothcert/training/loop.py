"""The training loop: epochs of steps on batches of every training set, validation, and the files of an epoch."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from smoothcert.classifiers.card import DENOISER_FIGURES, ModelCard, write_card
from smoothcert.classifiers.folder import write_checkpoint, write_weights
from smoothcert.data.augment import augment
from smoothcert.draws import RowGenerator, generator, seed_torch
from smoothcert.errors import ModelError
from smoothcert.io.files import write_error, write_text
from smoothcert.loggers import Figures
from smoothcert.objectives import Objective, Step
from smoothcert.progress import Phase
from smoothcert.smoothing.soft import add_noise
from smoothcert.training.batches import TrainingSet, batch_sizes, read_ahead
from smoothcert.training.distributed import Ranks, Share
from smoothcert.training.options import TrainConfig
from smoothcert.training.state import TrainState, learning_rate, momentum, peak_rate

Sums = Callable[[nn.Module, Tensor, Tensor, Tensor, float | None], list[Tensor]]
"""(network in eval mode, clean images, noisy images, labels, sigma) -> a sum over the images for each figure."""


@dataclass(frozen=True)
class Measure:
    """The validation figures of one kind of network, means over the held-out images; the first one decides which epoch
    is best.

    Attributes:
        figures: their names.
        sign: 1 where a higher first figure is better, -1 where a lower one is.
        sums: the figures' sums over a batch.
        words: the best epoch's figures as a phrase; "{noise}" stands for the noise.
    """

    figures: tuple[str, ...]
    sign: int
    sums: Sums
    words: str

    def is_better(self, figures: dict[str, float], best: dict[str, float]) -> bool:
        """Return True where an epoch is at least as good as the best one so far; without figures the last one is."""
        name = self.figures[0]
        return not best or self.sign * figures[name] >= self.sign * best[name]

    def describe(self, best: dict[str, float], sigma: float | None) -> str:
        """Return the best epoch's figures as a phrase."""
        if not best:
            return "the last epoch, because no images are held out"
        return self.words.format(**best, noise=f"under noise sigma {sigma:g}" if sigma else "without noise")


def sum_accuracy_and_loss(
    network: nn.Module, clean: Tensor, noisy: Tensor, labels: Tensor, sigma: float | None
) -> list[Tensor]:
    """Return the number of right answers on noisy images, and their summed cross-entropy."""
    logits = network(noisy)
    return [(logits.argmax(dim=1) == labels).sum(), cross_entropy(logits, labels, reduction="sum")]


def sum_squared_errors(
    network: nn.Module, clean: Tensor, noisy: Tensor, labels: Tensor, sigma: float | None
) -> list[Tensor]:
    """Return the summed squared error of a denoiser's estimates, and that of the noisy images themselves."""
    return [(clean - estimate).square().sum(dtype=torch.float64) for estimate in (network(noisy, sigma), noisy)]


MEASURES = {
    "classifier": Measure(("validation_accuracy", "validation_loss"), 1, sum_accuracy_and_loss,
                          "held-out accuracy {validation_accuracy:.1%} {noise}"),
    "denoiser": Measure(DENOISER_FIGURES, -1, sum_squared_errors,
                        "held-out squared error {validation_error:.4g} an image ({validation_error_without:.4g} "
                        "without the denoiser) {noise}"),
}
"""By the kind of network that is trained: see `objectives.Objective.trains`."""


@dataclass(frozen=True)
class Batch:
    """The inputs (B, *shape) and labels (B,) of one training set for one optimiser step in this process, with the
    share of the batch that they are, the set's random numbers, and the epochs done so far."""

    source: TrainingSet
    images: Tensor
    labels: Tensor
    share: Share
    generator: RowGenerator
    epoch: float


@dataclass
class Loop:
    """The loop over epochs.

    Every optimiser step takes a batch of every training set and minimises the sum over sets of weight x mean loss. The
    first set is the labelled one; its images make an epoch.
    """

    config: TrainConfig
    objective: Objective
    sets: Sequence[TrainingSet]
    held_out: np.ndarray
    state: TrainState
    ranks: Ranks
    device: torch.device
    training: Phase
    log: Figures = lambda step, values: None

    def run_epoch(self, epoch: int, card: ModelCard) -> ModelCard:
        """Train one epoch (from 0), validate, write the result, and return the run's new card."""
        started = time.perf_counter()
        with seed_torch(self.config.seed, epoch, self.ranks.rank):
            averages = self._fit(epoch)
        self.ranks.broadcast(self.state.buffers)
        measure = MEASURES[self.objective.trains]
        figures = {"epoch": epoch + 1, **averages, **self._validate(measure),
                   "seconds": round(time.perf_counter() - started, 2)}
        is_better = measure.is_better(figures, card.best)
        chosen = {name: figures[name] for name in measure.figures if name in figures}
        card = replace(card, epochs_done=epoch + 1, complete=epoch + 1 == self.config.epochs,
                       **({"best_epoch": epoch + 1, "best": chosen} if is_better else {}))
        self.ranks.wait()  # raises where the figures come from an exchange that was given up
        if self.ranks.is_main:
            write_epoch(self.config.out, card, self.state, figures, is_better)
            self.log(epoch + 1, {f"train/{name}": value for name, value in figures.items() if name != "epoch"})
        self.ranks.wait()
        return card

    def _fit(self, epoch: int) -> dict[str, float]:
        """Train for an epoch, and return the last learning rate and the mean of each figure."""
        state, config = self.state, self.config
        images = len(self.sets[0].indices)
        sizes = batch_sizes(images, config.batch_size)
        orders = [source.batches(config.seed, epoch, sizes, images) for source in self.sets]
        generators = [generator(self.device, config.seed, epoch, 0, *s.key) for s in self.sets]  # alike in all ranks
        peak, rate, averages = peak_rate(config), 0.0, Averages(self.device)
        state.parallel.train()
        for number, held in enumerate(read_ahead(list(zip(*orders, strict=True)), self._read)):
            rate = learning_rate(config, peak, state.steps, len(sizes))
            state.set_rates(rate, momentum(config, state.steps, len(sizes)))
            split = [self._split(source, rows, sizes[number], numbers, epoch + number / len(sizes))
                     for source, rows, numbers in zip(self.sets, held, generators, strict=True)]
            for batches in zip(*split, strict=True):
                self._step(batches, averages)
            state.steps += 1
            self.training.advance()
            if number % 10 == 9 or number + 1 == len(sizes):
                self._report(epoch, averages, number + 1 == len(sizes))
        return {"lr": rate, **averages.means(self.ranks)}

    def _read(self, batches: Sequence[list[int]]) -> list[tuple[Tensor, Tensor]]:
        """Read the rows that this process holds of a batch of every training set."""
        return [source.read([indices[row] for row in self._shares(len(indices))[0]])
                for source, indices in zip(self.sets, batches, strict=True)]

    def _shares(self, size: int) -> tuple[list[int], list[Share]]:
        """Return the rows that this process holds of a batch of `size`, and its share of each part of the batch."""
        parts = self.objective.split(size)
        shares = [self.ranks.share(len(part)) for part in parts]
        return [part[i] for part, share in zip(parts, shares, strict=True) for i in share.rows], shares

    def _split(
        self, source: TrainingSet, held: tuple[Tensor, Tensor], size: int, numbers: RowGenerator, epoch: float
    ) -> list[Batch]:
        """Augment the rows held of a set's batch of `size`, and split them into one batch for each optimiser step."""
        rows, shares = self._shares(size)
        numbers.hold(rows, size)
        images, labels = (values.to(self.device) for values in held)
        images = augment(images, augmentation(self.config), numbers)
        counts = [len(share.rows) for share in shares]
        return [Batch(source, x, y, share, numbers, epoch)
                for x, y, share in zip(images.split(counts), labels.split(counts), shares, strict=True)]

    def _step(self, batches: Sequence[Batch], averages: "Averages") -> None:
        """Take one optimiser step; the sets' losses come one after another, so that memory holds one graph at a time.

        Processes average their gradients once a step, in its last backward pass.
        """
        state, config, model = self.state, self.config, self.state.parallel
        state.optimizer.zero_grad(set_to_none=True)
        precision: AbstractContextManager[Any] = nullcontext() if config.autocast == "none" else torch.autocast(
            self.device.type, dtype=torch.bfloat16 if config.autocast == "bf16" else torch.float16)
        for left, batch in zip(reversed(range(len(batches))), batches, strict=True):
            batch.generator.hold(batch.share.rows, batch.share.whole)
            is_shared = isinstance(model, nn.parallel.DistributedDataParallel)
            with model.no_sync() if is_shared and left else nullcontext(), _explain_single_rows(batch.share.whole):
                with precision:
                    step = Step(batch.generator, batch.epoch, batch.source.data.bounds)
                    loss = self.objective.loss(model, batch.images, batch.labels, step)
                state.scaler.scale(batch.source.weight * batch.share.weight * loss.total).backward()
            for name, value in {"loss": loss.total, **loss.parts}.items():
                averages.add(batch.source.name_figure(name), value, batch.share.counts)
        if config.clip_norm:
            state.scaler.unscale_(state.optimizer)
            nn.utils.clip_grad_norm_(state.network.parameters(), config.clip_norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        if state.average:
            state.average.update_parameters(state.network)

    def _report(self, epoch: int, averages: "Averages", is_last: bool) -> None:
        """Report the losses so far, or raise ModelError where one is not finite."""
        means = averages.means(self.ranks)
        losses = {name: means[name] for name in (source.name_figure("loss") for source in self.sets)}
        fresh = f"  fresh: {', '.join(self.state.fresh)}" if self.state.fresh else ""
        told = "  ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in losses.items())
        words = f"epoch {epoch + 1}/{self.config.epochs}  {told}{fresh}"
        self.training.say(words) if is_last else self.training.advance(0, words)
        for name, value in losses.items():
            if not np.isfinite(value):
                kept = f". Epoch {epoch} is kept" if epoch else ""
                raise ModelError(f"the {name.replace('_', ' ')} is {value} in epoch {epoch + 1}: training has "
                                 f"diverged; lower --lr, or set --clip-norm{kept}")

    @torch.no_grad()
    def _validate(self, measure: Measure) -> dict[str, float]:
        """Return the figures of the held-out images under one fixed draw of noise, or without noise where sigma is not
        given; none where no images are held out."""
        if not len(self.held_out):
            return {}
        network, sigma = self.state.compose(self.state.result).eval(), self.config.sigma
        numbers = generator(self.device, self.config.seed, "validation")
        sums = torch.zeros(len(measure.figures), dtype=torch.float64, device=self.device)
        batches = [self.held_out[i : i + 256] for i in range(0, len(self.held_out), 256)]
        shares = [self.ranks.own(len(batch)) for batch in batches]
        held = [batch[share].tolist() for batch, share in zip(batches, shares, strict=True)]
        for batch, share, (images, labels) in zip(batches, shares, read_ahead(held, self.sets[0].read), strict=True):
            numbers.hold(share, len(batch))
            images, labels = images.to(self.device), labels.to(self.device)
            noisy = add_noise(images, sigma, numbers) if sigma else images
            if len(images):
                sums += torch.stack([s.double() for s in measure.sums(network, images, noisy, labels, sigma)])
        sums = self.ranks.sum(sums)
        return dict(zip(measure.figures, (sums / len(self.held_out)).tolist(), strict=True))


class Averages:
    """Running means of named figures over images; they stay on the device until asked for."""

    def __init__(self, device: torch.device):
        self._device = device
        self._sums: dict[str, Tensor | float] = {}
        self._counts: dict[str, float] = {}

    def add(self, name: str, value: Tensor, images: float) -> None:
        """Count the mean of a figure over so many images."""
        self._sums[name] = self._sums.get(name, 0.0) + value.detach() * images
        self._counts[name] = self._counts.get(name, 0.0) + images

    def means(self, ranks: Ranks) -> dict[str, float]:
        """Return the means so far, over all processes."""
        sums = torch.stack([torch.as_tensor(value, device=self._device) for value in self._sums.values()])
        counts = torch.tensor(list(self._counts.values()), dtype=sums.dtype, device=self._device)
        totals = ranks.sum(torch.stack([sums, counts]))
        return dict(zip(self._sums, (totals[0] / totals[1]).tolist(), strict=True))


def write_epoch(folder: Path, card: ModelCard, state: TrainState, figures: dict[str, float], is_best: bool) -> None:
    """Write the files of an epoch, the checkpoint last: a run killed before that trains the epoch again."""
    if is_best:
        write_weights(folder / "best.safetensors", state.result)
    path = folder / "metrics.jsonl"
    try:
        earlier = path.read_text().splitlines()[: card.epochs_done - 1] if path.exists() else []
    except OSError as error:
        raise write_error(error, path) from error
    write_text(path, "\n".join([*earlier, json.dumps(figures)]) + "\n")
    write_checkpoint(folder, card.epochs_done, state.result, {**state.to_checkpoint(), "card": card.progress})
    write_card(folder, card)


def augmentation(config: TrainConfig) -> str:
    """Return the augmentation, with `auto` resolved for the data set."""
    if config.augment == "auto":
        return "crop-flip" if isinstance(config.data, str) and config.data == "cifar10" else "none"
    return config.augment


@contextmanager
def _explain_single_rows(rows: int) -> Iterator[None]:
    """Turn what torch's BatchNorm raises on a single row into a ModelError that says what to do."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ModelError(f"BatchNorm needs more than one value per channel, and a step of this run has {rows} "
                         f"image(s) ({error}): give a larger --batch-size, more training images, or a network "
                         f"without BatchNorm") from error
