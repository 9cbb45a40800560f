"""What the parts of the GPU's benchmark share: the setting, a finding, networks and images."""

import time
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from networks import CLASSES, SIGMA, Network, network

from smoothcert.noise import build_noise
from smoothcert.smoothing import Sampling, Segment, open_voter


@dataclass
class Finding:
    """One line: what was looked at, whether it is right (None: nothing to judge), and the figures."""

    part: str
    name: str
    passed: bool | None
    words: str
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        return {True: "right", False: "WRONG", None: ""}[self.passed]

    @property
    def line(self) -> str:
        return f"{self.part} | {self.name} | {self.verdict} | {self.words}"


@dataclass(frozen=True)
class Setting:
    """Where to measure, how much, and until when (by `time.perf_counter`)."""

    device: torch.device
    quick: bool
    deadline: float

    @property
    def left(self) -> float:
        return self.deadline - time.perf_counter()

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def names(self) -> tuple[str, ...]:
        return ("lenet",) if self.quick else ("lenet", "cnn", "resnet20", "resnet110", "resnet50")

    @property
    def precisions(self) -> tuple[str, ...]:
        return ("float32", *(("tf32",) if self.on_gpu else ()), "bf16", "fp16")

    def synchronise(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def network(self, name: str) -> Network:
        """The network on the device, undecided: its logits are centred on noisy copies of its image."""
        found = _centred(name)
        found.model.to(self.device)
        return found

    def counts(self, name: str, n: int, **how: object) -> np.ndarray:
        """Votes of two images, (2, K), in `philox-v1`."""
        subject = self.network(name)
        how = {"engine": "eager", "noise_format": "philox-v1", "device": self.device, **how}
        voter = open_voter(subject.model, build_noise("grid", SIGMA), CLASSES, subject.image.shape, 0,
                           how=Sampling(**how)).voter
        images = subject.image, np.ascontiguousarray(subject.image[:, ::-1])
        return voter.count([Segment(voter.subject(image, key), "estimate", 0, n) for key, image in enumerate(images)])


@cache
def _centred(name: str) -> Network:
    found = network(name)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        image = torch.from_numpy(found.image)
        rows = image + SIGMA * torch.randn(32, *image.shape, generator=generator)
        last = [layer for layer in found.model.modules() if isinstance(layer, torch.nn.Linear)][-1]
        last.bias -= found.model(rows).mean(dim=0)
    return found
