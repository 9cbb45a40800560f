"""Where a result came from: versions and machine. Shown, never compared."""

import os
import platform
from importlib import metadata
from typing import Any

from smoothcert.version import __version__

_PACKAGES = ("torch", "numpy", "scipy", "pyarrow")


def provenance(**details: Any) -> dict[str, Any]:
    """Versions of what computed a result, the machine's kind, and `details`."""
    versions = {"smoothcert": __version__, "python": platform.python_version()}
    versions |= {name: metadata.version(name) for name in _PACKAGES}
    machine = {"system": platform.system(), "architecture": platform.machine(), "processors": os.cpu_count()}
    return {**details, "versions": versions, "machine": machine}
