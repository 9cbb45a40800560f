"""Fast and the same: engines, spaces, worker counts and early stopping against the plain way."""

import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from workplace import CLI, data_dir, fresh

from smoothcert import build_model
from smoothcert.noise import build_noise
from smoothcert.smoothing import Sampling, Segment, open_voter
from smoothcert.smoothing.engines import open_engine
from smoothcert.smoothing.voters import CLOSE_CALL
from smoothcert.store.store import read_store

ENGINES = ("eager", "compile", "onnxruntime", "openvino", "mnn")
RADII = (0.25, 0.5, 0.75, 1.0)
INPUTS = 4000


def main() -> str:
    return "\n\n".join(["# Fast and the same", engines(), spaces(), processes(), decided()]) + "\n"


def engines() -> str:
    """Votes of a ResNet-20 with perturbed batch statistics, engine by engine."""
    torch.manual_seed(0)
    model = build_model("resnet20", (3, 32, 32), 10).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
    generator = torch.Generator().manual_seed(1)
    inputs = (0.5 + 0.5 * torch.randn(INPUTS, 3, 32, 32, generator=generator)).split(50)
    with torch.no_grad():
        plain = torch.cat([model(part) for part in inputs])
    first, second = plain.topk(2, dim=1).values.unbind(1)
    close = first - second <= CLOSE_CALL * plain.abs().amax(1)
    lines = ["## Engines\n",
             f"ResNet-20 (random weights, perturbed batch statistics) on {INPUTS:,} noisy inputs, against the plain "
             f"model; {int(close.sum())} of them are close calls, which the plain model judges in every engine.\n",
             "| engine | votes that differ | of them no close calls | largest error of a logit / largest logit |",
             "|---|---|---|---|"]
    for name in ENGINES:
        engine = open_engine(name, model, shape=(3, 32, 32), batch=50, device=torch.device("cpu"))
        with torch.no_grad():
            logits = torch.cat([engine.run(part) for part in inputs])
        differ = logits.argmax(1) != plain.argmax(1)
        error = float(((logits - plain).abs().amax(1) / plain.abs().amax(1)).max())
        lines.append(f"| {engine.name} | {int(differ.sum())} | {int((differ & ~close).sum())} | {error:.1e} |")
    return "\n".join(lines)


def spaces() -> str:
    """Two-sample tests of counts drawn in a small space against counts drawn in pixels."""
    shape, images = (1, 28, 28), np.random.default_rng(0).random((20, 1, 28, 28)).astype(np.float32)
    lines = ["## Smaller spaces\n",
             "Chi-square tests of homogeneity, 20 images, n = 100,000 in each space; p-values are uniform if the law "
             "is the same (Kolmogorov-Smirnov).\n", "| network | space | least p | KS p |", "|---|---|---|---|"]
    for name, classes in (("linear", 10), ("linear", 2), ("mlp", 10)):
        torch.manual_seed(0)
        model = build_model(name, shape, classes).eval()
        small, pixels = (open_voter(model, build_noise("gaussian", 0.5), classes, shape, 0, how=Sampling(space=wanted))
                         for wanted in ("auto", "pixels"))
        drawn = [np.stack([voter.count([Segment(voter.subject(x, k), "estimate", 0, 100_000)])[0]
                           for k, x in enumerate(images)]) for voter in (small.voter, pixels.voter)]
        tests = [stats.chi2_contingency(pair[:, pair.sum(axis=0) > 20]).pvalue for pair in np.stack(drawn, axis=1)]
        uniform = stats.kstest(tests, "uniform").pvalue
        lines.append(f"| {name}, K = {classes} | {small.space} | {min(tests):.3f} | {uniform:.2f} |")
    return "\n".join(lines)


