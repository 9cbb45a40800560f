"""Noisy copies of sound noise on a GPU: all but a few drawn there, the others when they are asked for again."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smoothcert.noise import NoiseCentre, SoundNoise, SoundPhiloxStream
from smoothcert.noise.lattice import FINE, LatticeNormal, lattice_normal
from smoothcert.smoothing.gpu.memory import send
from smoothcert.smoothing.gpu.rows import DeviceRows, Round
from smoothcert.smoothing.rows import Intake, Segment, Subject


class SoundRows(DeviceRows):
    """Rows drawn on the GPU by the `sound-philox-v1` kernel, whose law's rest is drawn on the host; see `DeviceRows`.

    `take` marks the samples that have a value of the rest, in `odd`, and gives this value a zero; `draw` puts it right.
    """

    format = SoundPhiloxStream.format
    noise: SoundNoise
    _words = staticmethod(SoundPhiloxStream.words)

    def __init__(
        self, noise: SoundNoise, shape: tuple[int, ...], dimension: int, seed: int, device: torch.device
    ) -> None:
        super().__init__(noise, shape, dimension, seed, device)
        self._laws = list[LatticeNormal]()

    def begin(self, found: Round, room: int) -> None:
        super().begin(found, room)
        if self.odd is None or len(self.odd) < len(self._owner):
            self.odd = torch.zeros(len(self._owner), dtype=torch.int8, device=self._device)
        self.odd[: found.total].zero_()
        while len(self._laws) < (1 if self._fractions is None else 2):  # the second for centres off the grid
            self._laws.append(lattice_normal(self.noise.scale, FINE, shifted=bool(self._laws)))
            self._cuts, self._codes = (send(np.concatenate([getattr(law, name) for law in self._laws]), self._device)
                                       for name in ("cuts", "codes"))

    def draw(self, segments: Sequence[Segment]) -> Tensor:
        found = Round(segments, self._device)
        self.begin(found, found.total)
        rows = self._take(found.total, self._zero, Intake(), np.nan)
        lost = rows.view(found.total, -1).isnan().nonzero()
        if len(lost):
            samples, values = lost.cpu().numpy().T
            right = [self._find(segment, offset, value)
                     for (segment, offset), value in zip(found.places(samples), values.tolist(), strict=True)]
            rows.view(found.total, -1)[lost[:, 0], lost[:, 1]] = send(np.concatenate(right), self._device)
        return rows

    def _take(self, n: int, first: Tensor, intake: Intake, filler: float = 0.0) -> Tensor:
        out, channels = self._room(n, intake)
        self._draw_rows(out, self.odd, self._table, self._owner, first, self._centres, self._fractions, self._cuts,
                        self._codes, self._laws[0].width, float(self.noise.end), float(self.noise.step), filler,
                        channels)
        return self._as_rows(out, channels)

    def _find(self, segment: Segment, offset: int, value: int) -> np.ndarray:
        """Return a value of the rest of one sample, (1,) float32."""
        subject: Subject = segment.subject
        stream = self.noise.stream(self._seed, subject.key, segment.stage, subject.centre, format=self.format)
        t = np.array([stream.invert(segment.start + offset, value)], np.float32)
        return self.noise.place(t, subject.centre.values[value : value + 1])

    def _shift(self, centre: NoiseCentre) -> np.ndarray:
        """Return which law a centre takes, (1,) float32."""
        return np.array([centre.fraction is not None], np.float32)

    @cached_property
    def _draw_rows(self) -> Any:
        from smoothcert.smoothing.gpu.sound_kernel import draw_sound_rows  # which needs Triton

        return draw_sound_rows
