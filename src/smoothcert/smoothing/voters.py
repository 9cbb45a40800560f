"""From a plan to votes: a network's, a linear model's in logit space, a binary linear model's by its law.

The plan says what to draw, stage by stage and look by look, and a voter counts votes. `run_plan` only keeps every round
full to the end: rounds mix images, those that are done leave, and the next ones enter. To add a voter, write `subject`
and `count`.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from smoothcert.noise import BINOMIAL_FORMAT, BoxMullerStream, Noise, NoiseCentre, binomial, box_muller
from smoothcert.progress import count_passes
from smoothcert.smoothing.passes import Passes
from smoothcert.smoothing.protocols import Normals, check_finite
from smoothcert.smoothing.rows import HostRows, Segment, Subject
from smoothcert.smoothing.spaces import Space
from smoothcert.stats import Draw, History, Look, Plan
from smoothcert.stats.histories import LABEL, count_samples

CLOSE_CALL = 1e-4
"""A vote whose two top logits differ by less than this share of the largest is judged again by the plain model.

Floating-point sums depend on the batch and on the engine they are computed in, by about 1e-6 of a logit. A sample
judged alone always gives the same answer, so results are equal whatever the batch, the packing and the engine.
"""

_CHUNK_VALUES, _CHUNK_ROWS = 2**18, 1000  # of rows drawn and counted at once on a CPU, so that they stay in a cache
_CACHED_SAMPLES = 16_384  # of logits at once, so that they stay in a processor's second cache


class Voter(Protocol):
    """A counter of the votes of a base classifier on noisy copies.

    Attributes:
        capacity: samples a round should hold to use the machine well; None: any number costs the same.
        format: named format of the noise (see `smoothcert.noise.streams`).
    """

    capacity: int | None
    format: str

    @property
    def close_calls(self) -> int:
        """The samples so far that were too close to call, and were judged again by the plain model."""
        ...

    def subject(self, image: np.ndarray, key: int) -> Subject:
        """Return an input, float32, made ready for its samples."""
        ...

    def count(self, segments: Sequence[Segment]) -> np.ndarray:
        """Return votes, int64 (len(segments), K): equal however samples are cut into segments and these into calls."""
        ...


class NetworkVoter:
    """Votes of a network on a CPU, in compute batches that mix images; `smoothing/gpu/voter.py` has those on a GPU.

    Small batches are drawn and counted many at once, because noise and votes cost more than their arithmetic there.

    Args:
        rows: draws the noisy copies.
        passes: the engine.
        plain: the same classifier as it is; judges close calls.
        random: whether both take `Normals` after the rows; a close call is judged under its own again.
        num_classes: K.
        referee: whether close calls are judged again; not where the classifier judges every row alone anyway, nor in
            reduced precision, where the batch is part of the classifier.
        overwrites: whether the classifier changes the rows that it is given, so that they must be drawn again.
        exact: whether a runtime is known to give each row's answer to the bit, whatever the batch.
    """

    def __init__(
        self, rows: HostRows, passes: Passes, plain: Callable[..., Any], num_classes: int, referee: bool,
        random: bool = False, overwrites: bool = False, exact: bool = False,
    ):
        self._rows, self._passes, self._num_classes = rows, passes, num_classes
        self._referee, self._random, self._plain = referee, random, Passes(plain, num_classes, 1)
        # Without the referee the batch may shape the answers, and a random classifier draws its normals by the batch.
        together, batch = (referee or exact) and not random, passes.batch
        self._keeps = together and referee and not overwrites
        room = min(_CHUNK_ROWS, _CHUNK_VALUES // rows.width) if together else 0
        self._chunk = batch * max(1, room // batch)
        self.capacity: int | None = self._chunk
        self.format = rows.format
        self.close_calls = 0

    def subject(self, image: np.ndarray, key: int) -> Subject:
        return Subject(key, self._rows.noise.centre(image))

    def count(self, segments: Sequence[Segment]) -> np.ndarray:
        votes = self.votes(segments)
        owner = np.repeat(np.arange(len(segments)), [segment.n for segment in segments])
        slots = owner * self._num_classes + votes
        return np.bincount(slots, minlength=len(segments) * self._num_classes).reshape(len(segments), -1)

    def votes(self, segments: Sequence[Segment]) -> np.ndarray:
        """Return the class of each sample of all segments in order, int64 (N,)."""
        votes: list[Tensor] = []
        ordered: list[Tensor] = []
        kept: list[Tensor] = []  # the rows of close calls
        with torch.no_grad():
            for chunk in batches(segments, self._chunk):
                rows = self._rows.draw(chunk)
                vote, first, close = judge(self._logits(self._passes, rows, chunk))
                if self._referee:
                    vote.masked_fill_(close, -1)
                    if self._keeps:
                        kept.append(rows[close])
                votes.append(vote)
                ordered.append(~first.isnan().any().view(1))
            # The vote of each row, -1 where it is close, and whether any logit is NaN.
            packed = torch.cat([*votes, *(flag.to(torch.int64) for flag in ordered)]).cpu().numpy()
            found = packed[: -len(ordered)]
            check_finite(bool(packed[-len(ordered) :].all()))
            if len(close := np.flatnonzero(found < 0)):
                self.close_calls += len(close)
                found[close] = self._judge_again(segments, close, kept)
        return found

    def _judge_again(self, segments: Sequence[Segment], close: np.ndarray, kept: list[Tensor]) -> list[int]:
        """Return the votes of samples `close`, counted through all segments, of which the rows are `kept` or drawn
        again. The plain model judges each alone."""
        lengths = np.array([segment.n for segment in segments])
        ends = np.cumsum(lengths)
        owners = np.searchsorted(ends, close, side="right")
        offsets = (close - (ends - lengths)[owners]).tolist()
        singles = [segments[k].single(offset) for k, offset in zip(owners, offsets, strict=True)]
        found = torch.cat(kept) if kept else None
        votes: list[int] = []
        for at, single in enumerate(singles):
            rows = self._rows.draw([single]) if found is None else found[at : at + 1]
            logits = self._logits(self._plain, rows, [single])
            check_finite(not bool(logits.isnan().any()))
            votes += logits.argmax(dim=1).tolist()
        return votes

    def _logits(self, passes: Passes, rows: Tensor, segments: Sequence[Segment]) -> Tensor:
        """Return the logits (N, K) of the rows of all segments, computed in batches."""
        if not self._random:
            return passes.logits(rows)

        def normals_from(start: int, end: int) -> list[Normals]:
            return [lambda t, like: self._rows.walk(segments, t)[start:end].to(like.dtype)]

        return passes.logits(rows, normals_from)


class LogitVoter:
    """Votes of a linear model, drawn as its Gaussian logits: W x + b + sigma L eta, K - 1 normals a sample.

    Float32, with every vote that rounding could have changed computed again in float64.
    """

    capacity: int | None = 131_072  # many images a round, so that a plan decides on many at once
    format = BoxMullerStream.format
    close_calls = 0  # they are judged in float64, which gives one answer everywhere

    def __init__(self, space: Space, sigma: float, seed: int):
        self._space = space
        self._open = lambda key, stage, centre, start: BoxMullerStream(seed, key, stage, space.dimension, start)
        half = -(-space.dimension // 2)
        self._factor = np.zeros((space.shape[0], 2 * half))  # its columns as `box_muller` gives the normals
        self._factor[:, : space.dimension] = sigma * space.factor
        self._factor32 = self._factor.astype(np.float32)
        self._spread = 8 * float(np.abs(self._factor).sum(axis=1).max())  # no |normal| of the format reaches 8

    def subject(self, image: np.ndarray, key: int) -> Subject:
        return Subject(key, NoiseCentre(np.asarray(self._space.centre(image), dtype=np.float64)))

    def count(self, segments: Sequence[Segment]) -> np.ndarray:
        table = np.zeros((len(segments), len(self._factor)), dtype=np.int64)
        ends, done = np.cumsum([segment.n for segment in segments]), 0
        for part in batches(segments, _CACHED_SAMPLES):
            starts = done + np.cumsum([0, *(segment.n for segment in part)])
            np.add.at(table, np.searchsorted(ends, starts[:-1], side="right"), self._count_cached(part))
            done = starts[-1]
        return table

    def _count_cached(self, segments: Sequence[Segment]) -> np.ndarray:
        lengths = np.array([segment.n for segment in segments])
        ends = np.cumsum(lengths)
        starts, half = ends - lengths, self._factor.shape[1] // 2
        normals = box_muller(self._words(segments)).reshape(2 * half, -1)
        centres = np.stack([segment.subject.centre.values for segment in segments], axis=1)
        logits = self._factor32 @ normals
        logits += np.repeat(centres.astype(np.float32), lengths, axis=1)
        slack = np.float32(1e-6 * (self._spread + np.abs(centres).max()))
        near = logits >= logits.max(axis=0) - slack
        table = np.add.reduceat(near.view(np.int8), starts, axis=1, dtype=np.int64).T
        for k in np.flatnonzero(table.sum(axis=1) > lengths):
            part = slice(starts[k], ends[k])
            for column in np.flatnonzero(np.count_nonzero(near[:, part], axis=0) > 1) + part.start:
                table[k] -= near[:, column]
                exact = (self._factor[:, :half] @ normals[:half, column]
                         + self._factor[:, half:] @ normals[half:, column])
                table[k, (exact[self._space.first] + centres[:, k]).argmax()] += 1
        return table

    def _words(self, segments: Sequence[Segment]) -> np.ndarray:
        """Return the words of all segments, (words a sample, total): samples side by side, as the products take them.

        A function of its own, so that the cache is free of words before the products are computed.
        """
        words = [segment.stream(self._open).words(segment.n) for segment in segments]
        return np.ascontiguousarray(np.concatenate(words).T)


class BinaryVoter:
    """Votes of a binary linear model: Bin(n, p), with p known exactly, drawn at once whatever n is."""

    capacity: int | None = None
    format = BINOMIAL_FORMAT
    close_calls = 0

    def __init__(self, space: Space, noise: Noise, seed: int):
        self._space, self._noise, self._seed = space, noise, seed

    def subject(self, image: np.ndarray, key: int) -> Subject:
        return Subject(key, NoiseCentre(np.array(self._space.probabilities(image, self._noise.sigma))))

    def count(self, segments: Sequence[Segment]) -> np.ndarray:
        firsts = [binomial(self._seed, s.subject.key, s.stage, s.start, s.n, *s.subject.centre.values)
                  for s in segments]
        return np.array([[first, s.n - first] for first, s in zip(firsts, segments, strict=True)], dtype=np.int64)


def batches(segments: Sequence[Segment], size: int) -> list[list[Segment]]:
    """Return segments cut so that every batch but the last holds exactly `size` samples."""
    cut: list[list[Segment]] = [[]]
    room = size
    for segment in segments:
        start, left = segment.start, segment.n
        while left:
            take = min(left, room)
            cut[-1].append(segment if take == segment.n else Segment(segment.subject, segment.stage, start, take))
            start, left, room = start + take, left - take, room - take
            if not room:
                cut.append([])
                room = size
    return cut if cut[-1] else cut[:-1]


def judge(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the votes (N,) of logits (N, K), the largest logit of each row (NaN where one is), and `is_close`."""
    first, second = logits.topk(2, dim=1).values.unbind(dim=1)
    largest = logits.abs().nan_to_num_(posinf=0.0).amax(dim=1)
    close = first - second <= CLOSE_CALL * torch.maximum(largest, largest.mean())
    return logits.argmax(dim=1), first, close


