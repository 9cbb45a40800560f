"""Who gets what of a run: an even share of what is left, whoever asks first."""

from collections.abc import Iterator, Sequence

import pytest

from smoothcert.errors import SmoothcertError
from smoothcert.runs import crew
from smoothcert.runs.crew import Delivered, Ended, Event, HasRoom, Load, Lost, Worker, by_crew


class Images:
    """A run of images, one a load."""

    def tasks(self, pending):
        return [(position,) for position in pending]

    def passes(self, position, record=None):
        return 1

    def release(self):
        pass


class Greedy:
    """Workers that ask until they are told to stop, and then finish an image a step.

    Args:
        ready: for each worker the step at which it is ready.
        speed: images that each finishes a step.
        dies: the step at which the first worker is lost, once.
    """

    keeps_idle = False

    def __init__(self, ready: Sequence[int], speed: Sequence[int] | None = None, patience: float = 1e9,
                 dies: int | None = None):
        self.ready, self.speed, self.patience, self.dies = ready, speed or [1] * len(ready), patience, dies
        self.step, self.done, self.holds = 0, [0] * len(ready), [list[int]() for _ in ready]
        self.asks, self.over = [True] * len(ready), [False] * len(ready)

    def loads(self, run: Images, pending: Sequence[int]) -> list[Load]:
        return [[task] for task in run.tasks(pending)]

    def count_missing(self, waiting: int, workers: int) -> int:
        return min(len(self.ready) - workers, waiting)

    def start(self, place: int) -> Worker:
        return Worker(place)

    def send(self, worker: Worker, load: Load | None) -> None:
        place = worker.handle
        self.asks[place] = bool(load)
        self.over[place] = load is None
        self.holds[place] += [position for task in load or [] for position in task]

    def events(self, workers: Sequence[Worker]) -> Iterator[tuple[Worker, Event]]:
        self.step += 1
        assert self.step < 10_000, "nothing goes on"
        for worker in workers:
            place = worker.handle
            if self.step < self.ready[place]:
                continue
            if place == 0 and self.step == self.dies:
                self.holds[0], self.asks[0] = [], True
                yield worker, Lost("as planned")
            elif self.asks[place]:
                self.asks[place] = False
                yield worker, HasRoom()
            elif self.holds[place]:
                part, self.holds[place] = self.holds[place][: self.speed[place]], self.holds[place][self.speed[place]:]
                self.done[place] += len(part)
                self.asks[place] = not self.over[place]
                yield worker, Delivered([(position, None, 0.0) for position in part])  # type: ignore[arg-type]
            elif self.over[place]:
                yield worker, Ended()

    def close(self, workers: Sequence[Worker]) -> None:
        pass


def share(n: int, transport: Greedy) -> list[int]:
    """How many of n images each worker does; every one is done."""
    done = list(by_crew(Images(), range(n), transport))  # type: ignore[arg-type]
    assert sorted(position for position, _, _ in done) == list(range(n))
    return transport.done


@pytest.mark.parametrize("late", [0, 5, 70, 500])
@pytest.mark.parametrize("n", [60, 61])
def test_equal_workers_do_equal_shares_however_late_one_is(n, late):
    first, second = share(n, Greedy([1, 1 + late]))
    assert abs(first - second) <= 0.1 * n


def test_a_faster_worker_does_more():
    slow, fast = share(120, Greedy([1, 1], [1, 3]))
    assert fast > 1.5 * slow


def test_nobody_waits_for_a_worker_that_does_not_come():
    """Once the patience is over, those that are ready begin; they leave its share to the late one as long as it lasts.
    """
    first, second = share(60, Greedy([1, 40], patience=-1.0))
    assert first + second == 60
    assert second >= 10


def test_the_share_of_a_lost_worker_is_given_out_again():
    assert sum(share(40, Greedy([1, 1, 1], dies=30))) == 40


def test_more_workers_than_images_leave_some_without():
    assert sorted(share(2, Greedy([1, 1, 1]))) == [0, 1, 1]


def test_workers_that_are_lost_before_they_begin_end_the_run(monkeypatch):
    monkeypatch.setattr(crew, "DEATHS", 1)
    with pytest.raises(SmoothcertError, match="as planned"):
        share(5, Greedy([1], dies=1))
