"""Time to certified accuracy at one radius, and to a full curve: sequential designs against the published one."""

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from networks import CLASSES, SIGMA
from pages import Section, section, table
from reference import ALPHA, N0, N, plain_counts, plain_radius
from timing import interleaved, seconds, spread
from torch import nn
from trained import data_options, quantised, test_images, trained

from smoothcert.machine import VNNI_UNITS, instruction_sets
from smoothcert.smoothing import SmoothedClassifier
from smoothcert.stats import Certificate, History, Look, Plan, certify_plan, default_pilot

RADIUS, LOSS, ROUNDS = 0.5, 0.01, 3
METHODS = ("two-sided", "cohen")
DESIGNS: dict[str, dict[str, Any]] = {"radius": {"radii": [RADIUS]}, "curve": {"curve_loss": LOSS}}


@dataclass(frozen=True)
class Case:
    """A network in a precision under a noise, images a round, samples of the plain reference a round.

    Where `whole`, the samples an image are those of the images timed. Else they are worked out for more images than
    there is time for: at one radius a few images take nearly all samples, and full curves take 50,000 each.
    """

    network: str
    noise: str
    images: int
    plain: int
    whole: bool
    precision: str = "float32"

    @property
    def title(self) -> str:
        return f"{self.network} {self.precision}".removesuffix(" float32")


CASES = (
    Case("linear", "gaussian", 1000, 20_000, whole=True),
    Case("lenet", "grid", 16, 2000, whole=False),
    Case("cnn", "grid", 16, 2000, whole=False),
    *(Case(name, "grid", 64, 2000, whole=False, precision="int8") for name in ("lenet", "cnn")
      if VNNI_UNITS & instruction_sets()),
)
REPLAYED, SHARED, TIMES = 500, 200, 10
"""Images whose vote shares are measured, samples for each, and how often a plan is replayed on them."""


@dataclass(frozen=True)
class Subject:
    """A trained network, and itself or its int8 form smoothed; test images, and the first call's seconds to start.

    `counts` are the votes of SHARED samples of REPLAYED other images; None where they are not needed.
    """

    model: nn.Module
    smoothed: SmoothedClassifier
    images: np.ndarray
    labels: np.ndarray
    start: float
    counts: np.ndarray | None


def main(figures: dict[str, float]) -> Section:
    rows: list[list[str]] = []
    found: dict[str, float] = {}
    limit = seconds(lambda: [plain_radius(votes, SIGMA) for votes in range(N - 100, N)]) / 100
    for case in CASES:
        subject = started(case)
        runs = {(design, method): Sequential(case, subject, design, method) for design in DESIGNS for method in METHODS}
        rates = interleaved({"plain": partial(plain, case, subject),
                             **{f"{design} {method}": run for (design, method), run in runs.items()}}, ROUNDS)
        published = [(N0 + N) / rate + limit for rate in rates.rounds["plain"]]
        for (design, method), run in runs.items():
            mean = run.mean_samples()
            times = [mean / rate for rate in rates.rounds[f"{design} {method}"]]
            ratio = spread([a / b for a, b in zip(published, times, strict=True)])
            rows.append([f"{case.title}, {case.noise}", design, method, f"{mean:,.0f}", run.certified(),
                         f"{rates.median(f'{design} {method}'):,.0f}", f"{spread(times).median:.3g}",
                         f"{spread(published).median:.3g}", f"{ratio:,.3g}", f"{subject.start:.1f}"])
            if method == METHODS[0]:
                found[f"{case.title} {design}"] = ratio.median
    header = ["network, noise", "design", "method", "samples an image", f"certified at {RADIUS}", "samples/s",
              "s an image", "plain s an image", "ratio", "start, s"]
    return section("Time to certified accuracy", [*table(header, rows), *notes()], found)


def started(case: Case) -> Subject:
    """The network trained, and smoothed; engines are chosen at the first call, by the work that it announces."""
    model = trained(case.network)
    images, labels = test_images(ROUNDS * case.images)
    base = quantised(case.network) if case.precision == "int8" else model
    smoothed = SmoothedClassifier(base, SIGMA, CLASSES, seed=0, noise=case.noise)
    begun = time.perf_counter()
    smoothed.predict(images, n_max=10 * N)
    start = time.perf_counter() - begun
    voted = None if case.whole else smoothed.predict(test_images(REPLAYED)[0], n=SHARED)
    counts = None if voted is None else np.array([found.counts for found in voted])
    return Subject(model, smoothed, images, labels, start, counts)


