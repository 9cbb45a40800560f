"""Opening an engine: the registry, the check that every engine must pass, the fallbacks, and what "auto" chooses."""

import warnings
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from smoothcert.checks import check_count, check_known
from smoothcert.errors import EngineWarning, MissingExtraError
from smoothcert.smoothing.engines import trial
from smoothcert.smoothing.engines.check import CHECKED, fault, logits_of, noisy_inputs
from smoothcert.smoothing.engines.onnx_engines import PACKAGES, onnxruntime, openvino
from smoothcert.smoothing.engines.precision import PRECISIONS
from smoothcert.smoothing.engines.protocol import Builder, Engine, Refused, Run, refusing
from smoothcert.smoothing.engines.torch_engines import compiled, eager, plain
from smoothcert.smoothing.protocols import is_random

ENGINES: dict[str, Builder] = {
    "plain": plain,
    "eager": eager,
    "compile": compiled,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
}
"""Builders by name. A new one takes 1 ... batch rows, and is tried by "auto" in long runs."""

_ANY_BATCH = ("plain", "eager")
_TRIAL_SECONDS = 60.0  # of eager work, below which starting another engine costs more than it saves
_COMPILE_SECONDS = 600.0  # the same for torch.compile, which takes far longer to start


def open_engine(
    name: str, model: Any, *, shape: tuple[int, ...], batch: int, device: torch.device, precision: str = "float32",
    samples: int | None = None, only_plain: str | None = None,
) -> Engine:
    """Open a checked way to run a model.

    An engine that cannot run the model, or does not give its votes on 500 noisy inputs (see `check`), is refused with
    an EngineWarning; the eager one takes its place, and last the plain model. A callable that is no torch module, or
    that is random, only ever runs plain.

    Args:
        name: from `ENGINES`, or "auto": eager for short runs, the fastest in a timed trial for long ones. The trial's
            outcome is kept in memory and in the user's cache folder; the check is made in any case.
        model: base classifier on `device`, ready for use; never changed. All engines but plain keep the weights that
            it has now.
        shape: of one row, (C, H, W) or that of a latent space.
        batch: rows a call; engines other than plain and eager take no more, and compute as many for fewer.
        precision: see `reduced`; the engine runs that classifier.
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
    names, built = _ranked(setting, samples) if name == "auto" else (list(dict.fromkeys((name, "eager"))), {})
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
        return logits_of(run, self.shape, n, self.batch, self.device)

    def tried(self, run: Run, n: int) -> Tensor:
        """The logits of an engine. Raises Refused where it fails."""
        with refusing("it fails on noisy inputs"):
            return self.logits(run, n)


def _first_sound(setting: _Setting, names: list[str], built: dict[str, Run], fallback: Engine) -> Engine:
    """The first engine that gives the plain model's votes; a warning for each before it."""
    expected: Tensor | None = None
    for name, following in pairwise([*names, fallback.name]):
        try:
            run = built.get(name) or setting.build(name)
            expected = setting.logits(fallback.run, CHECKED) if expected is None else expected
            reason = fault(expected, setting.tried(run, CHECKED), setting.precision)
            if reason is None:
                return Engine(name, run, None if name in _ANY_BATCH else setting.batch)
        except Refused as refusal:
            reason = str(refusal)
        _warn(name, reason, following)
    return fallback


def _only_plain(setting: _Setting, run: Run) -> str | None:
    """Why a model can only run plain; None where other engines may be tried."""
    if is_random(setting.model):
        return "the model is random: it takes the normals of its walk beside the images"
    if not isinstance(setting.model, nn.Module):
        return f"the model is no torch module but a {type(setting.model).__name__}"
    try:
        logits = setting.tried(run, 1)
    except Refused as refusal:  # which the first real batch will say in full
        return f"the plain model cannot run: {refusal}"
    if logits.ndim != 2 or logits.shape[1] < 2:
        return f"the model does not return logits (N, K) but a tensor of shape {tuple(logits.shape)}"
    return None


def _ranked(setting: _Setting, samples: int | None) -> tuple[list[str], dict[str, Run]]:
    """The engines that auto would run, best first, and those of them that are built already."""
    try:
        built = {"eager": _started(setting, "eager")}
    except Refused:
        return ["eager"], {}  # where it is refused again, with a warning
    rows = next(noisy_inputs(setting.shape, setting.batch, setting.batch, setting.device))
    work = (samples or 0) * trial.seconds(built, rows, rounds=1)["eager"]
    if work < _TRIAL_SECONDS:
        return ["eager"], built
    versions = _candidates(setting.precision, work)
    key = trial.trial_key(setting.model, setting.shape, setting.batch, setting.device, setting.precision, versions)
    names = trial.recalled(key, versions)
    if not names:
        for name in versions.keys() - built.keys():
            with suppress(Refused, MissingExtraError):  # what auto cannot start it does without
                built[name] = _started(setting, name)
        times = trial.seconds(built, rows)
        names = sorted(times, key=times.__getitem__)
        trial.remember(key, names)
    return names, built


def _candidates(precision: str, work: float) -> dict[str, str]:
    """What auto may try for so many seconds of eager work, with the versions of the packages that each needs."""
    wanted = [name for name in ENGINES
              if name != "plain" and (name != "compile" or work >= _COMPILE_SECONDS)
              and (name not in PACKAGES or precision == "float32")]
    found = {name: trial.versions(name) for name in wanted}
    return {name: version for name, version in found.items() if version is not None}


def _started(setting: _Setting, name: str) -> Run:
    """An engine that has run once. Raises as builders do."""
    run = setting.build(name)
    setting.tried(run, 1)
    return run


def _warn(name: str, reason: str, following: str) -> None:
    warnings.warn(f"engine {name!r} is not used: {reason}; falling back to {following!r}", EngineWarning, stacklevel=4)
