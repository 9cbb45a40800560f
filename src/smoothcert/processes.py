"""Child processes of this machine: they end with the one that started them, and leave Ctrl-C to it."""

import multiprocessing as mp
import os
import signal
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess


def start_deaf(process: BaseProcess) -> None:
    """Start a process that never hears Ctrl-C, not even while it imports: the driver does, and ends it."""
    resource_tracker.ensure_running()  # within `start` it would let interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def how_ended(process: BaseProcess, processes: int) -> str:
    """Return what to say of a process, one of so many, that has ended without a word."""
    code = process.exitcode or 0
    if code < 0:
        return f"was killed (signal {-code}): is there enough memory for {processes} of them?"
    return (f"ended by itself (exit code {code}), and what it printed says why. Each process reads the calling script "
            f'before it works: what a script does has to stand under `if __name__ == "__main__":`.')


def follow_driver() -> None:
    """End with the driver, even in the middle of an image."""
    driver = mp.parent_process()
    if driver is not None:
        wait([driver.sentinel])
        os._exit(1)
