"""Learning rates as pure functions of the step: nothing to save, nothing to restore."""

import math

from smoothcert.runs.config import TrainConfig


def learning_rate(config: TrainConfig, peak: float, step: int, steps_per_epoch: int) -> float:
    """The learning rate of optimiser step `step` (from 0), with linear warm-up over the first `warmup` epochs.

    onecycle: Smith & Topin 2019: cosine from peak / 25 up to the peak over the first 30 % of the steps, then down to
    peak / 250,000. cosine: down to 0 over what follows the warm-up. step: times `step_factor` every `step_epochs`.
    """
    total = config.epochs * steps_per_epoch
    warm = config.warmup * steps_per_epoch
    if step < warm:
        return peak * (step + 1) / (warm + 1)
    if config.schedule == "onecycle":
        return _one_cycle(peak, step / max(total - 1, 1))
    if config.schedule == "cosine":
        return _cosine(peak, 0.0, (step - warm) / max(total - warm, 1))
    if config.schedule == "step":
        return peak * config.step_factor ** (step // steps_per_epoch // config.step_epochs)
    return peak


def _one_cycle(peak: float, progress: float, rise: float = 0.3) -> float:
    if progress < rise:
        return _cosine(peak / 25, peak, progress / rise)
    return _cosine(peak, peak / 250_000, (progress - rise) / (1 - rise))


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
