"""Five LeNets on MNIST as one classifier: ACR beside the members', and what early stopping saves."""

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from kept import in_points
from workplace import CLI, WORK, data_dir

from smoothcert.classifiers.ensembles import read_ensemble
from smoothcert.data import load_data
from smoothcert.noise import build_noise
from smoothcert.results.certified import Result
from smoothcert.results.compare import compare
from smoothcert.smoothing.engines import open_engine
from smoothcert.smoothing.engines.ensembles import EarlyStop
from smoothcert.smoothing.engines.registry import EngineSetting
from smoothcert.smoothing.passes import Passes
from smoothcert.smoothing.rows import HostRows, Segment
from smoothcert.smoothing.voters import NetworkVoter
from smoothcert.store.provenance import machine_line
from smoothcert.store.store import read_store

SIGMA, EPOCHS, EVERY, N, RADII = 0.5, 2, 100, 1000, (0.5, 0.75, 1.0)
SHAPE, ENGINE, WHOLE, BATCH, IMAGES, ROUNDS = (1, 28, 28), "mnn", "onnxruntime", 127, 10, 3
MEMBERS = [f"member-{seed}" for seed in range(5)]
ENSEMBLES = {
    "mean of logits": ("ensemble", MEMBERS),
    "mean of probabilities": ("soft-ensemble", MEMBERS),
    "the same, two of double weight": ("soft-ensemble", [MEMBERS[0], MEMBERS[0], MEMBERS[1], *MEMBERS[1:]]),
}


def main() -> str:
    out = WORK / "ensembles"
    for seed, name in enumerate(MEMBERS):
        command(f"train --data mnist --model lenet --sigma {SIGMA} --epochs {EPOCHS} --seed {seed} -o", out / name)
    named = {title: f"{kind}:{','.join(str(out / name) for name in names)}"
             for title, (kind, names) in ENSEMBLES.items()}
    runs = {**{name: str(out / name) for name in MEMBERS}, **named}
    for title, model in runs.items():
        command(f"certify {model} --n0 100 --n {N} --method cohen --every {EVERY} --seed 0 --workers 1 -o",
                out / f"certified {title}")
    results = {title: Result.of(read_store(out / f"certified {title}")) for title in runs}
    return page(results, {title: measure(named[title]) for title, (kind, _) in ENSEMBLES.items() if kind != "ensemble"})


def command(words: str, out: Path) -> None:
    subprocess.run([CLI, *words.split(), str(out), "--threads", "1", "--quiet", "--data-dir", str(data_dir())],
                   check=True, stdout=subprocess.DEVNULL)


@dataclass(frozen=True)
class Measured:
    """What the samples of one ensemble took, early stopping and not.

    Attributes:
        seconds: by way, the least of the rounds. judged: rows that each member judged with early stopping.
        equal: whether all ways gave the same counts.
    """

    seconds: dict[str, float]
    judged: list[int]
    samples: int
    equal: bool


