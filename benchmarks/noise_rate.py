"""What noise costs: nanoseconds a value, for every format and kind."""

import numpy as np
from networks import SIGMA
from pages import Section, section, table
from timing import Run, interleaved

from smoothcert.noise import FORMATS, build_noise, open_stream, sample

ROWS, ROUNDS, DIMENSIONS = 100, 15, (3072, 9)


def main(figures: dict[str, float]) -> Section:
    runs: dict[str, Run] = {}
    for dimension in DIMENSIONS:
        for name in FORMATS:
            runs[f"{name}, {dimension}"] = _normals(name, dimension)
    for kind in ("gaussian", "grid"):
        runs[kind] = _noisy(kind)
    for run in runs.values():
        run()
    rates = interleaved(runs, ROUNDS)
    ns = {name: 1e9 / rates.median(name) for name in runs}
    rows = [[name, *(f"{ns[f'{name}, {dimension}']:.1f}" for dimension in DIMENSIONS)] for name in FORMATS]
    rows += [[f"sfc64-v1 made {kind} noise", f"{ns[kind]:.1f}", ""] for kind in ("gaussian", "grid")]
    header = ["format", *(f"{dimension:,} values a sample" for dimension in DIMENSIONS)]
    return section("Noise, nanoseconds a value, one thread", table(header, rows),
                   {f"ns {name}": value for name, value in ns.items()})


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
    stream = open_stream("sfc64-v1", 0, 0, "estimate", image.size)

    def run() -> int:
        sample(noise, centre, stream, out)
        return out.size

    return run
