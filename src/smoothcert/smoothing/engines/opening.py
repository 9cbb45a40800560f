"""Opening an engine: the check that every engine must pass, the fallbacks, and what "auto" chooses."""

import logging
import warnings
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from smoothcert.checks import check_count, check_known
from smoothcert.errors import EngineWarning, InputError
from smoothcert.progress import phase
from smoothcert.smoothing.engines.ensembles import TOGETHER, EarlyStop, stops_early
from smoothcert.smoothing.engines.protocol import Choice, Engine, Refused, Run
from smoothcert.smoothing.engines.registry import ANY_BATCH, ENGINES, EngineSetting, fault
from smoothcert.smoothing.engines.runtimes import RUNTIMES, describe_bf16
from smoothcert.smoothing.engines.trial import (
    CHECKED,
    LEAST_CHECKED,
    Trial,
    choose_layout,
    compare_runtimes,
    try_engines,
)
from smoothcert.smoothing.files import NetworkFile, find_file, put_in_place
from smoothcert.smoothing.passes import Passes
from smoothcert.smoothing.precision import NARROW, PRECISIONS, reduce_precision
from smoothcert.smoothing.protocols import is_random

_log = logging.getLogger("smoothcert")


def open_engine(
    name: str, model: Any, *, shape: tuple[int, ...], batch: int, device: torch.device, precision: str = "float32",
    samples: int | None = None, only_plain: str | None = None,
) -> Engine:
    """Open a checked way to run a model.

    An engine that cannot run the model, or does not give its votes on 500 noisy inputs (see `registry`), is refused
    with an EngineWarning; the eager one takes its place, and last the plain model. A callable that is no torch module,
    or that is random, only ever runs plain; a network in a file also in ONNX Runtime and OpenVINO. For an integer one
    in a file they are no engines but what it is, so none is checked against another, nor are two in bfloat16. Of an
    ensemble of probabilities each member is run by the engine, and no more members than decide a vote (see
    `ensembles`).

    Args:
        name: from `ENGINES`, or "auto": the fastest in a timed trial of those that can be started in `TRIAL_SHARE` of
            the run's time, the plain model where none can. The trial's outcome is kept in memory and in the user's
            cache folder, but for networks in files; the check is made in any case.
        model: base classifier on `device`, ready for use; never changed. All engines but plain keep the weights that
            it has now.
        shape: of one row, that of an input or of a latent space.
        batch: the most rows a call; engines may compute fewer at once.
        precision: see `reduce_precision`; the engine runs that classifier.
        samples: rows the run is expected to need; None counts as few.
        only_plain: why no other engine may run the model; None where one may.
    Raises:
        UnknownNameError: an unknown name. InputError: a precision that the engine, the device or the model does not
        have. MissingExtraError: a named engine whose packages are not installed.
    """
    check_known("engine", name, ("auto", *ENGINES))
    check_known("precision", precision, PRECISIONS)
    setting = EngineSetting(model, shape, check_count("batch", batch), device, precision)
    engine = _open(name, setting, samples or 0, only_plain)
    for line in engine.choice.lines() if engine.choice else ():
        _log.info(line)
    return engine


def _open(name: str, setting: EngineSetting, samples: int, only_plain: str | None) -> Engine:
    file = find_file(setting.model)
    if file is not None and file.runtime is not None:
        return _integer_engine(name, setting, file, samples)
    if file is not None and setting.precision in NARROW:
        return _reduced_file(name, setting)
    fallback = Engine("plain", setting.build("plain"), None)
    if setting.precision == "fp16" and not is_random(setting.model):
        _check_range(setting, fallback.run)
    if name == "plain":
        return fallback
    reason = only_plain or _only_plain(name, setting, fallback.run)
    if reason:
        if name != "auto":
            _warn(name, reason, "plain")
        return replace(fallback, choice=Choice("plain", reason=reason))
    if stops_early(setting.model) and setting.precision == "float32" and setting.device.type == "cpu":
        return _open_members(name, setting, samples, fallback)
    with phase("choosing an engine", unit="engines") as choosing:
        trial = Trial([name] if file else list(dict.fromkeys((name, "eager"))))
        if name == "auto":
            trial = try_engines(setting, samples, fallback.run, choosing)
        choosing.say("checking its votes")
        return _first_sound(setting, trial, fallback)


