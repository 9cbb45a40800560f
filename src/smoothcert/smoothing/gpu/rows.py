"""Noisy copies on a GPU, a round at a time: what belongs to the round's segments is sent once and drawn from there."""

from collections.abc import Sequence
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smoothcert.noise import GaussianNoise, GridNoise, Noise, NoiseCentre, PhiloxStream, row_key, walk_position
from smoothcert.smoothing.gpu.memory import send
from smoothcert.smoothing.rows import HostRows, Intake, Segment, SpaceNoise, Subject

_LEAST = 64  # of the rows that buffers have room for


class Round:
    """Samples of segments that are counted together.

    Attributes:
        total: their number.
    """

    def __init__(self, segments: Sequence[Segment], device: torch.device) -> None:
        self.segments, self._device = segments, device
        self.lengths = np.array([segment.n for segment in segments])
        self.ends = np.cumsum(self.lengths)
        self.total = int(self.ends[-1])

    @cached_property
    def owner(self) -> Tensor:
        """The segment of each sample, int32 (total,) on the device."""
        lengths = send(self.lengths, self._device)
        numbers = torch.arange(len(self.lengths), dtype=torch.int32, device=self._device)
        return torch.repeat_interleave(numbers, lengths, output_size=self.total)

    def places(self, samples: np.ndarray) -> list[tuple[Segment, int]]:
        """Return the segment of each of these samples, counted through all segments, and its offset there."""
        owners = np.searchsorted(self.ends, samples, side="right")
        offsets = (samples - (self.ends - self.lengths)[owners]).tolist()
        return [(self.segments[k], offset) for k, offset in zip(owners.tolist(), offsets, strict=True)]

    def cut(self, start: int, end: int) -> list[Segment]:
        """Return the segments of samples start ... end - 1."""
        found = list[Segment]()
        for k in range(int(np.searchsorted(self.ends, start, side="right")), len(self.segments)):
            segment, before = self.segments[k], int(self.ends[k]) - self.segments[k].n
            first, last = max(start - before, 0), min(end - before, segment.n)
            if last <= 0:
                break
            found.append(Segment(segment.subject, segment.stage, segment.start + first, last - first))
        return found


class SentRows(HostRows):
    """Rows drawn on the host, as `HostRows`, into pinned memory from which they are copied to a GPU."""

    generation, odd = 0, None
    _copied: Any = None

    def begin(self, found: Round, room: int) -> None:
        """Draw the samples of a round from now on; see `DeviceRows.begin`."""
        self._round, self._done = found, 0

    def take(self, n: int, first: Tensor) -> Tensor:
        """Return the next n rows of the round, (n, *shape) float32 on the device; valid until the next call."""
        self._done += n
        return self.draw(self._round.cut(self._done - n, self._done))

    def single(self, segment: Segment, offset: int) -> Segment:
        """Return one sample of a segment, for `draw`."""
        return segment.single(offset)

    def draw(self, segments: Sequence[Segment]) -> Tensor:
        if self._copied is not None:  # the copy of what the buffer held before
            self._copied.synchronize()
        return super().draw(segments)

    def _allocate(self, rows: int) -> np.ndarray:
        return torch.empty((rows, self.width), pin_memory=self._device.type == "cuda").numpy()

    def _move(self, rows: Tensor) -> Tensor:
        found = rows.to(self._device, non_blocking=True)
        if self._device.type == "cuda":
            self._copied = torch.cuda.Event()
            self._copied.record(torch.cuda.current_stream(self._device))
        return found


