"""Weights & Biases and MLflow, by stand-ins: one run for a folder, which a resumed run goes on in."""

import sys

import pytest

import logger_stand_ins
from smoothcert.io.files import read_json
from smoothcert.loggers import open_loggers


def log_twice(spec, folder):
    for step in (1, 2):
        with open_loggers([spec], folder) as log:
            log(step, {"train/loss": 1 / step})


def test_wandb(tmp_path, monkeypatch):
    library = logger_stand_ins.wandb()
    monkeypatch.setitem(sys.modules, "wandb", library)
    log_twice("wandb:paper", tmp_path)
    (run,) = library.runs.values()
    assert (run["project"], run["name"], run["by"]) == ("paper", tmp_path.name, ("*", "step"))
    assert run["logged"] == [{"train/loss": 1.0, "step": 1}, {"train/loss": 0.5, "step": 2}]
    assert run["finished"] == 2
    (tmp_path / "other").mkdir()
    log_twice("wandb:paper", tmp_path / "other")
    assert len(library.runs) == 2


def test_mlflow(tmp_path, monkeypatch):
    library = logger_stand_ins.mlflow()
    monkeypatch.setitem(sys.modules, "mlflow", library)
    log_twice("mlflow:paper", tmp_path)
    assert library.experiments == {"paper": "0"}
    (run,) = library.runs.values()
    assert run == {"experiment": "0", "name": tmp_path.name, "status": "FINISHED",
                   "metrics": [(1, "train/loss", 1.0), (2, "train/loss", 0.5)]}


def test_both_keep_their_names_in_one_note(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", logger_stand_ins.wandb())
    monkeypatch.setitem(sys.modules, "mlflow", logger_stand_ins.mlflow())
    with open_loggers(["wandb:a", "mlflow:b"], tmp_path) as log:
        log(1, {})
    assert read_json(tmp_path / ".loggers.json") == {"wandb:a": "run0", "mlflow:b": "run0"}
    (tmp_path / ".loggers.json").write_text("damaged")
    with open_loggers(["wandb:a"], tmp_path) as log, pytest.warns(UserWarning, match="goes on without it"):
        log(2, {})


def test_a_service_that_cannot_be_reached_ends_no_run(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", logger_stand_ins.wandb(fails=True))
    with open_loggers(["wandb:a"], tmp_path) as log, pytest.warns(UserWarning, match="no network"):
        log(1, {"a": 1.0})
