"""Opening an engine: the registry, the check that every engine must pass, the fallbacks, and what "auto" chooses.

The check asks for the plain model's votes on fixed noisy inputs, and in float32 for more: every logit within
CLOSE_CALL / 4 of the scale, which is the row's largest |logit|, or the median row's where that is larger (logits that
nearly cancel, as two classes' do, have no scale of their own). Where an engine keeps to that, the vote of a row whose
two top logits differ by more than CLOSE_CALL of the scale is the plain model's; the others are judged by the plain
model anyway (see `voters.CLOSE_CALL`). So counts are equal in every engine, as long as the bound that held here holds
elsewhere: networks that we trained kept to 1e-6.

In reduced precision no such bound is to be had: a sum rounded elsewhere moves a logit by 2^-9 (bfloat16) or 2^-11
(TF32, float16) of its terms, layer upon layer. There an engine passes if it keeps the votes whose top logits differ by
more than a margin. The others may differ from engine to engine, and counts with them, by a little: the engine is part
of what is certified.
"""

import hashlib
import json
import logging
import os
import platform
import time
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smoothcert.checks import check_count, check_known
from smoothcert.errors import EngineWarning, InputError, MissingExtraError
from smoothcert.progress import Phase, phase
from smoothcert.smoothing.content import fingerprint
from smoothcert.smoothing.contract import ROUNDING, largest_difference, row_scale
from smoothcert.smoothing.engines.onnx_engines import onnxruntime, openvino
from smoothcert.smoothing.engines.protocol import Builder, Engine, Refused, Run, refuse_on_error
from smoothcert.smoothing.engines.runtimes import PACKAGES, RUNTIMES, describe_bf16, import_packages
from smoothcert.smoothing.engines.torch_engines import eager, plain, torch_compile
from smoothcert.smoothing.files import NetworkFile, find_file, put_in_place
from smoothcert.smoothing.gpu.referee import Referee, referee_rows
from smoothcert.smoothing.precision import NARROW, PRECISIONS, reduce_precision
from smoothcert.smoothing.protocols import as_logits, is_random
from smoothcert.smoothing.voters import CLOSE_CALL

ENGINES: dict[str, Builder] = {
    "plain": plain,
    "eager": eager,
    "compile": torch_compile,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
}
"""Builders by name. A new one takes 1 ... batch rows, and is tried by "auto" in long runs."""

CHECKED = 500
"""Noisy inputs on which an engine must agree; "auto" takes a 200th of a run's samples in shorter ones."""

TRIAL_SHARE = 0.02
"""The share of a run's time that "auto" may spend on its choice, with the check of what it chose."""

MARGINS = {"float32": CLOSE_CALL, "tf32": 2.0**-8, "fp16": 2.0**-8, "bf16": 2.0**-5}
"""Votes count where the two top logits differ by more than this share of the scale."""

_LEAST_CHECKED = 100
_ANY_BATCH = ("plain", "eager")
_PRECISIONS_OF = {"onnxruntime": ("float32",), "openvino": ("float32", "bf16")}
_SLOW_START = (15.0, 0.1, 1e-7)
_STARTS = {"eager": (0.03, 5e-4, 1e-8), "onnxruntime": (3.0, 0.03, 5e-8), "openvino": (4.0, 0.03, 5e-8),
           "compile": _SLOW_START}
"""Seconds until an engine runs: at least, for each layer, and for each weight. Two to three times what was measured."""

_log = logging.getLogger("smoothcert")

_rankings: dict[str, list[str]] = {}


