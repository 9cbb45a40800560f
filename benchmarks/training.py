"""What a training step costs: every objective as a multiple of a plain Gaussian step, beside the passes it needs."""

import copy
import ctypes
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import torch
from memory import from_here, memory
from networks import CLASSES, SHAPES, SIGMA
from pages import Section, section, table
from timing import Rates, Run, Spread, interleaved, spread
from torch import Tensor, nn

from smoothcert.machine import keep_freed_memory
from smoothcert.models import build_model
from smoothcert.objectives import Step, build_objective
from smoothcert.smoothing.soft import freeze

BATCHES = {"lenet": 256, "resnet20": 48}
ROUNDS = {"lenet": 5, "resnet20": 3}
GOAL = 15
"""Per cent that a step may cost above its passes."""


@dataclass(frozen=True)
class Case:
    """An objective, and the passes that its method needs for a batch, each of the batch's rows.

    Attributes:
        trained: forward, and backward to the weights.
        attacked: forward in eval mode, and backward to the input alone.
        forward: forward in eval mode alone.
    """

    name: str
    options: dict[str, Any]
    trained: int
    attacked: int = 0
    forward: int = 0


_ATTACK = {"steps": 2, "warmup": 0}
CASES = {
    "gaussian": Case("gaussian", {}, 1),
    "clean": Case("clean", {}, 1),
    "smoothadv, PGD, m 2, T 2": Case("smoothadv", {"m": 2, **_ATTACK}, 2, attacked=4),
    "smoothadv, DDN, m 2, T 2": Case("smoothadv", {"m": 2, "attack": "ddn", **_ATTACK}, 2, attacked=4, forward=2),
    "adre, k 4": Case("adre", {"k": 4}, 4),
    "adre, k 2, eps .5, M 2": Case("adre", {"k": 2, "eps": 0.5, **_ATTACK}, 2, attacked=4),
    "stability": Case("stability", {}, 2),
    "trades, T 4": Case("trades", {"steps": 4}, 2, attacked=4, forward=1),
    "adversarial, T 4": Case("adversarial", {"steps": 4, "warmup": 0}, 1, attacked=4),
    "macer, k 16": Case("macer", {"k": 16}, 16),
    "consistency, m 2": Case("consistency", {"m": 2}, 2),
    "smoothmix, m 2, T 2": Case("smoothmix", {"m": 2, **_ATTACK}, 4, attacked=4),
    "smoothmix, m 4, T 4": Case("smoothmix", {"m": 4, "steps": 4, "warmup": 0}, 8, attacked=16),
    "cat-rs, m 2, T 2, 4 votes": Case("cat-rs", {"m": 2, "steps": 2, "votes": 4}, 4, attacked=4, forward=4),
    "cat-rs, m 4, T 4, 16 votes": Case("cat-rs", {"m": 4, "steps": 4, "votes": 16}, 8, attacked=16, forward=16),
}
ATTACK, FORWARD = "an attack pass", "a forward pass"


