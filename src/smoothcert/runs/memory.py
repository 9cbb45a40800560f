"""The memory of a training process."""

import ctypes
import sys


def keep_freed_memory() -> None:
    """Have the C library keep freed memory for the next step instead of giving it back to the system (glibc only).

    Else a step whose tensors take tens of MB gets them all anew, page by page and zeroed: up to a third of its time.
    """
    allocator = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if allocator is not None:
        no_mmap, no_trim = (-4, 0), (-1, -1)  # M_MMAP_MAX: nothing; M_TRIM_THRESHOLD: never
        allocator(*no_mmap)
        allocator(*no_trim)
