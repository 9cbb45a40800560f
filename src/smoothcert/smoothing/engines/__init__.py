"""Engines: ways to run a base classifier's forward pass, none of which changes its votes.

To add one, write a `Builder` and add it to `ENGINES`; `open_engine` checks what it computes.
"""

from smoothcert.smoothing.engines.opening import open_engine
from smoothcert.smoothing.engines.protocol import Choice, Engine
from smoothcert.smoothing.engines.registry import ENGINES
from smoothcert.smoothing.precision import PRECISIONS, reduce_precision

__all__ = ["ENGINES", "PRECISIONS", "Choice", "Engine", "open_engine", "reduce_precision"]
