"""CIFAR-10 at one radius, on 1,000 images: the zoo's networks, one also in 8 bits, beside published networks.

Finished runs are kept, and a run that was stopped goes on.
"""

from workplace import WORK, run

from smoothcert.results.certified import Result
from smoothcert.results.compare import compare
from smoothcert.results.cost import Pilot
from smoothcert.store.provenance import machine_line
from smoothcert.store.store import Store, read_store

OUT = WORK / "one-radius"
RADIUS, IMAGES = 0.5, 1000
PUBLISHED = {"0.25": 43, "0.5": 41}
"""By sigma, the ResNet-110 of Cohen et al. 2019, percent of 500 of the original images."""


def main() -> str:
    quantised, network = OUT / "int8", "zoo:cifar10-fast-0.25"
    if not quantised.exists():
        run("quantise", network, "--data", "cifar10", "--sigma", "0.25", "--seed", "0", "-o", str(quantised))
    whole, narrow = certified(network, "0.25", "float32"), certified(str(quantised), "0.25", "int8-store")
    other = certified("zoo:cifar10-fast-0.5", "0.5", "float32-0.5")
    found = compare(Result.of(whole), Result.of(narrow), (RADIUS,), 0.05).differences[0]
    return "\n".join([
        f"# CIFAR-10 at radius {RADIUS}\n", f"{machine_line()}.\n",
        f"The first {IMAGES:,} test images, `smoothcert certify zoo:cifar10-fast-SIGMA --data cifar10 --sigma SIGMA "
        f"--radii {RADIUS} --n-max 100000 --max-images {IMAGES} --seed 0`, alpha .001. int8: the same after "
        "`smoothcert quantise`. ResNet-110: Cohen et al. 2019, on 500 of the original images; ours are JPEG copies of "
        "quality 75.\n",
        f"| sigma | network | certified at {RADIUS}, % | new images, 95 % | samples an image | ResNet-110, % |",
        "|---" * 6 + "|", row("0.25", "float32", whole), row("0.25", "int8", narrow), row("0.5", "float32", other),
        f"\nAt sigma 0.25 float32 minus int8, on the same images: {100 * found.value:+.1f} points, 95 % "
        f"[{100 * found.low:+.1f}, {100 * found.high:+.1f}]."]) + "\n"


def certified(model: str, sigma: str, name: str) -> Store:
    run("certify", model, "--data", "cifar10", "--sigma", sigma, "--radii", str(RADIUS), "--n-max", "100000",
        "--max-images", str(IMAGES), "--seed", "0", "-o", str(OUT / name))
    return read_store(OUT / name)


def row(sigma: str, network: str, store: Store) -> str:
    shares, samples = Result.of(store).at((RADIUS,), 0.05), Pilot.of(store).samples
    return (f"| {sigma} | {network} | {100 * shares.accuracy[0]:.1f} | at least {100 * shares.population[0]:.1f} | "
            f"{samples.mean():,.0f} | {PUBLISHED[sigma]} |")
