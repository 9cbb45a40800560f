"""The state of a training run: the network, its optimiser and its moving average; and the schedules that steer them.

Learning rates and momenta are pure functions of the step, so there is nothing of them to save or restore.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from smoothcert.classifiers.card import ModelCard
from smoothcert.classifiers.folder import build_network
from smoothcert.denoise import DenoisedClassifier
from smoothcert.draws import seed_torch
from smoothcert.errors import ModelError
from smoothcert.smoothing.engines.torch_engines import put_channels_last
from smoothcert.training.distributed import Ranks
from smoothcert.training.options import TrainConfig
from smoothcert.training.pretrained import InitialWeights


@dataclass
class TrainState:
    """All that changes from step to step; `to_checkpoint` and `restore` are its checkpoint.

    Attributes:
        network: the network that is trained and saved.
        parallel: the model that objectives see: the network, behind the denoiser if there is one, with its gradients
            averaged over processes.
        fresh: the layers without weights from another model, where the run starts from one.
        compose: puts a network behind the frozen denoiser; returns the network itself where there is none.
    """

    network: nn.Module
    parallel: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: AveragedModel | None
    fresh: tuple[str, ...] = ()
    compose: Callable[[nn.Module], nn.Module] = lambda network: network
    steps: int = 0

    @property
    def result(self) -> nn.Module:
        """The network that is saved: the moving average where one is kept."""
        return self.average.module if self.average else self.network

    @property
    def buffers(self) -> Iterator[Tensor]:
        """The buffers that a training pass changes beside the parameters, such as running statistics.

        Not the count of steps that a moving average keeps: it is on the CPU, where NCCL cannot send it, and the same in
        all processes.
        """
        yield from self.network.buffers()
        if self.average:
            yield from self.average.module.buffers()

    def set_rates(self, rate: float, momentum: float) -> None:
        """Set the learning rate and the momentum of the next step."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum

    def to_checkpoint(self) -> dict[str, Any]:
        """Return the content of a checkpoint."""
        return {
            "optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict(), "steps": self.steps,
            "network": self.network.state_dict(), "average": self.average.state_dict() if self.average else None,
        }

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Continue from the content of a checkpoint."""
        self.network.load_state_dict(checkpoint["network"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.scaler.load_state_dict(checkpoint["scaler"])
        self.steps = checkpoint["steps"]
        if self.average:
            self.average.load_state_dict(checkpoint["average"])


def build_state(
    config: TrainConfig, card: ModelCard, device: torch.device, ranks: Ranks, initial: InitialWeights | None = None,
    denoiser: nn.Module | None = None,
) -> TrainState:
    """Build the network that `card` describes, with initial weights from the run's seed or from another model, and its
    optimiser.

    Args:
        denoiser: frozen and in eval mode; stands in front of the network at the run's sigma.
    Raises:
        ModelError: the network has no parameters, or the initial weights do not fit it.
    """
    with seed_torch(config.seed, "initial weights"):
        network = build_network(card, config.trust)
    network = ranks.synchronise_batchnorm(network, device).to(device)
    put_channels_last(network)
    parameters = [p for p in network.parameters() if p.requires_grad]
    if not parameters:
        raise ModelError(f"the network {config.model} has no parameters to train")
    fresh = initial.copy_to(network, card) if initial else ()
    rate = peak_rate(config)
    optimizer = {
        "sgd": lambda: torch.optim.SGD(parameters, rate, config.momentum, weight_decay=config.weight_decay,
                                       nesterov=config.momentum > 0),
        "adam": lambda: torch.optim.Adam(parameters, rate, weight_decay=config.weight_decay),
        "adamw": lambda: torch.optim.AdamW(parameters, rate, weight_decay=config.weight_decay),
    }[config.optimizer]()
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(config.ema), use_buffers=True) \
        if config.ema else None
    scaler = torch.amp.GradScaler(device.type, enabled=config.autocast == "fp16")
    state = TrainState(network, network, optimizer, scaler, average, fresh)
    if denoiser is not None and config.sigma:
        front, sigma = denoiser.to(device), config.sigma
        state.compose = lambda network: DenoisedClassifier(front, network, sigma)
    state.parallel = ranks.wrap(state.compose(network))
    return state


def peak_rate(config: TrainConfig) -> float:
    """Return the learning rate asked for, else the usual one of the optimiser."""
    return config.lr or (0.1 if config.optimizer == "sgd" else 0.001)


def learning_rate(config: TrainConfig, peak: float, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of optimiser step `step` (from 0), with linear warm-up over the first `warmup` epochs.

    onecycle (Smith & Topin 2019): cosine from peak / 25 up to the peak over the first 30 % of the steps, then down to
    peak / 250,000. cosine: down to 0 over the steps after the warm-up. step: times `step_factor` every `step_epochs`.
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
    """Return the momentum (Adam's beta_1) of optimiser step `step` (from 0).

    onecycle moves it against the learning rate: from half way between m and 1 down by as much below m at the peak, and
    back (Smith & Topin 2019: .95, .85, .95, which m = .9 gives). The other schedules keep it at m.
    """
    if config.schedule != "onecycle" or not config.momentum:
        return config.momentum
    highest, lowest = (1 + config.momentum) / 2, config.momentum - (1 - config.momentum) / 2
    return _rise_and_fall(highest, lowest, highest, step, config.epochs * steps_per_epoch)


def _rise_and_fall(start: float, turn: float, end: float, step: int, total: int) -> float:
    """Return a point of half cosines from `start` to `turn` over the first 30 % of the steps, then to `end`."""
    top = max(0.3 * total - 1, 0)
    if step < top:
        return _cosine(start, turn, step / top)
    return _cosine(turn, end, (step - top) / max(total - 1 - top, 1))


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
