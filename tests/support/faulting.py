"""Faults, one at a time, in a run or in what it left; and what became of the store.

A kind of fault is a function (`Place`, generator) -> `Fault` in `KINDS`: it lets a run meet its fault, and returns once
the run has ended or died. `injected` then judges: reading the store tells no lie, and the same command ends with the
bytes of a run that nothing happened to, at once (recovered) or after an error of smoothcert's own that names the file,
and the file put back (loud). To add a kind, write such a function and give it a row in `KINDS`.
"""

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from smoothcert.config.sampling import RunConfig
from smoothcert.errors import SmoothcertError
from smoothcert.progress import reporting
from smoothcert.runs import workers
from smoothcert.runs.executors import here
from smoothcert.runs.options import CertifyConfig
from smoothcert.runs.run import Done, Run, Task
from smoothcert.runs.workers import by_workers
from smoothcert.store import store as stores
from smoothcert.store.identity import Identity
from smoothcert.store.records import Record
from smoothcert.store.store import read_store
from smoothcert.verify.options import VerifyConfig
from smoothcert.verify.verify import verify
from steps import Steps, ended, in_child, small_disk
from stores import made

SHARD = 16
_CRASHED = 9
OUTCOMES = ("recovered", "loud", "lost", "silently wrong", "crashed")


@dataclass(frozen=True, eq=False, kw_only=True)
class Instant(Run):
    """A run whose records are there already; `between` is called before each with its position."""

    truth: Path
    between: Callable[[int], None] = field(default=lambda position: None)

    @cached_property
    def _records(self) -> list[Record]:
        return [Record.from_row(row) for row in read_store(self.truth).records.to_pylist()]

    def reopen(self) -> Callable[[], Run]:
        return partial(_slow, self.config, self.identity, self.truth)

    def records(self, tasks: Iterable[Task]) -> Iterator[Done]:
        for (position,) in tasks:
            self.between(position)
            yield position, self._records[position], 0.0


def _slow(config: RunConfig, identity: Identity, truth: Path) -> Run:
    return Instant(config=config, identity=identity, provenance={"data": "digits"}, truth=truth,
                   between=lambda position: time.sleep(0.01))


@dataclass(frozen=True, eq=False)
class Place:
    """Where a run works, and the whole store of the same run that nothing happened to."""

    folder: Path
    truth: Path
    run: Callable[[Path], Any]  # the command: whatever it takes to end with a whole store in a folder

    @cached_property
    def expected(self) -> dict[str, bytes]:
        return shards(self.truth)

    @cached_property
    def identity(self) -> Identity:
        return read_store(self.truth).identity

    @cached_property
    def rows(self) -> dict[int, dict[str, Any]]:
        """The true records, by image."""
        return {row["index"]: row for row in read_store(self.truth).records.to_pylist()}

    @cached_property
    def steps(self) -> int:
        """How many steps an uninterrupted run takes."""
        steps = Steps(self.folder, lambda *rest: None)
        with steps.watched():
            self.run(self.folder)
        clear(self.folder)
        return steps.count

    @cached_property
    def seconds(self) -> float:
        """How long it takes."""
        started = time.monotonic()
        self.run(self.folder)
        seconds = time.monotonic() - started
        clear(self.folder)
        return seconds

    def instant(self, **changes: Any) -> Instant:
        """The run of the same records, each at once."""
        config = CertifyConfig.parse({"model": "none", "out": self.folder, **changes})
        return Instant(config=config, identity=self.identity, provenance={"data": "digits"}, truth=self.truth)


@dataclass(frozen=True)
class Fault:
    """What was done: in words, the files it touched with their content before, the error the run ended with, if any,
    and how often it was done in this run."""

    words: str
    before: dict[Path, bytes] = field(default_factory=dict)
    error: BaseException | None = None
    times: int = 1

    def undo(self) -> None:
        for path, content in self.before.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


@dataclass(frozen=True)
class Outcome:
    """One of `OUTCOMES`, why, and of how many injections."""

    result: str
    words: str
    times: int = 1


@contextmanager
def small_shards() -> Iterator[None]:
    with patch.object(stores, "SHARD", SHARD):
        yield


