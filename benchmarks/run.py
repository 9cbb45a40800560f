"""`make bench`: speed as ratios over the plain reference in the same run, and memory; writes benchmarks/RESULTS.md."""

import json
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np
import torch
from reference import plain_counts

from smoothcert.models import build_model
from smoothcert.noise import NormalStream, build_noise
from smoothcert.runs.provenance import machine_line
from smoothcert.smoothing import Sampler

HERE = Path(__file__).parent
ROUNDS = 5



def speed() -> list[str]:
    lines = ["## Samples a second, one thread, grid noise, against the plain reference at batch 1,000\n",
             "Medians of interleaved runs.\n",
             "| network | reference | smoothcert | ratio (min, max) |", "|---|---|---|---|"]
    torch.set_num_threads(1)
    for name, shape, n in (("linear", (1, 28, 28), 20_000), ("lenet", (1, 28, 28), 4000), ("cnn", (1, 28, 28), 2000),
                           ("resnet20", (3, 32, 32), 1000)):
        torch.manual_seed(0)
        model = build_model(name, shape, 10).eval()
        image = np.rint(np.random.default_rng(0).random(shape) * 255).astype(np.float32) / np.float32(255)
        noise = build_noise("grid", 0.5)
        sampler, centre = Sampler(model, noise, 10, shape, 0), noise.centre(image)
        pairs = []
        for _ in range(ROUNDS):
            plain = timed(lambda m=model, i=image, k=n: plain_counts(m, torch.from_numpy(i), 0.5, k, 10))
            ours = timed(lambda s=sampler, c=centre, k=n: s.count(c, 0, "estimate", k))
            pairs.append((n / plain, n / ours))
        ratios = [ours / plain for plain, ours in pairs]
        medians = [statistics.median(column) for column in zip(*pairs, strict=True)]
        lines.append(f"| {name} | {medians[0]:,.0f} | {medians[1]:,.0f} | {statistics.median(ratios):.2f} "
                     f"({min(ratios):.2f}, {max(ratios):.2f}) |")
    return lines


def noise_cost() -> list[str]:
    lines = ["\n## Noise, nanoseconds a value, one thread\n", "| noise | ns |", "|---|---|"]
    out, image = np.empty((100, 3072), dtype=np.float32), np.zeros((3, 32, 32), dtype=np.float32)
    for kind in ("gaussian", "grid"):
        noise = build_noise(kind, 0.5)
        centre = noise.centre(image)
        stream = NormalStream(0, 0, "estimate", 3072)
        seconds = [timed(lambda n=noise, c=centre, s=stream: n.sample(c, s, out)) for _ in range(50)]
        lines.append(f"| {kind} | {statistics.median(seconds) / out.size * 1e9:.1f} |")
    return lines


def memory() -> list[str]:
    """Peak resident memory (Linux's VmHWM) of whole processes, so that nothing is shared between the cases."""
    lines = ["\n## Peak memory of certify, MNIST-sized images, small network (MiB, whole process)\n",
             "| images | n | peak |", "|---|---|---|"]
    for images, n in ((1, 1000), (1, 1_000_000), (10, 1000), (2000, 1000)):
        done = subprocess.run([sys.executable, __file__, "--peak", str(images), str(n)], check=True,
                              capture_output=True, text=True)
        lines.append(f"| {images:,} | {n:,} | {json.loads(done.stdout):.0f} |")
    return lines


def peak(images: int, n: int) -> None:
    """Certify `images` images into a store and print this process's peak."""
    import tempfile

    from smoothcert.data import from_tensors
    from smoothcert.runs import certify as run
    from smoothcert.runs.config import CertifyConfig

    torch.set_num_threads(1)
    pixels = np.random.default_rng(0).integers(0, 256, (2000, 1, 28, 28), dtype=np.uint8)
    data = from_tensors(pixels, np.arange(2000) % 10)
    run.load_data = lambda *args, **kwargs: data
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "net.py").write_text(
            "import torch\ndef make():\n    torch.manual_seed(0)\n"
            "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))\n")
        run.certify(CertifyConfig.checked({"model": f"{folder}/net.py:make", "sigma": 0.5, "n": n, "seed": 0,
                                           "max_images": images, "out": f"{folder}/store"}))
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(int(status["VmHWM"].split()[0]) / 1024)


def timed(call) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> None:
    lines = ["# Benchmarks\n", f"Latest run: {date.today().isoformat()}, {machine_line()}. `make bench` repeats it.\n",
             *speed(), *noise_cost(), *memory()]
    (HERE / "RESULTS.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        peak(int(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
