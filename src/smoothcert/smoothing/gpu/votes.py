"""From logits to votes on a GPU: written beside each other for a whole round, so that nothing waits for the device."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from smoothcert.smoothing.gpu.shortcuts import is_taken
from smoothcert.smoothing.voters import CLOSE_CALL

CLOSE, LOST = -1, -2
"""Written in place of a vote: for what is judged again, such as a close call, and for a row with a NaN logit."""

WriteVotes = Callable[[Tensor, Tensor, Tensor, bool], None]
"""See `write_plainly`."""


def write_plainly(votes: Tensor, logits: Tensor, first: Tensor, referee: bool) -> None:
    """Write the votes of a batch: the class of the largest logit, the first of equal ones.

    Args:
        votes: int32, of a round; entries first ... first + N - 1 are written.
        logits: (N, K).
        first: (1,) int64.
        referee: whether close calls are marked. `smoothcert.smoothing.voters.is_close` defines them; the mean is
            summed in float64 here.
    """
    # +inf, which `nan_to_num_` would make large, counts for nothing, as NaN does.
    largest = logits.abs().nan_to_num_(posinf=0.0).amax(dim=1)
    top = logits.topk(2, dim=1).values
    vote = logits.argmax(dim=1)
    if referee:
        mean = (largest.sum(dtype=torch.float64) / len(logits)).to(largest.dtype)
        vote.masked_fill_(top[:, 0] - top[:, 1] <= CLOSE_CALL * torch.maximum(largest, mean), CLOSE)
    vote.masked_fill_(logits.isnan().any(dim=1), LOST)
    votes.index_copy_(0, first + torch.arange(len(logits), device=first.device), vote.to(torch.int32))


def choose_write(num_classes: int, device: torch.device) -> WriteVotes:
    """Return the kernel where it can be used and gives its twin's votes on a few rows, else the twin."""
    if not is_taken("vote_kernel") or find_spec("triton") is None:
        return write_plainly
    try:
        from smoothcert.smoothing.gpu.vote_kernel import MOST_CLASSES, write_votes

        if num_classes > MOST_CLASSES or not _agree(write_votes, num_classes, device):
            return write_plainly
    except Exception:  # a compiler that is missing or fails raises what it likes; `open_rows` says so
        return write_plainly

    def write(votes: Tensor, logits: Tensor, first: Tensor, referee: bool) -> None:
        fits = logits.dtype == torch.float32 and logits.is_contiguous()
        (write_votes if fits else write_plainly)(votes, logits, first, referee)

    return write


def _agree(write: Any, num_classes: int, device: torch.device) -> bool:
    """Tell whether a kernel writes its twin's votes: of far, close, equal, infinite and NaN logits."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(70, num_classes, generator=generator)
    logits[10:20, 1] = logits[10:20, 0] * (1 + 1e-6)
    logits[20:30] = logits[20:30].round()
    logits[30, 0], logits[31, -1], logits[32, 0], logits[33] = torch.inf, -torch.inf, torch.nan, 0.0
    found = [torch.zeros(100, dtype=torch.int32, device=device) for _ in range(2)]
    first = torch.tensor([9], device=device)
    for votes, how in zip(found, (write, write_plainly), strict=True):
        how(votes, logits.to(device), first, True)
    return torch.equal(*found)