def measure(spec: str) -> Measured:
    """Count the votes of the same noisy copies in three ways, interleaved: with early stopping, by member without it,
    and by one engine for the whole ensemble."""
    ensemble, _ = read_ensemble(spec)
    device = torch.device("cpu")
    early, full = (open_engine(ENGINE, ensemble, shape=SHAPE, batch=BATCH, device=device) for _ in range(2))
    assert isinstance(early.run, EarlyStop)
    assert isinstance(full.run, EarlyStop)
    full.run.stops = False
    whole = EngineSetting(ensemble, SHAPE, BATCH, device, "float32").build(WHOLE)
    passes = {"early": Passes(early.run, 10, early.batch or BATCH), "full": Passes(full.run, 10, full.batch or BATCH),
              "whole": Passes(whole, 10, BATCH)}
    data, noise = load_data("mnist", "test", data_dir=data_dir()), build_noise("grid", SIGMA, 255)
    voters = {way: NetworkVoter(HostRows(noise, SHAPE, 0, noise.formats[0], device), one, ensemble, 10, True)
              for way, one in passes.items()}
    indices = [int(k) for k in np.linspace(0, len(data) - 1, IMAGES)]
    seconds, counts = {way: [] for way in voters}, dict[str, list[np.ndarray]]()
    for number in range(ROUNDS + 1):
        for way, voter in voters.items():
            segments = [Segment(voter.subject(data.image(k), k), "estimate", 0, N) for k in indices]
            started = time.process_time()
            counts[way] = [voter.count([segment])[0] for segment in segments]
            if number:  # the first round warms up
                seconds[way].append(time.process_time() - started)
    equal = all(np.array_equal(counts[way], counts["early"]) for way in counts)
    judged = [rows // (ROUNDS + 1) for rows in early.run.judged]
    return Measured({way: min(found) for way, found in seconds.items()}, judged, N * len(indices), equal)


def page(results: dict[str, Result], measured: dict[str, Measured]) -> str:
    """The table of certificates, each row also as its difference from the best member, and that of times."""
    best = max(MEMBERS, key=lambda name: results[name].acr)
    lines = ["# Ensembles on MNIST\n", f"{machine_line()}, one thread.\n", "## Certificates\n",
             f"Five LeNets, sigma {SIGMA:g}, Gaussian augmentation, only {EPOCHS} epochs each (short trainings), seeds "
             f"0 to 4. Every {EVERY}th test image, n = {N:,}, alpha = .001, method cohen, seed 0. `above {best}`: "
             f"difference in ACR on the same images from the best member, with the standard error of its mean (an "
             f"estimate); differences of certified accuracy in points, with their 95% paired intervals.\n",
             f"| classifier | ACR | {' | '.join(f'at {r:g}' for r in RADII)} | ACR above {best} | "
             f"{' | '.join(f'at {r:g}' for r in RADII)} |", "|---" * (3 + 2 * len(RADII)) + "|"]
    for title, result in results.items():
        cells = [title, f"{result.acr:.3f}", *(f"{100 * a:.1f}" for a in result.at(RADII, 0.05).accuracy)]
        if title != best:
            found = compare(result, results[best], RADII, 0.05)
            cells.append(f"{result.acr - results[best].acr:+.3f} ({found.acr_error or 0.0:.3f})")
            cells += map(in_points, found.differences)
        lines.append("| " + " | ".join([*cells, *[""] * (3 + 2 * len(RADII) - len(cells))]) + " |")
    some = next(iter(measured.values()))
    lines += ["", "## Early stopping\n",
              f"{some.samples:,} noisy copies of {IMAGES} test images, drawn, judged and counted in three ways, "
              f"interleaved: seconds of the processor, the least of {ROUNDS} rounds. With early stopping and in "
              f"`full`, where every member judges every copy, each member has an engine {ENGINE} of its own; in `one "
              f"engine` the whole ensemble is one network in {WHOLE} ({ENGINE} rounds its logarithms too coarsely and "
              f"is refused). `judged`: per cent of the copies that each member judged with early stopping; `in all`: "
              f"the share of the passes of `full` that these are. The seconds follow it, but for other load on the "
              f"machine.\n",
              "| ensemble | with early stopping, s | full, s | one engine, s | of full | of one engine | judged | "
              "in all, of full | same counts |", "|---" * 9 + "|"]
    for title, found in measured.items():
        early, full, whole = (found.seconds[way] for way in ("early", "full", "whole"))
        shares = ", ".join(f"{100 * rows / found.samples:.1f}" for rows in found.judged)
        in_all = sum(found.judged) / len(found.judged) / found.samples
        lines.append(f"| {title} | {early:.2f} | {full:.2f} | {whole:.2f} | {early / full:.2f} | {early / whole:.2f} | "
                     f"{shares} | {in_all:.2f} | {'yes' if found.equal else 'NO'} |")
    lines += ["", "Five members of one weight need three of them for every copy: no exact rule can stop before more "
              "than half of the weight has judged. See [ensembles](../ensembles.md#early-stopping)."]
    return "\n".join(lines) + "\n"
