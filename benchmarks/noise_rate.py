"""What noise costs: nanoseconds a value, for every format and kind, and end to end beside a network."""

import numpy as np
from networks import SIGMA, network
from ours import drawing, opened
from pages import Section, section, table
from timing import Run, interleaved

from smoothcert.noise import FORMATS, NOISES, build_noise, open_stream

ROWS, ROUNDS, DIMENSIONS = 100, 15, (3072, 9)
BESIDE, SAMPLES, BESIDE_ROUNDS = "resnet20", 500, 5


def main(figures: dict[str, float]) -> Section:
    runs: dict[str, Run] = {}
    for dimension in DIMENSIONS:
        for name in FORMATS:
            runs[f"{name}, {dimension}"] = _normals(name, dimension)
    for kind in NOISES:
        runs[kind] = _noisy(kind)
    for run in runs.values():
        run()
    rates = interleaved(runs, ROUNDS)
    ns = {name: 1e9 / rates.median(name) for name in runs}
    rows = [[name, *(f"{ns[f'{name}, {dimension}']:.1f}" for dimension in DIMENSIONS)] for name in FORMATS]
    rows += [[f"{build_noise(kind, SIGMA).formats[0]} made {kind} noise", f"{ns[kind]:.1f}", ""] for kind in NOISES]
    header = ["format", *(f"{dimension:,} values a sample" for dimension in DIMENSIONS)]
    beside, lines = end_to_end()
    return section("Noise, nanoseconds a value, one thread", [*table(header, rows), "", *lines],
                   {f"ns {name}": value for name, value in ns.items()} | beside)


def end_to_end() -> tuple[dict[str, float], list[str]]:
    """Time of a network's samples, end to end, under each kind over that under gaussian noise in pixels."""
    measured = network(BESIDE)
    runs: dict[str, Run] = {kind: drawing(measured, opened(measured, build_noise(kind, SIGMA)), SAMPLES)
                            for kind in NOISES}
    for run in runs.values():
        run()
    rates = interleaved(runs, BESIDE_ROUNDS)
    cost = {kind: rates.ratio("gaussian", kind) for kind in NOISES if kind != "gaussian"}
    rows = [[kind, f"{spread:.3f}", goal] for (kind, spread), goal in zip(cost.items(), ("1.05", "2"), strict=True)]
    header = [f"{BESIDE}, end to end", "time over gaussian noise", "goal, at most"]
    return {f"{BESIDE} {kind} over gaussian": spread.median for kind, spread in cost.items()}, table(header, rows)


def _normals(name: str, dimension: int) -> Run:
    """Draws standard normals in one format."""
    out = np.empty((ROWS * DIMENSIONS[0] // dimension, dimension), dtype=np.float32)
    stream = open_stream(name, 0, 0, "estimate", dimension)

    def run() -> int:
        stream.fill(out)
        return out.size

    return run


def _noisy(kind: str) -> Run:
    """Draws noisy copies of an image, normals included."""
    noise, image = build_noise(kind, SIGMA), np.zeros(DIMENSIONS[0], dtype=np.float32)
    out, centre = np.empty((ROWS, image.size), dtype=np.float32), noise.centre(image)
    stream = noise.stream(0, 0, "estimate", centre)

    def run() -> int:
        noise.fill(out, centre, stream)
        return out.size

    return run
