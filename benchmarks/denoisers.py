"""What denoisers cost: x_hat as a multiple of a forward pass of its network, and certification with one and without."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from networks import SIGMA, Network, network
from ours import drawing, opened
from pages import Section, section, table
from timing import Run, interleaved
from torch import Tensor, nn

from smoothcert.denoise import DenoisedClassifier, EnergyEstimator, build_denoiser
from smoothcert.noise import build_noise
from smoothcert.smoothing import Sampling

SHAPE, BATCH, GOAL = (1, 28, 28), 127, 3.2
ROUNDS = 7
SAMPLES = 2000
FORMS = ("energy-residual", "energy-scalar")
SMALL = {"mlp": {}, "conv": {"width": 16}, "unet": {"width": 8}}
"""Networks, with the widths that convolutions have here: at their defaults a sample takes some hundred MFLOP."""
CERTIFIED = (("linear", "mlp"), ("lenet", "mlp"), ("lenet", "unet"))
"""A classifier, and the network of the residual energy in front of it."""


@dataclass(frozen=True)
class Pair:
    """A denoiser's two calls on the same rows."""

    forward: Run
    estimate: Run


def main(figures: dict[str, float]) -> Section:
    found: dict[str, float] = {}
    lines = [*_estimates(found), *_certified(found)]
    return section("Denoisers", lines, found)


def _estimates(found: dict[str, float]) -> list[str]:
    runs = {(form, name): _pair(form, name) for form in FORMS for name in SMALL}
    contenders = {f"{form} {name} {part}": getattr(pair, part)
                  for (form, name), pair in runs.items() for part in ("forward", "estimate")}
    for run in contenders.values():
        run()
    rates, rows = interleaved(contenders, ROUNDS), []
    for form, name in runs:
        key = f"{form} {name}"
        cost = rates.ratio(f"{key} forward", f"{key} estimate")
        found[f"{key} forward passes"] = cost.median
        rows.append([form, name, f"{rates.median(f'{key} estimate'):,.0f}", f"{cost:.2f}",
                     f"{GOAL}{'' if cost.median <= GOAL else ' missed'}"])
    told = (f"x_hat on {BATCH} MNIST-sized images without gradients, against phi alone; medians of interleaved rounds, "
            f"with the least and the greatest. `conv` has {SMALL['conv']['width']} channels and `unet` "
            f"{SMALL['unet']['width']}. One thread, processor time.")
    return [*table(["energy", "network", "x_hat a second", "forward passes of phi", "goal"], rows), told, ""]


def _certified(found: dict[str, float]) -> list[str]:
    rows = []
    for name, inside in CERTIFIED:
        plain = network(name)
        behind = _behind(plain, inside)
        noise, how = build_noise("grid", SIGMA), Sampling(engine="eager")
        voters = {"without": (plain, opened(plain, noise, how)), "with": (behind, opened(behind, noise, how))}
        contenders = {told: drawing(measured, voter, SAMPLES) for told, (measured, voter) in voters.items()}
        for run in contenders.values():
            run()
        rates = interleaved(contenders, ROUNDS)
        cost = rates.ratio("without", "with")
        found[f"{name} behind {inside} times"] = cost.median
        rows.append([name, f"energy-residual {inside}", f"{rates.median('without'):,.0f}",
                     f"{rates.median('with'):,.0f}", f"{cost:.1f}"])
    told = ("Samples a second of certification, end to end on grid noise, with the energy in front of the classifier "
            "and without, in the eager engine.")
    header = ["classifier", "denoiser", "without, a second", "with, a second", "times the cost"]
    return [*table(header, rows), told]


def _denoiser(form: str, name: str) -> EnergyEstimator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built: nn.Module = build_denoiser(form, SHAPE, SIGMA, network=name, **SMALL[name])
    assert isinstance(built, EnergyEstimator)
    return built.eval().requires_grad_(False)


def _pair(form: str, name: str) -> Pair:
    denoiser = _denoiser(form, name)
    rows = 0.5 + SIGMA * torch.randn(BATCH, *SHAPE, generator=torch.Generator().manual_seed(0))
    return Pair(_on(denoiser.energy, rows), _on(denoiser, rows))


def _on(call: Callable[[Tensor], Tensor], rows: Tensor) -> Run:
    def run() -> int:
        with torch.no_grad():
            call(rows)
        return len(rows)

    return run


def _behind(plain: Network, name: str) -> Network:
    composed = DenoisedClassifier(_denoiser("energy-residual", name), plain.model, SIGMA).eval()
    return replace(plain, name=f"{plain.name} behind {name}", model=composed)
