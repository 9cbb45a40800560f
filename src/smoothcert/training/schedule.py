"""Learning rates and momenta as pure functions of the step: nothing to save, nothing to restore."""

import math

from smoothcert.training.options import TrainConfig


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
        return _rise_and_fall(peak / 25, peak, peak / 250_000, step, total)
    if config.schedule == "cosine":
        return _cosine(peak, 0.0, (step - warm) / max(total - warm, 1))
    if config.schedule == "step":
        return peak * config.step_factor ** (step // steps_per_epoch // config.step_epochs)
    return peak


def momentum(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """The momentum (Adam's beta_1) of optimiser step `step`.

    onecycle moves it against the learning rate, half way up to 1 at both ends and as far down at the peak (Smith &
    Topin 2019: .95, .85, .95, which is what .9 gives); the other schedules keep it.
    """
    if config.schedule != "onecycle" or not config.momentum:
        return config.momentum
    highest, lowest = (1 + config.momentum) / 2, config.momentum - (1 - config.momentum) / 2
    return _rise_and_fall(highest, lowest, highest, step, config.epochs * steps_per_epoch)


def _rise_and_fall(start: float, turn: float, end: float, step: int, total: int) -> float:
    """Half cosines from `start` to `turn` over the first 30 % of the steps, then to `end` at the last."""
    top = max(0.3 * total - 1, 0)
    if step < top:
        return _cosine(start, turn, step / top)
    return _cosine(turn, end, (step - top) / max(total - 1 - top, 1))


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
