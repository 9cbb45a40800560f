"""The parts of the GPU's benchmark that are measured; see gpu.py."""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from gpu_setting import Finding, Setting
from networks import CLASSES, SIGMA, Network
from ours import LONG_RUN, Opened, drawing, opened
from reference import plain_counts
from timing import Run, interleaved
from timing import seconds as processor_seconds
from torch.utils._python_dispatch import TorchDispatchMode

from smoothcert.errors import EngineWarning
from smoothcert.noise import build_noise
from smoothcert.smoothing import Sampling, Segment
from smoothcert.smoothing.gpu import shortcuts
from smoothcert.smoothing.gpu.opening import open_rows
from smoothcert.smoothing.gpu.referee import Referee
from smoothcert.smoothing.gpu.rows import DeviceRows
from smoothcert.smoothing.gpu.voter import DeviceVoter
from smoothcert.smoothing.passes import Passes
from smoothcert.smoothing.rows import Subject

_ROUNDS = 3


def measure_copies(setting: Setting) -> list[Finding]:
    """Bytes a second from the host, pinned and not, and on the device."""
    size = 2**20 if setting.quick else 2**28
    host = torch.zeros(size, dtype=torch.uint8)
    there = host.to(setting.device)
    ways: dict[str, Callable[[], object]] = {"from pageable memory": lambda: there.copy_(host),
                                             "on the device": there.clone}
    if setting.on_gpu:
        pinned = host.pin_memory()
        ways["from pinned memory"] = lambda: there.copy_(pinned, non_blocking=True)
    return [_rate(setting, name, run, size, 1e9, "GB/s") for name, run in ways.items()]


def measure_noise(setting: Setting) -> list[Finding]:
    """Values a second of noisy rows, as they are drawn here."""
    shape, n, found = (3, 32, 32), 64 if setting.quick else 4096, []
    for kind, stream_format in (("grid", "philox-v1"), ("sound", "sound-philox-v1")):
        noise = build_noise(kind, SIGMA)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EngineWarning)
            rows = open_rows(noise, shape, 3072, 0, stream_format, setting.device)
        segment = Segment(Subject(0, noise.centre(np.zeros(shape, np.float32))), "estimate", 0, n)
        where = "on the GPU" if isinstance(rows, DeviceRows) else "on the host"
        found.append(_rate(setting, f"rows of {kind} noise, {where}", partial(rows.draw, [segment]), n * 3072, 1e9,
                           "thousand million values/s"))
    return found


def _rate(setting: Setting, name: str, run: Callable[[], object], amount: float, unit: float, words: str) -> Finding:
    run()
    setting.synchronise()
    times, started = 1 if setting.quick else 20, time.perf_counter()
    for _ in range(times):
        run()
    setting.synchronise()
    rate = times * amount / (time.perf_counter() - started) / unit
    return Finding("", name, None, f"{rate:.3g} {words}", {f"{name}, {words}": rate})


