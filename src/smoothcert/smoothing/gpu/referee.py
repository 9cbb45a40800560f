"""The judge of close calls on a GPU: the plain model, which must give a row's answer to the bit in any company.

cuDNN and cuBLAS choose algorithms by the shape of a batch, so all are of one size; with `benchmark` on, cuDNN would
choose by time, and without `deterministic` it may add in any order. What then remains is that an algorithm might treat
the rows of a batch differently: this is tried, and such a model's rows are judged in a batch of copies of themselves.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor

from smoothcert.errors import EngineWarning
from smoothcert.smoothing.protocols import as_logits

ROWS = 32
"""Rows of every batch that is judged on a GPU."""


def referee_rows(device: torch.device) -> int:
    """Return the rows that the plain model judges at once where its answers must be exact: a CPU takes them alone."""
    return ROWS if device.type == "cuda" else 1


@contextmanager
def steady() -> Iterator[None]:
    """Let cuDNN neither choose algorithms by time nor add in an order that changes, and put its settings back."""
    cudnn: Any = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before


class Referee:
    """Judges rows by the plain model, in batches of one size.

    Args:
        run: the plain model, (N, ...) rows -> (N, K) logits.
        settings: of cuDNN, while it judges.
    Attributes:
        rows: of every batch.
        company: whether a batch holds different rows; else copies of one.
    """

    def __init__(
        self, run: Callable[..., Any], rows: int = ROWS,
        settings: Callable[[], AbstractContextManager[Any]] = steady,
    ) -> None:
        self._run, self.rows, self._settings, self.company = run, rows, settings, True

    @property
    def size(self) -> int:
        """The different rows that it judges at once."""
        return self.rows if self.company else 1

    def logits(self, rows: Tensor, *normals: Any) -> Tensor:
        """Return the logits (N, K) of 1 ... `size` rows; the first of them fills up the batch."""
        with self._settings(), torch.no_grad():
            filled = torch.cat([rows, rows[:1].expand(self.rows - len(rows), *rows.shape[1:])])
            return as_logits(self._run(filled, *normals))[: len(rows)]

    def judge(self, rows: Tensor) -> Tensor:
        """Return the logits (N, K) of any number of rows."""
        return torch.cat([self.logits(part) for part in rows.split(self.size)])

    def try_company(self, rows: Tensor) -> None:
        """Judge rows in two orders and twice, and leave company out unless all answers are equal to the bit.

        Warns where that is so, or where not even equal batches have equal answers.
        """
        rows = rows[: self.rows]
        turned = torch.arange(len(rows), device=rows.device).flip(0)
        first, again, other = self.logits(rows), self.logits(rows), self.logits(rows[turned])[turned]
        if not _equal(first, again):
            warnings.warn("the plain model's answers to one batch differ in their last bits from call to call on this "
                          "GPU: counts of a run that is repeated may differ where two classes nearly tie",
                          EngineWarning, stacklevel=2)
        elif not _equal(first, other):
            self.company = False
            warnings.warn("close calls are judged one by one, which is slower: the plain model's answer to a row "
                          "depends on its place in a batch in the last bits on this GPU", EngineWarning, stacklevel=2)


def open_referee(run: Callable[..., Any], shape: tuple[int, ...], device: torch.device, random: bool) -> Referee:
    """Return the referee of a plain model, which has been tried; a random one judges each row by itself."""
    found = Referee(run)
    if random:
        found.company = False
    else:
        generator = torch.Generator().manual_seed(0)
        found.try_company(torch.randn(ROWS, *shape, generator=generator).mul_(0.5).add_(0.5).to(device))
    return found


def _equal(one: Tensor, other: Tensor) -> bool:
    return bool(((one == other) | (one.isnan() & other.isnan())).all())
