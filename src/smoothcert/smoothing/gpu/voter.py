"""Votes of a network on a GPU: a round is launched as a whole, and waited for once."""

import logging
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from smoothcert.errors import first_line
from smoothcert.smoothing.gpu import graphs
from smoothcert.smoothing.gpu.referee import Referee
from smoothcert.smoothing.gpu.rows import DeviceRows, Round, SentRows
from smoothcert.smoothing.gpu.shortcuts import is_taken
from smoothcert.smoothing.gpu.votes import CLOSE, LOST, WriteVotes, write_plainly
from smoothcert.smoothing.passes import Passes
from smoothcert.smoothing.protocols import Normals, check_finite
from smoothcert.smoothing.rows import Segment, Subject

_ROUND_BATCHES = 64  # between two waits for the device
_SHARES = (4, 16)  # of the batch: smaller ones, whose activations may stay in the GPU's cache
_LEAST_BATCH = 32
_TRIAL_SHARE = 0.05  # of the samples so far, that a trial of batches may take

_log = logging.getLogger("smoothcert")


class DeviceVoter:
    """Votes of a network, equal to those of `NetworkVoter` in float32.

    Args:
        rows: draws the noisy copies.
        passes: the engine.
        referee: the same classifier; judges again what is marked: samples that were not drawn rightly, and close calls.
        num_classes: K.
        device: where all is computed.
        write: puts down the votes of a batch.
        marks: whether close calls are marked.
        random: whether both classifiers take `Normals` after the rows.
        records: whether the engine's step may be recorded: it must keep to its own tensors, whatever becomes of the
            model's.
        free: whether smaller batches would give the same counts, so that a trial may choose one where steps are
            recorded.
    Attributes:
        batch: the samples of a step as of now.
    """

    def __init__(
        self, rows: DeviceRows | SentRows, passes: Passes, referee: Referee, num_classes: int,
        device: torch.device, write: WriteVotes = write_plainly, marks: bool = True, random: bool = False,
        records: bool = False, free: bool = False,
    ) -> None:
        self._rows, self._passes, self._referee, self._num_classes = rows, passes, referee, num_classes
        self._device, self._write, self._marks, self._random = device, write, marks, random
        self.batch = passes.batch
        self.capacity: int | None = self.batch * _ROUND_BATCHES
        self.format = rows.format
        self.close_calls = 0
        self._first = torch.zeros(1, dtype=torch.int64, device=device)
        self._votes = torch.zeros(0, dtype=torch.int32, device=device)
        self._recorded: tuple[int, Callable[[], None]] | None = None
        self._records = records and is_taken("cuda_graph") and isinstance(rows, DeviceRows) and (
            write is not write_plainly and not random)
        self._smaller = [size for size in (self.batch // share for share in _SHARES) if size >= _LEAST_BATCH] if (
            free and is_taken("batch_trial")) else []
        self._done = 0

    def subject(self, image: np.ndarray, key: int) -> Subject:
        return Subject(key, self._rows.noise.centre(image))

    def count(self, segments: Sequence[Segment]) -> np.ndarray:
        with torch.no_grad():
            found = Round(segments, self._device)
            votes = self._launch(found)
            slots = found.owner.to(torch.int64) * self._num_classes + votes
            # A close call is counted beyond the classes until the referee has judged it.
            slots.masked_fill_(votes < 0, len(segments) * self._num_classes)
            counts = torch.zeros(len(segments) * self._num_classes + 1, dtype=torch.int64, device=self._device)
            counts.index_add_(0, slots, torch.ones_like(slots))
            close, judged = self._settle(found, votes)
            table = counts[:-1].cpu().numpy().reshape(len(segments), -1)
            np.add.at(table, (np.searchsorted(found.ends, close, side="right"), judged), 1)
        return table

    def votes(self, segments: Sequence[Segment]) -> np.ndarray:
        """Return the class of each sample of all segments in order, int64 (N,)."""
        with torch.no_grad():
            found = Round(segments, self._device)
            votes = self._launch(found)
            close, judged = self._settle(found, votes)
            told = votes.cpu().numpy().astype(np.int64)
            told[close] = judged
        return told

    def _launch(self, found: Round) -> Tensor:
        """Return the votes of a round, int32 (total,), without waiting for them."""
        batches = -(-found.total // self.batch)
        if len(self._votes) < batches * self.batch:
            room = self.batch * max(batches, _ROUND_BATCHES)
            self._votes, self._recorded = torch.zeros(room, dtype=torch.int32, device=self._device), None
        self._rows.begin(found, len(self._votes))
        self._first.zero_()
        if self._records and batches > 1 and (replay := self._record(found)):
            for _ in range(batches):
                replay()
        else:
            for start in range(0, found.total, self.batch):
                self._step(found, start, min(self.batch, found.total - start))
        votes = self._votes[: found.total].clone()
        if self._rows.odd is not None:
            votes.masked_fill_(self._rows.odd[: found.total] > 0, CLOSE)
        self._done += found.total
        if self._smaller and found.total > self.batch:
            self._choose_batch(found)
        return votes

    def _step(self, found: Round, start: int, n: int) -> None:
        """Draw, classify and judge the next n samples; `start` of a round says whose a random classifier's are."""
        rows = self._rows.take(n, self._first)
        normals = partial(self._normals, found, start) if self._random else None
        self._write(self._votes, self._passes.logits(rows, normals), self._first, self._marks)
        self._first.add_(n)

    def _record(self, found: Round) -> Callable[[], None] | None:
        """Return the recorded step for the buffers as they are; None where there is none that is right and faster."""
        if self._recorded is None or self._recorded[0] != self._rows.generation:
            self._recorded = self._try_to_record(found, self.batch, untried=self._recorded is None)
            self._records = self._recorded is not None
        return None if self._recorded is None else self._recorded[1]

    def _try_to_record(self, found: Round, size: int, untried: bool = False) -> tuple[int, Callable[[], None]] | None:
        """Return the step of a batch, recorded, with the generation of the buffers it reads; None where it is no use.

        Args:
            untried: whether it is compared with the step.
        """
        step = partial(self._step, found, 0, size)
        recorded, reason = None, None
        try:
            replay = graphs.record(step, self._device)
            recorded = self._rows.generation, replay
            reason = graphs.find_fault(replay, step, self._first, self._votes[: 2 * size]) if untried else None
        except Exception as error:  # a network that waits for the device, or calls what cannot be recorded
            reason = f"the step cannot be recorded ({first_line(error)})"
        self._first.zero_()
        if reason:
            _log.info("no CUDA graph of %d samples: %s", size, reason)
            return None
        return recorded

    def _choose_batch(self, found: Round) -> None:
        """Take the batch that is the fastest when recorded, once to find it is a small share of what has been done.

        A batch whose votes are not those of the one before, but for close calls, is not taken.
        """
        trials = 4 * sum(self._smaller) + graphs.TIMED * (1 + len(self._smaller)) * self.batch
        if self._recorded is None or self._done * _TRIAL_SHARE < trials:
            return
        room, sizes, self._smaller = self._votes[: self.batch], self._smaller, []
        wanted, seconds = graphs.try_out(self._recorded[1], 1, self._first, room)
        fastest = seconds / self.batch
        for size in sizes:
            if (recorded := self._try_to_record(found, size)) is None:
                continue
            times = len(room) // size
            votes, seconds = graphs.try_out(recorded[1], times, self._first, room)
            near = (votes < 0) | (wanted < 0)
            right = not bool(((votes != wanted) & ~near)[: times * size].any())
            if right and seconds / (times * size) < fastest:
                fastest, self.batch, self._recorded = seconds / (times * size), size, recorded
        self._first.zero_()
        _log.info("batches of %d from now on", self.batch)

    def _settle(self, found: Round, votes: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Wait for a round's votes, and return which of its samples were close calls with their classes."""
        odd = (votes < 0).nonzero()[:, 0]
        close = odd.cpu().numpy()
        if not len(close):
            return close, close
        self.close_calls += len(close)
        check_finite(not bool((votes[odd] == LOST).any()))
        singles = [self._rows.single(segment, offset) for segment, offset in found.places(close)]
        judged = list[int]()
        for first in range(0, len(singles), self._referee.size):
            part = singles[first : first + self._referee.size]
            filled = part + part[:1] * (self._referee.rows - len(part))
            normals = self._walk(filled) if self._random else []
            logits = self._referee.logits(self._rows.draw(part), *normals)
            check_finite(not bool(logits.isnan().any()))
            judged += logits.argmax(dim=1).tolist()
        return close, np.array(judged)

    def _normals(self, found: Round, first: int, start: int, end: int) -> list[Normals]:
        return self._walk(found.cut(first + start, first + end))

    def _walk(self, segments: Sequence[Segment]) -> list[Normals]:
        return [lambda t, like: self._rows.walk(segments, t).to(like.dtype)]

