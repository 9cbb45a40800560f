"""The cost model: forecasts against runs that are played through, and figures that say where they come from."""

import heapq
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from smoothcert.cli.main import app
from smoothcert.errors import ConfigError, InputError, StoreError
from smoothcert.interop.logs import seconds_of
from smoothcert.report.cost import duration
from smoothcert.results.cost import (
    BLOCK,
    HELD,
    HOUR,
    LEVEL,
    CostRequest,
    Fleet,
    Pilot,
    Work,
    busiest,
    estimate_cost,
    forecast,
    samples_of,
)
from smoothcert.runs import cluster
from smoothcert.store.records import Record, Tally
from smoothcert.store.store import read_store, write_store
from stores import attacked, identity_of, made

PAGE = Path(__file__).parents[2] / "docs" / "cost.md"


def played(seconds: np.ndarray, workers: int, block: int) -> float:
    """When the last worker ends, each taking the next block as it becomes free."""
    free = [0.0] * workers
    for start in range(0, len(seconds), block):
        heapq.heapreplace(free, free[0] + float(seconds[start:start + block].sum()))
    return max(free)


@pytest.mark.parametrize("block", [1, 7, 64])
@pytest.mark.parametrize("workers", [1, 2, 3, 16])
def test_equal_images_take_exactly_what_is_forecast(workers, block):
    for images in (1, 6, 7, 8, 63, 64, 65, 500):
        told = forecast(images, Work(3000, 1000.0), Fleet(workers, startup=5), block)
        assert told.seconds == pytest.approx(5 + played(np.full(images, 3.0), workers, block))
        assert told.work == pytest.approx(3 * images / workers)
        assert told.tail >= 0
        assert told.low is told.high is None, "nothing was measured, so nothing has a spread"


@pytest.mark.parametrize(("workers", "block"), [(1, 1), (4, 1), (4, 16), (32, 16)])
def test_the_interval_holds_a_run_as_often_as_it_says(workers, block):
    rng, trials, held = np.random.default_rng(workers * block), 500, 0
    for _ in range(trials):
        pilot, run = rng.gamma(4, 0.5, 30), rng.gamma(4, 0.5, 400)
        work = Pilot("p", np.full(30, 1000), pilot).work()
        told = forecast(400, work, Fleet(workers), block)
        assert told.low <= told.seconds <= told.high
        held += told.low <= played(run, workers, block) <= told.high
    assert held / trials > LEVEL - 3 * math.sqrt(LEVEL * (1 - LEVEL) / trials)
    if workers == 1:  # then nothing is on top of the mean's own interval
        assert held / trials < LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / trials)


def test_no_order_of_hand_out_leaves_the_bounds_of_the_interval():
    rng = np.random.default_rng(0)
    for _ in range(200):
        seconds, workers = rng.pareto(1.5, 60), int(rng.integers(1, 9))
        took = played(seconds, workers, 1)
        assert seconds.sum() / workers <= took * (1 + 1e-12)
        assert took <= (seconds.sum() / workers + (1 - 1 / workers) * seconds.max()) * (1 + 1e-12)


@pytest.mark.parametrize(("block", "startup"), [(600.0, 0.0), (600.0, 120.0), (3600.0, 60.0)])
def test_a_preempted_worker_begins_its_block_anew(block, startup):
    fleet, rng = Fleet(startup=startup, preemptions=2.0), np.random.default_rng(0)

    def one() -> float:
        took, needed = 0.0, block
        while (alive := rng.exponential(HOUR / 2)) < needed:
            took, needed = took + alive, startup + block
        return took + needed

    times = np.array([one() for _ in range(20_000)])
    assert abs(block * fleet.stretch(block) - times.mean()) < 4 * times.std() / math.sqrt(len(times))


def test_rare_preemptions_cost_little_and_too_many_are_refused():
    assert Fleet().stretch(100.0) == 1
    assert Fleet(preemptions=1e-6, startup=10).stretch(100.0) == pytest.approx(1, abs=1e-6)
    told = forecast(1000, Work(1e5, 1e3), Fleet(4, startup=60, preemptions=0.5, price=3), 10)
    assert told.redone > 0
    assert told.startup + told.work + told.tail + told.redone == told.seconds
    smaller = forecast(1000, Work(1e5, 1e3), Fleet(4, startup=60, preemptions=0.5), 1)
    assert smaller.redone < told.redone / 5, "less is lost where less is handed out"
    with pytest.raises(InputError, match="smaller --block"):
        Fleet(preemptions=1000).stretch(10 * HOUR)


def test_the_price_is_that_of_all_machines_until_the_last_ends():
    assert Fleet(8, 4, price=2.5).cost_of(2 * HOUR) == 40
    assert Fleet(8).cost_of(HOUR) is None
    assert busiest(10_000, 8, 1) == 1250
    assert forecast(10_000, Work(500, 500.0), Fleet(2, 4)).seconds == 1250, "a machine's workers share the work"