def open_engine(
    name: str, model: Any, *, shape: tuple[int, ...], batch: int, device: torch.device, precision: str = "float32",
    samples: int | None = None, only_plain: str | None = None,
) -> Engine:
    """Open a checked way to run a model.

    An engine that cannot run the model, or does not give its votes on 500 noisy inputs (see above), is refused with
    an EngineWarning; the eager one takes its place, and last the plain model. A callable that is no torch module, or
    that is random, only ever runs plain; a network in a file also in ONNX Runtime and OpenVINO. For an integer one in a
    file they are no engines but what it is, so none is checked against another, nor are two in bfloat16.

    Args:
        name: from `ENGINES`, or "auto": the fastest in a timed trial of those that can be started in `TRIAL_SHARE` of
            the run's time, the plain model where none can. The trial's outcome is kept in memory and in the user's
            cache folder; the check is made in any case.
        model: base classifier on `device`, ready for use; never changed. All engines but plain keep the weights that
            it has now.
        shape: of one row, (C, H, W) or that of a latent space.
        batch: rows a call; engines other than plain and eager take no more, and compute as many for fewer.
        precision: see `reduce_precision`; the engine runs that classifier.
        samples: rows the run is expected to need; None counts as few.
        only_plain: why no other engine may run the model; None where one may.
    Raises:
        UnknownNameError: an unknown name. InputError: a precision that the engine, the device or the model does not
        have. MissingExtraError: a named engine whose packages are not installed.
    """
    check_known("engine", name, ("auto", *ENGINES))
    check_known("precision", precision, PRECISIONS)
    setting = _Setting(model, shape, check_count("batch", batch), device, precision)
    file = find_file(model)
    if file is not None and file.runtime is not None:
        return _integer_engine(name, setting, file)
    if file is not None and precision in NARROW:
        return _reduced_file(name, setting)
    fallback = Engine("plain", setting.build("plain"), None)
    if precision == "fp16" and not is_random(model):
        _check_range(setting, fallback.run)
    if name == "plain":
        return fallback
    reason = only_plain or _only_plain(name, setting, fallback.run)
    if reason:
        if name != "auto":
            _warn(name, reason, "plain")
        return fallback
    with phase("choosing an engine", unit="engines") as choosing:
        ranking = _Ranking([name] if file else list(dict.fromkeys((name, "eager"))), {}, CHECKED)
        if name == "auto":
            ranking = _rank(setting, samples or 0, fallback.run, choosing)
        choosing.say("checking its votes")
        return _first_sound(setting, ranking, fallback) if ranking.names else fallback


def _check_range(setting: "_Setting", run: Run) -> None:
    """Raise InputError where logits leave the range of float16."""
    if not setting.logits(run, _LEAST_CHECKED).isfinite().all():
        raise InputError("precision 'fp16': the network gives infinite or NaN logits, because float16 holds nothing "
                         "beyond 65,504: use precision 'bf16', whose range is float32's")


def _integer_engine(name: str, setting: "_Setting", file: NetworkFile) -> Engine:
    """Return the runtime of an integer network, or the one that is named in its place."""
    assert file.runtime is not None
    if setting.precision != "float32":
        raise InputError(f"precision {setting.precision!r}: an integer network has its own arithmetic: leave precision "
                         f"at float32")
    own = file.runtime.name
    if name in RUNTIMES and name != own:
        try:
            return Engine(name, put_in_place(setting.model, file.open(name, setting.shape, 1, "float32")), None)
        except Refused as reason:
            raise InputError(f"engine {name!r} cannot run this integer network: {reason}: use {own!r}") from None
    if name not in ("auto", "plain", own):
        _warn(name, "an integer network is run by its runtime, which is part of what it is", own)
    return Engine(own, reduce_precision(setting.model, "float32"), None)


def _reduced_file(name: str, setting: "_Setting") -> Engine:
    """Return OpenVINO for the network of a file in bfloat16, which no other engine has."""
    problem = f"precision 'bf16' of a network in a file is computed by OpenVINO alone, got engine {name!r}"
    if setting.precision != "bf16":
        problem = f"a network in a file has no precision {setting.precision!r}, only 'bf16' where OpenVINO runs it"
    elif name in ("auto", "openvino"):
        try:
            run = setting.build("openvino")
            expected = setting.logits(reduce_precision(setting.model, "float32"), CHECKED)
            found = fault(expected, setting.try_out(run, CHECKED), "bf16")
            if found is None:
                return Engine("openvino", run, None, describe_bf16())
            problem = f"precision 'bf16': {found}"
        except Refused as reason:
            problem = f"precision 'bf16' of a network in a file is computed by OpenVINO, which cannot here: {reason}"
    raise InputError(f"{problem}: use precision 'float32'")


