"""Two processes under torchrun train as one does: equal gradients, and equal weights after SIGKILL of any of them.

As a script, under torchrun, it is one of the two processes that compute gradients: `evidence/torchrun.py FOLDER`.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from workplace import fresh

from smoothcert.data import load_data
from smoothcert.denoise import DenoisedClassifier, build_denoiser
from smoothcert.models import build_model
from smoothcert.objectives import OBJECTIVES, build_objective
from smoothcert.progress import Phase, Reporter
from smoothcert.training.batches import TrainingSet
from smoothcert.training.distributed import Ranks, join_processes
from smoothcert.training.loop import Loop
from smoothcert.training.options import TrainConfig
from smoothcert.training.state import TrainState

CPU = torch.device("cpu")
SIGMA, SHAPE, IMAGES, BATCH = 0.25, (1, 8, 8), 99, 33
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
OPTIONS = {"smoothadv": {"m": 2, "warmup": 0}, "adre": {"k": 4, "eps": 0.5, "warmup": 0}, "xhat": {"steps": 4, "m": 2},
           "smoothmix": {"steps": 2, "warmup": 0}, "cat-rs": {"m": 3, "steps": 2}}
KILLED = {
    "smoothadv": ["--model", "cnn", "--ema", "0.99", "--augment", "crop-flip"],
    "nal": ["--model", "cnn", "--optimizer", "adam", "--objective-option", "K=2"],
    "deen": ["--model-option", "network=mlp", "--model-option", "width=512", "--batch-size", "8"],
}


class Precise(nn.Module):
    """A classifier that counts in float64 on float32 images."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network.double()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images.double())


class Recording(torch.optim.SGD):
    """Keeps the gradients of every step, and moves nothing."""

    def __init__(self, network: nn.Module):
        super().__init__(network.parameters(), lr=1.0)
        self.seen: list[torch.Tensor] = []

    def step(self, closure=None):
        found = [p.grad for p in self.param_groups[0]["params"] if p.grad is not None]
        self.seen.append(torch.cat([gradient.flatten() for gradient in found]).double().clone())


def networks(objective: str) -> dict[str, nn.Module]:
    """What an objective trains here: a network without BatchNorm and one with it, in float32 and in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if OBJECTIVES[objective].trains == "denoiser":
            name = "energy-residual" if objective == "deen" else "direct"
            return {"float32": build_denoiser(name, SHAPE, SIGMA, network="mlp", width=64, depth=2)}
        dense, normed = ([build_model(name, input_shape=SHAPE, num_classes=10, **options) for _ in range(2)]
                         for name, options in (("mlp", {"hidden": [64], "activation": "silu"}), ("cnn", {"width": 8})))
    return {"float32": dense[0], "float64": Precise(dense[1]), "BatchNorm, float32": normed[0],
            "BatchNorm, float64": Precise(normed[1])}


def gradients(objective: str, network: nn.Module, ranks: Ranks) -> list[torch.Tensor]:
    """Those of the steps of an epoch: 98 digits in batches of 33, the last one of 32."""
    data = load_data("digits", "train")
    network = ranks.synchronise_batchnorm(network, CPU)
    given = network
    if objective == "xhat":
        with torch.random.fork_rng():
            torch.manual_seed(1)
            energy = build_denoiser("energy-residual", SHAPE, SIGMA, network="mlp", width=32, depth=1)
        given = DenoisedClassifier(energy.requires_grad_(False), network, SIGMA)
    optimizer = Recording(network)
    state = TrainState(network, ranks.wrap(given), optimizer, torch.amp.GradScaler("cpu", enabled=False), None)
    judge = {"classifier": networks(objective)["float32"]} if objective == "cat-rs" else {}
    config = TrainConfig.parse({"objective": objective, "sigma": SIGMA, "batch_size": BATCH, "lr": 1.0,
                                  "augment": "crop-flip", **dict.fromkeys(judge, "unused"), "out": "unused"})
    sets = [TrainingSet("", data, data.labels, np.arange(IMAGES - 1))]
    Loop(config, build_objective(objective, SIGMA, **OPTIONS.get(objective, {}), **judge), sets, np.arange(1), state,
         ranks, CPU, Phase(Reporter(), "training", None, "steps"))._fit(0)
    return optimizer.seen


def all_gradients(ranks: Ranks) -> dict[tuple[str, str], list[torch.Tensor]]:
    return {(objective, kind): gradients(objective, network, ranks)
            for objective in OBJECTIVES for kind, network in networks(objective).items()}


def compared(work: Path) -> list[str]:
    """A row for each objective: the largest difference of two processes' gradients, over the largest entry."""
    subprocess.run([*TORCHRUN, __file__, str(work)], check=True, stderr=subprocess.DEVNULL)
    one, two = all_gradients(Ranks(0, 1)), torch.load(work / "gradients.pt", weights_only=False)
    kinds = ["float32", "float64", "BatchNorm, float32", "BatchNorm, float64"]
    rows = [f"| objective | {' | '.join(kinds)} |", f"|---|{'---|' * len(kinds)}"]
    for objective in OBJECTIVES:
        cells = []
        for kind in kinds:
            pairs = list(zip(one.get((objective, kind), []), two.get((objective, kind), []), strict=True))
            cells.append(f"{max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs):.0e}" if pairs else "")
        rows.append(f"| {objective} | {' | '.join(cells)} |")
    return rows


