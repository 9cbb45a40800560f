"""Networks for 32x32 images at equal training time: which one answers best under noise.

Each candidate trains for SECONDS of one processor core by the ordinary loop, in 4 passes over as many images as fit,
and is judged on 5,000 test images under one fixed draw of noise. `SECONDS=600 make evidence PART=networks`.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from workplace import data_dir, fresh

from smoothcert.classifiers.folder import read_network
from smoothcert.data import load_data
from smoothcert.machine import has_bf16_units
from smoothcert.models import build_model
from smoothcert.objectives import Step, build_objective
from smoothcert.store.provenance import machine_line
from smoothcert.training.options import TrainConfig
from smoothcert.training.train import train

SIGMA, EPOCHS, BATCH, TEST_EVERY = 0.25, 4, 256, 2
CPU = torch.device("cpu")
HERE = Path(__file__)


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, channels: int):
        super().__init__()
        self.inner = nn.Sequential(*_convolution(channels, channels), *_convolution(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


def resnet9(width: int = 32) -> nn.Module:
    """The ResNet-9 of the DAWNBench entries (Page 2018), at half its width."""
    w = width
    return nn.Sequential(
        *_convolution(3, w), *_convolution(w, 2 * w), nn.MaxPool2d(2), Residual(2 * w),
        *_convolution(2 * w, 4 * w), nn.MaxPool2d(2), *_convolution(4 * w, 8 * w), nn.MaxPool2d(2), Residual(8 * w),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8 * w, 10))


def _convolution(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


@dataclass(frozen=True)
class Candidate:
    """A network by the options of `train`, and its peak learning rate."""

    name: str
    model: str
    options: dict[str, int]
    lr: float = 0.2


CANDIDATES = (Candidate("airbench", "airbench", {}), Candidate("airbench, width 32", "airbench", {"width": 32}),
              Candidate("ResNet-9, half its width", f"{HERE}:resnet9", {}), Candidate("ResNet-20", "resnet20", {}))


def main() -> str:
    seconds, work = float(os.environ.get("SECONDS", "600")), fresh("networks")
    torch.set_num_threads(1)
    lines = ["# Networks for CIFAR-10 at equal training time\n",
             f"{machine_line()}.\n",
             f"{seconds:g} s of one core each, sigma {SIGMA}, {'bf16' if has_bf16_units(CPU) else 'float32'}, "
             f"{EPOCHS} passes over as many training images as fit, one training each. Accuracy under noise on 5,000 "
             f"test images, with its standard error.\n",
             "| network | parameters, million | ms an image, forward and backward | images seen | accuracy, % |",
             "|---|---|---|---|---|"]
    for candidate in CANDIDATES:
        cost = step_cost(candidate)
        folder = work / candidate.name.replace(" ", "-").replace(",", "")
        images = min(50_000, int(seconds / cost / EPOCHS))
        card = train(TrainConfig.parse({
            "data": "cifar10", "data_dir": data_dir(), "model": candidate.model, "model_option": candidate.options,
            "sigma": SIGMA, "epochs": EPOCHS, "batch_size": BATCH, "lr": candidate.lr, "weight_decay": 5e-4,
            "validation": 0, "autocast": "auto", "threads": 1, "max_images": images, "device": "cpu",
            "out": folder}))
        right = accuracy(folder)
        error = 100 * (right * (1 - right) / 5000) ** 0.5
        lines.append(f"| {candidate.name} | {card.parameters / 1e6:.2f} | {1000 * cost:.2f} | {EPOCHS * images:,} | "
                     f"{100 * right:.1f} ({error:.1f}) |")
        print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def step_cost(candidate: Candidate) -> float:
    """Seconds of processor time that training takes an image, the median of 9 steps."""
    network = resnet9() if ":" in candidate.model else build_model(candidate.model, (3, 32, 32), 10,
                                                                   **candidate.options)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    objective, times = build_objective("gaussian", SIGMA), []
    images, labels = torch.rand(BATCH, 3, 32, 32), torch.randint(10, (BATCH,))
    for _ in range(10):
        started = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16_units(CPU)):
            loss = objective.loss(network, images, labels, Step(torch.Generator(), 0.0))
        loss.total.backward()
        times.append(time.process_time() - started)
    return float(np.median(times[1:])) / BATCH


@torch.no_grad()
def accuracy(folder: Path) -> float:
    """The share of right answers on 5,000 test images under noise."""
    network, _ = read_network(folder, trust=True)
    data, source, right = load_data("cifar10", "test", data_dir=data_dir()), torch.Generator().manual_seed(0), 0
    indices = np.arange(0, len(data), TEST_EVERY)
    for part in np.array_split(indices, 20):
        images = torch.from_numpy(data.batch(part))
        noisy = images + SIGMA * torch.randn(images.shape, generator=source)
        right += int((network(noisy).argmax(1).numpy() == data.labels[part]).sum())
    return right / len(indices)
