"""Events: phases in order, rates and times left by a fake clock, and what an interruption says is kept."""

import logging

import pytest
import torch

from smoothcert import SmoothedClassifier
from smoothcert.progress import (
    Event,
    Kept,
    Meter,
    Phase,
    Reporter,
    SampleRelay,
    Workload,
    announce,
    count_passes,
    keep,
    phase,
    reporting,
)
from smoothcert.progress import reports as module
from smoothcert.progress.pace import Pace
from smoothcert.stats import AtRadii


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def metered(work: Workload, clock: Clock) -> tuple[Meter, list[Event]]:
    told: list[Event] = []
    return Meter(work, Phase(Reporter(told.append, clock), "sampling", work.records, work.unit)), told


class TestPhases:
    def test_come_in_order_and_begin_and_end(self):
        told: list[Event] = []
        with reporting(told.append):
            with phase("outer", 2, "images") as outer:
                with phase("inner"):
                    pass
                outer.advance(2)
            announce("a line")
        assert [(event.phase, event.done, event.ended) for event in told[:-1]] == [
            ("outer", 0, False), ("inner", 0, False), ("inner", 0, True), ("outer", 2, False), ("outer", 2, True)]
        assert told[-1].line == "a line"

    def test_are_told_ten_times_a_second_at_most(self, clock, monkeypatch):
        monkeypatch.setattr(module, "EVERY", 0.1)
        told: list[Event] = []
        going = Phase(Reporter(told.append, clock), "hashing", 10_000, "images")
        for _ in range(10_000):
            clock.now += 0.001
            going.advance()
        assert 90 <= len(told) <= 101

    def test_tell_the_time_that_is_left(self, clock):
        told: list[Event] = []
        going = Phase(Reporter(told.append, clock), "hashing", 1000, "images")
        for _ in range(200):
            clock.now += 0.02
            going.advance()
        assert told[0].left is None
        assert told[-1].left == pytest.approx(800 * 0.02)
        assert told[-1].share == 0.2

    def test_are_logged_with_their_times(self, caplog):
        with caplog.at_level(logging.INFO, "smoothcert"), phase("loading the data", unit="images") as loading:
            loading.advance(7)
        assert caplog.messages == ["loading the data: 0.00 s, 7 images"]

    def test_nobody_need_listen(self):
        with phase("anything") as going:
            going.advance()
        announce("to nobody")
        count_passes(5)

    def test_a_call_without_a_callback_tells_who_listens_around_it(self):
        told: list[Event] = []
        with reporting(told.append), reporting(), phase("within"):
            pass
        assert [event.phase for event in told] == ["within", "within"]

    def test_an_interruption_gets_a_note_of_what_is_kept(self):
        with pytest.raises(KeyboardInterrupt) as found, reporting(lambda event: None):
            keep(lambda: Kept("3 of 5 images are done", ("--model-id", "NAME")))
            raise KeyboardInterrupt
        assert found.value.__notes__ == ["3 of 5 images are done"]


