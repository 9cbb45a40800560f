"""The processors, memory and devices of this machine."""

import ctypes
import os
import sys
from pathlib import Path

import torch

from smoothcert.errors import InputError


def processors() -> int:
    """Return the number of processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pick_device(name: str) -> torch.device:
    """Return the device of this process: for `auto` its GPU where there is one, else the CPU.

    Raises InputError where a GPU is asked for and there is none, or where a training run has more processes on this
    machine than the machine has GPUs.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device: cuda was asked for, but torch finds no GPU here: use --device cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    processes, found = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if processes > found:
        raise InputError(f"device: {processes} processes on this machine share {found} GPU(s), and each process needs "
                         f"its own: start {found} (train --workers, torchrun --nproc-per-node), or use --device cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def has_bf16_units(device: torch.device) -> bool:
    """Return whether products in bfloat16 are faster than in float32 here.

    They are with AVX512-BF16, AMX or Arm's BF16 on a processor (as Linux lists its instruction sets; elsewhere none are
    known), with compute capability 8.0 or more on an NVIDIA GPU, and on any AMD GPU that ROCm runs.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return False
    fields = (line.partition(":") for line in lines)
    flags = next((words.split() for name, _, words in fields if name.strip() in ("flags", "Features")), [])
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


def keep_freed_memory() -> None:
    """Make the C library keep freed memory for the next step instead of returning it to the system (glibc only).

    Otherwise a step whose tensors take tens of MB requests them anew from the system, page by page and zeroed, which
    takes up to a third of its time.
    """
    allocator = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if allocator is not None:
        no_mmap, no_trim = (-4, 0), (-1, -1)  # M_MMAP_MAX: nothing; M_TRIM_THRESHOLD: never
        allocator(*no_mmap)
        allocator(*no_trim)
