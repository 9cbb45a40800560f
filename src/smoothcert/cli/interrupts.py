"""Ctrl-C and requests to end: answered within a second, also where Python itself cannot answer."""

import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from smoothcert.progress import Kept

_interrupted = threading.Event()

GRACE = 0.6
"""Seconds that the work has to stop by itself."""


def say_goodbye(kept: Kept | None) -> str:
    """Return what an interrupted command says: what is kept, if anything is, and the command that goes on from there.
    """
    _interrupted.set()
    command = ["smoothcert", *sys.argv[1:]]
    if kept is None:
        return f"interrupted; the same command starts again:\n  {shlex.join(command)}"
    added = f" with {shlex.join(kept.more)}" if kept.more else ""
    return (f"interrupted: {kept.words}; the same command{added} goes on from there:\n"
            f"  {shlex.join([*command, *kept.more])}")


@contextmanager
def leave_if_interrupted() -> Iterator[None]:
    """End the process where the command within was interrupted: its libraries may take seconds to be taken down."""
    _interrupted.clear()
    try:
        yield
    finally:
        if _interrupted.is_set():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)


@contextmanager
def answer_interrupts(kept: Callable[[], Kept | None]) -> Iterator[None]:
    """Raise KeyboardInterrupt within on Ctrl-C and SIGTERM, and end the process if that does not stop the work.

    Python raises it between two of its own steps, and a forward pass or a compiler may hold one up for long. A thread
    hears of the signal at once. `GRACE` seconds later it says what is kept and ends the process: stores and model
    folders survive that at any moment, and child processes end with it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stopped = threading.Event()
    hears, speaks = os.pipe()
    os.set_blocking(speaks, False)

    def watch() -> None:
        with suppress(OSError):
            while signals := os.read(hears, 1):
                if signals[0] in (signal.SIGINT, signal.SIGTERM) and not stopped.wait(GRACE):
                    cursor = "\x1b[?25h\n" if os.isatty(2) else ""
                    os.write(2, f"{cursor}{say_goodbye(kept())}\n".encode())
                    os._exit(1)

    def interrupt(number: int, frame: Any) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    heard = signal.set_wakeup_fd(speaks, warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, name="smoothcert-interrupts", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stopped.set()
        signal.set_wakeup_fd(heard)
        signal.signal(signal.SIGTERM, before)
        os.close(speaks)  # the end of what it reads
        watcher.join(GRACE)  # a thread that outlives the interpreter is torn out of C++ code, which aborts the process
        os.close(hears)
