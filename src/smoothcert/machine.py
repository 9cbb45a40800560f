"""What this machine has for a run: processors, memory and devices."""

import ctypes
import os
import sys

import torch

from smoothcert.errors import InputError


def processors() -> int:
    """Return the number of processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pick_device(name: str) -> torch.device:
    """`auto` is this process's GPU where there is one, else the CPU.

    Raises InputError where a GPU is asked for and there is none, or where a training has started more processes on
    this machine than it has GPUs.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device: cuda was asked for, and torch finds no GPU here: use --device cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    processes, found = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if processes > found:
        raise InputError(f"device: {processes} processes on this machine have {found} GPU(s) between them, and each "
                         f"needs its own: start {found} (train --workers, torchrun --nproc-per-node), or use --device "
                         f"cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def keep_freed_memory() -> None:
    """Have the C library keep freed memory for the next step instead of giving it back to the system (glibc only).

    Else a step whose tensors take tens of MB gets them all anew, page by page and zeroed: up to a third of its time.
    """
    allocator = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if allocator is not None:
        no_mmap, no_trim = (-4, 0), (-1, -1)  # M_MMAP_MAX: nothing; M_TRIM_THRESHOLD: never
        allocator(*no_mmap)
        allocator(*no_trim)
