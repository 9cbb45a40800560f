"""Child processes on this machine: they end with their parent, and leave Ctrl-C to it."""

import multiprocessing as mp
import os
import signal
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess


def start_without_interrupts(process: BaseProcess) -> None:
    """Start a process that never receives Ctrl-C, not even while it imports: its parent does, and ends it."""
    resource_tracker.ensure_running()  # started within `start`, it would unblock interrupts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def describe_exit(process: BaseProcess, processes: int) -> str:
    """Return a sentence on how a process, one of `processes`, ended without sending an error."""
    code = process.exitcode or 0
    if code < 0:
        return f"was killed (signal {-code}): is there enough memory for {processes} of them?"
    return (f"exited with code {code}; the reason is in what it printed. Each process imports the calling script "
            f'before it starts work, so a script must do its work under `if __name__ == "__main__":`.')


def exit_with_parent() -> None:
    """Wait for the parent process to end, then end this one, even in the middle of an image."""
    parent = mp.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
