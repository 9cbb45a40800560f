"""The ResNets' time to certified accuracy, as a product: stopping times replayed on published logs, times speeds.

Sequential plans run on votes drawn with the p_A of every image of Cohen et al.'s CIFAR-10 logs (`evidence/replay.py`);
the mean number of samples they take is multiplied by the seconds a sample that `speed` measured.
"""

import sys
from pathlib import Path

import numpy as np
from pages import Section, section, table
from reference import ALPHA, N0, N

sys.path.append(str(Path(__file__).parents[1] / "evidence"))
from replay import curve_replay, logs_dir, populations, radii_replay

RADIUS, LOSS, TIMES = 0.5, 0.01, 20
SIGMAS = (0.25, 0.5)
NETWORKS = ("resnet20", "resnet110")
INT8 = "int8 openvino over reference"
"""The name of an integer network's figure (part `precisions`)."""


def main(figures: dict[str, float]) -> Section:
    title = "ResNets: time to certified accuracy, a product"
    folder = logs_dir()
    if folder is None:
        return section(title, ["Skipped: SMOOTHCERT_LOGS_DIR names no folder with the published logs."], {})
    if any(f"{name} {kind}" not in figures for name in NETWORKS for kind in ("ratio", "reference", "ours")):
        return section(title, ["Skipped: the ResNets' speed is not measured yet (part `speed`)."], {})
    populated, rng = populations(folder), np.random.default_rng(0)
    samples: dict[str, list[float]] = {"radius": [], "curve": []}
    for sigma in SIGMAS:
        p = populated["cifar10", sigma]
        samples["radius"].append(radii_replay(p, sigma, (RADIUS,), TIMES, rng)[0])
        samples["curve"].append(curve_replay(p, LOSS, TIMES, rng)[0])
    rows, found = [], dict[str, float]()
    for design, drawn in samples.items():
        mean = float(np.mean(drawn))
        for told, n in (*zip((f"sigma {sigma}" for sigma in SIGMAS), drawn, strict=True), ("both", mean)):
            rows.append([design, told, f"{n:,.0f}", f"{(N0 + N) / n:.3g}",
                         *(_times(figures, name, n) for name in NETWORKS)])
        found |= {f"{name} {design}": (N0 + N) / mean * figures[f"{name} ratio"] for name in NETWORKS}
        found |= {f"{name} int8 {design}": (N0 + N) / mean * figures[f"{name} {INT8}"] for name in NETWORKS
                  if f"{name} {INT8}" in figures}
    told = "s plain, s ours, ratio"
    header = ["design", "logs", "samples an image", "fewer by", *(f"{name}: {told}" for name in NETWORKS)]
    integers = [f"{name} {design} {found[f'{name} int8 {design}']:,.3g}" for design in samples for name in NETWORKS
                if f"{name} int8 {design}" in found]
    if integers:
        integers = [f"In int8 (OpenVINO, part `precisions`), the ratios are {', '.join(integers)}.", ""]
    return section(title, [*table(header, rows), *integers, *notes()], found)


def _times(figures: dict[str, float], name: str, samples: float) -> str:
    plain, ours = (N0 + N) / figures[f"{name} reference"], samples / figures[f"{name} ours"]
    return f"{plain:,.0f}, {ours:,.3g}, {(N0 + N) / samples * figures[f'{name} ratio']:.3g}"


def notes() -> list[str]:
    return [
        "No trained ResNet is at hand, so this is no measurement but a product: the mean number of samples an image "
        "that a sequential design takes on votes drawn with the logged p_A of Cohen et al.'s ResNet-110 on CIFAR-10 "
        f"({TIMES} times over the logs' images), and the speed above. `radius`: one radius, {RADIUS}; `curve`: at most "
        f"{LOSS:.0%} of the radius lost; method cohen, n_max {N:,}, alpha {ALPHA}. Ratios are samples saved times the "
        "median ratio of speeds."
    ]
