"""What an epoch of `smoothcert train` takes with its defaults, with several processes, and with bf16.

All are runs of the command line, one after the other in every round, of which the second epoch counts. With BEFORE, the
folder of another checkout, the defaults are those of that build.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pages import Section, section, table
from timing import Rates

from smoothcert.machine import has_bf16_units, processors

IMAGES, ROUNDS = 2560, 3
NETWORK = '''"""airbench, as a factory that every build takes."""
from torch import nn


def build():
    layers, channels = [nn.Conv2d(3, 24, 2), nn.ReLU()], 24
    for width in (64, 256, 256):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.MaxPool2d(2),
                   nn.ReLU(), nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(channels, 10))
'''


def main(figures: dict[str, float]) -> Section:
    workers, units = str(min(processors(), 4)), has_bf16_units(torch.device("cpu"))
    contenders = {"defaults": [], f"{workers} workers": ["--workers", workers]}
    if units:
        contenders |= {"bf16": ["--autocast", "bf16"],
                       f"{workers} workers, bf16": ["--workers", workers, "--autocast", "auto"]}
    rates = Rates({name: [] for name in contenders})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "network.py").write_text(NETWORK)
        pixels = np.random.default_rng(0).integers(256, size=(IMAGES, 3, 32, 32), dtype=np.uint8)
        columns = {"image": list(pixels.reshape(IMAGES, -1)), "label": np.arange(IMAGES) % 10,
                   "shape": [[3, 32, 32]] * IMAGES}
        pq.write_table(pa.table(columns), folder / "train.parquet")
        for number in range(ROUNDS):
            for contender, options in contenders.items():
                seconds = epoch(folder, f"{contender}-{number}", options, before=contender == "defaults")
                rates.rounds[contender].append(IMAGES / seconds)
    found = {f"epoch {name}": 1 / rates.ratio(name, "defaults").median for name in contenders if name != "defaults"}
    rows = [[name, f"{1000 / rates.median(name):.2f}", f"{1 / rates.ratio(name, 'defaults').median:.2f}"]
            for name in contenders]
    lines = table(["", "ms an image", "of the defaults' time"], rows)
    best = min(value for name, value in found.items() if units == ("bf16" in name))
    goal = 0.45 if units else 0.9
    lines += [f"airbench (2.0 million parameters), {IMAGES} random 32x32 images an epoch, batch 256, the second of two "
              f"epochs, wall clock. Defaults: float32, one process, all of its {processors()} threads. The best "
              f"takes {best:.2f} of their time; goal: at most {goal}{'' if best <= goal else ', missed'}."]
    return section("An epoch of training", lines, found)


def epoch(folder: Path, name: str, options: list[str], before: bool) -> float:
    """Seconds of the second epoch of a run in a process of its own."""
    out = folder / name.replace(" ", "-").replace(",", "")
    source = Path(os.environ["BEFORE"]) / "src" if before and "BEFORE" in os.environ else \
        Path(__file__).parents[1] / "src"
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    subprocess.run([sys.executable, "-m", "smoothcert", "train", "--data", f"parquet:{folder / 'train.parquet'}",
                    "--model", f"{folder / 'network.py'}:build", "--sigma", "0.25", "--epochs", "2", "--augment",
                    "crop-flip", "--quiet", "-o", str(out), *options],
                   check=True, stdout=subprocess.DEVNULL, env={**environment, "PYTHONPATH": str(source)})
    return float(json.loads((out / "metrics.jsonl").read_text().splitlines()[1])["seconds"])
