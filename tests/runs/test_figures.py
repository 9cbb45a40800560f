"""Figures of a run so far: what loggers are told, and what no logger changes."""

import numpy as np
import pytest

from smoothcert import attack, certify, predict, train
from smoothcert.errors import ConfigError
from smoothcert.runs.figures import RunFigures
from smoothcert.store.records import Record, Tally
from smoothcert.store.store import read_store


class Kept:
    def __init__(self):
        self.told: list[tuple[int, dict[str, float]]] = []

    def log(self, step, values):
        self.told.append((step, dict(values)))

    def close(self):
        raise AssertionError("an object is closed by whoever made it")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures") / "m"
    train("linear", "digits", out=folder, sigma=0.25, epochs=2)
    return str(folder)


def options(**more):
    return {"n": 500, "max_images": 12, "seed": 0, "radii": (0.1, 0.2), **more}


def test_the_last_figures_are_those_of_the_store(model, tmp_path):
    kept = Kept()
    store = certify(model, **options(out=tmp_path / "s", log_to=kept))
    step, told = kept.told[-1]
    assert step == 12
    right, radius = store.correct, store.column("radius")
    assert told["certify/accuracy"] == np.mean(right)
    assert told["certify/abstained"] == np.mean(store.column("prediction") < 0)
    assert told["certify/acr"] == pytest.approx(np.where(right, radius, 0).mean())
    for least in (0.1, 0.2):
        assert told[f"certify/certified_accuracy_{least:g}"] == np.mean(right & (radius >= least))
    assert told["certify/samples_per_second"] > 0


def test_a_logger_changes_no_byte_and_a_resumed_run_goes_on(model, tmp_path):
    plain = certify(model, **options(out=tmp_path / "plain"))
    kept, seen = Kept(), []

    def stop(event):
        seen.append(event.done)
        if event.phase == "sampling" and event.done >= 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        certify(model, **options(out=tmp_path / "s", log_to=kept, progress=stop))
    earlier = read_store(tmp_path / "s").num_records
    assert 0 < earlier < 12
    logged = certify(model, **options(out=tmp_path / "s", log_to=kept))
    assert kept.told[-1][0] == 12
    assert kept.told[-1][1]["certify/accuracy"] == np.mean(plain.correct)
    for name in ("manifest.json", "shard-00000.parquet"):
        assert (tmp_path / "s" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    assert certify(model, **options(out=tmp_path / "s")).records.equals(logged.records)
    count = len(kept.told)
    certify(model, **options(out=tmp_path / "s", log_to=kept))
    assert len(kept.told) == count  # nothing was left to do


def test_workers_log_in_one_place(model, tmp_path):
    kept = Kept()
    kept.unpicklable = lambda: None
    certify(model, **options(out=tmp_path / "s", workers=2, log_to=kept))
    assert kept.told[-1][0] == 12


def test_predictions_have_figures_and_attacks_none(model, tmp_path):
    kept = Kept()
    store = predict(model, n=100, max_images=5, seed=0, log_to=kept)
    assert kept.told[-1][1]["predict/accuracy"] == np.mean(store.correct)
    assert "predict/acr" not in kept.told[-1][1]
    with pytest.raises(ConfigError, match="log_to: unknown option"):
        attack(model, eps=0.5, log_to=kept)


def test_steps_come_once_in_a_while():
    seconds = iter([0.0, 0.1, 0.2, 1.3, 1.3, 1.35])
    told = []
    figures = RunFigures(lambda step, values: told.append((step, values)), "certify", 100, clock=seconds.__next__)
    for index, prediction in enumerate((1, -1, 2)):
        tallies = [Tally.of("estimate", np.array([0, 9]))]
        figures.add(Record(index, 1, prediction, {"radius": 0.3}, False, tallies))
    ((step, values),) = told
    assert step == 3
    assert values == {"certify/accuracy": 1 / 3, "certify/abstained": 1 / 3, "certify/acr": pytest.approx(0.1),
                      "certify/samples_per_second": pytest.approx(27 / 1.35)}