@dataclass(frozen=True)
class _Setting:
    model: Any
    shape: tuple[int, ...]
    batch: int
    device: torch.device
    precision: str

    def build(self, name: str) -> Run:
        return ENGINES[name](self.model, self.shape, self.batch, self.device, self.precision)

    def logits(self, run: Run, n: int) -> Tensor:
        """Return a forward pass's logits on the noisy inputs: (n, K), float64, on the host.

        On a GPU, where a batch's size decides how it is computed, they are repeated until they fill the batch.
        """
        inputs: Iterable[Tensor] = noisy_inputs(self.shape, n, self.batch, self.device)
        if referee_rows(self.device) > 1 and n < self.batch:
            inputs = [rows[torch.arange(self.batch, device=self.device) % n] for rows in inputs]
        with torch.no_grad():
            return torch.cat([as_logits(run(rows)).double().cpu() for rows in inputs])

    def expected(self, run: Run, n: int) -> Tensor:
        """Return the plain model's logits on the same inputs, judged in the batches in which it judges close calls."""
        rows = referee_rows(self.device)
        if rows == 1:
            return self.logits(run, n)
        found = Referee(run, rows).judge(next(noisy_inputs(self.shape, n, n, self.device))).double().cpu()
        return found[torch.arange(max(n, self.batch)) % n]

    def try_out(self, run: Run, n: int) -> Tensor:
        """Return the logits of an engine, or raise Refused where it fails."""
        with refuse_on_error("it fails on noisy inputs"):
            return self.logits(run, n)

    def start(self, name: str) -> Run:
        """Return an engine that has run once, or raise as builders do."""
        run = self.build(name)
        self.try_out(run, 1)
        return run


@dataclass(frozen=True)
class _Ranking:
    """Engines to be tried, best first; those of them that run already; and the noisy inputs of their check."""

    names: list[str]
    built: dict[str, Run]
    checked: int


def _first_sound(setting: _Setting, ranking: _Ranking, fallback: Engine) -> Engine:
    """Return the first engine that gives the plain model's votes, and warn of each one before it."""
    expected: Tensor | None = None
    for name, following in pairwise([*ranking.names, fallback.name]):
        try:
            run = ranking.built.get(name) or setting.build(name)
            expected = setting.expected(fallback.run, ranking.checked) if expected is None else expected
            reason = fault(expected, setting.try_out(run, ranking.checked), setting.precision)
            if reason is None:
                runtime = describe_bf16() if (name, setting.precision) == ("openvino", "bf16") else None
                return Engine(name, run, None if name in _ANY_BATCH else setting.batch, runtime)
        except Refused as refusal:
            reason = str(refusal)
        _warn(name, reason, following)
    return fallback


def _only_plain(name: str, setting: _Setting, run: Run) -> str | None:
    """Return the reason why a model can only run plain; None where other engines may be tried."""
    if is_random(setting.model):
        return "the model is random: it takes the normals of its walk beside the images"
    if find_file(setting.model) is not None:
        return None if name in RUNTIMES else "the model is a file, which onnxruntime, openvino or plain runs"
    if not isinstance(setting.model, nn.Module):
        return f"the model is no torch module but a {type(setting.model).__name__}"
    try:
        logits = setting.try_out(run, 1)
    except Refused as refusal:  # which the first real batch will say in full
        return f"the plain model cannot run: {refusal}"
    if logits.ndim != 2 or logits.shape[1] < 2:
        return f"the model does not return logits (N, K) but a tensor of shape {tuple(logits.shape)}"
    return None


