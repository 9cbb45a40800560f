"""Training in several processes on one machine, without torchrun: this process starts, watches and ends them."""

import multiprocessing as mp
import os
import socket
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from smoothcert.classifiers.folder import ModelCard
from smoothcert.errors import LostProcessError, SmoothcertError
from smoothcert.loggers import Figures
from smoothcert.machine import keep_freed_memory, processors
from smoothcert.processes import describe_exit, exit_with_parent, start_without_interrupts
from smoothcert.progress import Event, relay, reporting
from smoothcert.training.options import TrainConfig


def train_by_workers(config: TrainConfig, workers: int, log: Figures = lambda step, values: None) -> ModelCard:
    """Train in `workers` processes that share every batch, and return the card of the finished run.

    Args:
        log: is called in this process with the figures of each finished epoch.

    Raises LostProcessError where one of them is killed, and what `train_share` raises in one of them.
    """
    with _start(config, workers) as crew:
        while True:
            for pipe in wait(list(crew)):
                assert isinstance(pipe, Connection)
                try:
                    word, content = pipe.recv()
                except (EOFError, OSError):
                    crew[pipe].join()
                    raise LostProcessError(
                        f"a process of this run {describe_exit(crew[pipe], workers)} The same command resumes after "
                        f"the last finished epoch") from None
                if word == "progress":
                    relay(content)
                elif word == "figures":
                    log(*content)
                elif word == "warning":
                    warnings.warn(*content, stacklevel=2)
                elif word == "card":
                    return content
                else:
                    raise content


@contextmanager
def _start(config: TrainConfig, workers: int) -> Iterator[dict[Connection, BaseProcess]]:
    """Start the processes, give them by the pipes that they answer through, and end them all afterwards."""
    context = mp.get_context("spawn")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    threads = config.threads or max(1, processors() // workers)
    share = config.model_copy(update={"workers": None, "threads": threads, "log_to": ()})
    crew: dict[Connection, BaseProcess] = {}
    try:
        for rank in range(workers):
            ours, theirs = context.Pipe(duplex=False)
            group = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": workers, "LOCAL_WORLD_SIZE": workers,
                     "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": threads}
            process = context.Process(target=_serve, name=f"smoothcert-{rank}", daemon=True,
                                      args=(theirs, share, {name: str(value) for name, value in group.items()}))
            start_without_interrupts(process)
            theirs.close()
            crew[ours] = process
        yield crew
    finally:
        for process in crew.values():
            process.kill()  # epochs are written whole or not at all, and a collective call ignores a request to end
            process.join()


def _serve(pipe: Connection, config: TrainConfig, group: dict[str, str]) -> None:
    """Train as one process of the run, and send its progress, warnings, result or error to the driver."""
    threading.Thread(target=exit_with_parent, daemon=True).start()
    os.environ.update(group)
    main = group["RANK"] == "0"

    def progress(event: Event) -> None:
        if main:
            pipe.send(("progress", event))

    def warning(message: Warning | str, category: type[Warning], *where: Any) -> None:
        if main:
            pipe.send(("warning", portable_warning(message, category)))

    try:
        from smoothcert.training.train import train_share

        keep_freed_memory()
        with warnings.catch_warnings(), reporting(progress):
            warnings.showwarning = warning
            card = train_share(config, lambda step, values: pipe.send(("figures", (step, values))))
        if main:
            pipe.send(("card", card))
    except (BrokenPipeError, ConnectionResetError):
        sys.exit(1)
    except SmoothcertError as error:
        pipe.send(("error", error))
    except Exception:
        pipe.send(("error", SmoothcertError(f"a process of this run failed:\n{traceback.format_exc()}")))
    threading.Event().wait()  # until the driver ends this process: an earlier end of the pipe means that it has died


def portable_warning(message: Warning | str, category: type[Warning]) -> tuple[str, type[Warning]]:
    """Return a warning's text and category, as the driver can load them: a category that a user's model defines is
    replaced by the nearest one above it that belongs to Python or smoothcert."""
    return str(message), next(kind for kind in category.__mro__
                              if kind.__module__.partition(".")[0] in ("builtins", "smoothcert"))
