"""Noisy copies for a network, many images to a batch: drawn on the host or on the GPU, each row from its own key.

A segment is a run of samples of one image and stage. Rows are a function of (run seed, image, stage, position) alone,
so any row can be drawn again later: close calls are, at the end of a round.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from smoothcert.noise import Centre, Noise, PhiloxStream, Stream, open_stream, row_key, walk_position
from smoothcert.smoothing.spaces import Space


@dataclass(eq=False)
class Subject:
    """An image on its way: its noise key, what the noise makes of it, and the streams that are open on it."""

    key: int
    values: np.ndarray
    fraction: np.ndarray | None = None
    off_grid: bool = False
    streams: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Segment:
    """Samples start ... start + n - 1 of one stage of an image."""

    subject: Subject
    stage: str
    start: int
    n: int


class Rows(Protocol):
    """Draws noisy copies as a network takes them."""

    format: str

    def subject(self, image: np.ndarray, key: int) -> Subject:
        """An image (C, H, W) made ready."""
        ...

    def draw(self, segments: Sequence[Segment]) -> Tensor:
        """(N, ...) float32 on the device: the rows of all segments, in order; valid until the next call."""
        ...

    def walk(self, segments: Sequence[Segment], step: int) -> Tensor:
        """(N, C, H, W) float32 on the device: a random base classifier's normals for `step` of its walk from each row.

        A function of (run seed, image, stage, position, step), in the format `philox-v1`. For pixels only.
        """
        ...


class Placement:
    """Where samples live: pixels under any noise, or a smaller space of a network under plain Gaussian noise."""

    def __init__(self, noise: Noise, space: Space | None, shape: tuple[int, ...]):
        self._noise, self._space = noise, space
        self.shape = shape if space is None else space.shape
        self.dimension = int(np.prod(shape)) if space is None else space.dimension
        self.in_place = space is None

    def subject(self, image: np.ndarray, key: int) -> Subject:
        if self._space is not None:
            return Subject(key, np.ravel(self._space.centre(image)).astype(np.float32))
        centre = self._noise.centre(image)
        return Subject(key, centre.values, centre.fraction, centre.off_grid)

    def stream(self, seed: int, subject: Subject, stage: str, start: int, stream_format: str) -> Stream:
        """What `place` takes for a subject."""
        if self._space is not None:
            return open_stream(stream_format, seed, subject.key, stage, self.dimension, start)
        centre = Centre(subject.values, subject.fraction, subject.off_grid)
        return self._noise.stream(seed, subject.key, stage, centre, start, stream_format)

    def place(self, normals: Any, values: Any, fraction: Any) -> Any:
        """A stream's draws (m, dimension) around centres: noisy rows (m, prod(shape)); pixels in place."""
        if self._space is not None:
            return self._space.place(normals, values, self._noise.sigma)
        self._noise.place(normals, values, fraction)
        return normals


class HostRows:
    """Rows drawn by NumPy into one buffer that every batch reuses, then moved to the device (no copy on a CPU)."""

    def __init__(self, placement: Placement, seed: int, stream_format: str, device: torch.device):
        self.format = stream_format
        self._placement, self._seed, self._device = placement, seed, device
        self._normals = self._rows = np.empty((0, 0), dtype=np.float32)

    def subject(self, image: np.ndarray, key: int) -> Subject:
        return self._placement.subject(image, key)

    def draw(self, segments: Sequence[Segment]) -> Tensor:
        total, end = sum(segment.n for segment in segments), 0
        self._make_room(total)
        for segment in segments:
            part = slice(end, end := end + segment.n)
            normals = self._normals[part]
            stream_at(segment, self._opened).fill(normals)
            placed = self._placement.place(normals, segment.subject.values, segment.subject.fraction)
            if not self._placement.in_place:
                self._rows[part] = placed
        return torch.from_numpy(self._rows[:total]).view(-1, *self._placement.shape).to(self._device)

    def walk(self, segments: Sequence[Segment], step: int) -> Tensor:
        return walk_normals(self._seed, segments, step, self._placement.shape).to(self._device)

    def _opened(self, subject: Subject, stage: str, start: int) -> Stream:
        return self._placement.stream(self._seed, subject, stage, start, self.format)

    def _make_room(self, rows: int) -> None:
        if len(self._rows) < rows:
            self._normals = self._rows = np.empty((rows, self._placement.dimension), dtype=np.float32)
            if not self._placement.in_place:
                self._rows = np.empty((rows, int(np.prod(self._placement.shape))), dtype=np.float32)