@dataclass(frozen=True)
class Trained:
    """A network as the training loop has it, its optimiser, and a batch."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    images: Tensor
    labels: Tensor
    generator: torch.Generator


def main(figures: dict[str, float]) -> Section:
    rows, found = [], dict[str, float]()
    for name, batch in BATCHES.items():
        measured = in_a_process(name, batch)
        rates = Rates(measured["rounds"])
        found |= {f"{name} {part}": rates.ratio("gaussian", part).median for part in (ATTACK, FORWARD)}
        for title, case in CASES.items():
            above = excess(rates, title, case)
            found[f"{name} {title} above %"] = above.median
            rows.append([f"{name}, {batch}", title, f"{case.trained}, {case.attacked}, {case.forward}",
                         f"{spread(needs(rates, case)).median:.2f}", f"{rates.ratio('gaussian', title):.2f}",
                         f"{above:.0f}{' missed' if above.median > GOAL else ''}", f"{measured['peaks'][title]:.0f}"])
    header = ["network, batch", "objective", "passes: training, attack, forward", "needs", "takes", "above, %",
              "peak, MiB"]
    return section("A training step, as a multiple of a plain Gaussian step", [*table(header, rows), *_notes(found)],
                   found)


def needs(rates: Rates, case: Case) -> list[float]:
    """What the passes of a case take together, in Gaussian steps, round by round."""
    rounds = zip(*(rates.rounds[name] for name in ("gaussian", ATTACK, FORWARD)), strict=True)
    return [case.trained + case.attacked * g / attack + case.forward * g / forward for g, attack, forward in rounds]


def excess(rates: Rates, title: str, case: Case) -> Spread:
    """Per cent that a step takes above its passes."""
    rounds = zip(rates.rounds["gaussian"], rates.rounds[title], needs(rates, case), strict=True)
    return spread([100 * (g / own / needed - 1) for g, own, needed in rounds])


def in_a_process(name: str, batch: int) -> dict[str, Any]:
    """`measured` in a process of its own, whose allocator nothing has used before."""
    done = subprocess.run([sys.executable, __file__, name, str(batch)], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured(name: str, batch: int) -> dict[str, dict[str, Any]]:
    """Peaks in MiB, and batches a second of every case and pass, round by round, with freed memory kept as in
    training."""
    trained = new_trained(name, batch)
    runs = {title: _repeated(_steps(trained, case), case.trained + case.attacked) for title, case in CASES.items()}
    runs |= {ATTACK: _repeated(_attack_pass(trained), 1), FORWARD: _repeated(_forward_pass(trained), 1)}
    for case in CASES.values():
        _steps(new_trained(name, 8), case)()  # what a first use loads
    peaks = {title: peak(_steps(trained, case)) for title, case in CASES.items()}
    keep_freed_memory()
    for run in runs.values():
        run()
    return {"peaks": peaks, "rounds": interleaved(runs, ROUNDS[name]).rounds}


def new_trained(name: str, batch: int) -> Trained:
    """The network, in train mode and channels-last as in training, and random images."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_model(name, SHAPES[name], CLASSES)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(network.parameters(), 0.01, 0.9, weight_decay=1e-4, nesterov=True)
    images = torch.rand(batch, *SHAPES[name], generator=generator)
    return Trained(network.train(), optimizer, images, torch.arange(batch) % CLASSES, generator)


def _steps(trained: Trained, case: Case) -> Run:
    """Trains on one batch, all its optimiser steps. The classifier of cat-rs is a network of the same kind."""
    beside = {"classifier": copy.deepcopy(trained.network)} if case.name == "cat-rs" else {}
    objective = build_objective(case.name, SIGMA, **case.options, **beside)

    def run() -> int:
        for rows in map(list, objective.split(len(trained.images))):
            images, labels = trained.images[rows], trained.labels[rows]
            trained.optimizer.zero_grad(set_to_none=True)
            loss = objective.loss(trained.network, images, labels, Step(trained.generator, 100.0))
            loss.total.backward()
            trained.optimizer.step()
        return 1

    return run


def _attack_pass(trained: Trained) -> Run:
    """Forward, and backward to the input, of the batch: what a step of an attack cannot do without."""

    def run() -> int:
        with freeze(trained.network) as network:
            images = trained.images.clone().requires_grad_()
            torch.autograd.grad(nn.functional.cross_entropy(network(images), trained.labels), images)
        return 1

    return run


def _forward_pass(trained: Trained) -> Run:
    def run() -> int:
        with freeze(trained.network) as network, torch.no_grad():
            network(trained.images)
        return 1

    return run


def _repeated(run: Run, passes: int) -> Run:
    """As often as it takes for four passes: what a ratio is over must be no less certain than the rest."""
    return lambda: sum(run() for _ in range(max(1, 4 // passes)))


def peak(run: Run) -> float:
    """MiB that a call takes at its peak above what the process held before it."""
    ctypes.CDLL(None).malloc_trim(0)  # what earlier calls left is not there to be used again
    before = from_here()
    run()
    return memory("VmHWM") - before


def _notes(found: dict[str, float]) -> list[str]:
    shares = "; ".join(f"`{name}`: an attack pass {found[f'{name} {ATTACK}']:.2f}, a forward pass "
                       f"{found[f'{name} {FORWARD}']:.2f}" for name in BATCHES)
    return [
        "`takes`: the processor's seconds of all optimiser steps on a batch over those of a Gaussian one, interleaved; "
        f"medians of the rounds' own ratios, with the least and the greatest. Goal: at most {GOAL}% above `needs`.", "",
        "`needs`: the passes of the method, each of the batch's rows. A training pass (forward, and backward to the "
        "weights, with its share of the optimiser) counts 1. An attack pass goes backward to the input alone, in eval "
        "mode; it counts what such a pass of the whole batch takes by itself in the same rounds, and so does a forward "
        f"pass ({shares}). m noises an image are m times the rows, whether in one pass or several.", "",
        "`peak`: resident memory of a step above the network, its optimiser and the batch (VmHWM).",
    ]


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    print(json.dumps(measured(sys.argv[1], int(sys.argv[2]))))
