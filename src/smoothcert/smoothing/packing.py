"""Images taken through a plan, packed: a round mixes images, those that are done leave, the next ones enter.

The plan says what to draw, stage by stage and look by look, and the voter counts votes; this loop only keeps every
round full to the end.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from smoothcert.smoothing.rows import Segment, Subject
from smoothcert.smoothing.voters import Voter
from smoothcert.stats import Draw, History, Look, Plan


@dataclass(eq=False)
class Finished:
    """One image that is done: its looks, the answer (-1 = abstain) with its values, and its cost.

    Attributes:
        tag: whatever the caller tells the image apart by.
        seconds: its share, by samples, of the time of the rounds it was in.
    """

    tag: Any
    off_grid: bool
    history: History
    prediction: int
    values: dict[str, float]
    seconds: float


@dataclass(eq=False)
class _Job:
    tag: Any
    subject: Subject
    draw: Draw
    left: int
    votes: np.ndarray
    history: History = field(default_factory=list)
    seconds: float = 0.0

    def segment(self, room: int | None) -> Segment:
        taken = sum(int(look.counts.sum()) for look in self.history[-1:] if look.stage == self.draw.stage)
        n = self.left if room is None else min(self.left, room)
        return Segment(self.subject, self.draw.stage, taken + self.draw.n - self.left, n)

    def add(self, votes: np.ndarray, n: int) -> None:
        self.votes = self.votes + votes
        self.left -= n
        if not self.left:
            last = self.history[-1:]
            before = last[0].counts if last and last[0].stage == self.draw.stage else 0
            self.history.append(Look(self.draw.stage, before + self.votes))

    def ask(self, draw: Draw) -> None:
        self.draw, self.left, self.votes = draw, draw.n, np.zeros_like(self.votes)


def run_plan(
    plan: Plan, voter: Voter, images: Iterable[tuple[Any, np.ndarray, int]], num_classes: int
) -> Iterator[Finished]:
    """Take images (tag, float32 (C, H, W), noise key) through a plan; each comes out when it is done.

    Images are taken from the iterable only when there is room for them, and answers do not depend on their company.
    """
    waiting, active = iter(images), list[_Job]()
    first = plan.next([[]])[0]
    if first is None:
        raise ValueError("a plan must draw something")
    while True:
        _admit(active, waiting, voter, first, num_classes)
        if not active:
            return
        drawn = _round(active, voter)
        arrived = [job for job in drawn if not job.left]
        for job, draw in zip(arrived, plan.next([job.history for job in arrived]), strict=True):
            if draw is not None:
                job.ask(draw)
        done = [job for job in arrived if not job.left]
        if done:
            active = [job for job in active if job.left]
            answers = plan.judge([job.history for job in done])
            for row, job in enumerate(done):
                values = {name: float(column[row]) for name, column in answers.values.items()}
                yield Finished(job.tag, job.subject.centre.off_grid, job.history, int(answers.prediction[row]), values,
                               job.seconds)


def _admit(active: list[_Job], waiting: Iterator, voter: Voter, first: Draw, num_classes: int) -> None:
    """Let images in until a round is full: one at a time where rounds have no size."""
    room = voter.capacity - sum(job.left for job in active) if voter.capacity else 1 - len(active)
    while room > 0:
        entry = next(waiting, None)
        if entry is None:
            return
        tag, image, key = entry
        active.append(_Job(tag, voter.subject(image, key), first, first.n, np.zeros(num_classes, dtype=np.int64)))
        room -= first.n


def _round(active: list[_Job], voter: Voter) -> list[_Job]:
    """Count one round's samples, the oldest images first, and return the images that took part."""
    started, room = time.perf_counter(), voter.capacity
    jobs: list[_Job] = []
    segments: list[Segment] = []
    for job in active:
        if room is not None and room <= 0:
            break
        jobs.append(job)
        segments.append(job.segment(room))
        room = room - segments[-1].n if room is not None else None
    counts = voter.count(segments)
    rate = (time.perf_counter() - started) / sum(segment.n for segment in segments)
    for job, segment, votes in zip(jobs, segments, counts, strict=True):
        job.add(votes, segment.n)
        job.seconds += rate * segment.n
    return jobs