def plain(case: Case, subject: Subject) -> int:
    return sum(plain_counts(subject.model, torch.from_numpy(subject.images[0]), SIGMA, case.plain, CLASSES))


class Sequential:
    """A design and method as a contender: each call certifies the next images and returns the samples drawn."""

    def __init__(self, case: Case, subject: Subject, design: str, method: str):
        self._case, self._subject, self._design = case, subject, design
        self._options = {**DESIGNS[design], "method": method}
        short = design == "curve" and not case.whole
        # Two images' samples are enough for the engine of a long run; one's would be left to the plain model.
        self._size, self._n_max = (2, N // 10) if short else (len(subject.images) // ROUNDS, N)
        self._done: list[Certificate] = []

    def __call__(self) -> int:
        taken = len(self._done)
        part = self._subject.images[taken : taken + self._size]
        done = self._subject.smoothed.certify(part, n_max=self._n_max, **self._options)
        self._done += done
        return sum(map(samples_of, done))

    def mean_samples(self) -> float:
        """Samples an image at n_max = N."""
        if self._case.whole or self._subject.counts is None:
            return float(np.mean([*map(samples_of, self._done)]))
        plan = certify_plan(self._subject.smoothed.noise.radius, n_max=N, **self._options)
        if self._design == "radius":
            shares = self._subject.counts / SHARED
            return replayed(plan, np.tile(shares, (TIMES, 1)), np.random.default_rng(0))
        pilots = self._subject.smoothed.predict(self._subject.images, n=default_pilot(N))
        drawn = plan.next([[Look("pilot", np.array(pilot.counts))] for pilot in pilots])
        return float(np.mean([pilot.counts.n + (draw.n if draw else 0)
                              for pilot, draw in zip(pilots, drawn, strict=True)]))

    def certified(self) -> str:
        """Share of the timed images with the right class and RADIUS; empty where these were not drawn in full."""
        if self._n_max < N:
            return ""
        labelled = zip(self._done, self._subject.labels.tolist(), strict=True)
        return f"{np.mean([c.radius >= RADIUS and c.prediction == label for c, label in labelled]):.0%}"


def replayed(plan: Plan, shares: np.ndarray, rng: np.random.Generator) -> float:
    """Samples an image that a plan takes where votes are drawn with these class probabilities (M, K)."""
    histories: list[History] = [[] for _ in shares]
    drawn, open_ = 0, np.arange(len(shares))
    while len(open_):
        asked = plan.next([histories[i] for i in open_])
        open_ = np.array([i for i, draw in zip(open_, asked, strict=True) if draw], dtype=np.int64)
        for i, draw in zip(open_.tolist(), filter(None, asked), strict=True):
            before = [look.counts for look in histories[i][-1:] if look.stage == draw.stage]
            votes = rng.multinomial(draw.n, shares[i])
            histories[i].append(Look(draw.stage, sum(before, votes)))
            drawn += draw.n
    return drawn / len(shares)


def samples_of(certificate: Certificate) -> int:
    return certificate.selection.n + certificate.estimation.n


def notes() -> list[str]:
    which = data_options()["data"]
    return [
        f"`radius`: certified or not at {RADIUS}, decided by `certify(images, radii=[{RADIUS}], n_max={N:,})`; "
        f"`curve`: `curve_loss={LOSS}`; alpha {ALPHA}, sigma {SIGMA}. `cohen` is the published one-sided method, "
        f"`two-sided` the default. Networks trained under noise on {which}, for under a minute, kept in the temporary "
        "folder. int8: the same networks by `smoothcert quantise`, run by OpenVINO, beside the plain reference of the "
        "float32 network.", "",
        f"Plain: {N0 + N:,} samples at the reference's measured time a sample, and its limit. Ours: the mean number "
        "of samples an image, at each round's rate, measured end to end through the public API on other test images "
        "each round. For `linear` the mean is that of the images timed. For the others times are products. At one "
        f"radius, a few images take nearly all samples: the mean is that of the plan replayed {TIMES} times on votes "
        f"drawn with the shares that {REPLAYED} test images have in {SHARED} samples. For curves it is what the pilots "
        "of the images timed at one radius ask for, and the rate that of two images a round at n_max = "
        f"{N // 10:,}. `start`: the first call, which finds the space or chooses, builds and checks an engine.",
    ]
