"""What a recipe would take on one core, from measured steps: seconds of training and of measuring for each of its runs.

`benchmarks/RESULTS.md` has samples a second of the networks that were measured, in float32 by torch as it is
("reference") and by the engine that smoothcert takes ("ours"). A pass forward and backward over an image is taken as
three forward passes, and a step of an attack, which needs no gradient of the weights, as two. A network that was not
measured is taken to run at the FLOP rate of ResNet-110. MLP energies are measured in seconds of their own.
"""

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from smoothcert import build_model
from smoothcert.recipes.plan import Reference, Task

ROOT = Path(__file__).parents[1]
SETS = {"mnist": (60_000, 10_000, (1, 28, 28)), "cifar10": (50_000, 10_000, (3, 32, 32)),
        "imagefolder:imagenet": (1_281_167, 50_000, (3, 224, 224)),
        "imagefolder:imagenet32": (1_281_167, 50_000, (3, 32, 32)),
        "imagefolder:tiny-imagenet": (100_000, 10_000, (3, 64, 64)),
        "imagefolder:tiny-images-500k": (500_000, 0, (3, 32, 32))}
"""Training images, test images, and their shape."""
DEEN_STEP, XHAT_STEP, BATCH = 0.089, (0.093, 0.108), 128
"""Seconds of a step of 128 MNIST images: of the energy; of xhat, without attack and for each step of it."""
BEHIND_ENERGY = 1 / 2620
"""Seconds of a sample of LeNet, or less, behind that energy."""
PASSES = {
    "gaussian": lambda o: 1, "clean": lambda o: 1, "stability": lambda o: 2, "consistency": lambda o: o.get("m", 2),
    "macer": lambda o: o.get("k", 16), "adversarial": lambda o: o["steps"] + 1, "trades": lambda o: o["steps"] + 2,
    "smoothadv": lambda o: o["m"] * (o["steps"] + 1), "nal": lambda o: o["s"] * (o["K"] + 1),
    "adre": lambda o: o["k"] * (o.get("steps", 0) + 1), "wrm": lambda o: o["steps"] + 2,
    "smoothmix": lambda o: o["m"] * (o["steps"] + 2), "cat-rs": lambda o: o["m"] * (o["steps"] + 2),
}
"""Passes over an image in an epoch, by objective."""


@dataclass(frozen=True)
class Cost:
    """Core-seconds of training and of measuring."""

    training: float = 0.0
    measuring: float = 0.0


def cost(tasks: Mapping[str, Task]) -> Cost:
    """What runs take, each by its folder, with all that they use."""
    every = tasks.values()
    return Cost(sum(_trained(task, tasks) for task in every if task.verb == "train"),
                sum(_measured(task, tasks) for task in every if task.verb != "train"))


def rates() -> dict[str, float]:
    """Samples a second, one thread, as `benchmarks/RESULTS.md` has them: "lenet ours", "lenet reference", ..."""
    text = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    (told,) = re.findall(r"<!-- section speed (\{.*\}) -->", text)
    return json.loads(told)


def _trained(task: Task, tasks: Mapping[str, Task]) -> float:
    options, images = task.options, SETS[task.options["data"]][0]
    images = min(images, options.get("max_images", images))
    seen = images * options["epochs"] * (2 if "unlabelled" in options else 1)
    if options["objective"] == "deen":
        return seen / BATCH * DEEN_STEP
    if options["objective"] == "xhat":
        attack = options["objective_option"]
        steps = attack["steps"] if attack["eps"] else 0
        return seen / BATCH * (XHAT_STEP[0] + steps * XHAT_STEP[1])
    passes = PASSES[options["objective"]](options.get("objective_option", {}))
    return 3 * seen * passes * _seconds(_network(task, tasks), SETS[options["data"]][2], "reference")


def _measured(task: Task, tasks: Mapping[str, Task]) -> float:
    """Every sample is one forward pass; those of an attack are two for every noise and step."""
    if task.verb == "recertify":
        return 0.0
    options, model = task.options, tasks[task.options["model"].folder]
    _, test, shape = SETS[model.options["data"]]
    images = min(test, options.get("max_images", 10**9)) / options.get("every", 1)
    sample, plain = (_seconds(_network(model, tasks), shape, how) for how in ("ours", "reference"))
    if "denoiser" in options or "denoiser" in model.options:
        walk = options.get("front_option", {}).get("steps", 100) if "walk_jump" in options else 0
        sample = plain = BEHIND_ENERGY * (1 + walk)
    if task.verb == "attack":
        certified = tasks[options["eps_from"].folder].options if "eps_from" in options else {}
        images /= certified.get("every", 1)
        sizes, m, steps = len(options.get("eps", options.get("times", ()))), options["m"], options["steps"]
        return images * sizes * sum(2 * max(copies, 1) * t * plain + max(options["n"]) * sample
                                    for copies in m for t in steps)
    if task.verb == "distributional":
        found = options.get("search_option", {})
        return images * (options["n"] * sample + 2 * found.get("steps", 100) * found.get("draws", 16) * plain
                         * len(options.get("gamma", (1,))))
    return images * (options.get("n0", 0) + options.get("n", options.get("n_max", 0))) * sample


def _network(task: Task, tasks: Mapping[str, Task]) -> str:
    """The network of a training task, that of what it starts from where it names none."""
    init = task.options.get("init")
    return _network(tasks[init.folder], tasks) if "model" not in task.options and isinstance(init, Reference) \
        else task.options["model"]


@functools.cache
def _seconds(network: str, shape: tuple[int, int, int], how: str) -> float:
    """Seconds of a forward pass of one image on one core: measured, or by its FLOPs at ResNet-110's rate."""
    measured, usual = rates(), (3, 32, 32) if network.startswith("resnet") else (1, 28, 28)
    if f"{network} {how}" in measured and shape == usual:
        return 1 / measured[f"{network} {how}"]
    return flops(network, shape) / (measured[f"resnet110 {how}"] * flops("resnet110", (3, 32, 32)))


@functools.cache
def flops(network: str, shape: tuple[int, int, int]) -> int:
    """Floating-point operations of a forward pass of one image; a multiply-add counts two."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model: Any = build_model(network, shape, 1000 if shape[1] == 224 else 10).eval()
        model(torch.zeros(1, *shape))
    return counter.get_total_flops()