def command(objective: str, out: Path) -> list[str]:
    return [*TORCHRUN, "--max-restarts", "1", "-m", "smoothcert", "train", "--data", "digits", "--sigma", str(SIGMA),
            "--objective", objective, "--epochs", "5", "--max-images", "1000", *KILLED[objective], "--device", "cpu",
            "--threads", "1", "--quiet", "-o", str(out)]


def workers(agent: int) -> list[int]:
    """The process ids of ranks 0 and 1."""
    children = [int(word) for path in Path(f"/proc/{agent}/task").glob("*/children")
                for word in path.read_text().split()]
    ranks = {}
    for child in children:
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        ranks.update({int(v[5:]): child for v in variables if v.startswith(b"RANK=")})
    return [ranks[rank] for rank in sorted(ranks)]


def gone(pids: list[int]) -> bool:
    paths = [Path(f"/proc/{pid}/cmdline") for pid in pids]
    return not any(path.exists() and path.read_bytes() for path in paths)


def epochs(out: Path) -> int:
    path = out / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def until(holds: Callable[[], bool]) -> float:
    """Wait; the seconds it took. Gives up after ten minutes."""
    started = time.perf_counter()
    while not holds():
        time.sleep(0.02)
        if time.perf_counter() - started > 600:
            raise TimeoutError("the run did not get there in ten minutes")
    return time.perf_counter() - started


def struck(objective: str, out: Path, rank: int, delays: np.ndarray) -> tuple[list[int], float]:
    """Kill one rank in its second epoch or after, let torchrun start both again, and two epochs later kill everything.

    Returns the epochs that were finished at the kills, and how many seconds the other rank outlived the first.
    """
    agent = subprocess.Popen(command(objective, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: epochs(out) >= 1)
    time.sleep(delays[0])
    ranks, finished = workers(agent.pid), [epochs(out)]
    os.kill(ranks[rank], signal.SIGKILL)
    outlived = until(lambda: gone(ranks))
    until(lambda: epochs(out) >= min(finished[0] + 2, 4) or agent.poll() is not None)
    time.sleep(delays[1])
    ranks = workers(agent.pid)
    for pid in (agent.pid, *ranks):
        os.kill(pid, signal.SIGKILL)
    agent.wait()
    until(lambda: gone(ranks))
    return [*finished, epochs(out)], outlived


def same(one: Path, other: Path) -> bool:
    """Whether best and last weights and the card agree, bit for bit."""
    last = sorted(path.name for path in (one / "checkpoints").iterdir())[-1]
    names = ["best.safetensors", f"checkpoints/{last}/weights.safetensors", "model.json"]
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def killed(work: Path) -> list[str]:
    rng = np.random.default_rng(0)
    rows = ["| objective | first killed | epochs finished at the two kills | the other rank ended after | equal |",
            "|---|---|---|---|---|"]
    for number, objective in enumerate(KILLED):
        whole, broken = work / objective, work / f"{objective}-killed"
        subprocess.run(command(objective, whole), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        rank = number % 2
        finished, outlived = struck(objective, broken, rank, rng.uniform(0, 0.3, size=2))
        subprocess.run(command(objective, broken), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        rows.append(f"| {objective} | rank {rank} | {', '.join(map(str, finished))} of 5 | {outlived:.1f} s | "
                    f"{'yes' if same(whole, broken) else 'NO'} |")
    return rows


def main() -> str:
    torch.set_num_threads(1)
    work = fresh("torchrun")
    return "\n".join([
        "# Training on several processes\n",
        f"`torchrun --nproc-per-node 2 -m smoothcert train ...` on the digits, sigma {SIGMA}, on one machine's "
        f"processors.\n",
        "## Gradients\n",
        "The gradients of an epoch's steps (98 images in batches of 33, 33 and 32, crops, flips and noise on) by two "
        "processes against those of one: the largest difference, over the largest entry of the gradient, over all "
        "steps. The networks are a dense one and one with BatchNorm; float32 ones differ by the order of sums, which "
        "an inner attack carries on. That of trades starts where its divergence is flat, and there rounding decides "
        "where it goes.\n",
        *compared(work),
        "\n## Killed and resumed\n",
        "Each run was killed twice with SIGKILL in the middle of an epoch: first one rank, whereupon torchrun "
        "(`--max-restarts 1`) started both again, then torchrun and both ranks at once, whereupon the same command was "
        "started again. Equal: best and last weights and the model's card have the bytes of an uninterrupted run's.\n",
        *killed(work),
    ]) + "\n"


if __name__ == "__main__":
    torch.set_num_threads(1)
    with join_processes(CPU) as these:
        result = all_gradients(these)
        if these.is_main:
            torch.save(result, Path(sys.argv[1]) / "gradients.pt")
