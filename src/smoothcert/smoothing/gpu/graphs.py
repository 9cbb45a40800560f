"""A step of work on a GPU, recorded once as a CUDA graph and then replayed in one launch, where that is worth it."""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_WARM_UP = 3  # runs, in which cuDNN and cuBLAS take their workspaces

TIMED = 3
"""Trials of each way, of which the fastest counts."""


def record(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Return a call that does again what a step does, on the same tensors.

    The step is run a few times before, the last time under watch: one that waits for the device would break the
    recording, and leave torch's state broken. It must keep to tensors that stay where they are.

    Raises whatever the recording raises where the step does not, and RuntimeError for a step that waits.
    """
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP - 1):
            step()
        with _waits_refused():
            step()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(device), torch.cuda.graph(graph):
        step()
    return graph.replay


@contextmanager
def _waits_refused() -> Iterator[None]:
    """Let torch raise where the host would wait for the device."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch does not find every such wait
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def find_fault(replay: Callable[[], None], step: Callable[[], None], first: Tensor, votes: Tensor) -> str | None:
    """Return why a recorded step should not be used: other votes than the step's, or no less time. None: it should.

    Args:
        first, votes: as for `try_out`; the votes of two steps.
    """
    (wanted, plain), (found, recorded) = (try_out(run, 2, first, votes) for run in (step, replay))
    if not torch.equal(found, wanted):
        return "its votes are others"
    return None if recorded < plain else f"it takes {recorded / plain:.2f} times the time"


def try_out(run: Callable[[], None], times: int, first: Tensor, votes: Tensor) -> tuple[Tensor, float]:
    """Return the votes that some steps from sample 0 on write, and their seconds in the fastest of a few trials.

    Args:
        times: the steps.
        first: set to 0 before each trial; a step adds the samples that it has done.
        votes: int32, where the steps write.
    """
    fastest = float("inf")
    for _ in range(TIMED):
        first.zero_()
        votes.zero_()
        started = _now(votes.device)
        for _ in range(times):
            run()
        fastest = min(fastest, _now(votes.device) - started)
    return votes.clone(), fastest


def _now(device: torch.device) -> float:
    """Return the time when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