class DeviceRows:
    """Rows drawn on the GPU by the `philox-v1` kernel, each from its own key and position."""

    format = "philox-v1"

    def __init__(self, placement: Placement, seed: int, device: torch.device):
        self._placement, self._seed, self._device = placement, seed, device

    def subject(self, image: np.ndarray, key: int) -> Subject:
        return self._placement.subject(image, key)

    def draw(self, segments: Sequence[Segment]) -> Tensor:
        owner = self._moved(np.repeat(np.arange(len(segments)), [segment.n for segment in segments]))
        normals = self._normals(segments, owner, [s.stage for s in segments], [s.start for s in segments])
        values = self._moved(np.stack([s.subject.values for s in segments]))[owner]
        rows = self._placement.place(normals, values, self._fractions(segments, owner))
        return rows.view(-1, *self._placement.shape)

    def walk(self, segments: Sequence[Segment], step: int) -> Tensor:
        owner = self._moved(np.repeat(np.arange(len(segments)), [segment.n for segment in segments]))
        starts = [walk_position(s.stage, step, s.start) for s in segments]
        return self._normals(segments, owner, ["walk"] * len(segments), starts).view(-1, *self._placement.shape)

    def _normals(
        self, segments: Sequence[Segment], owner: Tensor, stages: Sequence[str], starts: Sequence[int]
    ) -> Tensor:
        """(N, dimension): those of each segment's image, from `starts` on in the stream of one of `stages`."""
        from smoothcert.smoothing.philox_kernel import fill_normals

        keys = np.stack([row_key(self._seed, s.subject.key, stage) for s, stage in zip(segments, stages, strict=True)])
        positions = np.concatenate([np.arange(start, start + s.n) for s, start in zip(segments, starts, strict=True)])
        normals = torch.empty((len(positions), self._placement.dimension), device=self._device)
        fill_normals(normals, self._moved(keys.astype(np.int64))[owner], self._moved(positions))
        return normals

    def _fractions(self, segments: Sequence[Segment], owner: Tensor) -> Tensor | None:
        if all(s.subject.fraction is None for s in segments):
            return None
        none = np.zeros_like(segments[0].subject.values)
        return self._moved(np.stack([none if s.subject.fraction is None else s.subject.fraction
                                     for s in segments]))[owner]

    def _moved(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._device, non_blocking=True)


def walk_normals(seed: int, segments: Sequence[Segment], step: int, shape: tuple[int, ...]) -> Tensor:
    """What `Rows.walk` gives, on the host."""
    total, dimension, end = sum(segment.n for segment in segments), int(np.prod(shape)), 0
    normals = np.empty((total, dimension), dtype=np.float32)
    for s in segments:
        part = slice(end, end := end + s.n)
        PhiloxStream(seed, s.subject.key, "walk", dimension, walk_position(s.stage, step, s.start)).fill(normals[part])
    return torch.from_numpy(normals).view(-1, *shape)


S = TypeVar("S", bound=Stream)


def stream_at(segment: Segment, opened: Callable[[Subject, str, int], S]) -> S:
    """The open stream of a segment's image and stage, at the segment's start; one is kept open a stage.

    `opened` makes one from (subject, stage, start).
    """
    streams = segment.subject.streams
    stream = streams.get(segment.stage)
    if stream is None or stream.position != segment.start:
        stream = streams[segment.stage] = opened(segment.subject, segment.stage, segment.start)
    return stream
