"""Training in several processes without torchrun; workers and precision that a run or a machine decides."""

import multiprocessing as mp
import os
import pickle
import signal
import time
import warnings
from pathlib import Path

import pytest
import torch

from smoothcert import machine
from smoothcert.classifiers.folder import read_card, read_weights
from smoothcert.errors import (
    ConfigError,
    IdentityError,
    InputError,
    LostProcessError,
    MissingExtraError,
    QualityWarning,
)
from smoothcert.machine import has_bf16_units
from smoothcert.processes import describe_exit, start_without_interrupts
from smoothcert.progress import Event
from smoothcert.recipes.run import usual_workers
from smoothcert.training import train as training
from smoothcert.training.options import TrainConfig
from smoothcert.training.train import resolve_machine_options, train, train_share
from smoothcert.training.workers import portable_warning

CPU = torch.device("cpu")


def config(out: Path, **options) -> TrainConfig:
    usual = {"data": "digits", "model": "cnn", "model_option": {"width": 4}, "sigma": 0.25, "epochs": 2,
             "max_images": 150, "batch_size": 64, "device": "cpu", "threads": 1}
    return TrainConfig.parse({**usual, "out": out, **options})


class Stopped(BaseException):
    pass


def stop_in(epoch: int):
    def progress(event: Event) -> None:
        if f"epoch {epoch}/" in event.words:
            raise Stopped
    return progress


def test_two_workers_train_the_network_of_one_and_go_on_as_two(tmp_path):
    """Stopped in the second epoch, and resumed with another number of workers, the run ends as if nothing had been."""
    train(config(tmp_path / "one"))
    told: list[str] = []
    train(config(tmp_path / "two", workers=2), lambda event: told.append(event.words))
    assert any("epoch 2/2" in words for words in told)
    with pytest.raises(Stopped):
        train(config(tmp_path / "stopped", workers=2), stop_in(2))
    assert not mp.active_children()
    assert read_card(tmp_path / "stopped").epochs_done == 1
    with pytest.warns(UserWarning, match=r"started with 2 process\(es\) and continues with 2, not 1"):
        card = train(config(tmp_path / "stopped", workers=1))
    assert card == read_card(tmp_path / "two")
    assert card.identity["processes"] == 2
    assert (tmp_path / "stopped/best.safetensors").read_bytes() == (tmp_path / "two/best.safetensors").read_bytes()
    one, two = (read_weights(tmp_path / name / "best.safetensors") for name in ("one", "two"))
    assert all(torch.allclose(one[name], two[name], rtol=1e-4, atol=1e-5) for name in one)


def test_a_worker_that_is_killed_ends_the_run_with_words(tmp_path):
    def kill(event: Event) -> None:
        for child in mp.active_children():
            if child.name == "smoothcert-1":
                child.kill()

    with pytest.raises(LostProcessError, match="resumes after the last finished epoch"):
        train(config(tmp_path / "killed", workers=2, epochs=50), kill)
    assert not mp.active_children()


def test_an_error_in_a_worker_is_raised_as_it_is(tmp_path):
    with pytest.raises(InputError, match="3 processes share batches of 2 images"):
        train(config(tmp_path / "m", workers=3, batch_size=2))
    assert not (tmp_path / "m/model.json").exists()


def test_only_the_parent_receives_interrupts():
    child = mp.get_context("spawn").Process(target=time.sleep, args=(60,))
    start_without_interrupts(child)
    assert child.pid
    os.kill(child.pid, signal.SIGINT)
    child.join(0.5)
    assert child.is_alive()
    child.kill()
    child.join()
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert describe_exit(child, 4) == "was killed (signal 9): is there enough memory for 4 of them?"


def test_an_exited_process_is_described():
    child = mp.get_context("spawn").Process(target=os._exit, args=(1,))
    child.start()
    child.join()
    assert "exited with code 1; the reason is in what it printed" in describe_exit(child, 2)
    assert 'under `if __name__ == "__main__":`' in describe_exit(child, 2)


def test_warnings_reach_the_driver_in_a_known_category():
    class Poor(QualityWarning):
        pass

    assert pickle.loads(pickle.dumps(portable_warning(Poor("so so"), Poor))) == ("so so", QualityWarning)
    assert portable_warning("old", DeprecationWarning) == ("old", DeprecationWarning)


def test_torchrun_and_workers_exclude_each_other(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="torchrun has already started 2 processes"):
        train(config(tmp_path / "m", workers=2))
    assert resolve_machine_options(config(tmp_path / "m"), CPU).workers is None


