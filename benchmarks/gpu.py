"""The GPU set, in under nine minutes: `python benchmarks/gpu.py`; writes its section of RESULTS.md and prints it.

To see that the script runs, without a GPU and without writing: `python benchmarks/gpu.py --device cpu --quick`.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from goals import write_results
from networks import CLASSES, SIGMA, Network, network
from ours import LONG_RUN, Opened, drawing, opened, set_up
from pages import Section, read_sections, section, table
from reference import N, plain_counts
from timing import Rates, Run, interleaved

from smoothcert.errors import EngineWarning
from smoothcert.noise import build_noise
from smoothcert.smoothing import Sampling, Segment
from smoothcert.smoothing.precision import tf32
from smoothcert.smoothing.rows import DeviceRows, Subject
from smoothcert.store.provenance import machine_line

Way = tuple[str, str]  # engine, precision
_PRECISIONS = ("float32", "bf16", "tf32")
WAYS: tuple[Way, ...] = tuple((engine, precision) for precision in _PRECISIONS for engine in ("compile", "eager"))
NETWORKS = ("resnet110", "cnn", "linear", "resnet20")
_SECONDS = 400.0  # after which nothing new is started
_ROUNDS = 3


@dataclass(frozen=True)
class Setting:
    """Where to measure, how much work a contender gets a round, and until when (by `time.perf_counter`)."""

    device: torch.device
    quick: bool
    deadline: float

    @property
    def late(self) -> bool:
        return time.perf_counter() > self.deadline

    @property
    def names(self) -> tuple[str, ...]:
        return ("cnn", "linear") if self.quick else NETWORKS

    @property
    def ways(self) -> tuple[Way, ...]:
        """All of them; a CPU has no TF32."""
        return tuple(way for way in WAYS if self.device.type == "cuda" or way[1] != "tf32")

    @property
    def work(self) -> tuple[int, int, int]:
        """Samples of the reference a round; n and images of a voter."""
        return (1000, 200, 1) if self.quick else (20_000, N, 3)


def measured_section(setting: Setting) -> Section:
    rows: list[list[str]] = []
    figures: dict[str, float] = {}
    left_out: list[str] = []
    for name in setting.names:
        with noted(left_out, name):
            subject = on_device(network(name), setting.device)
            voters = open_all(setting, subject, left_out)
            rates = measure(setting, subject, voters)
            rows += [row(name, way, voter, rates) for way, voter in voters.items()]
            figures |= best(name, voters, rates)
            for line in rows[-len(voters):]:
                print(" | ".join(line), file=sys.stderr, flush=True)  # in case time runs out
    noise: list[str] = []
    with noted(left_out, "noise"):
        noise = noise_lines(setting)
    header = ["network", "asked for", "ran as", "start, s", "reference", "reference, no TF32", "smoothcert",
              "ratio", "ratio, no TF32"]
    lines = [*table(header, rows), *noise, *notes(setting), *(f"- {reason}" for reason in left_out)]
    return section("GPU: samples a second", lines, figures, machine(setting.device))


@contextmanager
def noted(left_out: list[str], what: str) -> Iterator[None]:
    """Note an error instead of raising it: on a borrowed machine, what fails must not cost the rest."""
    try:
        yield
    except Exception as error:
        left_out.append(f"{what}: {type(error).__name__}: {str(error)[:200]}")


def on_device(subject: Network, device: torch.device) -> Network:
    return replace(subject, model=subject.model.to(device))


def open_all(setting: Setting, subject: Network, left_out: list[str]) -> dict[Way, Opened]:
    """Voters by way, those that open, each run once; why others do not is left in `left_out`."""
    voters: dict[Way, Opened] = {}
    for engine, precision in (*setting.ways, *((("logits", "float32"),) if subject.name == "linear" else ())):
        what = f"{subject.name}, {engine}, {precision}"
        if setting.late:
            left_out.append(f"{what}: out of time")
            continue
        in_logits = engine == "logits"
        how = Sampling("eager" if in_logits else engine, precision=precision, device=setting.device, samples=LONG_RUN)
        with noted(left_out, what), warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", EngineWarning)
            voter = opened(subject, build_noise("gaussian" if in_logits else "grid", SIGMA), how)
            drawing(subject, voter, 100)()
            voters[engine, precision] = voter
            left_out += [f"{what}: {w.message}" for w in told if issubclass(w.category, EngineWarning)]
    return voters


def measure(setting: Setting, subject: Network, voters: dict[Way, Opened]) -> Rates:
    """The reference, as torch runs it by default and without TF32, and every voter, interleaved."""
    plain, n, images = setting.work
    references = {"reference": reference(subject, setting.device, plain, nullcontext),
                  "reference, no TF32": reference(subject, setting.device, plain, lambda: tf32(False))}
    for run in references.values():
        run()
    ours: dict[str, Run] = {"/".join(way): drawing(subject, voter, n, images) for way, voter in voters.items()}
    return interleaved({**references, **ours}, 1 if setting.quick else _ROUNDS, time.perf_counter)


def reference(
    subject: Network, device: torch.device, n: int, setting: Callable[[], AbstractContextManager[object]]
) -> Run:
    image = torch.from_numpy(subject.image).to(device)

    def run() -> int:
        with setting():
            return sum(plain_counts(subject.model, image, SIGMA, n, CLASSES))

    return run


def row(name: str, way: Way, voter: Opened, rates: Rates) -> list[str]:
    key = "/".join(way)
    told = f"{voter.open.space}, {voter.open.engine}, batch {voter.open.batch}"
    return [name, ", ".join(way), told, f"{voter.seconds:.0f}",
            *(f"{rates.median(which):,.0f}" for which in ("reference", "reference, no TF32", key)),
            *(f"{rates.ratio(key, over):.2f}" for over in ("reference", "reference, no TF32"))]


def best(name: str, voters: dict[Way, Opened], rates: Rates) -> dict[str, float]:
    """The best ratio over the reference as torch runs it, by precision."""
    found: dict[str, float] = {}
    for way in voters:
        key = f"{name} {'logits' if way[0] == 'logits' else way[1]}"
        found[key] = max(found.get(key, 0.0), rates.ratio("/".join(way), "reference").median)
    return found


def noise_lines(setting: Setting) -> list[str]:
    """What drawing noisy rows costs on the GPU: normals alone, and placed on the grid."""
    if setting.device.type != "cuda":
        return ["Noise kernel: not measured without a GPU.", ""]
    rates = interleaved(dict(noise_runs(network("resnet20"), setting.device)), 10, time.perf_counter)
    told = [f"{name} {rates.median(name) / 1e9:.1f}" for name in rates.rounds]
    return [f"Noise, 3,072 values a sample, thousand million values a second: {'; '.join(told)}.", ""]


def noise_runs(subject: Network, device: torch.device) -> Iterator[tuple[str, Run]]:
    from smoothcert.smoothing.philox_kernel import fill_normals

    rows, values = 65_536, subject.image.size
    out = torch.empty(rows, values, device=device)
    keys, positions = torch.arange(3, device=device).expand(rows, 3), torch.arange(rows, device=device)

    def normals() -> int:
        fill_normals(out, keys, positions)
        torch.cuda.synchronize(device)
        return out.numel()

    drawn = DeviceRows(build_noise("grid", SIGMA), subject.image.shape, subject.image.size, 0, device)
    segment = Segment(Subject(0, drawn.noise.centre(subject.image)), "estimate", 0, 4096)

    def placed() -> int:
        done = [drawn.draw([segment]).numel() for _ in range(8)]
        torch.cuda.synchronize(device)
        return sum(done)

    for name, run in (("philox-v1 kernel", normals), ("rows on the grid", placed)):
        run()
        yield name, run


def notes(setting: Setting) -> list[str]:
    _, n, images = setting.work
    return [
        "End to end, by the clock, medians of interleaved rounds; ratios with the least and the greatest. `reference`: "
        "one image, batches of 1,000, counting on the host, as torch runs it by default (TF32 in convolutions) and "
        f"with TF32 off. smoothcert: {images} image(s) at n = {n:,}, grid noise; `logits`: Gaussian noise in the logit "
        "space of the linear network, on the host. `tf32` and `bf16` are other base classifiers, certified as such. "
        "`start`: seconds to compile, capture and check.", "",
    ]


def machine(device: torch.device) -> str:
    return machine_line() if device.type != "cuda" else f"{torch.cuda.get_device_name(device)}, {machine_line()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="two networks, small numbers, RESULTS.md left alone")
    told = parser.parse_args()
    set_up()
    measured = measured_section(Setting(torch.device(told.device), told.quick, time.perf_counter() + _SECONDS))
    if not told.quick:
        write_results({**read_sections(), "gpu": measured})
    print(measured.text)


if __name__ == "__main__":
    main()
