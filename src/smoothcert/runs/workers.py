"""Sampling by several processes on one machine: each pulls the next task when it has room, and hands back records.

Results are equal to one process's, because noise and votes belong to the image. A worker that dies is replaced, and
what it held is given out again; a driver that dies takes its workers with it, since their pipes close.
"""

import multiprocessing as mp
import os
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from smoothcert.errors import SmoothcertError
from smoothcert.processes import describe_exit, exit_with_parent, start_without_interrupts
from smoothcert.runs.run import Done, Run, Task, reopened

DEATHS = 3
"""How often all workers may be lost without one record finished, before the run gives up."""


def by_workers(run: Run, pending: Sequence[int]) -> Iterator[Done]:
    """Every pending record, in the order they are done.

    Raises:
        SmoothcertError: a worker found an error, or workers die again and again.
    """
    yield from _Crew(run, pending).work()


@dataclass(eq=False)
class _Worker:
    process: BaseProcess
    pipe: Connection
    held: set[int] = field(default_factory=set)


class _Crew:
    """The driver's side: who holds which records."""

    def __init__(self, run: Run, pending: Sequence[int]):
        self._run = run
        self._waiting = deque(run.tasks(pending))
        self._workers: dict[Connection, _Worker] = {}
        self._deaths = 0

    def work(self) -> Iterator[Done]:
        try:
            for rank in range(min(self._run.config.processes, len(self._waiting))):
                self._start(rank)
            while self._workers:
                ready = wait(list(self._workers))
                for worker in [worker for pipe, worker in self._workers.items() if pipe in ready]:
                    yield from self._hear(worker)
        finally:
            for worker in self._workers.values():
                worker.process.terminate()
                worker.process.join()

    def _start(self, rank: int) -> None:
        context = mp.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, name=f"smoothcert-{rank}", daemon=True,
                                  args=(theirs, self._run.reopen, self._run.identity, rank))
        start_without_interrupts(process)
        theirs.close()
        self._workers[ours] = _Worker(process, ours)

    def _hear(self, worker: _Worker) -> Iterator[Done]:
        try:
            word, content = worker.pipe.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return
        if word == "next":
            self._hand_out(worker)
        elif word == "done":
            worker.held.remove(content[0])
            self._deaths = 0
            yield content
        elif word == "bye":
            del self._workers[worker.pipe]
            worker.process.join()
        else:
            raise content

    def _hand_out(self, worker: _Worker) -> None:
        task = self._waiting.popleft() if self._waiting else None
        worker.held.update(task or ())
        try:
            worker.pipe.send(task)
        except OSError:
            self._bury(worker)

    def _bury(self, worker: _Worker) -> None:
        """Take back what a dead worker held, and replace it."""
        del self._workers[worker.pipe]
        worker.process.join()
        self._deaths += 1
        if self._deaths >= DEATHS * self._run.config.processes:
            raise SmoothcertError(
                f"workers keep dying without finishing a record: the last one "
                f"{describe_exit(worker.process, self._run.config.processes)} What is finished is kept; the same "
                f"command resumes, with fewer --workers if need be")
        self._waiting.extendleft(reversed(self._run.tasks(sorted(worker.held))))
        if self._waiting:
            self._start(int(worker.process.name.rpartition("-")[2]))


def _serve(pipe: Connection, reopen: Callable[[], Run], identity: dict[str, Any], rank: int) -> None:
    """A worker's life: prepare the same run, then tasks in and records out until there are no more."""
    threading.Thread(target=exit_with_parent, daemon=True).start()
    os.environ["LOCAL_RANK"] = str(rank % max(_gpus(), 1))
    try:
        run = reopened(reopen, identity)
        for finished in run.records(_given(pipe)):
            pipe.send(("done", finished))
        pipe.send(("bye", None))
    except (BrokenPipeError, EOFError, ConnectionResetError):
        sys.exit(1)
    except SmoothcertError as error:
        pipe.send(("error", error))
    except Exception:
        pipe.send(("error", SmoothcertError(f"a worker failed:\n{traceback.format_exc()}")))


def _given(pipe: Connection) -> Iterator[Task]:
    while True:
        pipe.send(("next", None))
        task = pipe.recv()
        if task is None:
            return
        yield task


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
