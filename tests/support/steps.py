"""The disk as a run sees it: every step that changes it counted and handed on, small disks, and processes to lose."""

import builtins
import ctypes
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from smoothcert.errors import SmoothcertError

_NEW_MOUNTS, _PRIVATE = 0x20000, 0x44000  # CLONE_NEWNS; MS_PRIVATE | MS_REC


class Steps:
    """Everything that changes the disk below a folder, step by step: new files, writes, fsyncs, renames, removals.

    `act(number, when, name, half)` is called "before" and "after" each; `half()` does half of a write.
    """

    def __init__(self, folder: Path, act: Callable[[int, str, str, Callable[[], Any]], None]):
        self.count = 0
        self._folder, self._act = str(folder.resolve()), act

    def inside(self, path: Any) -> bool:
        return not isinstance(path, int) and os.path.abspath(os.fspath(path)).startswith(self._folder)

    def step(self, name: str, do: Callable[[], Any], half: Callable[[], Any] = lambda: None) -> Any:
        self.count += 1
        number = self.count
        self._act(number, "before", name, half)
        done = do()
        self._act(number, "after", name, lambda: None)
        return done

    @contextmanager
    def watched(self) -> Iterator["Steps"]:
        with (patch.object(builtins, "open", partial(self._open, builtins.open)),
              patch.object(io, "open", partial(self._open, io.open)),
              patch.object(os, "fsync", partial(self._fsync, os.fsync)),
              patch.object(os, "replace", partial(self._path, "rename", os.replace)),
              patch.object(os, "unlink", partial(self._path, "unlink", os.unlink)),
              patch.object(os, "mkdir", partial(self._path, "mkdir", os.mkdir))):
            yield self

    def _open(self, real: Any, file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
        if not self.inside(file) or not set(mode) & set("wax+"):
            return real(file, mode, *args, **more)
        if os.path.exists(file):
            raw = _Raw(self, file, mode)
        else:
            raw = self.step("create", lambda: _Raw(self, file, mode))
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding=more.get("encoding"))

    def _fsync(self, real: Any, number: int) -> None:
        inside = self.inside(os.readlink(f"/proc/self/fd/{number}"))
        self.step("fsync", lambda: real(number)) if inside else real(number)

    def _path(self, name: str, real: Any, path: Any, *args: Any, **more: Any) -> Any:
        return self.step(name, lambda: real(path, *args, **more)) if self.inside(path) else real(path, *args, **more)


class _Raw(io.FileIO):
    """A file whose writes are steps."""

    def __init__(self, steps: Steps, file: Any, mode: str):
        super().__init__(file, mode.replace("b", "").replace("t", ""))
        self._steps = steps

    def write(self, content: Any) -> int:
        whole = bytes(content)
        return self._steps.step("write", lambda: io.FileIO.write(self, whole),
                                lambda: io.FileIO.write(self, whole[: len(whole) // 2]))


def in_child(work: Callable[[], Any]) -> tuple[int, BaseException | None]:
    """The exit status of a forked process that does `work`, and an error like the one it ended with."""
    told, tell = os.pipe()
    pid = os.fork()
    if not pid:
        error = ended(work)
        os.write(tell, repr(error).encode())
        os._exit(0 if error is None else 1 if isinstance(error, SmoothcertError) else 70)
    os.close(tell)
    with open(told, "rb") as words:
        text = words.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, None if status == 0 else (SmoothcertError if status == 1 else RuntimeError)(text)


def ended(work: Callable[[], Any]) -> BaseException | None:
    """The error that `work` ends with."""
    try:
        work()
    except BaseException as error:
        return error
    return None


def can_mount() -> bool:
    """Whether a process may have a small disk of its own."""
    return in_child(partial(small_disk, Path("/tmp"), 4096))[1] is None


def small_disk(folder: Path, size: int) -> None:
    """Put a disk of so many bytes at a folder, for this process alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_MOUNTS) or libc.mount(b"none", b"/", None, _PRIVATE, None) \
            or libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", 0, f"size={size}".encode()):
        raise OSError(ctypes.get_errno(), "cannot mount")