def place(home: Path, count: int) -> Place:
    """A place in a folder of its own for runs of `count` records."""
    truth = made(home / "truth", count=count)
    run = Place(home / "faulty", truth, lambda out: None)
    return replace(run, run=lambda out: replace(run.instant(), config=CertifyConfig.parse(
        {"model": "none", "out": out})).fill(here))


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


def injected(kind: str, where: Place, seed: int) -> Outcome:
    """Let the fault of this number happen in an empty folder, and judge what is left."""
    clear(where.folder)
    fault = KINDS[kind](where, np.random.default_rng([list(KINDS).index(kind), seed]))
    result, why = judged(where, fault)
    return Outcome(result, f"{kind}: {fault.words}: {why}", fault.times)


def judged(where: Place, fault: Fault) -> tuple[str, str]:
    loud = False
    if fault.error is not None:
        if not isinstance(fault.error, SmoothcertError) or where.folder.name not in str(fault.error):
            return "crashed", f"the run ended with {fault.error!r}"
        loud = True
    try:
        if told := lie(where):
            return told
        try:
            where.run(where.folder)
        except SmoothcertError as error:
            if not any(path.name in str(error) for path in fault.before):
                return "crashed", f"an error that names no file it touched: {error}"
            loud = True
            fault.undo()
            where.run(where.folder)
    except Exception as error:
        return "crashed", f"{error!r}"
    if told := lie(where, finished=True):
        return told
    if shards(where.folder) != where.expected:
        return "silently wrong", "other bytes than those of the uninterrupted run"
    return "loud" if loud else "recovered", "equal bytes"


def lie(where: Place, finished: bool = False) -> tuple[str, str] | None:
    """What reading the store gives that is not true; None where it is true, or refused by an error of smoothcert's."""
    try:
        found = read_store(where.folder)
    except SmoothcertError as error:
        return ("crashed", f"the finished store cannot be read: {error}") if finished else None
    if found.identity != where.identity:
        return "silently wrong", "another identity was read"
    rows = found.records.to_pylist()
    if len({row["index"] for row in rows}) != len(rows) or any(where.rows.get(row["index"]) != row for row in rows):
        return "silently wrong", "other records were read"
    if found.complete and len(rows) != len(where.rows):
        return "lost", f"{len(where.rows) - len(rows)} records of a store that says that it is complete"
    problems = verify(VerifyConfig.parse({"store": where.folder})).problems
    if found.complete and problems:
        return "silently wrong", f"verify: {problems}"
    return None if found.complete or not finished else ("lost", "the run ended and the store is not complete")


class _Stop(SmoothcertError):
    """The run is stopped here."""


def stopped(where: Place, position: int, then: Callable[[], Any] = lambda: None) -> None:
    """A run that ends before this record, as Ctrl-C ends one."""
    def between(at: int) -> None:
        if at == position:
            then()
            raise _Stop("stopped")

    ended(lambda: replace(where.instant(), between=between).fill(here))


def driver_killed(where: Place, rng: np.random.Generator) -> Fault:
    """SIGKILL at a random moment."""
    moment = float(rng.uniform(0, where.seconds))
    pid = os.fork()
    if not pid:
        try:
            where.run(where.folder)
        finally:
            os._exit(0)
    time.sleep(moment)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return Fault(f"after {moment:.3f} s")


def workers_killed(where: Place, rng: np.random.Generator) -> Fault:
    """SIGKILL of both workers, twice, at random moments once they are at work."""
    told, killed, over = [0], list[int](), threading.Event()
    moments = sorted(rng.integers(1, 16, 2).tolist())

    def hunt() -> None:
        for moment in moments:
            while told[-1] < moment + len(killed) // 2 * 16 and not over.wait(0.001):
                pass
            for child in workers.mp.active_children():
                if child.name.startswith("smoothcert-") and child.pid:
                    os.kill(child.pid, signal.SIGKILL)
                    killed.append(child.pid)

    hunter = threading.Thread(target=hunt)
    hunter.start()
    with reporting(lambda event: told.append(event.done)):
        error = ended(lambda: where.instant(workers=2).fill(by_workers))
    over.set()
    hunter.join()
    return Fault(f"{len(killed)} kills", error=error, times=len(killed))


