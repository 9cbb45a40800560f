"""From the host to a device without a wait."""

import numpy as np
import torch
from torch import Tensor


def send(array: np.ndarray, device: torch.device) -> Tensor:
    """Return an array on a device; to a GPU by way of pinned memory, so that the host goes on meanwhile.

    torch keeps such memory for the next call, and gives it away only after its copy is done.
    """
    found = torch.from_numpy(array)
    return found.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else found
