"""Noisy copies that two base classifiers judge, to count what both say of the same copy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from smoothcert.smoothing.gpu.voter import DeviceVoter
from smoothcert.smoothing.rows import Segment, Subject
from smoothcert.smoothing.voters import NetworkVoter


@dataclass(eq=False)
class PairedSubject(Subject):
    """An image for two voters. Each reads the streams from the start, so each has its own: the `twin`'s are the second
    one's."""

    twin: Subject | None = None


class PairVoter:
    """Votes of two base classifiers on the same noisy copies, which each of them draws from the same keys.

    Args:
        first, second: voters under one noise, seed and stream format.
    """

    def __init__(self, first: NetworkVoter | DeviceVoter, second: NetworkVoter | DeviceVoter):
        self._first, self._second = first, second
        # Both cut their batches at the same samples, however many are judged at once: in reduced precision the batch
        # is part of a classifier.
        self.capacity: int | None = math.lcm(first.capacity or 1, second.capacity or 1)
        self.format = second.format

    @property
    def close_calls(self) -> int:
        """The samples so far that either of the two judged again."""
        return self._first.close_calls + self._second.close_calls

    def subject(self, image: np.ndarray, key: int) -> PairedSubject:
        subject = self._first.subject(image, key)
        return PairedSubject(subject.key, subject.centre, twin=self._second.subject(image, key))

    def judge(self, subject: PairedSubject, stage: str, start: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the classes (n,) that the two give samples start ... start + n - 1 of a stage of an image."""
        segment = Segment(subject, stage, start, n)
        return self._first.votes([segment]), self._second.votes([replace(segment, subject=subject.twin or subject)])

    def count(self, segments: Sequence[Segment]) -> np.ndarray:
        """Return the votes of the second one, int64 (len(segments), K); the first one judges the copies too."""
        self._first.count(segments)
        return self._second.count(segments)
