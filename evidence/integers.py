"""A network of CIFAR-10 in float32 and in 8 bits: what quantising costs in certified accuracy.

Finished runs are kept, and a run that was stopped goes on.
"""

from workplace import WORK, run

from smoothcert.results.certified import Result
from smoothcert.results.compare import compare
from smoothcert.results.cost import Pilot
from smoothcert.store.provenance import machine_line
from smoothcert.store.store import read_store

OUT = WORK / "integers"
NETWORK, SIGMA, RADIUS, IMAGES = "zoo:cifar10-fast-0.25", "0.25", 0.5, 1000


def main() -> str:
    quantised = OUT / "int8"
    if not quantised.exists():
        run("quantise", NETWORK, "--data", "cifar10", "--sigma", SIGMA, "--seed", "0", "-o", str(quantised))
    for name, model in (("float32", NETWORK), ("int8", str(quantised))):
        run("certify", model, "--data", "cifar10", "--sigma", SIGMA, "--radii", str(RADIUS), "--n-max", "100000",
            "--max-images", str(IMAGES), "--seed", "0", "--workers", "1", "-o", str(OUT / f"cifar10-{name}"))
    whole, narrow = (read_store(OUT / f"cifar10-{name}") for name in ("float32", "int8"))
    lines = ["# A network in 8 bits\n",
             f"{machine_line()}.\n",
             f"`{NETWORK}`, sigma {SIGMA}, the first {IMAGES:,} test images, decided at radius {RADIUS} "
             f"(`--radii {RADIUS} --n-max 100000`, alpha .001). int8: `smoothcert quantise {NETWORK} --data cifar10 "
             f"--sigma {SIGMA}`. The CIFAR-10 images here are JPEG copies of quality 75 of the original ones.\n",
             f"| network | certified at {RADIUS}, % | 95 %, new images | samples an image |", "|---" * 4 + "|"]
    for name, store in (("float32", whole), ("int8", narrow)):
        shares, samples = Result.of(store).at((RADIUS,), 0.05), Pilot.of(store).samples
        lines.append(f"| {name} | {100 * shares.accuracy[0]:.1f} | at least {100 * shares.population[0]:.1f} | "
                     f"{samples.mean():,.0f} |")
    found = compare(Result.of(whole), Result.of(narrow), (RADIUS,), 0.05).differences[0]
    lines.append(f"\nfloat32 minus int8 on the same images: {100 * found.value:+.1f} points, 95 % "
                 f"[{100 * found.low:+.1f}, {100 * found.high:+.1f}].")
    return "\n".join(lines) + "\n"
