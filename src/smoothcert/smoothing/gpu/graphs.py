"""A step of work on a GPU, recorded once as a CUDA graph and then replayed in one launch."""

from collections.abc import Callable

import torch

_WARM_UP = 3  # runs, in which cuDNN and cuBLAS take their workspaces


def record(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Return a call that does again what a step does, on the same tensors.

    The step is run a few times before; it must wait for nothing, and keep to tensors that stay where they are.

    Raises whatever the recording raises where the step does not.
    """
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):
            step()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(device), torch.cuda.graph(graph):
        step()
    return graph.replay
