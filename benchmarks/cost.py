"""What a sample costs at any n and any number of images."""

from networks import SIGMA, network
from ours import drawing, opened
from pages import Section, section, table
from timing import Run, interleaved

from smoothcert.noise import build_noise

ROUNDS = 3
CASES = (("linear", "gaussian", (1000, 10_000, 100_000, 1_000_000), (1, 10, 100, 1000), 1000),
         ("linear", "grid", (100, 1000, 10_000, 100_000), (1, 10, 100, 1000), 100),
         ("lenet", "grid", (100, 1000, 10_000), (1, 10, 100), 100))
"""Network, noise; n for one image; numbers of images, at this n."""


def main(figures: dict[str, float]) -> Section:
    rows = []
    for name, kind, sizes, numbers, n in CASES:
        measured = network(name)
        ours = opened(measured, build_noise(kind, SIGMA))
        runs: dict[str, Run] = {f"1 image, n = {size:,}": drawing(measured, ours, size) for size in sizes}
        runs |= {f"{images:,} images, n = {n:,}": drawing(measured, ours, n, images) for images in numbers[1:]}
        for run in runs.values():
            run()
        rates = interleaved(runs, ROUNDS)
        rows += [[f"{name}, {kind}", told, f"{1e6 / rates.median(told):.3g}"] for told in runs]
    return section("Microseconds a sample, against n and the number of images, one thread",
                   table(["network, noise", "work", "us a sample"], rows), {})
