"""CIFAR-10 at one radius, on 1,000 images: a network of the zoo in float32 and in 8 bits, beside a published network.

Finished runs are kept, and a run that was stopped goes on.
"""

from workplace import WORK, run

from smoothcert.results.certified import Result
from smoothcert.results.compare import compare
from smoothcert.results.cost import Pilot
from smoothcert.store.provenance import machine_line
from smoothcert.store.store import Store, read_store

OUT = WORK / "one-radius"
NETWORK, SIGMA, RADIUS, IMAGES = "zoo:cifar10-fast-0.25", "0.25", 0.5, 1000


def main() -> str:
    quantised = OUT / "int8"
    if not quantised.exists():
        run("quantise", NETWORK, "--data", "cifar10", "--sigma", SIGMA, "--seed", "0", "-o", str(quantised))
    whole, narrow = certified(NETWORK, "float32"), certified(str(quantised), "int8-store")
    found = compare(Result.of(whole), Result.of(narrow), (RADIUS,), 0.05).differences[0]
    return "\n".join([
        f"# CIFAR-10 at radius {RADIUS}\n", f"{machine_line()}.\n",
        f"The first {IMAGES:,} test images, `smoothcert certify {NETWORK} --data cifar10 --sigma {SIGMA} --radii "
        f"{RADIUS} --n-max 100000 --max-images {IMAGES} --seed 0`, alpha .001. int8: the same after `smoothcert "
        "quantise`. The ResNet-110 of Cohen et al. has 43 % here, on 500 of the original images; ours are JPEG copies "
        "of quality 75.\n",
        f"| network | certified at {RADIUS}, % | new images, 95 % | samples an image |", "|---" * 4 + "|",
        row("float32", whole), row("int8", narrow),
        f"\nfloat32 minus int8, on the same images: {100 * found.value:+.1f} points, 95 % [{100 * found.low:+.1f}, "
        f"{100 * found.high:+.1f}]."]) + "\n"


def certified(model: str, name: str) -> Store:
    run("certify", model, "--data", "cifar10", "--sigma", SIGMA, "--radii", str(RADIUS), "--n-max", "100000",
        "--max-images", str(IMAGES), "--seed", "0", "-o", str(OUT / name))
    return read_store(OUT / name)


def row(network: str, store: Store) -> str:
    shares, samples = Result.of(store).at((RADIUS,), 0.05), Pilot.of(store).samples
    return (f"| {network} | {100 * shares.accuracy[0]:.1f} | at least {100 * shares.population[0]:.1f} | "
            f"{samples.mean():,.0f} |")
