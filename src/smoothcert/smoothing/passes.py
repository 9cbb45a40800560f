"""Forward passes over any number of rows, in batches that become smaller where a device runs out of memory."""

import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from smoothcert.errors import EngineWarning, InputError, ModelError
from smoothcert.smoothing.protocols import check_logits

_log = logging.getLogger("smoothcert")


class Passes:
    """A forward pass, cut into batches.

    Args:
        run: (N, ...) rows -> (N, K) logits, N <= batch.
        num_classes: K.
        batch: rows a pass.
        fixed: why smaller batches would not do: they are no less work, or another classifier. None where they do.
    Attributes:
        batch: rows a pass as of now.
    """

    def __init__(self, run: Callable[..., Any], num_classes: int, batch: int, fixed: str | None = None) -> None:
        self._run, self._num_classes, self.batch, self._fixed = run, num_classes, batch, fixed
        self._told = False

    def logits(self, rows: Tensor, normals_from: Callable[[int, int], list[Any]] | None = None) -> Tensor:
        """Return the logits (N, K) of rows.

        Args:
            normals_from: (start, end) -> what the pass takes after rows start ... end - 1.
        """
        parts, at = list[Tensor](), 0
        while at < len(rows):
            end = min(at + self.batch, len(rows))
            try:
                found = self._run(rows[at:end], *(normals_from(at, end) if normals_from else ()))
            except torch.OutOfMemoryError:
                found = None  # the pass's own tensors are let go with the error, before a smaller one is tried
            if found is None:
                self._shrink(end - at)
                continue
            parts.append(check_logits(found, end - at, self._num_classes))
            at = end
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _shrink(self, rows: int) -> None:
        self.batch = halve_batch(rows, self._fixed, self._told)
        self._told = True


def halve_batch(rows: int, fixed: str | None, told: bool = False) -> int:
    """Return half of a batch that a device had no memory for, with a warning unless that was told before.

    Raises InputError where smaller batches would not do, ModelError where there are none.
    """
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if rows <= 1:
        raise ModelError("out of memory: the device has no room for a forward pass of a single row")
    if fixed:
        raise InputError(f"out of memory in a forward pass of {rows:,} rows, and {fixed}: give --batch-size "
                         f"{rows // 2} (batch_size={rows // 2} in Python)")
    words = (f"out of memory in a forward pass of {rows:,} rows: going on with batches of {rows // 2:,}, which changes "
             f"no result; --batch-size {rows // 2} (batch_size in Python) would begin with these")
    if told:
        _log.info("%s", words)
    else:
        warnings.warn(words, EngineWarning, stacklevel=4)
    return rows // 2
