"""The votes of a batch on a GPU: two launches of Triton, the twin of `smoothcert.smoothing.gpu.votes.write_plainly`.

Import this module where Triton is installed and its kernels are about to be used, not before.
"""

from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor

from smoothcert.smoothing.voters import CLOSE_CALL

_TILE = 4096  # logits a program
_CLOSE_CALL = tl.constexpr(CLOSE_CALL)
MOST_CLASSES = 16_384
"""Classes that the kernel takes."""


def write_votes(votes: Tensor, logits: Tensor, first: Tensor, referee: bool) -> None:
    """Do what `write_plainly` does, for float32 logits (N, K <= MOST_CLASSES), contiguous, on a GPU."""
    n, classes = logits.shape
    columns = 1 << (classes - 1).bit_length()
    rows = max(1, _TILE // columns)
    programs = -(-n // rows)
    sums = torch.empty(programs, dtype=torch.float64, device=logits.device)
    with torch.cuda.device_of(logits):
        cast(Any, _sum_sizes)[(programs,)](sums, logits, n, classes, ROWS=rows, COLUMNS=columns)
        cast(Any, _judge)[(programs,)](votes, logits, sums, first, n, classes, programs, ROWS=rows,
                                       COLUMNS=columns, SUMS=1 << (programs - 1).bit_length(), REFEREE=referee)


@triton.jit
def _read(logits, n, classes, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return this program's rows, the columns, which of both are there, and the logits, 0 where there are none."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    there = (row < n)[:, None] & (column < classes)[None, :]
    values = tl.load(logits + row.to(tl.int64)[:, None] * classes + column[None, :], mask=there, other=0.0)
    return row, column, there, values


@triton.jit
def _sizes(values):
    """Return the largest finite |logit| of each row, 0 for a row without one."""
    size = tl.abs(values)
    return tl.max(tl.where(size < float("inf"), size, 0.0), axis=1)


@triton.jit(do_not_specialize=["n"])
def _sum_sizes(sums, logits, n, classes, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    _row, _column, _there, values = _read(logits, n, classes, ROWS, COLUMNS)
    tl.store(sums + tl.program_id(0), tl.sum(_sizes(values).to(tl.float64), axis=0))


@triton.jit(do_not_specialize=["n", "programs"])
def _judge(votes, logits, sums, first, n, classes, programs, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
           SUMS: tl.constexpr, REFEREE: tl.constexpr):
    row, column, there, values = _read(logits, n, classes, ROWS, COLUMNS)
    part = tl.arange(0, SUMS)
    mean = tl.sum(tl.load(sums + part, mask=part < programs, other=0.0), axis=0) / n.to(tl.float64)
    lost = tl.max((values != values).to(tl.int32), axis=1) > 0
    values = tl.where(there & (values == values), values, float("-inf"))
    top = tl.max(values, axis=1)
    vote = tl.min(tl.where((values == top[:, None]) & there, column[None, :], COLUMNS), axis=1)
    second = tl.max(tl.where(column[None, :] == vote[:, None], float("-inf"), values), axis=1)
    if REFEREE:
        scale = tl.maximum(_sizes(tl.where(there, values, 0.0)), mean.to(tl.float32))
        vote = tl.where(top - second <= scale * _CLOSE_CALL, -1, vote)
    vote = tl.where(lost, -2, vote)
    tl.store(votes + tl.load(first) + row.to(tl.int64), vote, mask=row < n)