def is_close(logits: Tensor) -> Tensor:
    """Return (N,) bool: the two top logits of a row differ by less than CLOSE_CALL of the largest finite |logit|.

    That of the row, or of the batch's rows on average if that is more: where two logits cancel to almost nothing, as
    those of two classes do, what was rounded is of the size that others have.
    """
    return judge(logits)[2]


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

    @property
    def samples(self) -> int:
        """The samples that were drawn: looks are cumulative within a stage."""
        return count_samples((look.stage, int(look.counts.sum())) for look in self.history)


@dataclass(eq=False)
class _Job:
    """An image on its way through a plan: `left` samples are still to be drawn before the next look at its stage."""

    tag: Any
    subject: Subject
    stage: str
    left: int
    counts: np.ndarray
    taken: int = 0
    history: History = field(default_factory=list)
    seconds: float = 0.0


def run_plan(
    plan: Plan, voter: Voter, images: Iterable[tuple[Any, np.ndarray, int]], num_classes: int,
    label_of: Callable[[Any], int] | None = None,
) -> Iterator[Finished]:
    """Take images (tag, float32 input, noise key) through a plan; each comes out when it is done.

    Images are taken from the iterable only when there is room for them, and answers do not depend on their company. An
    iterator that stops is asked again after every round, until those that it gave are done.
    `label_of` gives the label of the image of a tag, for plans that ask for it.
    """
    waiting, active = iter(images), list[_Job]()
    none = np.zeros(num_classes, dtype=np.int64)
    opening = plan.next([[]])[0]
    if opening is None or (opening.stage == LABEL and label_of is None):
        raise ValueError("a plan must draw something, and needs labels if it asks for them")
    while True:
        # Let images in until the round is full: one at a time where rounds have no size.
        room = voter.capacity - sum(job.left for job in active) if voter.capacity else 1 - len(active)
        while room > 0 and (entry := next(waiting, None)) is not None:
            tag, image, key = entry
            history, first = list[Look](), opening
            if opening.stage == LABEL and label_of is not None:
                history, first = _take_label(plan, label_of(tag), num_classes)
            active.append(_Job(tag, voter.subject(image, key), first.stage, first.n, none, history=history))
            room -= first.n
        if not active:
            return
        # Count one round's samples, the oldest images first.
        started, room = time.perf_counter(), voter.capacity
        drawn: list[tuple[_Job, Segment]] = []
        for job in active:
            if room is not None and room <= 0:
                break
            n = job.left if room is None else min(job.left, room)
            drawn.append((job, Segment(job.subject, job.stage, job.taken, n)))
            room = None if room is None else room - n
        counts = voter.count([segment for _, segment in drawn])
        total = sum(segment.n for _, segment in drawn)
        count_passes(total)
        rate = (time.perf_counter() - started) / total
        for (job, segment), votes in zip(drawn, counts, strict=True):
            job.counts, job.taken, job.left = job.counts + votes, job.taken + segment.n, job.left - segment.n
            job.seconds += rate * segment.n
        # Ask the plan about those that have all samples of their look.
        arrived = [job for job, _ in drawn if not job.left]
        for job in arrived:
            job.history.append(Look(job.stage, job.counts))
        for job, draw in zip(arrived, plan.next([job.history for job in arrived]), strict=True):
            if draw is not None:
                if draw.stage != job.stage:
                    job.stage, job.taken, job.counts = draw.stage, 0, none
                job.left = draw.n
        if done := [job for job in arrived if not job.left]:
            active = [job for job in active if job.left]
            answers = plan.judge([job.history for job in done])
            for row, job in enumerate(done):
                values = {name: float(column[row]) for name, column in answers.values.items()}
                yield Finished(job.tag, job.subject.centre.off_grid, job.history, int(answers.prediction[row]), values,
                               job.seconds)


def _take_label(plan: Plan, label: int, num_classes: int) -> tuple[History, Draw]:
    """Return the history of an image whose label is given, and the first draw of its samples."""
    history = [Look(LABEL, np.eye(num_classes, dtype=np.int64)[label])]
    first = plan.next([history])[0]
    if first is None:
        raise ValueError("a plan must draw something after the label")
    return history, first