def _open_members(name: str, setting: EngineSetting, samples: int, fallback: Engine) -> Engine:
    """Return an engine that runs the members of an ensemble one by one, all in the engine that suits the first of them,
    and stops early; the plain ensemble where its votes or its logits without stopping are not the plain ones."""
    engines = list[Engine]()
    for member in setting.model.members:
        engines.append(_open(engines[0].name if engines else name, replace(setting, model=member), samples, None))
    expected = setting.expected(fallback.run, CHECKED)
    passes = [Passes(engine.run, expected.shape[1], engine.batch or setting.batch) for engine in engines]
    weights = setting.model.weights.tolist()
    reason = fault(expected, setting.logits(EarlyStop(passes, weights, stops=False), CHECKED), "float32")
    if reason is not None:
        _warn(engines[0].name, reason, fallback.name)
        return fallback
    taken = engines[0]
    return Engine(taken.name, EarlyStop(passes, weights), TOGETHER * setting.batch, choice=taken.choice)


def _check_range(setting: EngineSetting, run: Run) -> None:
    """Raise InputError where logits leave the range of float16."""
    if not setting.logits(run, LEAST_CHECKED).isfinite().all():
        raise InputError("precision 'fp16': the network gives infinite or NaN logits, because float16 holds nothing "
                         "beyond 65,504: use precision 'bf16', whose range is float32's")


def _integer_engine(name: str, setting: EngineSetting, file: NetworkFile, samples: int) -> Engine:
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
    run = reduce_precision(setting.model, "float32")
    choice = compare_runtimes(setting, file, run, samples) if name == "auto" else None
    return Engine(own, run, None, choice=choice)


def _reduced_file(name: str, setting: EngineSetting) -> Engine:
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
                return Engine("openvino", run, None, describe_bf16(),
                              Choice("openvino", reason="no other engine computes a network in a file in bfloat16"))
            problem = f"precision 'bf16': {found}"
        except Refused as reason:
            problem = f"precision 'bf16' of a network in a file is computed by OpenVINO, which cannot here: {reason}"
    raise InputError(f"{problem}: use precision 'float32'")


def _first_sound(setting: EngineSetting, trial: Trial, fallback: Engine) -> Engine:
    """Return the first engine that gives the plain model's votes, and warn of each one before it."""
    expected: Tensor | None = None
    for name, following in pairwise([*trial.names, fallback.name]):
        try:
            run = choose_layout(setting, trial.built.get(name) or setting.build(name))
            expected = setting.expected(fallback.run, trial.checked) if expected is None else expected
            reason = fault(expected, setting.try_out(run, trial.checked), setting.precision)
            if reason is None:
                runtime = describe_bf16() if (name, setting.precision) == ("openvino", "bf16") else None
                batch = None if name in ANY_BATCH else setting.batch
                return Engine(name, run, batch, runtime, trial.choose(name))
        except Refused as refusal:
            reason = str(refusal)
        trial.lacked[name] = reason
        _warn(name, reason, following)
    return replace(fallback, choice=trial.choose(fallback.name))


def _only_plain(name: str, setting: EngineSetting, run: Run) -> str | None:
    """Return the reason why a model can only run plain; None where other engines may be tried."""
    if is_random(setting.model):
        return "the model is random: it takes the normals of its walk beside the images"
    if find_file(setting.model) is not None:
        return None if name in ("auto", *RUNTIMES) else "the model is a file, which onnxruntime, openvino or plain runs"
    if not isinstance(setting.model, nn.Module):
        return f"the model is no torch module but a {type(setting.model).__name__}"
    try:
        logits = setting.try_out(run, 1)
    except Refused as refusal:  # which the first real batch will say in full
        return f"the plain model cannot run: {refusal}"
    if logits.ndim != 2 or logits.shape[1] < 2:
        return f"the model does not return logits (N, K) but a tensor of shape {tuple(logits.shape)}"
    return None


def _warn(name: str, reason: str, following: str) -> None:
    warnings.warn(f"engine {name!r} is not used: {reason}; falling back to {following!r}", EngineWarning, stacklevel=4)
