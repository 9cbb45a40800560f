"""The outcomes of trials, kept in memory and in the user's cache folder: engines.json."""

import hashlib
import json
import os
import platform
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from smoothcert.smoothing.content import fingerprint
from smoothcert.smoothing.engines.registry import EngineSetting


@dataclass(frozen=True)
class TrialOutcome:
    """The seconds a sample of each engine that was timed, and what the others lacked, in words."""

    seconds: dict[str, float]
    lacked: dict[str, str]


_outcomes: dict[str, TrialOutcome] = {}


def recall(key: str, engines: Collection[str]) -> TrialOutcome | None:
    """Return the outcome remembered under a key, in this process or in the user's cache folder.

    None where there is none, and where it is of other engines.
    """
    found = _outcomes.get(key) or _parse(_read().get(key))
    return found if found is not None and found.seconds.keys() <= set(engines) else None


def remember(key: str, outcome: TrialOutcome) -> None:
    """Keep an outcome for this process and, where the user's cache folder can be written, for later ones."""
    _outcomes[key] = outcome
    try:
        path = cache_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}")
        part.write_text(json.dumps({**_read(), key: asdict(outcome)}, indent=0))
        part.replace(path)
    except (OSError, RuntimeError):
        pass


def trial_key(setting: EngineSetting, versions: Mapping[str, str]) -> str:
    """Return a hash of what a trial's outcome depends on: the network, the machine, the candidates, the batch."""
    device = setting.device
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []  # `platform` knows the processor's model, but for Linux
    processor = next((line for line in lines if line.startswith("model name")), platform.processor())
    machine = [platform.machine(), processor, os.cpu_count(), torch.get_num_threads(), gpu]
    parts = [fingerprint(setting.model), machine, list(setting.shape), setting.batch, device.type, setting.precision,
             dict(versions), torch.__version__]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def cache_file() -> Path:
    """Return engines.json in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "smoothcert" / "engines.json"


def _parse(entry: Any) -> TrialOutcome | None:
    """Return an entry of the file as an outcome; None for one of another shape."""
    if not isinstance(entry, dict) or set(entry) != {"seconds", "lacked"}:
        return None
    seconds, lacked = entry["seconds"], entry["lacked"]
    if not isinstance(seconds, dict) or not isinstance(lacked, dict) or not seconds:
        return None
    right = (all(isinstance(value, float) and value > 0 for value in seconds.values())
             and all(isinstance(words, str) for words in lacked.values()))
    return TrialOutcome(seconds, lacked) if right else None


def _read() -> dict[str, Any]:
    try:
        content = json.loads(cache_file().read_text())
    except (OSError, RuntimeError, ValueError):  # RuntimeError: no home folder
        return {}
    return content if isinstance(content, dict) else {}