def sequential(folder: Path) -> Path:
    """A store whose images took 100 + 100 and 100 + 400 samples, the latter in three looks."""
    def tally(stage: str, n: int) -> Tally:
        return Tally.of(stage, np.eye(10, dtype=int)[0] * n)

    looks = ([tally("select", 100), tally("estimate", 100)],
             [tally("select", 100), *(tally("estimate", n) for n in (100, 200, 400))])
    records = [Record(i, 0, 0, {"radius": 0.1}, False, [*looks[i % 2]]) for i in range(20)]
    procedure = {"design": "radii", "method": "cohen", "n0": 100, "n_max": 400, "radii": [0.1], "margin": None}
    write_store(folder, identity_of("certify", 20, 0.25, procedure), {}, records)
    entries = [{"index": i, "seconds": 0.2 + 0.3 * (i % 2)} for i in range(20)]
    lines = ['{"index": 3, "seconds": 99}', *map(json.dumps, entries), '{"index": 3, "sec',
             '{"index": 1, "seconds": NaN}', '{"index": "1", "seconds": 9}',
             "[" * 100_000, '{"index": 2, "seconds": -1}', "7"]
    (folder / "times.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def test_a_label_is_no_sample(tmp_path):
    tallies = [Tally.of(stage, np.eye(10, dtype=int)[0] * n) for stage, n in (("label", 1), ("estimate", 50))]
    procedure = {"design": "radii", "method": "cohen", "n0": 0, "n_max": 400, "radii": [0.1], "margin": None,
                 "labels_known": True}
    write_store(tmp_path / "s", identity_of("certify", 1, 0.25, procedure), {},
                [Record(0, 0, 0, {"radius": 0.1}, False, tallies)])
    assert samples_of(read_store(tmp_path / "s")).tolist() == [50]


def test_a_pilot_says_what_its_images_took(tmp_path):
    store = read_store(sequential(tmp_path / "s"))
    assert samples_of(store).tolist() == [200, 500] * 10
    assert seconds_of(store) == pytest.approx([0.2, 0.5] * 10), "the last time of an image, and no damaged line"
    pilot = Pilot.of(store)
    work = pilot.work()
    assert (work.samples, work.pilot) == (350, 20)
    assert work.rate == pytest.approx(1000)
    assert work.spread == pytest.approx(np.std([0.2, 0.5] * 10, ddof=1))
    fixed = pilot.work(samples=5000)
    assert (fixed.seconds, fixed.spread) == (pytest.approx(5), pytest.approx(0, abs=1e-12))
    faster = pilot.work(rate=2000)
    assert (faster.seconds, faster.spread) == (pytest.approx(work.seconds / 2), pytest.approx(work.spread / 2))


def test_a_pilot_without_times_or_samples_needs_them_given(tmp_path):
    store = read_store(made(tmp_path / "s"))
    with pytest.raises(StoreError, match="--rate"):
        Pilot.of(store).work()
    assert estimate_cost(CostRequest(10, rate=1100), store).forecast.seconds == pytest.approx(10)
    with pytest.raises(StoreError, match="kind attack"):
        Pilot.of(read_store(attacked(tmp_path / "a")))


def test_every_figure_says_whether_it_was_measured_or_given(tmp_path):
    store = read_store(sequential(tmp_path / "s"))
    def told(**asked):
        return {one["name"]: one["from"] for one in estimate_cost(CostRequest(50, **asked), store).to_json()["inputs"]}

    measured = "measured: 20 images of s"
    assert told()["samples an image"] == told()["samples/s, one worker"] == measured
    assert told(n=1000)["samples an image"] == "given: n 1,000, and 100 that choose the class"
    assert told(rate=5.0, machines=2) == {**told(), "samples/s, one worker": "given", "machines": "given"}
    assert estimate_cost(CostRequest(50, n=1000), store).work.samples == 1100
    assert estimate_cost(CostRequest(50, n=1000, rate=5.0), store).forecast.low is None, "nothing is left of the pilot"
    assert "3 blocks for 4 workers" in estimate_cost(CostRequest(3 * BLOCK, n=9, machines=4), store).notes[0]
    assert not estimate_cost(CostRequest(3 * BLOCK, n=9, machines=3), store).notes
    assert "pilot of 20" in estimate_cost(CostRequest(50), store).notes[0], "a sequential one"
    assert (cluster.BLOCK, cluster._AHEAD) == (BLOCK, HELD)


def test_everything_that_is_wrong_is_said_at_once():
    with pytest.raises(ConfigError) as refused:
        CostRequest(0, n=5, samples=3.0, rate=-1.0, machines=0, startup=-1, price=0)
    assert len(refused.value.problems) == 6
    with pytest.raises(ConfigError) as refused:
        estimate_cost(CostRequest(5))
    assert len(refused.value.problems) == 2


def test_the_command(tmp_path):
    store = str(sequential(tmp_path / "s"))
    done = CliRunner().invoke(app, ["cost", store, "--images", "100", "--machines", "2", "--price", "3", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert told["seconds"] == pytest.approx(52 * 0.35), "seven blocks: the busiest worker has three, and the last four"
    assert told["price"] == pytest.approx(2 * told["seconds"] / HOUR * 3)
    assert told["low"] < told["seconds"] < told["high"]
    done = CliRunner().invoke(app, ["cost", store, "--images", "100"])
    assert "35 s  (" in done.output
    done = CliRunner().invoke(app, ["cost", "--images", "0"])
    assert done.exit_code == 2
    assert "images: input should be greater than or equal to 1" in done.output


@pytest.mark.parametrize(("seconds", "words"), [
    (0.25, "0.25 s"), (119, "119 s"), (120, "2 min"), (3600, "1 h"), (86400, "24 h"), (864_000, "10 days"),
    (2e8, "2,315 days")])
def test_durations_have_a_unit_that_suits_them(seconds, words):
    assert duration(seconds) == words


def test_the_page_shows_what_the_command_prints():
    text = PAGE.read_text("utf-8").replace("\\\n", " ")
    shown = re.findall(r"^\$ smoothcert (cost --images .*)\n((?:(?!```).*\n)*)```", text, re.M)
    assert len(shown) >= 5
    for command, printed in shown:
        assert CliRunner().invoke(app, command.split()).output.strip() == printed.strip(), command
