"""Sampling by several processes on one machine: each asks for the next task when it has room, and hands back records.

A driver that dies takes its workers with it, since their pipes close.
"""

import multiprocessing as mp
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from smoothcert.errors import SmoothcertError
from smoothcert.processes import describe_exit, exit_with_parent, start_without_interrupts
from smoothcert.progress import SampleRelay, counting
from smoothcert.runs.crew import Delivered, Drew, Ended, Event, Failed, HasRoom, Load, Lost, Worker, by_crew
from smoothcert.runs.run import Done, Run, Task, open_again
from smoothcert.store.identity import Identity

_LOOK = 1.0  # seconds for which the driver waits for a word before it looks at the clock


def by_workers(run: Run, pending: Sequence[int]) -> Iterator[Done]:
    """Do a run's pending records by processes of this machine, and yield them in the order they are done.

    Raises:
        SmoothcertError: a worker found an error, or workers die again and again.
    """
    return by_crew(run, pending, Pipes(run))


class Pipes:
    """The transport of a crew of processes here: a worker's handle is its process and our end of its pipe."""

    keeps_idle = False
    patience = 10.0

    def __init__(self, run: Run):
        self._run = run

    def loads(self, run: Run, pending: Sequence[int]) -> list[Load]:
        return [[task] for task in run.tasks(pending)]

    def count_missing(self, waiting: int, workers: int) -> int:
        return min(self._run.config.processes - workers, waiting)

    def start(self, place: int) -> Worker:
        context = mp.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, name=f"smoothcert-{place}", daemon=True,
                                  args=(theirs, self._run.reopen(), self._run.identity, place))
        start_without_interrupts(process)
        theirs.close()
        return Worker((process, ours))

    def send(self, worker: Worker, load: Load | None) -> None:
        _, pipe = worker.handle
        with suppress(OSError):  # where it is gone, its pipe says so next
            pipe.send(load)

    def events(self, workers: Sequence[Worker]) -> Iterator[tuple[Worker, Event]]:
        by_pipe = {worker.handle[1]: worker for worker in workers}
        for pipe in wait(list(by_pipe), _LOOK):
            worker = by_pipe[pipe]  # type: ignore[index]
            yield worker, self._hear(worker)

    def close(self, workers: Sequence[Worker]) -> None:
        for worker in workers:
            process, _ = worker.handle
            process.terminate()
            process.join()

    def _hear(self, worker: Worker) -> Event:
        process: BaseProcess
        process, pipe = worker.handle
        try:
            word, content = pipe.recv()
        except (EOFError, OSError):
            process.join()
            end = describe_exit(process, self._run.config.processes)
            return Lost(f"the last one {end} What is finished is kept; the same command resumes, with fewer --workers "
                        f"if need be")
        if word == "done":
            return Delivered([content])
        if word == "drew":
            return Drew(content)
        if word == "bye":
            process.join()
            return Ended()
        return HasRoom() if word == "next" else Failed(content)


def _serve(pipe: Connection, reopen: Callable[[], Run], identity: Identity, place: int) -> None:
    """Live a worker's life: prepare the same run, then take tasks and hand back records until there are no more."""
    threading.Thread(target=exit_with_parent, daemon=True).start()
    import torch

    gpus = torch.cuda.device_count()
    os.environ["LOCAL_RANK"] = str(place % max(gpus, 1))
    if gpus and identity.device == "cuda":
        torch.cuda.set_device(place % gpus)  # else what names no device goes to the first GPU, from all workers
    try:
        run = open_again(reopen, identity)
        tally = SampleRelay(lambda samples: pipe.send(("drew", samples)))
        with counting(tally.add):
            for finished in run.records(_Asked(pipe)):
                tally.flush()
                pipe.send(("done", finished))
        pipe.send(("bye", None))
    except (BrokenPipeError, EOFError, ConnectionResetError):
        sys.exit(1)
    except SmoothcertError as error:
        pipe.send(("error", error))
    except Exception:
        pipe.send(("error", SmoothcertError(f"a worker failed:\n{traceback.format_exc()}")))


class _Asked:
    """The tasks that the driver hands out, each when there is room for it.

    Where the driver has none for a worker that still holds some, the iteration pauses: it stops, and may be taken up
    again.
    """

    def __init__(self, pipe: Connection):
        self._pipe, self._over = pipe, False

    def __iter__(self) -> Iterator[Task]:
        return self

    def __next__(self) -> Task:
        if self._over:
            raise StopIteration
        self._pipe.send(("next", None))
        load: Load | None = self._pipe.recv()
        self._over = load is None
        if not load:
            raise StopIteration
        return load[0]
