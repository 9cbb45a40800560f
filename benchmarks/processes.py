"""One and two processes: images a second of a certification run once all its workers are at work."""

import tempfile
import time
from pathlib import Path

from networks import CLASSES, SIGMA
from pages import Section, section, table
from stored import model_spec, random_images
from timing import spread

from smoothcert.progress import Event
from smoothcert.runs.certify import certify
from smoothcert.runs.options import CertifyConfig

ROUNDS, WORKERS = 3, (1, 2)
NETWORK, N, IMAGES = "lenet", 1000, 60


def main(figures: dict[str, float]) -> Section:
    rates: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    starts: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    with tempfile.TemporaryDirectory() as folder:
        data = random_images(NETWORK, IMAGES, Path(folder))
        for number in range(ROUNDS):
            for workers in WORKERS:
                start, rate = steady(data, workers, Path(folder) / f"store-{number}-{workers}")
                starts[workers].append(start)
                rates[workers].append(rate)
    ratios = spread([two / one for one, two in zip(*rates.values(), strict=True)])
    rows = [[f"{workers}", f"{spread(rates[workers]):.1f}", f"{spread(starts[workers]):.1f}"] for workers in WORKERS]
    notes = [f"Two over one: {ratios:.2f}. `{NETWORK}`, engine eager, n = {N:,}, {IMAGES} images into a store; seconds "
             "by the clock. Rates leave out the first quarter of the images, so that all workers have started; "
             "`start`: seconds to the first image done."]
    return section("Processes, one thread each", [*table(["workers", "images/s", "start, s"], rows), *notes],
                   {"two processes over one": ratios.median})


def steady(data: str, workers: int, out: Path) -> tuple[float, float]:
    """(seconds until the first image, images a second after the first quarter)."""
    begun, times = time.perf_counter(), dict[int, float]()

    def seen(event: Event) -> None:
        if event.phase == "sampling" and event.done:
            times.setdefault(event.done, time.perf_counter())

    certify(CertifyConfig.parse({"model": model_spec(NETWORK), "data": data, "num_classes": CLASSES, "sigma": SIGMA,
                                   "n": N, "engine": "eager", "seed": 0, "threads": 1, "workers": workers,
                                   "out": out}), seen)
    counts = list(times)
    first, last = counts[len(counts) // 4], counts[-1]
    return times[counts[0]] - begun, (last - first) / (times[last] - times[first])
