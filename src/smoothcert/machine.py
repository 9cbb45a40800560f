"""The processors, memory and devices of this machine."""

import ctypes
import os
import platform
import sys
from pathlib import Path

import torch

from smoothcert.errors import InputError


def processors() -> int:
    """Return the number of processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pick_device(name: str) -> torch.device:
    """Return the device of this process: for `auto` its GPU where there is one, else the CPU.

    Raises InputError where a GPU is asked for and there is none, or where a run has more processes on this machine than
    the machine has GPUs.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device: cuda was asked for, but torch finds no GPU here: use --device cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    processes, found = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if processes > found:
        raise InputError(f"device: {processes} processes on this machine share {found} GPU(s), and each process needs "
                         f"its own: start {found} (train --workers, torchrun --nproc-per-node), or use --device cpu")
    return find_device(torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))))


def find_device(device: torch.device | str) -> torch.device:
    """Return a device by its name. Raises InputError for one that torch does not know or this machine does not have."""
    gpus = torch.cuda.device_count()
    here = f"this machine has cpu{' and ' * bool(gpus)}{', '.join(f'cuda:{k}' for k in range(gpus))}"
    try:
        found = torch.device(device)
        if found.type not in ("cuda", "meta"):
            torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError) as error:
        told = str(error).splitlines()[0]
        raise InputError(f"device: {device} cannot be used ({told}): {here}") from error
    if found.type == "meta":
        raise InputError(f"device: tensors on meta have no values: load the weights first; {here}")
    if found.type == "cuda" and (found.index or 0) >= gpus:
        raise InputError(f"device: {device} was asked for, and torch finds {gpus or 'no'} GPU{'s' * (gpus != 1)}: "
                         f"{here}")
    return found


def list_cards(device: torch.device, processes: int = 1) -> list[str]:
    """Return the kinds of GPU, with the version of cuDNN, that a network computes on; none for a CPU.

    Args:
        device: of this process, if there is one alone; several have a GPU each.
    """
    if device.type != "cuda":
        return []
    places = [device.index or 0] if processes == 1 else range(min(processes, torch.cuda.device_count()))
    return list(dict.fromkeys(f"{torch.cuda.get_device_name(place)} with cuDNN {torch.backends.cudnn.version()}"
                              for place in places))


def has_bf16_units(device: torch.device) -> bool:
    """Return whether products in bfloat16 are faster than in float32 here.

    They are with AVX512-BF16, AMX or Arm's BF16 on a processor (as Linux lists its instruction sets; elsewhere none are
    known), with compute capability 8.0 or more on an NVIDIA GPU, and on any AMD GPU that ROCm runs.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return not BF16_UNITS.isdisjoint(instruction_sets())


BF16_UNITS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
VNNI_UNITS = frozenset({"avx512_vnni", "avx_vnni"})
"""Instruction sets that add four products of bytes in 32 bits; without them pairs are added in 16 bits first."""

_AVX512 = {"avx", "avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"}
_LIMITS: dict[str, set[str]] = {
    "SSE41": set(), "AVX": {"avx"}, "AVX2": {"avx", "avx2", "fma"}, "AVX2_VNNI": {"avx", "avx2", "fma", "avx_vnni"},
    "AVX2_VNNI_2": {"avx", "avx2", "fma", "avx_vnni"}, "AVX512_CORE": _AVX512,
    "AVX512_CORE_VNNI": {*_AVX512, "avx512_vnni"}, "AVX512_CORE_BF16": {*_AVX512, "avx512_vnni", "avx512_bf16"},
    "AVX512_CORE_FP16": {*_AVX512, "avx512_vnni", "avx512_bf16", "avx512_fp16"},
}
_SHOWN = ("sse4_1", "avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16",
          "asimddp", "i8mm", "bf16")


def instruction_sets(onednn: bool = False) -> frozenset[str]:
    """Return the processor's instruction sets, as Linux calls them; none where they cannot be read.

    Args:
        onednn: only those that oneDNN, and OpenVINO with it, uses under ONEDNN_MAX_CPU_ISA.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    fields = (line.partition(":") for line in lines)
    found = next((frozenset(words.split()) for name, _, words in fields if name.strip() in ("flags", "Features")),
                 frozenset[str]())
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or ""
    allowed = _LIMITS.get(limit.upper()) if onednn else None
    return found if allowed is None else frozenset(name for name in found
                                                   if name in allowed or not name.startswith(("avx", "amx", "fma")))


def is_x86() -> bool:
    """Return whether this is an Intel or AMD processor, or one like them."""
    return platform.machine().lower() in ("x86_64", "amd64", "i386", "i486", "i586", "i686", "x86")


def describe_processor(onednn: bool = False) -> str:
    """Return the kind of processor and those of its instruction sets that matter to products, in words."""
    found = instruction_sets(onednn)
    names = ", ".join(name for name in _SHOWN if name in found) or "no instruction sets that could be read"
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") if onednn else None
    return f"{platform.machine()} with {names}{f', limited by ONEDNN_MAX_CPU_ISA={limit}' if limit else ''}"


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
