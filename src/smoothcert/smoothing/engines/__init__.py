"""Engines: ways to run a base classifier's forward pass, none of which changes its votes.

To add one, write a `Builder` and add it to `ENGINES`; `open_engine` checks what it computes.
"""

from smoothcert.smoothing.engines.opening import ENGINES, open_engine
from smoothcert.smoothing.engines.protocol import Engine
from smoothcert.smoothing.precision import PRECISIONS, reduce_precision

__all__ = ["ENGINES", "PRECISIONS", "Engine", "open_engine", "reduce_precision"]
