"""Sampling in a Ray cluster: its workers take fixed blocks of the run's tasks, and hand back their records.

What a worker needs (model and data) it finds under the same paths as the driver.
"""

import os
import platform
import re
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from threading import Lock
from time import monotonic
from typing import Any

from smoothcert.config.sampling import BLOCK
from smoothcert.errors import SmoothcertError
from smoothcert.progress import counting
from smoothcert.runs.crew import Delivered, Drew, Event, Failed, HasRoom, Load, Lost, Worker, by_crew
from smoothcert.runs.ray_connection import join_cluster
from smoothcert.runs.run import Done, Run, Task, open_again
from smoothcert.store.identity import Identity
from smoothcert.version import __version__

_COLOURS = r"\x1b\[\d*m"
_AHEAD = 2  # blocks that a worker has at a time, so that it never waits for the driver
_ASIDE = "aside"  # the thread of a worker that answers while another one works
_LOOK, _PATIENCE = 2.0, 60.0  # seconds between looks at the cluster's size, and until a warning that it does nothing


def by_cluster(run: Run, pending: Sequence[int]) -> Iterator[Done]:
    """Do a run's pending records in a Ray cluster, and yield them in the order they are done.

    Raises:
        MissingExtraError: no Ray. InputError: no such cluster. SmoothcertError: a worker found an error, or workers
            die again and again.
    """
    if not pending:
        return
    with join_cluster(str(run.config.cluster)) as ray:
        yield from by_crew(run, pending, Actors(ray, run))