def disk_full(where: Place, rng: np.random.Generator) -> Fault:
    """No more space from a random step of the run on: half of the write gets through, then nothing."""
    first = int(rng.integers(1, where.steps + 1))

    def act(number: int, when: str, name: str, half: Callable[[], Any]) -> None:
        if when == "before" and number >= first and name in ("create", "write", "fsync", "mkdir"):
            if number == first:
                half()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Steps(where.folder, act).watched():
        error = ended(lambda: where.run(where.folder))
    return Fault(f"from step {first} on", error=error)


def disk_really_full(where: Place, rng: np.random.Generator) -> Fault:
    """A disk of a few kilobytes of its own, which the run fills; what it holds then is what the run left."""
    size = int(rng.integers(1, 12)) * 4096

    def work() -> None:
        where.folder.mkdir(exist_ok=True)
        small_disk(where.folder, size)
        try:
            where.run(where.folder)
        finally:
            _copy(where.folder, where.folder.with_name("left"))

    left = where.folder.with_name("left")
    _, error = in_child(work)
    _copy(left, where.folder)
    return Fault(f"of {size} bytes", error=error)


def crash(where: Place, rng: np.random.Generator) -> Fault:
    """The process ends right before, in the middle of, or right after a random step."""
    last, moment = int(rng.integers(1, where.steps + 1)), str(rng.choice(["before", "within", "after"]))

    def act(number: int, when: str, name: str, half: Callable[[], Any]) -> None:
        if number == last and when == ("after" if moment == "after" else "before"):
            if moment == "within":
                half()
            os._exit(_CRASHED)

    def work() -> None:
        with Steps(where.folder, act).watched():
            where.run(where.folder)

    status, error = in_child(work)
    return Fault(f"{moment} step {last}", error=None if status == _CRASHED else RuntimeError(f"{status}: {error}"))


def changed(change: Callable[[bytes, np.random.Generator], bytes | None], running: bool) -> Callable[..., Fault]:
    """A random file is changed, or removed where `change` gives None: of a run under way, or of one that ended, or
    stopped, before."""
    def kind(where: Place, rng: np.random.Generator) -> Fault:
        position = int(rng.integers(1, len(where.expected) * SHARD))
        if not running:
            stopped(where, position) if rng.random() < 0.5 else where.run(where.folder)
            return _change(where, rng, change)
        faults: list[Fault] = []
        between = lambda at: faults.append(_change(where, rng, change)) if at == position else None  # noqa: E731
        error = ended(lambda: replace(where.instant(), between=between).fill(here))
        return replace(faults[0], error=error) if faults else Fault("the run ended before")
    return kind


def _change(where: Place, rng: np.random.Generator, change: Any) -> Fault:
    names = sorted(path for path in where.folder.iterdir() if path.name != ".lock" and path.stat().st_size)
    path = names[rng.integers(len(names))]
    before = path.read_bytes()
    after = change(before, rng)
    path.unlink() if after is None else path.write_bytes(after)
    return Fault(path.name, {path: before})


def _flipped(content: bytes, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(len(content)))
    return content[:at] + bytes([content[at] ^ int(rng.integers(1, 256))]) + content[at + 1 :]


def _cut(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: int(rng.integers(len(content)))]


def _removed(content: bytes, rng: np.random.Generator) -> None:
    return None


KINDS: dict[str, Callable[[Place, np.random.Generator], Fault]] = {
    "driver killed": driver_killed,
    "worker killed": workers_killed,
    "disk full": disk_full,
    "small disk full": disk_really_full,
    "crash at a step": crash,
    "byte changed": changed(_flipped, running=False),
    "file cut": changed(_cut, running=False),
    "file removed": changed(_removed, running=False),
    "byte changed under way": changed(_flipped, running=True),
    "file cut under way": changed(_cut, running=True),
    "file removed under way": changed(_removed, running=True),
}
"""Kinds of faults by name."""

def clear(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def _copy(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    clear(target)
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
