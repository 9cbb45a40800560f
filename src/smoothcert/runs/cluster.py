"""Sampling in a Ray cluster: its workers take fixed blocks of the run's tasks, and hand back their records.

The driver writes the store; a worker or node that is lost costs the blocks it held, which are given out again. Results
are equal to one process's, because noise and votes belong to the image. What a worker needs (model and data) it finds
under the same paths as the driver.
"""

import os
import platform
import re
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from smoothcert.errors import SmoothcertError
from smoothcert.runs.joining import joined
from smoothcert.runs.run import BLOCK, Done, Run, Task, reopened
from smoothcert.runs.workers import DEATHS
from smoothcert.store.manifest import record_count
from smoothcert.version import __version__

_COLOURS = r"\x1b\[\d*m"
_AHEAD = 2  # blocks that a worker has at a time, so that it never waits for the driver
_LOOK, _PATIENCE = 2.0, 60.0  # seconds between looks at the cluster's size, and until a warning that it does nothing


def by_cluster(run: Run, pending: Sequence[int]) -> Iterator[Done]:
    """Every pending record, in the order they are done.

    Raises:
        MissingExtraError: no Ray. InputError: no such cluster. SmoothcertError: a worker found an error, or workers
            die again and again.
    """
    if not pending:
        return
    with joined(str(run.config.cluster)) as ray:
        yield from _Crew(ray, run, pending).work()


def blocks_of(run: Run, pending: Sequence[int]) -> list[list[Task]]:
    """The pending positions of the run's fixed blocks; blocks with nothing to do are left out."""
    wanted = set(pending)
    blocks: list[list[Task]] = []
    size = BLOCK
    for task in run.tasks(range(record_count(run.identity))):
        if size >= BLOCK:
            blocks.append([])
            size = 0
        size += len(task)
        if left := tuple(position for position in task if position in wanted):
            blocks[-1].append(left)
    return [block for block in blocks if block]


@dataclass(eq=False)
class _Worker:
    actor: Any
    is_ready: bool = False


class _Crew:
    """The driver's side: who holds which blocks."""

    def __init__(self, ray: Any, run: Run, pending: Sequence[int]):
        self._ray, self._run = ray, run
        self._waiting = deque(blocks_of(run, pending))
        self._held: dict[Any, tuple[_Worker, list[Task]]] = {}
        self._workers: list[_Worker] = []
        self._needs = {"num_gpus": 1} if run.identity["device"] == "cuda" else {"num_cpus": run.config.threads or 1}
        self._most, self._deaths, self._looked, self._heard = 0, 0, 0.0, monotonic()

    def work(self) -> Iterator[Done]:
        while self._waiting or any(block for _, block in self._held.values()):
            self._enlist()
            self._hand_out()
            ready, _ = self._ray.wait(list(self._held), timeout=_LOOK)
            for reference in ready:
                yield from self._hear(reference)
            self._complain()

    def _enlist(self) -> None:
        """Start workers while there is room for them, also on nodes that have joined since."""
        if self._workers and monotonic() - self._looked < _LOOK:
            return
        self._looked = monotonic()
        self._check_joined()
        most = min(self._run.config.workers or self._room(), len(self._waiting) + len(self._workers))
        while len(self._workers) < most:
            actor = self._ray.remote(**self._needs, max_restarts=0)(_Hand).remote(
                self._run.reopen, self._run.identity, __version__, os.getcwd())
            worker = _Worker(actor)
            self._workers.append(worker)
            self._held[actor.work.remote([])] = worker, []  # answered when it is ready: there may be no room for it
        self._most = max(self._most, len(self._workers))

    def _check_joined(self) -> None:
        """Without the node that it has joined through, a driver waits for ever."""
        alive = {node["NodeID"]: node["Alive"] for node in self._ray.nodes()}
        if not alive.get(self._ray.get_runtime_context().get_node_id(), True):
            raise SmoothcertError("the cluster's node that this run had joined through has died: what is finished is "
                                  "kept; the same command goes on, from a node that runs")

    def _room(self) -> int:
        """How many workers the nodes that are there have room for; at least one, so that a cluster that grows does."""
        (need, each), = self._needs.items()
        have = self._ray.cluster_resources().get({"num_gpus": "GPU", "num_cpus": "CPU"}[need], 0)
        return max(int(have // each), 1)

    def _hand_out(self) -> None:
        """A block to every worker that is ready, then one more."""
        for depth in range(1, _AHEAD + 1):
            for worker in self._workers:
                load = sum(holder is worker for holder, _ in self._held.values())
                if self._waiting and worker.is_ready and load < depth:
                    block = self._waiting.popleft()
                    self._held[worker.actor.work.remote(block)] = worker, block

    def _hear(self, reference: Any) -> Iterator[Done]:
        if reference not in self._held:  # its worker was buried meanwhile
            return
        worker, _ = self._held[reference]
        try:
            word, content = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._bury(worker, error)
            return
        del self._held[reference]
        if word == "error":
            raise SmoothcertError(content)
        worker.is_ready = True
        if content:
            self._deaths, self._heard = 0, monotonic()
        yield from content

    def _bury(self, worker: _Worker, error: Exception) -> None:
        """Take back what a lost worker held; another is started when there is room.

        It is not killed: that can block for ever where its node is gone, and a worker ends when nobody knows it.
        """
        lost = [reference for reference, (holder, _) in self._held.items() if holder is worker]
        blocks = [self._held.pop(reference)[1] for reference in lost]
        self._waiting.extendleft(block for block in reversed(blocks) if block)
        self._workers.remove(worker)
        self._looked, self._deaths = 0.0, self._deaths + 1
        if self._deaths >= DEATHS * self._most:
            raise SmoothcertError(
                f"workers of the cluster keep dying without finishing a record: is smoothcert installed "
                f"on every node, and is there enough memory? What is finished is kept; the same command "
                f"resumes. The last one said: {re.sub(_COLOURS, '', str(error))}")

    def _complain(self) -> None:
        if monotonic() - self._heard > _PATIENCE and not any(worker.is_ready for worker in self._workers):
            self._heard = float("inf")
            warnings.warn(f"no worker is ready yet: the run asks for {self._needs} a worker, and the "
                          f"cluster has {self._ray.cluster_resources()}", stacklevel=2)


class _Hand:
    """A worker's side: the same run, prepared with its first block."""

    def __init__(self, reopen: Callable[[], Run], identity: dict[str, Any], version: str, folder: str):
        if version != __version__:
            raise SmoothcertError(f"{platform.node()} has smoothcert {__version__}, the driver {version}")
        if os.path.isdir(folder):
            os.chdir(folder)  # the driver's, from which relative paths start
        os.environ["LOCAL_RANK"] = "0"  # Ray shows a worker its own GPU alone
        self._reopen, self._identity = reopen, identity
        self._run: Run | None = None

    def work(self, tasks: list[Task]) -> tuple[str, Any]:
        """("done", records), or ("error", words) for what another worker would meet as well."""
        try:
            self._run = self._run or reopened(self._reopen, self._identity)
            return "done", list(self._run.records(tasks))
        except SmoothcertError as error:
            return "error", str(error)
        except Exception:
            return "error", f"a worker failed:\n{traceback.format_exc()}"
