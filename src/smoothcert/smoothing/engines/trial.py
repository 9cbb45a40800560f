"""Which engine is the fastest for a network on this machine, found by a short timed trial and remembered."""

import hashlib
import json
import os
import platform
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smoothcert.smoothing.content import fingerprint
from smoothcert.smoothing.engines.onnx_engines import imported
from smoothcert.smoothing.engines.protocol import Run

_rankings: dict[str, list[str]] = {}


def seconds(runs: Mapping[str, Run], rows: Tensor, rounds: int = 5) -> dict[str, float]:
    """Seconds a row of each pass: the least of a few interleaved ones, since other work only ever adds."""
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


def recalled(key: str, candidates: Collection[str]) -> list[str]:
    """The candidates remembered under a key, fastest first, in this process or in the user's cache folder."""
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
    """Names what a trial's outcome depends on: the network's content, the machine, the candidates, the batch."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    machine = [platform.machine(), _processor(), os.cpu_count(), torch.get_num_threads(), gpu]
    parts = [fingerprint(model), machine, list(shape), batch, device.type, precision, dict(versions), torch.__version__]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def versions(engine: str) -> str | None:
    """The versions of the packages an engine needs beside torch; None where one is absent."""
    try:
        modules = imported(engine)
    except ImportError:
        return None
    return " ".join(f"{module.__name__} {getattr(module, '__version__', '')}" for module in modules)


def cache_file() -> Path:
    """engines.json in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "smoothcert" / "engines.json"


def _read() -> dict[str, Any]:
    try:
        content = json.loads(cache_file().read_text())
    except (OSError, RuntimeError, ValueError):  # RuntimeError: no home folder
        return {}
    return content if isinstance(content, dict) else {}


def _processor() -> str:
    """The processor's model, which `platform` does not know on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line for line in lines if line.startswith("model name")), platform.processor())


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