def _rank(setting: _Setting, samples: int, plain_run: Run, choosing: Phase) -> _Ranking:
    """Return the engines that auto would run, best first, and how many noisy inputs the best is checked on.

    Everything that this takes, with the check, stays within `TRIAL_SHARE` of the time that the samples take. An engine
    whose start would not is left out, by `guess_start` and by what was spent before it.
    """
    trial = _TrialTime(setting, samples, plain_run)
    if guess_start("eager", setting.model) > trial.left:
        _log.info("engine plain: to start another one would take more than %.0f %% of the run", 100 * TRIAL_SHARE)
        return _Ranking([], {}, 0)
    choosing.done = 1
    choosing.say("eager")
    try:
        built = {"eager": setting.start("eager")}
    except Refused:
        return _Ranking(["eager"], {}, trial.checked)  # where it is refused again, with a warning
    trial.time(built)
    # What is faster than eager shortens the run, of which the trial is then a larger share.
    wanted = [name for name in ENGINES if name not in _ANY_BATCH and guess_start(name, setting.model) <= trial.left / 2
              and (name not in PACKAGES or setting.precision in _PRECISIONS_OF[name])]
    versions = {name: version for name in wanted if (version := versions_of(name)) is not None}
    if not versions:
        return _Ranking(["eager"], built, trial.checked)
    versions["eager"] = ""
    key = trial_key(setting.model, setting.shape, setting.batch, setting.device, setting.precision, versions)
    if names := recall(key, versions):
        _log.info("engines, fastest first, as an earlier trial found them: %s", ", ".join(names))
        return _Ranking(names, built, trial.checked)
    choosing.total = len(versions)
    for name in sorted(set(versions) - set(built), key=lambda name: (guess_start(name, setting.model), name)):
        if guess_start(name, setting.model) > trial.left / 2:
            break
        choosing.done += 1
        choosing.say(name)
        with suppress(Refused, MissingExtraError):  # what auto cannot start it does without
            built[name] = setting.start(name)
    choosing.say("timing them")
    times = trial.compare(built)
    names = sorted(times, key=times.__getitem__)
    _log.info("engines, seconds a sample: %s", ", ".join(f"{name} {times[name]:.3g}" for name in names))
    remember(key, names)
    return _Ranking(names, built, trial.checked)


