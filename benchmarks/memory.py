"""Peak memory of certification runs into a store, above the model (Linux)."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from pages import Section, section, table

CASES = (
    ("linear", "grid", "eager", 1000, 1), ("linear", "grid", "eager", 1_000_000, 1),
    ("linear", "grid", "eager", 100, 2000), ("linear", "gaussian", "auto", 1000, 1),
    ("linear", "gaussian", "auto", 1_000_000, 1), ("linear", "gaussian", "auto", 1000, 2000),
    ("cnn", "grid", "eager", 1000, 1), ("cnn", "grid", "onnxruntime", 1000, 1), ("cnn", "grid", "openvino", 1000, 1),
    ("resnet110", "grid", "eager", 200, 1), ("resnet110", "grid", "onnxruntime", 200, 1),
    ("resnet110", "grid", "openvino", 200, 1),
)
"""Network, noise, engine, n, images."""


def main(figures: dict[str, float]) -> Section:
    rows, found = [], dict[str, float]()
    for name, noise, engine, n, images in CASES:
        model, peak = in_a_process("certified", name, noise, engine, n, images)
        rows.append([name, noise, engine, f"{n:,}", f"{images:,}", *(f"{m:.0f}" for m in (model, peak, peak - model))])
        found[f"MiB above {name}, {noise}, {engine}, {n}, {images}"] = peak - model
    model, peak = in_a_process("tried", "cnn")
    rows.append(["cnn", "grid", "auto, all engines tried", "", "", *(f"{m:.0f}" for m in (model, peak, peak - model))])
    found["MiB above cnn, all engines tried"] = peak - model
    header = ["network", "noise", "engine", "n", "images", "with the model loaded", "peak", "above the model"]
    notes = ["Resident memory of whole processes, one for each line: after Python, torch, the network and its first "
             "pass, and at its peak (VmHWM) in a certification into a store: data, engine, noise, counts and records. "
             "The last line only opens the engines, as the first long run with a network does."]
    return section("Peak memory, MiB", [*table(header, rows), *notes], found)


def in_a_process(*arguments: object) -> list[float]:
    """What a function of this module returns in a process of its own."""
    done = subprocess.run([sys.executable, __file__, *map(str, arguments)], check=True, stdout=subprocess.PIPE,
                          text=True)
    return json.loads(done.stdout.splitlines()[-1])


def certified(name: str, noise: str, engine: str, n: str, images: str) -> list[float]:
    """Certify; [MiB with the model loaded, MiB at the peak]."""
    from networks import CLASSES, SHAPES, SIGMA
    from stored import model_spec, random_images

    from smoothcert.classifiers.classifier import open_classifier
    from smoothcert.runs.certify import certify
    from smoothcert.runs.options import CertifyConfig

    with tempfile.TemporaryDirectory() as folder:
        options = {"model": model_spec(name), "data": random_images(name, int(images), Path(folder)), "sigma": SIGMA,
                   "num_classes": CLASSES, "n": int(n), "engine": engine, "noise": noise, "seed": 0, "threads": 1}
        loaded = open_classifier(model_spec(name), SHAPES[name], CLASSES)
        before = from_here()
        certify(CertifyConfig.parse({**options, "out": f"{folder}/store"}))
        del loaded
        return [before, memory("VmHWM")]


def tried(name: str) -> list[float]:
    """Let `auto` try every engine; [MiB with the model loaded, MiB at the peak]."""
    import torch
    from networks import SIGMA, network
    from ours import opened

    from smoothcert.noise import build_noise

    measured = network(name)
    with torch.no_grad():
        measured.model(torch.from_numpy(measured.image[None]))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # nothing is known of this machine yet
        before = from_here()
        voter = opened(measured, build_noise("grid", SIGMA))
        del voter
        return [before, memory("VmHWM")]


def from_here() -> float:
    """Start the peak anew; the memory now, in MiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def memory(entry: str) -> float:
    """An entry of this process's status, in MiB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[entry].split()[0]) / 1024


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
