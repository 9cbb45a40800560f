"""Samples a second, end to end, one thread: the package against the plain reference and ART, interleaved."""

import time
from dataclasses import dataclass
from importlib.metadata import version

import torch
from art_peer import DEFAULT_BATCH, art_certify
from networks import CLASSES, SIGMA, Network, network
from ours import Opened, drawing, opened
from pages import Section, section, table
from peak import conv_peak
from reference import BATCH, plain_counts
from timing import Rates, Run, interleaved

from smoothcert.noise import build_noise

ART_SMALL, ART_LARGE = f"ART, batch {DEFAULT_BATCH}", f"ART, batch {BATCH:,}"


@dataclass(frozen=True)
class Case:
    """A network under a noise, and the samples that each contender draws in a round; 0 leaves it out.

    ART draws 100 more, which select the class: 900 fill one batch of 1,000.
    """

    network: str
    noise: str
    rounds: int
    reference: int
    art_small: int
    art_large: int
    ours: int


CASES = (
    Case("linear", "gaussian", 7, 20_000, 4900, 4900, 1_000_000),
    Case("linear", "grid", 7, 20_000, 4900, 4900, 20_000),
    Case("lenet", "grid", 5, 2000, 900, 900, 4000),
    Case("cnn", "grid", 5, 1000, 900, 900, 2000),
    Case("resnet20", "grid", 3, 1000, 900, 900, 1000),
    Case("resnet110", "grid", 3, 1000, 200, 0, 500),
)


def main(figures: dict[str, float]) -> Section:
    started, wall = time.process_time(), time.perf_counter()
    peak, where = conv_peak()
    rows: list[list[str]] = []
    found: dict[str, float] = {"conv peak GFLOP/s": peak}
    for case in CASES:
        measured = network(case.network)
        ours = opened(measured, build_noise(case.noise, SIGMA))
        rates = measure(case, measured, ours)
        rows.append(row(case, measured, ours, rates, peak))
        key = case.network if (case.network, case.noise) != ("linear", "grid") else "linear pixels"
        found |= {f"{key} ratio": rates.ratio("smoothcert", "reference").median, f"{key} MFLOP": measured.mflop,
                  f"{key} reference": rates.median("reference"), f"{key} ours": rates.median("smoothcert")}
    share = (time.process_time() - started) / (time.perf_counter() - wall)
    header = ["network, noise", "MFLOP", "reference", ART_SMALL, ART_LARGE, "smoothcert", "space, engine, batch",
              "over reference", f"over {ART_SMALL}", f"over {ART_LARGE}", "of peak", "start, s"]
    return section("Samples a second, one thread", [*table(header, rows), *notes(peak, where, share)], found)


def measure(case: Case, measured: Network, ours: Opened) -> Rates:
    """All contenders in every round; each has run a little before."""
    contenders: dict[str, Run] = {"reference": reference(measured, case.reference),
                                  "smoothcert": drawing(measured, ours, case.ours)}
    for name, n, batch in ((ART_SMALL, case.art_small, DEFAULT_BATCH), (ART_LARGE, case.art_large, BATCH)):
        if n:
            contenders[name] = art_certify(measured, n, batch)
            art_certify(measured, 1, batch)()
    reference(measured, 100)()
    contenders["smoothcert"]()
    return interleaved(contenders, case.rounds)


def reference(measured: Network, n: int) -> Run:
    image = torch.from_numpy(measured.image)

    def run() -> int:
        return sum(plain_counts(measured.model, image, SIGMA, n, CLASSES))

    return run


def row(case: Case, measured: Network, ours: Opened, rates: Rates, peak: float) -> list[str]:
    share = measured.mflop / 1e3 * rates.median("smoothcert") / peak
    on_network = ours.open.engine != "exact"
    told = f"{ours.open.space}, {ours.open.engine}, {ours.open.batch}" if on_network else ours.open.space
    speeds = [f"{rates.median(name):,.0f}" if name in rates.rounds else ""
              for name in ("reference", ART_SMALL, ART_LARGE, "smoothcert")]
    ratios = [f"{rates.ratio('smoothcert', over):.2f}" if over in rates.rounds else ""
              for over in ("reference", ART_SMALL, ART_LARGE)]
    return [f"{case.network}, {case.noise}", f"{measured.mflop:.3g}", *speeds, told, *ratios,
            f"{share:.0%}" if on_network and case.network != "linear" else "", f"{ours.seconds:.1f}"]


def notes(peak: float, where: str, share: float) -> list[str]:
    return [
        "Noise, forward passes, votes and counting together. Rates are medians of interleaved rounds, ratios medians "
        "of the rounds' own ratios, with the least and the greatest. Seconds are the processor's, in one process with "
        f"one thread; over this section they were {share:.0%} of the clock's (100%: nothing else ran).", "",
        f"`reference`: one image, batches of {BATCH:,}, Gaussian noise from torch, a host wait and a Python counting "
        f"loop a batch. ART {version('adversarial-robustness-toolbox')}: its `certify` on one image, at its default "
        f"batch and at {BATCH:,}; it draws all copies before the first pass, here few, so that memory does not slow it "
        "as it would at 100,000. smoothcert: the space and engine that its defaults take for a run over 500 images "
        f"(ONNX Runtime {version('onnxruntime')}, OpenVINO {version('openvino')}, MNN {version('mnn')}). "
        "`start`: seconds by the clock, once a run, to find the space and to choose, build and check the engine; no "
        "part of the rates.", "",
        f"MFLOP: of a sample's forward pass, a multiply-add counts two. Convolution peak of one thread: {peak:.0f} "
        f"GFLOP/s, the best of 3x3 convolutions alone ({where}).",
    ]
