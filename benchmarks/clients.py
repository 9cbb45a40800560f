"""The interfaces of other tools at their small batches, and what a call costs beside its forward passes."""

import itertools
import statistics
from collections.abc import Callable

import numpy as np
import torch
from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing
from networks import CLASSES
from pages import Section, section, table
from reference import ALPHA, N0
from scipy import stats
from timing import Rates, Run, interleaved, seconds, spread
from torch import nn

from smoothcert import SmoothedClassifier
from smoothcert.interop.art import SmoothedEstimator
from smoothcert.interop.smooth import Smooth
from smoothcert.models import build_model
from smoothcert.noise import build_noise

SIGMA, BATCH, ROUNDS = 0.25, 32, 9
CASES = (("digits", (1, 8, 8)), ("MNIST", (1, 28, 28)))
SAMPLES = (1000, 10_000)
LARGE, CALLS = (784, 4096, 4096, 1300, 10), 15


def main(figures: dict[str, float]) -> Section:
    rows, found = [], dict[str, float]()
    for name, shape in CASES:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = build_model("mlp", shape, CLASSES).eval()
        image = (np.rint(np.random.default_rng(0).random(shape) * 255) / 255).astype(np.float32)
        for n in SAMPLES:
            rates = measure(net, image, n)
            over = {f"{ours} over {peer}": rates.ratio(peer, ours)  # of rates: times that ours takes longer
                    for ours, peer in (("Smooth", "2019"), ("estimator", "ART"), ("estimator", "2019"),
                                       ("SmoothedClassifier", "2019"))}
            rows.append([f"{name} {shape}", f"{n:,}", *(f"{(N0 + n) / rates.median(peer) * 1e3:.1f}" for peer in
                                                        ("2019", "ART", "Smooth", "estimator", "SmoothedClassifier")),
                         *(f"{ratio:.2f}" for ratio in over.values())])
            found |= {f"{name} {n} {told}": ratio.median for told, ratio in over.items()}
    ours, torchs = noise_rates()
    parameters, beside = overhead()
    header = ["MLP on", "n", "2019, ms", "ART, ms", "Smooth, ms", "estimator, ms", "SmoothedClassifier, ms",
              "Smooth / 2019", "estimator / ART", "estimator / 2019", "SmoothedClassifier / 2019"]
    return section("Clients: a small network at batch 32, one thread",
                   [*table(header, rows), *notes(ours, torchs, parameters, beside)],
                   {**found, "overhead ms": 1e3 * beside, "noise ns": ours, "torch noise ns": torchs})


def measure(net: nn.Module, image: np.ndarray, n: int) -> Rates:
    """One image certified by each, from N0 + n samples, all in every round."""
    x, batch, shape = torch.from_numpy(image), image[None], image.shape
    peer = PyTorchRandomizedSmoothing(net, nn.CrossEntropyLoss(), shape, CLASSES, device_type="cpu", sample_size=N0,
                                      scale=SIGMA)
    estimator = SmoothedEstimator(net, nn.CrossEntropyLoss(), shape, CLASSES, device_type="cpu", sample_size=N0,
                                  scale=SIGMA)
    smooth, g = Smooth(net, CLASSES, SIGMA), SmoothedClassifier(net, SIGMA, CLASSES)

    def timed(call: Callable[[], object]) -> Run:
        call()
        return lambda: (call(), N0 + n)[1]

    return interleaved({
        "2019": timed(lambda: core_certify(net, x, n)),
        "ART": timed(lambda: peer.certify(batch, n=n, batch_size=BATCH)),
        "Smooth": timed(lambda: smooth.certify(x, N0, n, ALPHA, BATCH)),
        "estimator": timed(lambda: estimator.certify(batch, n=n, batch_size=BATCH)),
        "SmoothedClassifier": timed(lambda: g.certify(x, n0=N0, n=n, method="cohen", batch_size=BATCH)),
    }, ROUNDS)


def core_certify(net: nn.Module, image: torch.Tensor, n: int) -> float:
    """CERTIFY in the manner of 2019: batches of copies of one image, noise from torch, votes counted by batches."""
    top = core_counts(net, image, N0).argmax()
    votes = core_counts(net, image, n)[top]
    return float(SIGMA * stats.norm.ppf(stats.beta.ppf(ALPHA, votes, n - votes + 1)))


def core_counts(net: nn.Module, image: torch.Tensor, n: int) -> np.ndarray:
    counts = np.zeros(CLASSES, dtype=np.int64)
    with torch.no_grad():
        for start in range(0, n, BATCH):
            copies = image.repeat((min(BATCH, n - start), 1, 1, 1))
            votes = net(copies + torch.randn_like(copies) * SIGMA).argmax(dim=1)
            counts += np.bincount(votes.numpy(), minlength=CLASSES)
    return counts


def noise_rates() -> tuple[float, float]:
    """Nanoseconds a noisy value: of grid noise, and as the reference draws it, on MNIST's shape."""
    noise, image = build_noise("grid", SIGMA), np.zeros((1, 28, 28), dtype=np.float32)
    centre, out = noise.centre(image), np.empty((BATCH, image.size), dtype=np.float32)
    stream, x = noise.stream(0, 0, "estimate", centre), torch.from_numpy(image)

    def theirs() -> None:
        copies = x.repeat((BATCH, 1, 1, 1))
        copies + torch.randn_like(copies) * SIGMA

    times = [statistics.median(seconds(draw) for _ in range(500)) / out.size * 1e9
             for draw in (lambda: noise.fill(out, centre, stream), theirs)]
    return times[0], times[1]


def overhead() -> tuple[float, float]:
    """(parameters of a large MLP, seconds that `g.predict(x, n=100)` takes beside the same forward passes)."""
    sizes = itertools.pairwise(LARGE)
    layers = [layer for inputs, outputs in sizes for layer in (nn.Linear(inputs, outputs), nn.ReLU())][:-1]
    net = nn.Sequential(nn.Flatten(), *layers).eval()
    image, rows = torch.zeros(1, 28, 28), torch.rand(100, 1, 28, 28)
    g = SmoothedClassifier(net, SIGMA, CLASSES)
    g.predict(image, n=100)
    forward = torch.no_grad()(lambda: net(rows))
    beside = spread([seconds(lambda: g.predict(image, n=100)) - seconds(forward) for _ in range(CALLS)])
    return sum(parameter.numel() for parameter in net.parameters()), beside.median


def notes(ours: float, torchs: float, parameters: float, beside: float) -> list[str]:
    return [
        f"One image certified from {N0} + n samples at sigma {SIGMA}, by the interfaces' own `certify`; processor "
        f"seconds, medians of {ROUNDS} interleaved rounds, ratios with the least and the greatest. `2019`: batches of "
        f"{BATCH} copies, noise from torch, `argmax` and `bincount`, a Clopper-Pearson limit. `Smooth` and the "
        f"estimator are asked for batches of {BATCH}, and let small images share a pass; `SmoothedClassifier` passes "
        f"batches of {BATCH}, but draws and counts more at once.", "",
        f"A noisy value of grid noise takes {ours:.1f} ns, of torch's {torchs:.1f} ns: where the noise of an image "
        f"costs more than its forward pass, as on MNIST, that difference remains.", "",
        f"`g.predict(x, n=100)` on an MLP of {parameters / 1e6:.0f} million parameters takes {1e3 * beside:.1f} ms "
        f"beside its forward passes, noise included (median of {CALLS}).",
    ]


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(main({}).text)
