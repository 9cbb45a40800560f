"""Routing on the digits: two sigmas and a router, by a user's commands; 300 attacks inside the composed radii."""

import subprocess
from pathlib import Path

import numpy as np
import torch
from workplace import CLI, fresh

import smoothcert
from smoothcert.classifiers.folder import read_network
from smoothcert.results.base import Points
from smoothcert.results.best import CertifiedRuns
from smoothcert.results.certified import Result
from smoothcert.store.provenance import machine_line

SIGMAS, ROUTER, RADII = ("0.25", "0.5"), "0.25", (0.0, 0.1, 0.25, 0.4, 0.5, 0.65, 0.8)
IMAGES, SAMPLES, STEPS, COPIES = 100, 1000, 10, 16
"""Of the attacks: images, samples that certify and predict each, steps, and noisy copies behind each gradient."""
INSIDE = 0.999
"""Of the composed radius, that an attack moves."""


def main() -> str:
    work, shared = fresh("routing"), ["--batch-size", "64", "--quiet"]

    def run(*words: str) -> str:
        return subprocess.run([CLI, *words], check=True, cwd=work, capture_output=True, text=True).stdout

    for sigma in SIGMAS:
        run("train", "--data", "digits", "--model", "mlp", "--sigma", sigma, "--epochs", "20", "--seed", "0", "-o",
            f"m{sigma}", *shared)
        run("certify", f"m{sigma}", "--split", "train", "--n", "1000", "--seed", "0", "-o", f"train{sigma}", "-q")
        run("certify", f"m{sigma}", "--n", "2000", "--seed", "1", "-o", f"test{sigma}", "-q")
    labels = run("label-best", *(f"train{sigma}" for sigma in SIGMAS), "-o", "best.json")
    run("train", "--data", "labels:best.json", "--model", "mlp", "--sigma", ROUTER, "--epochs", "30", "--seed", "0",
        "-o", "router", *shared)
    run("certify", "router", "--data", "digits", "--n", "2000", "--seed", "2", "-o", "routes", "-q")
    run("route", "routes", *(f"{k}=test{sigma}" for k, sigma in enumerate(SIGMAS)), "-o", "routed")
    stores = {name: smoothcert.read_store(str(work / name)) for name in ("routed", *(f"test{s}" for s in SIGMAS))}
    runs = CertifiedRuns.of([Result.of(store, name) for name, store in stores.items()],
                            Points(RADII, envelopes=True))
    alone = CertifiedRuns.of(list(runs.results[1:]), Points(RADII, envelopes=True))
    rows = [(one.name, one.acr, at.accuracy) for one, at in zip(runs.results, runs.at, strict=True)]
    rows.append(("oracle envelope of the two", None, alone.envelopes[0].values["accuracy"]))
    lines = ["# Routing on the digits\n", f"{machine_line()}\n",
             f"MLPs at sigma {' and '.join(SIGMAS)}, 20 epochs each; all training images labelled by the one that "
             f"certifies each furthest; an MLP at sigma {ROUTER} trained on these labels for 30 epochs, as the router; "
             f"all test images, n = 2,000. {labels.splitlines()[0]}; {labels.splitlines()[1]}. "
             f"{stores['routed'].provenance.notes[-1]}.\n",
             "Certified accuracy, %; the composed classifier at level 0.002, the others at 0.001:\n",
             f"| | ACR | {' | '.join(f'{radius:g}' for radius in RADII)} |", "|---" * (2 + len(RADII)) + "|"]
    lines += [f"| {name} | {'' if acr is None else f'{acr:.3f}'} | "
              f"{' | '.join(f'{100 * value:.1f}' for value in accuracy)} |" for name, acr, accuracy in rows]
    return "\n".join([*lines, "", attack(work)]) + "\n"


def attack(work: Path) -> str:
    """300 attacks: PGD on the mean softmax of the chosen classifier, of the router, and a random direction."""
    images = smoothcert.load_data("digits", "test")
    router, *classifiers = (smoothcert.SmoothedClassifier(
        read_network(work / name)[0].eval(), sigma=float(sigma), num_classes=10, seed=5, bounds=None, levels=16)
        for name, sigma in (("router", ROUTER), *((f"m{sigma}", sigma) for sigma in SIGMAS)))
    f = smoothcert.SmoothedRouter(router, classifiers)
    torch.manual_seed(0)
    attacks = changed = abstained = other = 0
    for index in range(len(images)):
        x = torch.from_numpy(images.image(index))
        found = f.certify(x, n=SAMPLES, index=index)
        if found.prediction is None or attacks == 3 * IMAGES:
            continue
        for victim, kept in ((classifiers[found.route], found.prediction), (router, found.route), (None, 0)):
            moved = x + move(victim, x, kept, INSIDE * found.radius)
            answer = f.predict(moved, n=SAMPLES)
            attacks += 1
            abstained += answer.prediction is None
            changed += answer.prediction not in (None, found.prediction)
            other += answer.route not in (None, found.route)
    assert attacks == 3 * IMAGES
    return (f"{attacks} attacks at {INSIDE} of the composed radius of {IMAGES} certified images (PGD of {STEPS} steps "
            f"on {COPIES} noisy copies of the chosen classifier, the same on the router, and a random direction): "
            f"{changed} changed the answer, {other} the router's; {abstained} made it abstain, which is no change. At "
            f"level 0.002 {0.002 * attacks:.1f} are to be expected from failed certificates at most, and as many again "
            f"from PREDICT.")


def move(victim, x: torch.Tensor, kept: int, size: float) -> torch.Tensor:
    """A perturbation of l2 norm `size`: away from the class `kept` of a smoothed classifier, or of random direction."""
    delta = torch.randn_like(x)
    delta *= size / delta.norm()
    for _ in range(STEPS if victim is not None else 0):
        delta.requires_grad_(True)
        lost = -victim.soft((x + delta).unsqueeze(0), COPIES)[0, kept].log()
        (slope,) = torch.autograd.grad(lost, delta)
        with torch.no_grad():
            delta = delta + size / 4 * slope / slope.norm().clamp_min(1e-12)
            delta = delta * (size / delta.norm())
    assert np.isclose(float(delta.norm()), size, rtol=1e-4)
    return delta.detach()
