"""Noisy copies for a network, many images to a batch, drawn on the host, each row from its own key.

Those of a GPU are in `smoothcert.smoothing.gpu.rows`.

A segment is a run of samples of one image and stage. Rows are a function of (run seed, image, stage, position) alone,
so any row can be drawn again later: close calls are, at the end of a round.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from smoothcert.noise import Noise, NoiseCentre, PhiloxStream, Stream, open_stream, walk_position
from smoothcert.smoothing.spaces import Space

S = TypeVar("S", bound=Stream)


@dataclass(eq=False)
class Subject:
    """An image on its way: its noise key, the centre that the noise makes of it, and by stage its open streams, or the
    words that stand for one where it is read at any position."""

    key: int
    centre: NoiseCentre
    streams: dict[str, Any] = field(default_factory=dict)
    words: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Segment:
    """Samples start ... start + n - 1 of one stage of an image."""

    subject: Subject
    stage: str
    start: int
    n: int

    def single(self, offset: int) -> "Segment":
        """Return one sample of the segment, on streams of its own, so that the open ones stay where they are."""
        return Segment(Subject(self.subject.key, self.subject.centre), self.stage, self.start + offset, 1)

    def stream(self, open_at: Callable[[int, str, NoiseCentre, int], S]) -> S:
        """Return the image's stream of this stage at `start`: the one that is open, or `open_at(key, stage, centre,
        start)`, which stays open."""
        streams = self.subject.streams
        found = streams.get(self.stage)
        if found is None or found.position != self.start:
            found = streams[self.stage] = open_at(self.subject.key, self.stage, self.subject.centre, self.start)
        return found


class SpaceNoise:
    """Plain Gaussian noise in a smaller space of a network, with the methods of a `Noise` that rows are drawn by."""

    def __init__(self, space: Space, sigma: float):
        self._space, self._sigma = space, sigma
        self._normals = np.empty((0, space.dimension), dtype=np.float32)

    def centre(self, image: np.ndarray) -> NoiseCentre:
        """Return what the network makes of an image up to the space."""
        return NoiseCentre(np.ravel(self._space.centre(image)).astype(np.float32))

    def stream(self, seed: int, image: int, stage: str, centre: NoiseCentre, start: int, format: str) -> Stream:
        """Return the standard normals of (seed, image, stage), as many a sample as the space has dimensions."""
        return open_stream(format, seed, image, stage, self._space.dimension, start)

    def fill(self, out: np.ndarray, centre: NoiseCentre, stream: Stream) -> None:
        """Write the next len(out) samples of the space into `out`, float32 (m, prod(shape))."""
        if len(self._normals) < len(out):
            self._normals = np.empty((len(out), self._space.dimension), dtype=np.float32)
        normals = self._normals[: len(out)]
        stream.fill(normals)
        out[:] = self._space.place(normals, centre.values, self._sigma)

    def place(self, normals: Any, values: Any, fraction: Any = None) -> Any:
        """Return the samples of the space that standard normals (m, dimension) make around centres."""
        return self._space.place(normals, values, self._sigma)


@dataclass(frozen=True)
class Intake:
    """How a network reads its rows; whatever else it is given, it converts.

    Attributes:
        channels_last: whether images lie in memory with the channels last.
    """

    channels_last: bool = False
    dtype: torch.dtype = torch.float32


class HostRows:
    """Rows drawn by NumPy into one buffer that every batch reuses, then moved to the device (no copy on a CPU).

    Args:
        noise: of pixels, or of a smaller space.
        shape: of one row.
        stream_format: named format of the noise's streams.
    Attributes:
        width: values of a row.
    """

    def __init__(
        self, noise: Noise | SpaceNoise, shape: tuple[int, ...], seed: int, stream_format: str, device: torch.device
    ):
        self.noise, self.format = noise, stream_format
        self._shape, self._seed, self._device = shape, seed, device
        self._open = partial(noise.stream, seed, format=stream_format)
        self.width = int(np.prod(shape))
        self._rows = self._allocate(0)

    def draw(self, segments: Sequence[Segment]) -> Tensor:
        """Return the rows of all segments in order, (N, *shape) float32 on the device; valid until the next call."""
        total, end = sum(segment.n for segment in segments), 0
        if len(self._rows) < total:
            self._rows = self._allocate(total)
        for segment in segments:
            rows = self._rows[end : (end := end + segment.n)]
            self.noise.fill(rows, segment.subject.centre, segment.stream(self._open))
        return self._move(torch.from_numpy(self._rows[:total]).view(-1, *self._shape))

    def walk(self, segments: Sequence[Segment], step: int) -> Tensor:
        """Return a random base classifier's normals for `step` of its walk from each row; for pixels only.

        They are a function of (run seed, image, stage, position, step), in the format `philox-v1`.
        """
        return walk_normals(self._seed, segments, step, self._shape).to(self._device)

    def _allocate(self, rows: int) -> np.ndarray:
        return np.empty((rows, self.width), dtype=np.float32)

    def _move(self, rows: Tensor) -> Tensor:
        return rows.to(self._device)


def walk_normals(seed: int, segments: Sequence[Segment], step: int, shape: tuple[int, ...]) -> Tensor:
    """Return the normals of `HostRows.walk`, (N, *shape) on the host."""
    total, dimension, end = sum(segment.n for segment in segments), int(np.prod(shape)), 0
    normals = np.empty((total, dimension), dtype=np.float32)
    for s in segments:
        rows = normals[end : (end := end + s.n)]
        PhiloxStream(seed, s.subject.key, "walk", dimension, walk_position(s.stage, step, s.start)).fill(rows)
    return torch.from_numpy(normals).view(-1, *shape)
