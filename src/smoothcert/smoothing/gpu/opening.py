"""The rows of a GPU: drawn there where they can be, with the bits that the host would draw."""

import time
import warnings
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from smoothcert.errors import EngineWarning, first_line
from smoothcert.noise import Noise, NoiseCentre, SoundNoise, SoundStream
from smoothcert.smoothing.gpu.rows import DeviceRows, SentRows
from smoothcert.smoothing.gpu.shortcuts import is_taken
from smoothcert.smoothing.gpu.sound_rows import SoundRows
from smoothcert.smoothing.rows import HostRows, Segment, SpaceNoise, Subject

ON_DEVICE: dict[str, Any] = {rows.format: rows for rows in (DeviceRows, SoundRows)}
"""The formats that a GPU draws, with the rows of each."""

_SOUND = 29e-9  # seconds that a value of `sound-v1` takes on a host, about


def open_rows(
    noise: Noise | SpaceNoise, shape: tuple[int, ...], dimension: int, seed: int, wanted: str, device: torch.device
) -> DeviceRows | SentRows:
    """Return rows for a GPU: drawn there where they can be, else on the host, with a warning that names the cost.

    Args:
        wanted: the format of the noise.
    """
    on_host = SentRows(noise, shape, seed, wanted, device)
    if wanted in ON_DEVICE and is_taken("noise_kernel"):
        if find_spec("triton") is None:
            reason: str | None = "Triton is not installed (torch brings it on Linux with CUDA)"
        elif wanted == SoundRows.format and type(noise) is not SoundNoise:
            reason = "its kernel knows no other arithmetic than that of SoundNoise"
        else:
            reason = _refuse(noise, shape, dimension, seed, on_host, device)
        if reason is None:
            return ON_DEVICE[wanted](noise, shape, dimension, seed, device)
        _warn(f"the noise is drawn on the host and not on the GPU: {reason}", _measure(on_host))
    elif wanted == SoundStream.format:
        _warn(f"sound noise in the format {wanted} is drawn on the host, whatever the GPU", _SOUND * on_host.width)
    return on_host


def _refuse(
    noise: Any, shape: tuple[int, ...], dimension: int, seed: int, on_host: SentRows, device: torch.device
) -> str | None:
    """Return why rows cannot be drawn on a GPU; None where they can, and are those of the host to the bit."""
    trial = _trial(on_host)
    try:
        found = ON_DEVICE[on_host.format](noise, shape, dimension, seed, device).draw(trial)
    except Exception as error:  # without a C compiler, or with a compiler that fails
        return f"Triton cannot run its kernel here, for which it needs a C compiler ({first_line(error)})"
    same = torch.equal(found, on_host.draw(trial))
    # What a smaller space makes of normals are products, which no two devices round alike.
    return None if same or isinstance(noise, SpaceNoise) else "its kernel does not give the host's bits here"


def _trial(rows: HostRows) -> list[Segment]:
    values = (np.arange(rows.width) % 256).astype(np.float32)
    return [Segment(Subject(key, NoiseCentre(values)), "estimate", 2**33 - 2, 3) for key in (0, 1)]


def _measure(rows: HostRows) -> float:
    """Return the seconds that a row takes on the host."""
    trial = _trial(rows)
    started = time.perf_counter()
    rows.draw(trial)
    return (time.perf_counter() - started) / sum(segment.n for segment in trial)


def _warn(what: str, seconds: float) -> None:
    warnings.warn(f"{what}; one process draws at most about {1 / seconds:,.0f} samples a second so", EngineWarning,
                  stacklevel=5)