class _TrialTime:
    """The time that a trial may still take.

    Attributes:
        checked: the noisy inputs on which an engine is compared with the plain model.
    """

    def __init__(self, setting: _Setting, samples: int, plain_run: Run):
        self._setting, self._samples, self._started = setting, samples, time.perf_counter()
        self.checked = min(max(samples // 200, _LEAST_CHECKED), CHECKED)
        self._few = next(noisy_inputs(setting.shape, max(min(setting.batch, samples // 1000), 1), setting.batch,
                                      setting.device))
        self._seconds = time_rows({"plain": plain_run}, self._few, rounds=1)["plain"]

    @property
    def left(self) -> float:
        """The seconds that are left for starting engines."""
        allowed = TRIAL_SHARE * self._samples * self._seconds - 2 * self.checked * self._seconds
        return allowed - (time.perf_counter() - self._started)

    def time(self, runs: Mapping[str, Run]) -> None:
        """Reckon from now on with the seconds a row of the fastest of these and the plain model."""
        self._seconds = min(self._seconds, *time_rows(runs, self._few, rounds=1).values())

    def compare(self, runs: Mapping[str, Run]) -> dict[str, float]:
        """Return the seconds a row of each engine, on as many passes as there is time for."""
        rows = next(noisy_inputs(self._setting.shape, self._setting.batch, self._setting.batch, self._setting.device))
        each = self._seconds * len(rows) * len(runs)
        return time_rows(runs, rows, rounds=max(1, min(5, int(self.left / each) - 1)))


def guess_start(name: str, model: nn.Module) -> float:
    """Return a guess of the seconds that an engine takes to start, on the safe side for processors of today."""
    base, of_layer, of_weight = _STARTS.get(name, _SLOW_START)
    layers = sum(1 for part in model.modules() if not list(part.children()))
    return base + of_layer * layers + of_weight * sum(weight.numel() for weight in model.parameters())


def _warn(name: str, reason: str, following: str) -> None:
    warnings.warn(f"engine {name!r} is not used: {reason}; falling back to {following!r}", EngineWarning, stacklevel=4)


def noisy_inputs(shape: tuple[int, ...], n: int, batch: int, device: torch.device) -> Iterator[Tensor]:
    """Yield n rows 0.5 + 0.5 N(0, 1) of a fixed seed, in batches of `batch`."""
    generator = torch.Generator().manual_seed(0)
    for first in range(0, n, batch):
        yield torch.randn(min(batch, n - first), *shape, generator=generator).mul_(0.5).add_(0.5).to(device)


def fault(expected: Tensor, logits: Tensor, precision: str) -> str | None:
    """Return what is wrong with an engine's logits (N, K) where the plain model's are `expected`; None: nothing."""
    if logits.shape != expected.shape:
        return f"its logits have shape {tuple(logits.shape)} where the plain model's have {tuple(expected.shape)}"
    scale = row_scale(expected)
    first, second = expected.topk(2, dim=1).values.unbind(dim=1)
    flipped = (logits.argmax(dim=1) != expected.argmax(dim=1)) & (first - second > MARGINS[precision] * scale)
    if flipped.any():
        return f"{int(flipped.sum())} of {len(logits)} votes on noisy inputs differ from the plain model's"
    worst = largest_difference(expected, logits, scale)
    if precision == "float32" and worst > ROUNDING:
        return (f"no vote on {len(logits)} noisy inputs differs, but a logit does, by {worst:.2g} of its scale "
                f"({ROUNDING:.2g} is allowed, so that counts are equal in every engine)")
    return None


def time_rows(runs: Mapping[str, Run], rows: Tensor, rounds: int = 5) -> dict[str, float]:
    """Return the seconds a row of each pass: the least of a few interleaved ones, since other work only ever adds."""
    best = dict.fromkeys(runs, float("inf"))
    with torch.no_grad():
        for run in runs.values():
            run(rows)
        for _ in range(rounds):
            for name, run in runs.items():
                _synchronise(rows.device)
                start = time.perf_counter()
                run(rows)
                _synchronise(rows.device)
                best[name] = min(best[name], (time.perf_counter() - start) / len(rows))
    return best


def recall(key: str, candidates: Collection[str]) -> list[str]:
    """Return the candidates remembered under a key, fastest first, in this process or in the user's cache folder."""
    found = _rankings.get(key) or _read().get(key)
    if not isinstance(found, list):
        return []
    return [name for name in dict.fromkeys(name for name in found if isinstance(name, str)) if name in candidates]


def remember(key: str, ranking: list[str]) -> None:
    """Keep a ranking for this process and, where the user's cache folder can be written, for later ones."""
    _rankings[key] = ranking
    try:
        path = cache_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}")
        part.write_text(json.dumps({**_read(), key: ranking}, indent=0))
        part.replace(path)
    except (OSError, RuntimeError):
        pass


def trial_key(
    model: nn.Module, shape: tuple[int, ...], batch: int, device: torch.device, precision: str,
    versions: Mapping[str, str],
) -> str:
    """Return a hash of what a trial's outcome depends on: the network, the machine, the candidates, the batch."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []  # `platform` knows the processor's model, but for Linux
    processor = next((line for line in lines if line.startswith("model name")), platform.processor())
    machine = [platform.machine(), processor, os.cpu_count(), torch.get_num_threads(), gpu]
    parts = [fingerprint(model), machine, list(shape), batch, device.type, precision, dict(versions), torch.__version__]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def versions_of(engine: str) -> str | None:
    """Return the versions of the packages that an engine needs beside torch; None where one is absent."""
    try:
        modules = import_packages(engine)
    except ImportError:
        return None
    return " ".join(f"{module.__name__} {getattr(module, '__version__', '')}" for module in modules)


def cache_file() -> Path:
    """Return engines.json in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "smoothcert" / "engines.json"


def _read() -> dict[str, Any]:
    try:
        content = json.loads(cache_file().read_text())
    except (OSError, RuntimeError, ValueError):  # RuntimeError: no home folder
        return {}
    return content if isinstance(content, dict) else {}


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
