"""What training changes: the network, its optimiser and average."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from smoothcert.errors import ModelError
from smoothcert.runs.config import TrainConfig
from smoothcert.runs.distributed import Ranks
from smoothcert.runs.initial import Initial
from smoothcert.runs.modeldir import ModelCard, build_network
from smoothcert.runs.seeds import seeded


@dataclass
class Trainee:
    """All that changes from step to step; `state` and `restore` are its checkpoint.

    `fresh` names the layers that did not get their weights from another model, where others did.
    """

    network: nn.Module
    parallel: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: AveragedModel | None
    fresh: tuple[str, ...] = ()
    steps: int = 0

    @property
    def result(self) -> nn.Module:
        """The network that is validated and saved: the moving average where one is kept."""
        return self.average.module if self.average else self.network

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
    config: TrainConfig, card: ModelCard, device: torch.device, ranks: Ranks, initial: Initial | None = None
) -> Trainee:
    """The network that `card` describes, with the initial weights of the run's seed or of another model, and its
    optimiser."""
    with seeded(config.seed, "initial weights"):
        network = build_network(card.model, card.options, card.input_shape, card.num_classes)
    network.to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # convolutions train faster so
    parameters = [p for p in network.parameters() if p.requires_grad]
    if not parameters:
        raise ModelError(f"the network {config.model} has no parameters to train")
    fresh = initial.give(network, card.num_classes) if initial else ()
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
    return Trainee(network, ranks.wrap(network), optimizer, scaler, average, fresh)


def peak_rate(config: TrainConfig) -> float:
    """The learning rate asked for, else the optimiser's usual one."""
    return config.lr or (0.1 if config.optimizer == "sgd" else 0.001)