def processes() -> str:
    """One run by every engine and worker count, and killed: shards equal byte for byte."""
    work = fresh("fast")
    _run("train", "--data", "digits", "--model", "cnn", "--sigma", "0.25", "--epochs", "2", "-o", str(work / "m"))
    command = ["certify", str(work / "m"), "--radii", "0.1,0.25", "--n-max", "5000", "--every", "3", "--seed", "0"]
    _run(*command, "--engine", "plain", "-o", str(work / "plain"))
    reference = _shards(work / "plain")
    lines = ["## Engines, workers, kills\n",
             "The small CNN, 120 digits, radii .1 and .25 decided with at most 5,000 samples; shards compared byte for "
             "byte with those of the plain model in one process.\n", "| run | shards equal |", "|---|---|"]
    for name, options in {
        **{f"engine {name}": ["--engine", name] for name in ENGINES}, "2 workers": ["--workers", "2"],
        "batches of 7": ["--batch-size", "7"], "2 workers, onnxruntime": ["--workers", "2", "--engine", "onnxruntime"],
    }.items():
        out = work / name.replace(" ", "-").replace(",", "")
        _run(*command, *options, "-o", str(out))
        lines.append(f"| {name} | {_equal(out, reference)} |")
    for name, victim in (("a worker killed, five times", "worker"), ("all killed, five times", "driver")):
        kills = _killed([CLI, *command, "--workers", "2", "--quiet", "-o", str(work / victim)], victim)
        lines.append(f"| {name} ({kills} while sampling) | {_equal(work / victim, reference)} |")
    return "\n".join(lines)


def decided() -> str:
    """Certified accuracy at decided radii against a fixed number of samples, on all MNIST test images."""
    work, data = fresh("fast-decided"), ["--data", "mnist", "--data-dir", str(data_dir())]
    _run("train", *data, "--model", "linear", "--sigma", "0.5", "--epochs", "2", "-o", str(work / "m"))
    lines = ["## Stopping early\n",
             "Linear classifier, all 10,000 MNIST test images, sigma .5, gaussian noise (logit space), n or n-max = "
             "100,000; certified accuracy in percent, and samples an image. Fixed n by `cohen` is recertified from the "
             "votes of `two-sided`.\n",
             "| method | design | " + " | ".join(f"r = {r:g}" for r in RADII) + " | samples |",
             "|---|---|" + "---|" * (len(RADII) + 1)]
    for method in ("two-sided", "cohen"):
        radii = ["--radii", ",".join(map(str, RADII)), "--n-max", "100000"]
        for design, options in {"fixed n": ["--n", "100000"], "radii": radii, "radii, labels known": [*radii,
                                "--labels-known"], "curve-loss .01": ["--curve-loss", "0.01", "--n-max", "100000"],
                                }.items():
            out = work / f"{method}-{design.replace(' ', '-')}"
            if (method, design) == ("cohen", "fixed n"):  # of the same votes
                _run("recertify", str(work / "two-sided-fixed-n"), "--method", method, "-o", str(out))
            else:
                _run("certify", str(work / "m"), *data, "--noise", "gaussian", "--seed", "0", "--method", method,
                     *options, "-o", str(out))
            store = read_store(out)
            claims = [100 * (store.correct & (store.column("radius") >= r)).mean() for r in RADII]
            drawn = sum(store.counts(stage).sum() for stage in ("select", "pilot", "estimate")) / len(store.records)
            lines.append(f"| {method} | {design} | {' | '.join(f'{c:.2f}' for c in claims)} | {drawn:,.0f} |")
    return "\n".join(lines)


def _killed(command: list[str], victim: str) -> int:
    """Run a command to its end through five kills; how many of them found it sampling."""
    rng, hits, journal = np.random.default_rng(1), 0, Path(command[-1]) / "journal.jsonl"
    for _ in range(5):
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        before = len(journal.read_text().splitlines()) if journal.exists() else 0
        while child.poll() is None and (not journal.exists() or len(journal.read_text().splitlines()) <= before):
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.3))
        if child.poll() is None:
            hits += 1
            crew = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
            os.kill(int(crew[-1]) if victim == "worker" and crew else child.pid, signal.SIGKILL)
        child.wait()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return hits


def _equal(folder: Path, reference: dict[str, bytes]) -> str:
    return "yes" if _shards(folder) == reference else "NO"


def _shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


def _run(*arguments: str) -> None:
    subprocess.run([CLI, *arguments, "--quiet"], check=True, stdout=subprocess.DEVNULL)