class Nothing(TorchDispatchMode):
    """Does no arithmetic: gives back what an operation gave before for arguments of these kinds, and counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self._kept = 0, dict[Any, Any]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func._schema.name, kwargs or {}
        if func.is_view or "lift" in name:
            return func(*args, **kwargs)
        self.operations += 1
        if name.endswith("_") and args:
            return args[0]
        parts = [part for value in (*args, *kwargs.values())
                 for part in (value if isinstance(value, list | tuple) else (value,))]
        key = func, *(f"{tuple(part.shape)} {part.dtype}" if isinstance(part, torch.Tensor) else repr(part)
                      for part in parts)
        if key not in self._kept:
            self._kept[key] = func(*args, **kwargs)
        return self._kept[key]


def measure_host(setting: Setting) -> list[Finding]:
    """What a batch of 4,096 costs the host, by stand-ins that do no arithmetic, in rounds of 64 batches.

    Two rounds, of one segment and of 100 samples an image: the difference is what a segment costs.
    """
    batch, shape, noise = 4096, (3, 32, 32), build_noise("grid", SIGMA)
    logits = torch.zeros(batch, CLASSES)
    rows = DeviceRows(noise, shape, 3072, 0, torch.device("cpu"))
    launches: list[int] = []
    rows.__dict__["_kernels"] = SimpleNamespace(draw_rows=lambda *_: launches.append(1))
    voter = DeviceVoter(rows, Passes(lambda rows: logits[: len(rows)], CLASSES, batch), Referee(lambda rows: rows),
                        CLASSES, torch.device("cpu"), lambda *_: launches.extend((1, 1)))
    centre = noise.centre(np.full(shape, 0.5, np.float32))
    total = batch * 64
    rounds = {"one segment": [Segment(Subject(0, centre), "estimate", 0, total)],
              "2,621 segments": [Segment(Subject(key, centre), "estimate", 0, 100) for key in range(total // 100)]}
    seconds, found = {}, []
    for name, segments in rounds.items():
        with Nothing() as counted, mock.patch.object(DeviceVoter, "_settle", _settle_nothing):
            voter.count(segments)
            counted.operations = 0
            launches.clear()
            voter.count(segments)
            calls = (counted.operations + len(launches)) / 64
            seconds[name] = 1e6 / 64 * min(processor_seconds(partial(voter.count, segments)) for _ in range(5))
        found.append(Finding("", f"a batch of 4,096, {name} a round", None, f"{seconds[name]:.0f} us, {calls:.1f} "
                             f"operations and launches", {f"host us, {name}": seconds[name]}))
    each = (seconds["2,621 segments"] - seconds["one segment"]) * 64 / 2621
    return [*found, Finding("", "a segment", None, f"{each:.1f} us", {"host us a segment": each})]


def _settle_nothing(voter: Any, found: Any, votes: Any) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)


def measure_networks(setting: Setting) -> list[Finding]:
    """Samples a second of every network and precision, over the reference: the engines, and what each shortcut adds."""
    found = []
    for name in setting.names:
        subject = setting.network(name)
        for precision in setting.precisions:
            if setting.left < 60 and not setting.quick:
                found.append(Finding("", f"{name}, {precision}", None, "out of time"))
                continue
            found += _measure_network(setting, subject, precision)
    return found


def _measure_network(setting: Setting, subject: Network, precision: str) -> list[Finding]:
    """Each in turn, the reference among them."""
    ways: list[tuple[str, int | None]] = [("", None)] if setting.quick else [
        ("", None), ("", 512), ("cuda_graph", None), ("fused_convolutions", None), ("row_layout", None),
        ("layout_trial", None)]
    voters: dict[str, Opened] = {}
    for left_out, batch in ways:
        how = Sampling("eager", precision=precision, batch_size=batch, device=setting.device, samples=LONG_RUN)
        with shortcuts(**{name: False for name in (left_out,) if name}), warnings.catch_warnings():
            warnings.simplefilter("ignore", EngineWarning)
            voter = opened(subject, build_noise("grid", SIGMA), how)
        if voter.open.batch is not None:
            way = f"without {left_out}" if left_out else "all shortcuts"
            voters[f"{way}, batch {voter.open.batch}"] = voter
    large = subject.image.size > 10_000
    n = 200 if setting.quick else 5000 if large else 50_000
    runs: dict[str, Run] = {name: drawing(subject, voter, n) for name, voter in voters.items()}
    runs["reference"] = _reference(setting, subject, 200 if setting.quick else 2000 if large else 10_000)
    for run in runs.values():
        run()
    rates = interleaved(runs, 1 if setting.quick else _ROUNDS, time.perf_counter)
    best = max(voters, key=rates.median)
    lines = [Finding("", f"{subject.name}, {precision}, {way}", None, f"{rates.median(way):,.0f} samples/s, "
                     f"{rates.ratio(way, 'reference'):.2f} times the reference") for way in voters]
    lines[0].figures = {f"{subject.name} {precision}": rates.ratio(best, "reference").median,
                        f"{subject.name} {precision} samples/s": rates.median(best)}
    return lines


def _reference(setting: Setting, subject: Network, n: int) -> Run:
    image = torch.from_numpy(subject.image).to(setting.device)
    return lambda: sum(plain_counts(subject.model, image, SIGMA, n, CLASSES))


def profile_batches(setting: Setting) -> list[Finding]:
    """Kernels a batch, and the share of the time in which the GPU does nothing."""
    if not setting.on_gpu:
        return [Finding("", "profile", None, "no GPU")]
    found = []
    for name in ("lenet", "resnet110"):
        subject = setting.network(name)
        voter = opened(subject, build_noise("grid", SIGMA), Sampling("eager", device=setting.device, samples=LONG_RUN))
        run, batch = drawing(subject, voter, 64 * 4096), voter.open.batch or 4096
        run()
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profile:
            started = time.perf_counter()
            amount = run()
            setting.synchronise()
            elapsed = time.perf_counter() - started
        events = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
        busy = sum(event.device_time for event in events) / 1e6
        kernels = len(events) / (amount / batch)
        found.append(Finding("", name, None, f"{kernels:.1f} kernels and copies a batch, idle {1 - busy / elapsed:.0%}",
                             {f"{name} kernels a batch": kernels, f"{name} idle": 1 - busy / elapsed}))
    return found


def measure_compile(setting: Setting) -> list[Finding]:
    """torch.compile: its start, its rate, equal counts, and memory that does not grow."""
    if setting.quick:
        return [Finding("", "compile", None, "not run by --quick")]
    name = "resnet20"
    subject, started = setting.network(name), time.perf_counter()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", EngineWarning)
        voter = opened(subject, build_noise("grid", SIGMA), Sampling("compile", device=setting.device))
    start, run = time.perf_counter() - started, drawing(subject, voter, 20_000)
    run()
    with _growth(setting) as grown:
        rate = interleaved({"compile": run}, 10, time.perf_counter).median("compile")
    equal = np.array_equal(setting.counts(name, 3000, engine="compile"), setting.counts(name, 3000))
    words = "; ".join(str(w.message) for w in told) or f"starts in {start:.0f} s, {rate:,.0f} samples/s"
    return [Finding("", name, voter.open.engine == "compile" and equal, words, {"compile start s": start}),
            Finding("", "memory after 10 more runs", grown[0] < 2**20, f"{grown[0] / 2**20:+.1f} MiB")]


def measure_trial(setting: Setting) -> list[Finding]:
    """The batch that a long run chooses, its rate, and its counts beside those without a choice."""
    if setting.quick:
        return [Finding("", "batch trial", None, "not run by --quick")]
    found = []
    for name in ("lenet", "resnet20"):
        subject, counts, runs, batch = setting.network(name), [], {}, 0
        for taken in (False, True):
            with shortcuts(batch_trial=taken):
                voter = opened(subject, build_noise("grid", SIGMA), Sampling(
                    "eager", device=setting.device, samples=LONG_RUN))
            segment = Segment(voter.open.voter.subject(subject.image, 0), "estimate", 0, 2**18)
            counts.append(sum(voter.open.voter.count([segment]) for _ in range(4)))
            runs["chosen" if taken else "as it begins"] = drawing(subject, voter, 2**18)
            batch = getattr(voter.open.voter, "batch", 0)
        rates = interleaved(runs, _ROUNDS, time.perf_counter)
        found.append(Finding("", f"{name}: batch of a long run", np.array_equal(*counts),
                             f"{batch}, {rates.ratio('chosen', 'as it begins').median:.2f} times the rate before"))
    return found


@contextmanager
def _growth(setting: Setting) -> Iterator[list[int]]:
    """Give a list that will hold by how much memory has grown."""
    grown = [0]
    before = torch.cuda.memory_allocated(setting.device) if setting.on_gpu else 0
    yield grown
    grown[0] = (torch.cuda.memory_allocated(setting.device) if setting.on_gpu else 0) - before


