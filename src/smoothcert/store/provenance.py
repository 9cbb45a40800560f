"""The versions and the machine that a result came from. They are shown, and never compared."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from smoothcert.version import __version__

_PACKAGES = ("torch", "numpy", "scipy", "pyarrow")


def provenance(**details: Any) -> dict[str, Any]:
    """Return the versions of what computes a result, the machine's kind, and `details`."""
    versions = {"smoothcert": __version__, "python": platform.python_version()}
    versions |= {name: metadata.version(name) for name in _PACKAGES}
    machine = {"system": platform.system(), "architecture": platform.machine(), "processors": os.cpu_count()}
    return {**details, "versions": versions, "machine": machine}


def machine_line() -> str:
    """Return processor, cores and versions in one line, for pages of measured figures."""
    told = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in told.read_text().splitlines()
             if line.startswith("model name")] if told.exists() else []
    name = names[0] if names else platform.processor()
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {metadata.version('torch')}"