class Actors:
    """The transport of a crew in a Ray cluster; a worker's handle is its actor."""

    keeps_idle = True
    patience = 0.0  # a worker may wait for ever for its place in the cluster, and takes few blocks at a time

    def __init__(self, ray: Any, run: Run):
        self._ray, self._run = ray, run
        self._owners: dict[Any, Worker] = {}  # of what workers have still to answer
        self._asked: dict[Any, Worker] = {}  # the same, of how many samples they have drawn
        self._ready: set[Worker] = set()  # those that have answered once
        self._needs = {"num_gpus": 1} if run.identity.device == "cuda" else {"num_cpus": run.config.threads or 1}
        self._looked, self._heard = 0.0, monotonic()

    def loads(self, run: Run, pending: Sequence[int]) -> list[Load]:
        """Return the pending positions of the run's fixed blocks; blocks with nothing to do are left out."""
        wanted, blocks, size = set(pending), list[Load](), BLOCK
        for task in run.tasks(range(run.identity.record_count)):
            if size >= BLOCK:
                blocks.append([])
                size = 0
            size += len(task)
            if left := tuple(position for position in task if position in wanted):
                blocks[-1].append(left)
        return [block for block in blocks if block]

    def count_missing(self, waiting: int, workers: int) -> int:
        """Return as many workers as there is room for, also on nodes that have joined since; at least one, so that a
        cluster that grows by itself does."""
        if workers and monotonic() - self._looked < _LOOK:
            return 0
        self._looked = monotonic()
        alive = {node["NodeID"]: node["Alive"] for node in self._ray.nodes()}
        if not alive.get(self._ray.get_runtime_context().get_node_id(), True):  # without it a driver waits for ever
            raise SmoothcertError("the cluster's node that this run had joined through has died: what is finished is "
                                  "kept; the same command goes on, from a node that runs")
        (need, each), = self._needs.items()
        have = self._ray.cluster_resources().get({"num_gpus": "GPU", "num_cpus": "CPU"}[need], 0)
        return min(self._run.config.workers or max(int(have // each), 1), waiting + workers) - workers

    def start(self, place: int) -> Worker:
        actor = self._ray.remote(**self._needs, max_restarts=0, concurrency_groups={_ASIDE: 1})(_Hand).remote(
            self._run.reopen(), self._run.identity, __version__, os.getcwd())
        worker = Worker(actor)
        self._owners[actor.work.remote([])] = worker  # answered when it is ready: there may be no room for it yet
        return worker

    def send(self, worker: Worker, load: Load | None) -> None:
        self._owners[worker.handle.work.remote(load)] = worker

    def events(self, workers: Sequence[Worker]) -> Iterator[tuple[Worker, Event]]:
        ready, _ = self._ray.wait(list(self._owners), timeout=_LOOK)
        yield from self._look()
        for reference in ready:
            worker = self._owners.pop(reference, None)
            if worker is None:  # it was lost meanwhile
                continue
            try:
                word, content, drawn = self._ray.get(reference)
            except self._ray.exceptions.RayError as error:
                yield worker, self._lose(worker, error)
                continue
            if word == "error":
                yield worker, Failed(SmoothcertError(content))
            if content:
                self._heard = monotonic()
            yield worker, Drew(drawn)
            yield worker, Delivered(content)
            yield worker, HasRoom(1 if worker in self._ready else _AHEAD)
            self._ready.add(worker)
        if monotonic() - self._heard > _PATIENCE and not self._ready.intersection(workers):
            self._heard = float("inf")
            warnings.warn(f"no worker is ready yet: the run asks for {self._needs} a worker, and the "
                          f"cluster has {self._ray.cluster_resources()}", stacklevel=2)

    def _look(self) -> Iterator[tuple[Worker, Event]]:
        """Yield what workers have drawn since they were asked last, and ask again those that have answered."""
        asked = list(self._asked)
        answered = self._ray.wait(asked, num_returns=len(asked), timeout=0)[0] if asked else []
        for reference in answered:
            worker = self._asked.pop(reference)
            with suppress(self._ray.exceptions.RayError):  # a worker that is lost says so by its work
                yield worker, Drew(self._ray.get(reference))
        for worker in self._ready - set(self._asked.values()):
            self._asked[worker.handle.take_drawn.options(concurrency_group=_ASIDE).remote()] = worker

    def close(self, workers: Sequence[Worker]) -> None:
        """Leave the workers alone: they end when nobody knows them."""

    def _lose(self, worker: Worker, error: Exception) -> Lost:
        """Forget a worker. It is not killed: that can block for ever where its node is gone."""
        self._owners = {reference: owner for reference, owner in self._owners.items() if owner is not worker}
        self._asked = {reference: owner for reference, owner in self._asked.items() if owner is not worker}
        self._ready.discard(worker)
        self._looked = 0.0
        return Lost(f"is smoothcert installed on every node of the cluster, and is there enough memory? What is "
                    f"finished is kept; the same command resumes. The last one said: "
                    f"{re.sub(_COLOURS, '', str(error))}")


class _Hand:
    """A worker's side: the same run, prepared with its first block."""

    def __init__(self, reopen: Callable[[], Run], identity: Identity, version: str, folder: str):
        if version != __version__:
            raise SmoothcertError(f"{platform.node()} has smoothcert {__version__}, the driver {version}")
        if os.path.isdir(folder):
            os.chdir(folder)  # the driver's, from which relative paths start
        os.environ["LOCAL_RANK"] = "0"  # Ray shows a worker its own GPU alone
        self._reopen, self._identity = reopen, identity
        self._run: Run | None = None
        self._drawn = _Drawn()

    def work(self, tasks: list[Task]) -> tuple[str, Any, int]:
        """Return ("done", records, samples drawn since they were asked for), or ("error", words, 0) for what another
        worker would meet as well."""
        try:
            self._run = self._run or open_again(self._reopen, self._identity)
            with counting(self._drawn.add):
                records = list(self._run.records(tasks))
            return "done", records, self._drawn.take()
        except SmoothcertError as error:
            return "error", str(error), 0
        except Exception:
            return "error", f"a worker failed:\n{traceback.format_exc()}", 0

    def take_drawn(self) -> int:
        """Return the samples that were drawn since the last answer; it is asked beside the work."""
        return self._drawn.take()


class _Drawn:
    """A number that one thread adds to and another takes away."""

    def __init__(self) -> None:
        self._lock, self._number = Lock(), 0

    def add(self, number: int) -> None:
        with self._lock:
            self._number += number

    def take(self) -> int:
        with self._lock:
            number, self._number = self._number, 0
        return number
