"""The trial that "auto" makes of the engines, within a share of the run's time, and what it found."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from smoothcert.errors import MissingExtraError, SmoothcertError
from smoothcert.progress import Phase
from smoothcert.smoothing.engines.outcomes import TrialOutcome, recall, remember, trial_key
from smoothcert.smoothing.engines.protocol import Choice, Refused, Run, refuse_on_error
from smoothcert.smoothing.engines.registry import ANY_BATCH, ENGINES, EngineSetting
from smoothcert.smoothing.engines.runtimes import EXTRAS, PACKAGES, RUNTIMES, import_packages
from smoothcert.smoothing.engines.torch_engines import FoldedPass
from smoothcert.smoothing.files import NetworkFile, find_file, put_in_place
from smoothcert.smoothing.gpu.shortcuts import is_taken

CHECKED = 500
"""Noisy inputs on which an engine must agree; "auto" takes a 200th of a run's samples in shorter ones."""

TRIAL_SHARE = 0.02
"""The share of a run's time that "auto" may spend on its choice, with the check of what it chose."""

LEAST_CHECKED = 100
_LAID_OUT = 512  # rows on which the two memory layouts are timed
_PRECISIONS_OF = {"onnxruntime": ("float32",), "openvino": ("float32", "bf16"), "mnn": ("float32",)}
_SLOW_START = (15.0, 0.1, 1e-7)
_STARTS = {"eager": (0.03, 5e-4, 1e-8), "onnxruntime": (3.0, 0.03, 5e-8), "openvino": (4.0, 0.03, 5e-8),
           "mnn": (3.0, 0.03, 5e-8), "compile": _SLOW_START}
"""Seconds until an engine runs: at least, for each layer, and for each weight. Two to three times what was measured."""


@dataclass
class Trial:
    """The engines that might run a model, and what is known of them.

    Attributes:
        names: those to be tried, best first. built: those of them that run already.
        checked: the noisy inputs of their check.
        seconds: a sample, of those that were timed. lacked: why others are not used, in words.
        reason: why no other engine was tried than the one that is taken.
    """

    names: list[str]
    checked: int = CHECKED
    built: dict[str, Run] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    lacked: dict[str, str] = field(default_factory=dict)
    reason: str = ""

    def choose(self, taken: str) -> Choice | None:
        """Return the choice of an engine; None where there is no more to say than its name."""
        refused = {name: words for name, words in self.lacked.items() if name != taken}
        refused |= {name: "slower" for name in self.seconds if name not in (taken, *refused)}
        rates = {name: 1 / value for name, value in self.seconds.items()}
        return Choice(taken, rates, refused, self.reason) if rates or refused or self.reason else None


def try_engines(setting: EngineSetting, samples: int, plain_run: Run, choosing: Phase) -> Trial:
    """Return what a timed trial finds, with the engines that auto would run, best first.

    Everything that this takes, with the check, stays within `TRIAL_SHARE` of the time that the samples take. An engine
    whose start would not is left out, by `guess_start` and by what was spent before it.
    """
    left = TrialTime(setting, samples, plain_run)
    trial, in_file = Trial([], left.checked), find_file(setting.model) is not None
    first = min(RUNTIMES if in_file else ["eager"], key=lambda name: guess_start(name, setting.model))
    if guess_start(first, setting.model) > left.seconds:
        trial.reason = f"to start another engine would take more than {TRIAL_SHARE:.0%} of the run"
        return trial
    if not in_file:
        choosing.done = 1
        choosing.say("eager")
        trial.names = ["eager"]
        try:
            trial.built["eager"] = setting.start("eager")
        except Refused:
            return trial  # where it is refused again, with a warning
        left.time(trial.built)
    versions = _list_candidates(setting, left, trial, in_file)
    if not versions:
        return trial
    key = None if in_file else trial_key(setting, versions)
    if key is not None and (known := recall(key, [*versions, *trial.built])) is not None:
        trial.seconds, trial.lacked = dict(known.seconds), {**known.lacked, **trial.lacked}
    else:
        _start(setting, left, trial, list(versions), choosing)
        choosing.say("timing them")
        trial.seconds = left.compare(trial.built) if trial.built else {}
        if key is not None:
            remember(key, TrialOutcome(trial.seconds, trial.lacked))
    trial.names = sorted(trial.seconds, key=trial.seconds.__getitem__)
    return trial


def compare_runtimes(setting: EngineSetting, file: NetworkFile, run: Run, samples: int) -> Choice | None:
    """Return why the runtime of an integer network is taken, with the speed of the other where there is time for it.

    Args:
        run: the network in its runtime.
    """
    assert file.runtime is not None
    own, left = file.runtime.name, TrialTime(setting, samples, run)
    trial = Trial([own], built={own: run}, reason="the runtime of an integer network is part of what is certified")
    for name in RUNTIMES:
        if name == own:
            continue
        words = _obstacle(name, setting, left)
        try:
            if words is None:
                other = file.open(name, setting.shape, setting.batch, setting.precision)
                run_other = put_in_place(setting.model, other)
                setting.try_out(run_other, setting.batch)
                trial.built[name] = run_other
                words = f"what it makes of the file is another network, which --engine {name} certifies"
        except (Refused, SmoothcertError) as reason:
            words = str(reason)
        trial.lacked[name] = words
    if len(trial.built) > 1:
        trial.seconds = left.compare(trial.built)
    return trial.choose(own)