class TestPrecision:
    @pytest.mark.parametrize(("units", "precision"), [(True, "bf16"), (False, "none")])
    def test_auto_is_bf16_where_there_are_units_and_stays_so(self, tmp_path, monkeypatch, units, precision):
        monkeypatch.setattr(training, "has_bf16_units", lambda device: units)
        train(config(tmp_path / "m", autocast="auto", epochs=1))
        assert read_card(tmp_path / "m").identity["settings"]["autocast"] == precision
        monkeypatch.setattr(training, "has_bf16_units", lambda device: not units)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train(config(tmp_path / "m", autocast="auto", epochs=1))
        assert [str(w.message).partition(":")[0].endswith("continues with it") for w in caught
                if "bf16" in str(w.message)] == [True] * units

    def test_processes_do_not_repeat_the_drivers_warning(self, tmp_path, monkeypatch):
        monkeypatch.setattr(training, "has_bf16_units", lambda device: False)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train_share(config(tmp_path / "m", autocast="bf16", epochs=1))
        assert not [w for w in caught if "bf16" in str(w.message)]

    def test_bf16_without_units_is_refused_first(self, tmp_path, monkeypatch):
        monkeypatch.setattr(training, "has_bf16_units", lambda device: False)
        with pytest.raises(InputError, match="no units for bf16, and is slower with it than without: leave it out, or"):
            train(config(tmp_path / "m", autocast="bf16"))
        assert not (tmp_path / "m").exists()

    def test_another_precision_is_another_run(self, tmp_path, monkeypatch):
        monkeypatch.setattr(training, "has_bf16_units", lambda device: True)
        train(config(tmp_path / "m", autocast="auto", epochs=1))
        with pytest.raises(IdentityError, match=r"settings.autocast: stored 'bf16', asked 'none'"):
            train(config(tmp_path / "m", epochs=1))

    @pytest.mark.parametrize(("line", "units"), [
        ("flags\t\t: fpu avx512f avx512_bf16 sha_ni", True), ("flags : fpu amx_tile amx_bf16", True),
        ("Features\t: fp asimd bf16", True), ("flags\t\t: fpu avx2 avx512f avx512bw", False), ("model : bf16", False),
    ])
    def test_units_are_read_from_the_processors_flags(self, monkeypatch, line, units):
        monkeypatch.setattr(machine.Path, "read_text", lambda path: f"processor : 0\n{line}\n\nprocessor : 1\n")
        assert has_bf16_units(CPU) == units

    def test_a_system_that_does_not_say_has_none(self, monkeypatch):
        def missing(path):
            raise FileNotFoundError(path)

        monkeypatch.setattr(machine.Path, "read_text", missing)
        assert not has_bf16_units(CPU)


@pytest.mark.parametrize("error", [
    ConfigError(["a", "b"], "the options"), MissingExtraError("ray", "ray", "sampling in a cluster"),
    LostProcessError("gone"),
])
def test_errors_survive_their_way_between_processes(error):
    restored = pickle.loads(pickle.dumps(error))
    assert (type(restored), str(restored), vars(restored)) == (type(error), str(error), vars(error))
    assert restored.exit_code == error.exit_code


@pytest.mark.parametrize(("machine", "found", "used"), [
    ({"device": "cpu"}, 2, {"certify": 2, "train": None}), ({"device": "cpu"}, 64, {"certify": 4, "train": None}),
    ({"device": "cpu", "cluster": "auto"}, 8, {"certify": None, "train": None}),
])
def test_recipes_sample_on_all_processors_up_to_four(monkeypatch, machine, found, used):
    monkeypatch.setattr("smoothcert.recipes.run.processors", lambda: found)
    assert {verb: usual_workers("cpu", verb, machine) for verb in used} == used
    assert {usual_workers("smoke", verb, machine) for verb in used} == {None}


class Kept:
    def __init__(self):
        self.told, self.unpicklable = [], lambda: None

    def log(self, step, values):
        self.told.append((step, values["train/loss"]))

    def close(self):
        pass


def test_loggers_hear_of_each_epoch_once_and_are_no_part_of_the_identity(tmp_path):
    kept = Kept()
    train(config(tmp_path / "two", workers=2, epochs=1, log_to=kept))
    assert [step for step, _ in kept.told] == [1]
    with pytest.raises(Stopped):
        train(config(tmp_path / "one", log_to=kept), stop_in(2))
    card = train(config(tmp_path / "one"))
    assert card.complete
    assert "log_to" not in card.identity["settings"]
    assert [step for step, _ in kept.told] == [1, 1]
