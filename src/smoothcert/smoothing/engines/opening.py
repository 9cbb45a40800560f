"""Opening an engine: the registry, the check that every engine must pass, the fallbacks, and what "auto" chooses.

The check asks for the plain model's votes on fixed noisy inputs, and in float32 for more: every logit within
CLOSE_CALL / 4 of the scale, which is the row's largest |logit|, or the median row's where that is larger (logits that
nearly cancel, as two classes' do, have no scale of their own). Where an engine keeps to that, the vote of a row whose
two top logits differ by more than CLOSE_CALL of the scale is the plain model's; the others are judged by the plain
model anyway (see `voters.CLOSE_CALL`). So counts are equal in every engine, as long as the bound that held here holds
elsewhere: networks that we trained kept to 1e-6.

In reduced precision no such bound is to be had: a sum rounded elsewhere moves a logit by 2^-9 (bfloat16) or 2^-11
(TF32) of its terms, layer upon layer. There an engine passes if it keeps the votes whose top logits differ by more
than a margin. The others may differ from engine to engine, and counts with them, by a little: the engine is part of
what is certified.
"""

import hashlib
import json
import os
import platform
import time
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smoothcert.checks import check_count, check_known
from smoothcert.errors import EngineWarning, MissingExtraError
from smoothcert.smoothing.content import fingerprint
from smoothcert.smoothing.contract import ROUNDING, largest_difference, row_scale
from smoothcert.smoothing.engines.onnx_engines import PACKAGES, import_packages, onnxruntime, openvino
from smoothcert.smoothing.engines.protocol import Builder, Engine, Refused, Run, refuse_on_error
from smoothcert.smoothing.engines.torch_engines import eager, plain, torch_compile
from smoothcert.smoothing.precision import PRECISIONS
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
"""Noisy inputs on which an engine must agree."""

MARGINS = {"float32": CLOSE_CALL, "tf32": 2.0**-8, "bf16": 2.0**-5}
"""Votes count where the two top logits differ by more than this share of the scale."""

_ANY_BATCH = ("plain", "eager")
_TRIAL_SECONDS = 60.0  # of eager work, below which starting another engine costs more than it saves
_COMPILE_SECONDS = 600.0  # the same for torch.compile, which takes far longer to start

_rankings: dict[str, list[str]] = {}


def open_engine(
    name: str, model: Any, *, shape: tuple[int, ...], batch: int, device: torch.device, precision: str = "float32",
    samples: int | None = None, only_plain: str | None = None,
) -> Engine:
    """Open a checked way to run a model.

    An engine that cannot run the model, or does not give its votes on 500 noisy inputs (see above), is refused with
    an EngineWarning; the eager one takes its place, and last the plain model. A callable that is no torch module, or
    that is random, only ever runs plain.

    Args:
        name: from `ENGINES`, or "auto": eager for short runs, the fastest in a timed trial for long ones. The trial's
            outcome is kept in memory and in the user's cache folder; the check is made in any case.
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
    fallback = Engine("plain", setting.build("plain"), None)
    if name == "plain":
        return fallback
    reason = only_plain or _only_plain(setting, fallback.run)
    if reason:
        if name != "auto":
            _warn(name, reason, "plain")
        return fallback
    names, built = _rank(setting, samples) if name == "auto" else (list(dict.fromkeys((name, "eager"))), {})
    return _first_sound(setting, names, built, fallback)


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
        """Return a forward pass's logits on the noisy inputs: (n, K), float64, on the host."""
        inputs = noisy_inputs(self.shape, n, self.batch, self.device)
        with torch.no_grad():
            return torch.cat([as_logits(run(rows)).double().cpu() for rows in inputs])

    def try_out(self, run: Run, n: int) -> Tensor:
        """Return the logits of an engine, or raise Refused where it fails."""
        with refuse_on_error("it fails on noisy inputs"):
            return self.logits(run, n)

    def start(self, name: str) -> Run:
        """Return an engine that has run once, or raise as builders do."""
        run = self.build(name)
        self.try_out(run, 1)
        return run


def _first_sound(setting: _Setting, names: list[str], built: dict[str, Run], fallback: Engine) -> Engine:
    """Return the first engine that gives the plain model's votes, and warn of each one before it."""
    expected: Tensor | None = None
    for name, following in pairwise([*names, fallback.name]):
        try:
            run = built.get(name) or setting.build(name)
            expected = setting.logits(fallback.run, CHECKED) if expected is None else expected
            reason = fault(expected, setting.try_out(run, CHECKED), setting.precision)
            if reason is None:
                return Engine(name, run, None if name in _ANY_BATCH else setting.batch)
        except Refused as refusal:
            reason = str(refusal)
        _warn(name, reason, following)
    return fallback


def _only_plain(setting: _Setting, run: Run) -> str | None:
    """Return the reason why a model can only run plain; None where other engines may be tried."""
    if is_random(setting.model):
        return "the model is random: it takes the normals of its walk beside the images"
    if not isinstance(setting.model, nn.Module):
        return f"the model is no torch module but a {type(setting.model).__name__}"
    try:
        logits = setting.try_out(run, 1)
    except Refused as refusal:  # which the first real batch will say in full
        return f"the plain model cannot run: {refusal}"
    if logits.ndim != 2 or logits.shape[1] < 2:
        return f"the model does not return logits (N, K) but a tensor of shape {tuple(logits.shape)}"
    return None


def _rank(setting: _Setting, samples: int | None) -> tuple[list[str], dict[str, Run]]:
    """Return the engines that auto would run, best first, and those of them that are built already."""
    try:
        built = {"eager": setting.start("eager")}
    except Refused:
        return ["eager"], {}  # where it is refused again, with a warning
    rows = next(noisy_inputs(setting.shape, setting.batch, setting.batch, setting.device))
    work = (samples or 0) * time_rows(built, rows, rounds=1)["eager"]
    if work < _TRIAL_SECONDS:
        return ["eager"], built
    wanted = [name for name in ENGINES  # with the versions of the packages that each needs
              if name != "plain" and (name != "compile" or work >= _COMPILE_SECONDS)
              and (name not in PACKAGES or setting.precision == "float32")]
    versions = {name: version for name in wanted if (version := versions_of(name)) is not None}
    key = trial_key(setting.model, setting.shape, setting.batch, setting.device, setting.precision, versions)
    names = recall(key, versions)
    if not names:
        for name in versions.keys() - built.keys():
            with suppress(Refused, MissingExtraError):  # what auto cannot start it does without
                built[name] = setting.start(name)
        times = time_rows(built, rows)
        names = sorted(times, key=times.__getitem__)
        remember(key, names)
    return names, built


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