class DeviceRows:
    """Rows drawn on the GPU by the `philox-v1` kernel, each from its own key and position; see `HostRows`.

    Keys, centres and the table of segments stay on the device: a round sends what is new in it, and a batch nothing.

    Args:
        dimension: standard normals a row takes: prod(shape) for pixels.
    Attributes:
        intake: how the kernel of `take` writes rows; what is drawn otherwise is float32 with the channels first.
        generation: changes whenever the buffers do that a recorded round would read.
        odd: int8, one a sample of the round: 1 for those that `take` has not drawn rightly, and `draw` does; or None.
    """

    format = PhiloxStream.format

    odd: Tensor | None = None
    intake = Intake()
    _words = staticmethod(row_key)

    def __init__(
        self, noise: Noise | SpaceNoise, shape: tuple[int, ...], dimension: int, seed: int, device: torch.device
    ):
        self.noise, self.width = noise, int(np.prod(shape))
        self._shape, self._dimension, self._seed, self._device = shape, dimension, seed, device
        # By exact type: another noise may place its normals by any other arithmetic, which its own `place` has.
        self._placement: Any = ((noise.drawn, None) if type(noise) is GaussianNoise else
                                (noise.drawn, float(noise.step)) if type(noise) is GridNoise else None)
        self.generation, self._slots = 0, dict[Subject, int]()
        self._centres = torch.empty(0, device=device)
        self._fractions: Tensor | None = None
        self._table = torch.empty((0, 5), dtype=torch.int64, device=device)
        self._owner = torch.empty(0, dtype=torch.int32, device=device)
        self._zero = torch.zeros(1, dtype=torch.int64, device=device)
        self._rows = dict[Intake, Tensor]()

    def begin(self, found: Round, room: int) -> None:
        """Draw the samples of a round from now on.

        Args:
            room: samples that are drawn at most, a multiple of the batch.
        """
        segments = found.segments
        slots = self._hold(dict.fromkeys(segment.subject for segment in segments))
        lines, done = [], 0
        for segment in segments:
            words = segment.subject.words
            if (key := words.get(segment.stage)) is None:
                key = words[segment.stage] = self._words(self._seed, segment.subject.key, segment.stage).tolist()
            lines.append((*key, segment.start - done, slots[segment.subject]))
            done += segment.n
        if len(self._table) < len(lines) or len(self._owner) < room:
            rows = max(_LEAST, 1 << (len(lines) - 1).bit_length(), len(self._table))
            self._table = torch.zeros((rows, 5), dtype=torch.int64, device=self._device)
            self._owner = torch.zeros(max(room, len(self._owner)), dtype=torch.int32, device=self._device)
            self.generation += 1
        self._table[: len(lines)].copy_(send(np.array(lines, dtype=np.int64), self._device), non_blocking=True)
        self._owner[: found.total].copy_(found.owner)
        self._owner[found.total :].zero_()

    def take(self, n: int, first: Tensor) -> Tensor:
        """Return rows first ... first + n - 1 of the round, (n, *shape); valid until the next call.

        Args:
            first: (1,) int64 on the device.
        """
        return self._take(n, first, self.intake)

    def _take(self, n: int, first: Tensor, intake: Intake) -> Tensor:
        if self._placement is not None:
            out, channels = self._room(n, intake)
            self._kernels.draw_rows(out, self._table, self._owner, first, self._centres, self._fractions,
                                    *self._placement, channels)
            return self._as_rows(out, channels)
        at = first + torch.arange(n, device=self._device)
        lines = self._table[self._owner[at].to(torch.int64)]
        normals = torch.empty((n, self._dimension), device=self._device)
        self._kernels.fill_normals(normals, lines[:, :3], lines[:, 3] + at)
        slots = lines[:, 4]
        fractions = None if self._fractions is None else self._fractions[slots]
        return self.noise.place(normals, self._centres[slots], fractions).view(-1, *self._shape)

    def draw(self, segments: Sequence[Segment]) -> Tensor:
        """Return the rows of all segments in order, as `HostRows.draw` does; a round that was begun is over."""
        found = Round(segments, self._device)
        self.begin(found, found.total)
        return self._take(found.total, self._zero, Intake())

    def single(self, segment: Segment, offset: int) -> Segment:
        """Return one sample of a segment, for `draw`."""
        return Segment(segment.subject, segment.stage, segment.start + offset, 1)

    def walk(self, segments: Sequence[Segment], step: int) -> Tensor:
        """Return what `HostRows.walk` does."""
        owner = Round(segments, self._device).owner.to(torch.int64)
        keys = np.stack([row_key(self._seed, s.subject.key, "walk") for s in segments])
        positions = np.concatenate([np.arange(s.n) + walk_position(s.stage, step, s.start) for s in segments])
        normals = torch.empty((len(positions), self._dimension), device=self._device)
        words = send(keys.astype(np.int64), self._device)[owner]
        self._kernels.fill_normals(normals, words, send(positions, self._device))
        return normals.view(-1, *self._shape)

    def _room(self, n: int, intake: Intake) -> tuple[Tensor, int]:
        """Return room for n rows, (n, width), and the channels that come last there, or 1; that of the rows before."""
        if (rows := self._rows.get(intake)) is None or len(rows) < n:
            rows = self._rows[intake] = torch.empty((n, self.width), dtype=intake.dtype, device=self._device)
            self.generation += 1
        return rows[:n], self._shape[0] if intake.channels_last and len(self._shape) == 3 else 1

    def _as_rows(self, values: Tensor, channels: int) -> Tensor:
        """Return what a kernel wrote, (n, width), as rows (n, *shape)."""
        if channels == 1:
            return values.view(-1, *self._shape)
        return values.view(-1, *self._shape[1:], channels).permute(0, 3, 1, 2)

    def _shift(self, centre: NoiseCentre) -> np.ndarray:
        """Return what `_fractions` holds of a centre."""
        return np.zeros_like(centre.values) if centre.fraction is None else centre.fraction

    @cached_property
    def _kernels(self) -> Any:
        return import_module("smoothcert.smoothing.philox_kernel")  # which needs Triton

    def _hold(self, subjects: dict[Subject, Any]) -> dict[Subject, int]:
        """Return the row of the centres' buffer of each subject; send the centres that are not there yet."""
        held = self._slots
        new = [subject for subject in subjects if subject not in held]
        off_grid = self._fractions is None and any(s.centre.fraction is not None for s in new)
        if len(subjects) > len(self._centres) or off_grid:
            rows = max(_LEAST, 1 << (len(subjects) - 1).bit_length(), len(self._centres))
            width = len(new[0].centre.values)
            self._centres = torch.zeros((rows, width), device=self._device)
            if off_grid or self._fractions is not None:
                self._fractions = torch.zeros((rows, len(self._shift(new[0].centre))), device=self._device)
            self.generation += 1
            held, new = {}, list(subjects)
        if len(held) + len(new) > len(self._centres):
            held = {subject: slot for subject, slot in held.items() if subject in subjects}
        if new:
            used = set(held.values())
            free = [slot for slot in range(len(self._centres)) if slot not in used][: len(new)]
            rows = send(np.array(free), self._device)
            self._centres[rows] = send(np.stack([s.centre.values for s in new]), self._device)
            if self._fractions is not None:
                self._fractions[rows] = send(np.stack([self._shift(s.centre) for s in new]), self._device)
            held.update(zip(new, free, strict=True))
        self._slots = held
        return held