def _list_candidates(setting: EngineSetting, left: "TrialTime", trial: Trial, in_file: bool) -> dict[str, str]:
    """Return the versions of the packages of each engine that may be tried, and say of the others what they lack."""
    wanted = RUNTIMES if in_file else [name for name in ENGINES if name not in ANY_BATCH]
    obstacles = {name: _obstacle(name, setting, left) for name in wanted}
    trial.lacked |= {name: words for name, words in obstacles.items() if words is not None}
    return {name: versions_of(name) or "" for name, words in obstacles.items() if words is None}


def _obstacle(name: str, setting: EngineSetting, left: "TrialTime") -> str | None:
    """Return why an engine cannot be tried, in words; None where it can."""
    if setting.precision not in _PRECISIONS_OF.get(name, (setting.precision,)):
        return f"it does not compute in {setting.precision}"
    # What is faster than eager shortens the run, of which the trial is then a larger share.
    if (start := guess_start(name, setting.model)) > left.seconds / 2:
        return f"its start of about {start:.0f} s does not fit into {TRIAL_SHARE:.0%} of the run"
    if versions_of(name) is None:
        return f"not installed (pip install 'smoothcert[{EXTRAS[PACKAGES[name][-1]]}]')"
    return None


def _start(setting: EngineSetting, left: "TrialTime", trial: Trial, names: list[str], choosing: Phase) -> None:
    """Start those engines that there is time for."""
    choosing.total = len(names) + len(trial.built)
    for name in sorted(names, key=lambda name: (guess_start(name, setting.model), name)):
        if (words := _obstacle(name, setting, left)) is not None:
            trial.lacked[name] = words
            continue
        choosing.done += 1
        choosing.say(name)
        try:
            trial.built[name] = setting.start(name)
        except (Refused, MissingExtraError) as reason:
            trial.lacked[name] = str(reason)


class TrialTime:
    """The time that a trial may still take.

    Attributes:
        checked: the noisy inputs on which an engine is compared with the plain model.
    """

    def __init__(self, setting: EngineSetting, samples: int, plain_run: Run):
        self._setting, self._samples, self._started = setting, samples, time.perf_counter()
        self.checked = min(max(samples // 200, LEAST_CHECKED), CHECKED)
        self._few = next(setting.inputs(max(min(setting.batch, samples // 1000), 1)))
        self._each = time_rows({"plain": plain_run}, self._few, rounds=1)["plain"]

    @property
    def seconds(self) -> float:
        """The seconds that are left for starting engines."""
        allowed = TRIAL_SHARE * self._samples * self._each - 2 * self.checked * self._each
        return allowed - (time.perf_counter() - self._started)

    def time(self, runs: Mapping[str, Run]) -> None:
        """Estimate the run's time from now on by the fastest of these and the plain model."""
        self._each = min(self._each, *time_rows(runs, self._few, rounds=1).values())

    def compare(self, runs: Mapping[str, Run]) -> dict[str, float]:
        """Return the seconds a row of each engine, on as many passes as there is time for."""
        rows = next(self._setting.inputs(self._setting.batch))
        each = self._each * len(rows) * len(runs)
        return time_rows(runs, rows, rounds=max(1, min(5, int(self.seconds / each) - 1)))


def guess_start(name: str, model: Any) -> float:
    """Return a guess of the seconds that an engine takes to start, on the safe side for processors of today."""
    base, of_layer, of_weight = _STARTS.get(name, _SLOW_START)
    if not isinstance(model, nn.Module):
        return base
    layers = sum(1 for part in model.modules() if not list(part.children()))
    return base + of_layer * layers + of_weight * sum(weight.numel() for weight in model.parameters())


def choose_layout(setting: EngineSetting, run: Run) -> Run:
    """Return a pass in the memory layout in which a GPU computes it faster.

    Only float32 leaves a choice: the tensor cores, which compute everything else, want the channels last.
    """
    if not isinstance(run, FoldedPass) or (setting.device.type, setting.precision, len(setting.shape)) != (
            "cuda", "float32", 3) or not is_taken("layout_trial"):
        return run
    first = run.channels_first()
    rows = next(setting.inputs(min(setting.batch, _LAID_OUT)))
    last_rows = rows.contiguous(memory_format=torch.channels_last)
    try:
        with refuse_on_error("it fails with the channels first"):
            times = time_rows({"last": lambda _: run(last_rows), "first": lambda _: first(rows)}, rows, rounds=2)
    except Refused:
        return run
    return first if times["first"] < times["last"] else run


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


def versions_of(engine: str) -> str | None:
    """Return the versions of the packages that an engine needs beside torch; None where one is absent."""
    try:
        modules = import_packages(engine)
    except ImportError:
        return None
    return " ".join(f"{module.__name__} {getattr(module, '__version__', '')}" for module in modules)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
