"""Loggers by name, by place of code and as objects; one that fails never ends a run."""

from pathlib import Path

import pytest

from smoothcert.errors import CodeError, ConfigError, FileError, InputError, MissingExtraError, UnknownNameError
from smoothcert.loggers import check_logger, open_loggers
from smoothcert.training.options import TrainConfig

CODE = """
class Csv:
    def __init__(self, path="figures.csv"):
        self.path = path
    def log(self, step, values):
        with open(self.path, "a") as file:
            file.writelines(f"{step},{name},{value}\\n" for name, value in values.items())
    def close(self):
        with open(self.path, "a") as file:
            file.write("closed\\n")

class Named(Csv):
    def __init__(self, run):
        self.path = run / "named.csv"

class Half:
    def log(self, step, values):
        pass

ready = Csv("ready.csv")
"""


class Kept:
    def __init__(self, fails: bool = False):
        self.told, self.closed, self.fails = [], 0, fails

    def log(self, step, values):
        self.told.append((step, dict(values)))
        if self.fails:
            raise OSError("disk gone")

    def close(self):
        self.closed += 1


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    (tmp_path / "mine.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("spec", "file"), [
    ("mine.py:Csv", "figures.csv"), ("mine.py:Csv:other.csv", "other.csv"), ("mine:Csv:a:b.csv", "a:b.csv"),
    ("mine.py:Named", "run/named.csv"), ("mine.py:ready", "ready.csv"),
])
def test_code_of_ones_own(folder, spec, file):
    (folder / "run").mkdir()
    with open_loggers([spec], folder / "run") as log:
        assert not (folder / file).exists()
        log(3, {"train/loss": 0.5})
    assert (folder / file).read_text() == "3,train/loss,0.5\nclosed\n"


@pytest.mark.parametrize(("spec", "error", "words"), [
    ("tensorbord:x", CodeError, 'did you mean "tensorboard"'), ("tensorbord:a/b", UnknownNameError, "tensorboard"),
    ("tensorboard", InputError, "tensorboard:DIR"),
    ("wandb:", InputError, "wandb:PROJECT"), ("mine.py:Half", InputError, "has no close"),
    ("mine.py:Nothing", InputError, "no attribute"), ("gone.py:Csv", CodeError, "gone.py"),
    ("mine.py:Named:x", InputError, "mine.py:Named"), ("mine.py:ready:x", InputError, "takes no target"),
    (Kept, InputError, "not its class"), (3, InputError, "has no log, close"),
])
def test_what_cannot_be_a_logger(folder, spec, error, words):
    with pytest.raises(error, match=words):
        check_logger(spec)


def test_options_name_all_that_is_wrong_at_once(folder):
    with pytest.raises(ConfigError) as wrong:
        TrainConfig.parse({"log_to": "tensorboard,nope:x,mine.py:Half", "sigma": -1, "out": "m"})
    for words in ("tensorboard:DIR", "nope", "has no close", "sigma"):
        assert words in str(wrong.value)


def test_options_hold_one_or_several(folder):
    kept = Kept()
    for given, held in (("mine.py:Csv", ("mine.py:Csv",)), ("tensorboard:a,mlflow:b", ("tensorboard:a", "mlflow:b")),
                        (kept, (kept,)), ([kept, "mlflow:b"], (kept, "mlflow:b"))):
        assert TrainConfig.parse({"log_to": given, "out": "m"}).log_to == held
    assert "log-to:\n- tensorboard:a" in TrainConfig.parse({"log_to": "tensorboard:a", "out": "m"}).to_yaml()


def test_an_object_is_closed_by_whoever_made_it(tmp_path):
    kept = Kept()
    with open_loggers([kept], tmp_path) as log:
        log(1, {"a": 1.0})
    assert (kept.told, kept.closed) == ([(1, {"a": 1.0})], 0)


def test_one_that_fails_is_left_out(tmp_path):
    bad, good = Kept(fails=True), Kept()
    with open_loggers([bad], tmp_path) as log, pytest.warns(UserWarning, match="goes on without it: OSError: disk"):
        log(1, {})
    assert not log
    log(2, {})
    assert len(bad.told) == 1
    assert not good.told


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_without_its_package(tmp_path, monkeypatch, name):
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(MissingExtraError, match=rf"smoothcert\[{name}\]"):
        open_loggers([f"{name}:x"], tmp_path)


def test_tensorboard_needs_a_folder(tmp_path):
    pytest.importorskip("tensorboard")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="is a file"):
        open_loggers([f"tensorboard:{tmp_path / 'file'}"], tmp_path)