class TestMeter:
    def test_a_fixed_design_is_forecast_from_its_first_seconds(self, clock):
        """50 images of 100,100 samples at 500 a second: the first estimate is the truth, within an image."""
        meter, told = metered(Workload(50, 50, "images", 50 * 100_100), clock)
        clock.now = 3.0  # workers start, the first pass warms up
        for _ in range(30):
            meter.add(50)
            clock.now += 0.1
        first = next(event for event in told if event.left is not None)
        assert first.done == 0
        assert first.seconds <= 4.2
        assert first.left == pytest.approx(50 * 100_100 / 500, rel=0.01)
        assert first.bound == ""
        shares = [event.share for event in told]
        assert shares == sorted(shares)
        assert shares[-1] == pytest.approx(1500 / 50 / 100_100)

    def test_a_sequential_design_has_a_bound_and_then_an_expectation(self, clock):
        """Each image takes a fifth of its most."""
        meter, told = metered(Workload(100, 100, "images", 100 * 10_000, exact=False), clock)
        for _ in range(50):
            for _ in range(20):
                clock.now += 0.1
                meter.add(100)
            meter.finish(10_000, 2000)
        early = [event for event in told if event.left is not None and event.done < 5]
        late = [event for event in told if event.done >= 5]
        assert {event.bound for event in early} == {"at most"}
        assert {event.bound for event in late} == {"about"}
        assert early[0].left == pytest.approx(100 * 10_000 / 1000, rel=0.01)
        assert told[-1].left == pytest.approx(50 * 2000 / 1000, rel=0.02)
        assert "80% saved by stopping early" in told[-1].words

    def test_what_was_done_before_says_nothing_about_the_pace(self, clock):
        meter, told = metered(Workload(100, 10, "images", 10 * 1000), clock)
        for _ in range(20):
            clock.now += 0.1
            meter.add(10)
        assert told[-1].share == pytest.approx(0.9 + 0.1 * 200 / 10_000)
        assert told[-1].left == pytest.approx(9800 / 100)

    def test_samples_of_a_lost_worker_are_taken_back(self, clock):
        meter, told = metered(Workload(2, 2, "images", 2000), clock)
        clock.now = 1.0
        meter.add(600)
        assert told[-1].share == pytest.approx(0.3)
        meter.add(-600)
        assert told[-1].share == 0.0

    def test_without_known_samples_records_tell_the_time(self, clock):
        meter, told = metered(Workload(10, 10, "records"), clock)
        for _ in range(4):
            clock.now += 2.0
            meter.finish(0, 0)
        assert told[-1].left == pytest.approx(6 * 2.0)


def test_a_slow_start_is_forgotten(clock):
    pace = Pace(clock)
    pace.add(0)
    for _ in range(10):
        clock.now += 10.0
        pace.add(clock.now)
    for _ in range(200):
        clock.now += 1.0
        pace.add(100 + 100 * (clock.now - 100))
    assert pace.rate == pytest.approx(100.0)


def test_a_relay_hands_on_twice_a_second_and_loses_nothing(clock):
    sent: list[int] = []
    relay = SampleRelay(sent.append, clock)
    for _ in range(95):
        clock.now += 0.1
        relay.add(10)
    relay.flush()
    assert sum(sent) == 950
    assert len(sent) <= 20


class TestSmoothedClassifier:
    @staticmethod
    def smoothed() -> SmoothedClassifier:
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 16), torch.nn.ReLU(),
                                      torch.nn.Linear(16, 3)).eval()
        return SmoothedClassifier(network, 0.5, 3, seed=0)

    def test_samples_move_within_an_image(self):
        told: list[Event] = []
        self.smoothed().certify(torch.full((2, 1, 4, 4), 0.5), n=50_000, batch_size=100, progress=told.append)
        sampling = [event for event in told if event.phase == "sampling"]
        assert len({event.share for event in sampling if event.done == 0}) > 20
        assert (sampling[-1].done, sampling[-1].ended, sampling[-1].share) == (2, True, 1.0)

    def test_progress_changes_no_answer(self):
        g, x = self.smoothed(), torch.full((3, 1, 4, 4), 0.5)
        for plan in (AtRadii(n_max=1000, radii=[0.1]), None):
            assert g.certify(x, plan) == g.certify(x, plan, progress=lambda event: None)
        assert g.predict(x[0], n=200) == g.predict(x[0], n=200, progress=lambda event: None)

    def test_verbose_shows_lines_where_no_terminal_is(self, capsys, monkeypatch):
        monkeypatch.setattr("smoothcert.progress.bars._FIRST", 0.0)
        self.smoothed().predict(torch.full((2, 1, 4, 4), 0.5), n=100, verbose=True)
        said = capsys.readouterr()
        assert "sampling: 2/2 images, 200 samples" in said.err
        assert said.out == ""
