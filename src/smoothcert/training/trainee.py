"""What training changes: the network, its optimiser and average; and the denoiser that it may stand behind."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from smoothcert.classifiers.folder import ModelCard, build_network
from smoothcert.denoise import DenoisedClassifier
from smoothcert.draws import seed_torch
from smoothcert.errors import ModelError
from smoothcert.training.distributed import Ranks
from smoothcert.training.initial import Initial
from smoothcert.training.options import TrainConfig


def _itself(network: nn.Module) -> nn.Module:
    return network


@dataclass
class Trainee:
    """All that changes from step to step; `state` and `restore` are its checkpoint.

    Attributes:
        network: what is trained and saved.
        parallel: what objectives are given: the network, behind the denoiser if there is one, its gradients averaged
            over processes.
        fresh: the layers that did not get their weights from another model, where others did.
        behind: puts a network behind the frozen denoiser; itself where there is none.
    """

    network: nn.Module
    parallel: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: AveragedModel | None
    fresh: tuple[str, ...] = ()
    behind: Callable[[nn.Module], nn.Module] = _itself
    steps: int = 0

    @property
    def result(self) -> nn.Module:
        """The network that is saved: the moving average where one is kept."""
        return self.average.module if self.average else self.network

    @property
    def buffers(self) -> Iterator[Tensor]:
        """What a training pass leaves in the network beside its gradients, as running statistics are."""
        yield from self.network.buffers()
        if self.average:
            yield from self.average.buffers()

    @property
    def judged(self) -> nn.Module:
        """What is validated: the result, behind the denoiser if there is one."""
        return self.behind(self.result)

    def steer(self, rate: float, momentum: float) -> None:
        """Set the learning rate and the momentum of the next step."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum

    def state(self) -> dict[str, Any]:
        return {
            "optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict(), "steps": self.steps,
            "network": self.network.state_dict(), "average": self.average.state_dict() if self.average else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.steps = state["steps"]
        if self.average:
            self.average.load_state_dict(state["average"])


def new_trainee(
    config: TrainConfig, card: ModelCard, device: torch.device, ranks: Ranks, initial: Initial | None = None,
    denoiser: nn.Module | None = None,
) -> Trainee:
    """The network that `card` describes, with the initial weights of the run's seed or of another model, and its
    optimiser; `denoiser`, frozen and in eval mode, stands in front of it at the run's sigma."""
    with seed_torch(config.seed, "initial weights"):
        network = build_network(card, config.trust)
    network = ranks.synced(network, device).to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # convolutions train faster so
    parameters = [p for p in network.parameters() if p.requires_grad]
    if not parameters:
        raise ModelError(f"the network {config.model} has no parameters to train")
    fresh = initial.give(network, card) if initial else ()
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
    behind = partial(_composed, denoiser.to(device), config.sigma) if denoiser is not None and config.sigma else _itself
    return Trainee(network, ranks.wrap(behind(network)), optimizer, scaler, average, fresh, behind)


def _composed(denoiser: nn.Module, sigma: float, network: nn.Module) -> nn.Module:
    return DenoisedClassifier(denoiser, network, sigma)


def peak_rate(config: TrainConfig) -> float:
    """The learning rate asked for, else the optimiser's usual one."""
    return config.lr or (0.1 if config.optimizer == "sgd" else 0.001)
