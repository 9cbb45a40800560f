"""The training loop: it learns, it resumes exactly, it schedules, it refuses."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from smoothcert.classifiers.folder import module_hash, read_card, read_network, read_weights
from smoothcert.data import load_data
from smoothcert.errors import (
    ConfigError,
    FileError,
    IdentityError,
    InputError,
    ModelError,
    QualityWarning,
    SmoothcertError,
    StoreError,
)
from smoothcert.objectives import OBJECTIVES, Step, build_objective
from smoothcert.training.loop import MEASURES, Averages
from smoothcert.training.options import TrainConfig
from smoothcert.training.state import learning_rate, momentum
from smoothcert.training.train import apply_preferences, split_indices, train


def config(out: Path, **options) -> TrainConfig:
    return TrainConfig.parse({
        "data": "digits", "model": "mlp", "model_option": {"hidden": [32]}, "sigma": 0.25, "epochs": 3,
        "batch_size": 64, "max_images": 600, "validation": 0.2, "out": out, **options,
    })


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_weights(folder / "best.safetensors")


def same(a: Path, b: Path) -> bool:
    x, y = weights(a), weights(b)
    return x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


def test_it_learns_and_leaves_a_model_directory(tmp_path):
    card = train(config(tmp_path / "m", epochs=8))
    assert card.complete
    assert card.best["validation_accuracy"] > 0.75
    lines = [json.loads(line) for line in (tmp_path / "m" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, 9))
    assert lines[-1]["loss"] < lines[0]["loss"] / 2
    best = max(lines, key=lambda line: (line["validation_accuracy"], line["epoch"]))
    assert card.best_epoch == best["epoch"]
    network, read = read_network(tmp_path / "m")
    assert not network.training
    assert read == card
    data = load_data("digits", "test")
    with torch.no_grad():
        votes = network(torch.from_numpy(data.batch(range(len(data))))).argmax(dim=1).numpy()
    assert (votes == data.labels).mean() > 0.85


def test_without_validation_all_images_train_the_last_weights(tmp_path):
    asked = config(tmp_path / "m", validation=0, max_images=100)
    card = train(asked)
    fit, held_out = split_indices(load_data("digits", "train"), asked)
    assert (len(fit), len(held_out)) == (100, 0)
    assert (card.held_out, card.best_epoch, card.best, card.complete) == (0, 3, {}, True)
    assert read_card(tmp_path / "m") == card
    last = read_weights(tmp_path / "m" / "checkpoints" / "0003" / "weights.safetensors")
    assert all(torch.equal(last[name], value) for name, value in weights(tmp_path / "m").items())
    assert "last epoch" in MEASURES["classifier"].describe(card.best, card.sigma)
    assert train(config(tmp_path / "n", max_images=100, epochs=1)).held_out == 20


def test_the_seed_decides_everything(tmp_path):
    torch.manual_seed(1)
    train(config(tmp_path / "a"))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    train(config(tmp_path / "b"))
    assert torch.equal(before, torch.get_rng_state())
    train(config(tmp_path / "c", seed=1))
    assert same(tmp_path / "a", tmp_path / "b")
    assert not same(tmp_path / "a", tmp_path / "c")


@pytest.mark.parametrize("options", [
    {"optimizer": "sgd"}, {"optimizer": "adam", "schedule": "cosine", "warmup": 0.5},
    {"optimizer": "adamw", "ema": 0.9, "clip_norm": 1.0}, {"model": "cnn", "model_option": {"width": 8}},
    {"autocast": "bf16"}, {"augment": "crop-flip", "objective": "clean"},
])
def test_a_resumed_run_ends_with_the_same_weights(tmp_path, monkeypatch, options):
    """Stopped in the middle of every epoch in turn, it ends where the uninterrupted run ends."""
    train(config(tmp_path / "whole", **options))

    class Killed(BaseException):
        pass

    for stop in (1, 2, 3):
        def progress(event, stop=stop):
            if f"epoch {stop}/" in event.words:
                raise Killed

        with pytest.raises(Killed):
            train(config(tmp_path / "part", **options), progress)
        assert len(list((tmp_path / "part" / "checkpoints").glob("*"))) == min(stop - 1, 1)
    train(config(tmp_path / "part", **options))
    assert same(tmp_path / "whole", tmp_path / "part")
    assert read_card(tmp_path / "whole") == read_card(tmp_path / "part")

    def losses(name):
        return [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]

    assert losses("whole") == losses("part")


def test_a_command_that_was_killed_is_taken_up_again(tmp_path):
    settings = {"data": "digits", "model": "mlp", "sigma": 0.25, "epochs": 6, "batch_size": 16, "max_images": 800,
                "out": tmp_path / "m"}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    child = subprocess.Popen([sys.executable, "-m", "smoothcert", "train", *options, "--quiet"])
    while not list((tmp_path / "m" / "checkpoints").glob("0*")) and child.poll() is None:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not read_card(tmp_path / "m").complete
    train(TrainConfig.parse(settings))
    train(TrainConfig.parse({**settings, "out": tmp_path / "whole"}))
    assert same(tmp_path / "whole", tmp_path / "m")


def test_a_finished_run_is_not_trained_again(tmp_path):
    train(config(tmp_path / "m"))
    stamp = (tmp_path / "m" / "best.safetensors").stat().st_mtime_ns
    assert train(config(tmp_path / "m")).complete
    assert (tmp_path / "m" / "best.safetensors").stat().st_mtime_ns == stamp


def test_another_run_in_the_same_folder_is_refused(tmp_path):
    train(config(tmp_path / "m"))
    with pytest.raises(IdentityError, match=r"settings\.epochs: stored 3, asked 4"):
        train(config(tmp_path / "m", epochs=4))
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"notes\.txt"):
        train(config(tmp_path / "x"))


def test_given_options_win_over_preferences(tmp_path):
    asked = config(tmp_path, objective="deen", optimizer="sgd", clip_norm=None)
    told = apply_preferences(asked, build_objective("deen", 0.25))
    assert (told.optimizer, told.clip_norm, told.batch_size) == ("sgd", None, 64)
    assert (told.schedule, told.weight_decay) == ("cosine", 0.0)
    plain = TrainConfig.parse({"out": tmp_path})
    assert apply_preferences(plain, build_objective("smoothadv", 0.25)) == plain
    for name, kind in OBJECTIVES.items():
        needed = {"classifier": torch.nn.Linear(1, 2).eval()} if name == "cat-rs" else {}
        told = apply_preferences(plain, build_objective(name, 0.25, **needed))
        assert {option: getattr(told, option) for option in kind.prefers} == kind.prefers
        for option, value in kind.prefers.items():
            words = TrainConfig.model_fields[option].description
            assert f"deen and denoise: {value:g}" in words if isinstance(value, float | int) \
                else f"deen and denoise: {value}" in words


def test_a_denoiser_learns_without_any_option(tmp_path):
    """The squared error of an image falls below half of the noise's own, where the usual options diverge at once."""
    card = train(TrainConfig.parse({"objective": "deen", "model_option": {"network": "mlp", "width": 64, "depth": 1},
                                      "sigma": 0.5, "epochs": 8, "out": tmp_path / "m"}))
    assert card.identity["settings"]["optimizer"] == "adam"
    assert card.best["validation_error"] < card.best["validation_error_without"] / 2


def test_the_held_out_images_are_not_trained_on():
    data = load_data("digits", "train")
    fit, held = split_indices(data, config(Path("unused"), max_images=None, validation=0.25))
    assert not set(fit) & set(held)
    assert len(fit) + len(held) == len(data)
    assert len(held) == round(0.25 * len(data))


@pytest.mark.parametrize(("schedule", "expected"), [
    ("constant", {0: 1.0, 99: 1.0}),
    ("step", {0: 1.0, 29: 1.0, 30: 0.5, 60: 0.25, 99: 0.125}),
    ("cosine", {0: 1.0, 50: 0.5, 99: (1 + math.cos(math.pi * 0.99)) / 2}),
    ("onecycle", {0: 1 / 25, 99: 1 / 250_000}),
])
def test_schedules_at_known_points(schedule, expected):
    told = config(Path("unused"), schedule=schedule, epochs=10, step_epochs=3, step_factor=0.5)
    for step, rate in expected.items():
        assert learning_rate(told, 1.0, step, 10) == pytest.approx(rate, rel=1e-9)


def test_onecycle_is_torchs():
    told = config(Path("unused"), epochs=10)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)
    reference = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=100)
    for step in range(100):
        assert learning_rate(told, 0.1, step, 10) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        assert momentum(told, step, 10) == pytest.approx(optimizer.param_groups[0]["momentum"], rel=1e-9)
        optimizer.step()
        if step < 99:
            reference.step()


def test_warm_up_is_linear_from_zero():
    told = config(Path("unused"), schedule="cosine", warmup=1.0, epochs=10)
    rates = [learning_rate(told, 1.0, step, 10) for step in range(11)]
    assert np.allclose(np.diff(rates[:10]), rates[1] - rates[0])
    assert rates[0] < 0.1
    assert rates[10] == 1.0


@pytest.mark.parametrize("warmup", [3, 10])
def test_a_warm_up_of_the_whole_training_is_refused(warmup):
    with pytest.raises(ConfigError, match=f"warmup must be shorter than the training.* 3 epochs, got {warmup}"):
        config(Path("unused"), schedule="cosine", warmup=warmup)


@pytest.mark.parametrize(("objective", "options", "words"), [
    ("smoothadv", {"m": 1, "steps": 1}, "eps grows over 10 epochs, and this training has 1: it only reaches 10% "),
    ("smoothmix", {"m": 1, "steps": 1, "warmup": 4}, "eta grows over 4 epochs, and this training has 1: it"),
    ("adre", {"k": 1}, None),  # nothing is attacked without eps
    ("smoothadv", {"m": 1, "steps": 1, "warmup": 1}, None),
])
def test_a_training_shorter_than_its_objectives_warm_up_says_so(tmp_path, recwarn, objective, options, words):
    train(config(tmp_path / "model", objective=objective, objective_option=options, epochs=1, max_images=80))
    said = [str(warning.message) for warning in recwarn if warning.category is QualityWarning]
    assert [words in message for message in said] == ([True] if words else [])


class TestObjectives:
    def test_gaussian_loss_is_the_expected_cross_entropy(self):
        """A linear binary model: E CE is a one-dimensional Gaussian integral, known to quadrature."""
        w, b, sigma = torch.tensor([1.5, -2.0]), 0.3, 0.5
        x = torch.tensor([[0.4, 0.7]])
        nodes, mass = np.polynomial.hermite_e.hermegauss(80)
        score = float(x[0] @ w) + b + sigma * float(w.norm()) * nodes
        expected = float((mass * np.log1p(np.exp(-score))).sum() / mass.sum())

        def model(images):
            s = images.flatten(1) @ w + b
            return torch.stack([s, torch.zeros_like(s)], dim=1)

        images = x.view(1, 1, 1, 2).expand(200_000, 1, 1, 2)
        loss = build_objective("gaussian", sigma).loss(
            model, images, torch.zeros(200_000, dtype=torch.long), Step(torch.Generator().manual_seed(0), 0.0))
        assert float(loss.total) == pytest.approx(expected, abs=0.01)
        clean = build_objective("clean").loss(
            model, images[:1], torch.zeros(1, dtype=torch.long), Step(torch.Generator(), 0.0))
        assert float(clean.total) == pytest.approx(math.log1p(math.exp(-float(x[0] @ w) - b)), abs=1e-5)

    def test_bad_options(self):
        with pytest.raises(InputError, match='did you mean "gaussian"'):
            build_objective("gausian", 0.5)
        with pytest.raises(InputError, match="no option 'beta'"):
            build_objective("gaussian", 0.5, beta=1)
        with pytest.raises(InputError, match="needs the noise level"):
            build_objective("gaussian")
        with pytest.raises(InputError, match="sigma"):
            build_objective("gaussian", -1.0)


@pytest.mark.parametrize(("options", "kind", "words"), [
    ({"sigma": None}, ConfigError, "noise level"),
    ({"model": "lenett"}, SmoothcertError, "lenet"),
    ({"model_option": {"hiden": [3]}}, InputError, "hidden"),
    ({"objective": "gausian"}, ConfigError, 'did you mean "gaussian"'),
    ({"objective_option": {"beta": 1}}, ConfigError, "no option 'beta'"),
    ({"validation": 0.0001}, InputError, "hold out"),
    ({"max_images": 1}, InputError, "hold out"),
    ({"data": "digts"}, InputError, "digits"),
    ({"device": "cuda"}, InputError, "no GPU"),
])
def test_bad_requests_leave_nothing_behind(tmp_path, options, kind, words):
    if options.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(kind, match=words):
        train(config(tmp_path / "m", **options))
    assert not (tmp_path / "m").exists()


NORMED = """
from torch import nn


def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))
"""


@pytest.mark.parametrize("objective", ["gaussian", "clean", "smoothadv", "stability", "trades", "consistency"])
def test_a_last_image_that_would_be_alone_joins_the_batch_before(tmp_path, objective):
    (tmp_path / "normed.py").write_text(NORMED)
    asked = config(tmp_path / "m", model=f"{tmp_path / 'normed.py'}:build", model_option={}, objective=objective,
                   epochs=1, batch_size=16, max_images=34, validation=0.02)
    fit, held_out = split_indices(load_data("digits", "train"), asked)
    assert (len(fit), len(held_out)) == (33, 1)  # the one held out is judged alone, in eval mode
    assert train(asked).complete


def test_single_rows_under_batch_norm_are_named(tmp_path):
    (tmp_path / "normed.py").write_text(NORMED)
    with pytest.raises(ModelError, match=r"has 1 image\(s\).*give a larger --batch-size"):
        train(config(tmp_path / "m", model=f"{tmp_path / 'normed.py'}:build", model_option={}, batch_size=1))


def test_divergence_says_what_is_kept(tmp_path, monkeypatch):
    with pytest.raises(ModelError, match=r"diverged; lower --lr, or set --clip-norm$"):
        train(config(tmp_path / "m", lr=1e30))
    means = Averages.means
    monkeypatch.setattr(Averages, "means", lambda averages, ranks: {
        **means(averages, ranks), **({"loss": np.nan} if (tmp_path / "n" / "metrics.jsonl").exists() else {})})
    with pytest.raises(ModelError, match=r"loss is nan in epoch 2: .*--clip-norm\. Epoch 1 is kept$"):
        train(config(tmp_path / "n", epochs=2))


def test_damaged_model_directories_are_named(tmp_path):
    train(config(tmp_path / "m", epochs=1))
    (tmp_path / "m" / "best.safetensors").write_bytes(b"nonsense")
    with pytest.raises(FileError, match=r"best\.safetensors"):
        read_network(tmp_path / "m")
    (tmp_path / "m" / "best.safetensors").unlink()
    with pytest.raises(FileError, match="no weights"):
        read_network(tmp_path / "m")
    read_network(tmp_path / "m", weights="last")
    (tmp_path / "m" / "model.json").write_text('{"version": 1}')
    with pytest.raises(FileError, match=r"model\.json"):
        read_network(tmp_path / "m")


def test_a_state_file_cannot_run_code(tmp_path):
    """A pickle that would execute on loading is refused, not run."""
    train(config(tmp_path / "m", epochs=1))
    state = next((tmp_path / "m" / "checkpoints").glob("*")) / "state.pt"

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "pwned",))

    torch.save(Evil(), state)
    with pytest.raises(FileError, match=r"state\.pt"):
        train(config(tmp_path / "m", epochs=1))
    assert not (tmp_path / "pwned").exists()


def test_a_users_factory_is_trained_and_rebuilt_only_with_trust(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def net(input_shape, num_classes):\n"
        "    c, h, w = input_shape\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(c * h * w, num_classes))\n")
    train(config(tmp_path / "m", model=f"{tmp_path / 'mine.py'}:net", model_option={}, epochs=1))
    with pytest.raises(ModelError, match="--trust"):
        read_network(tmp_path / "m")
    assert read_network(tmp_path / "m", trust=True)[1].complete


def test_options_that_a_factory_cannot_take_are_refused(tmp_path):
    (tmp_path / "mine.py").write_text("from torch import nn\ndef net():\n    return nn.Flatten()\n")
    with pytest.raises(InputError, match="model_option is for named models"):
        train(config(tmp_path / "m", model=f"{tmp_path / 'mine.py'}:net", model_option={"hidden": [3]}))


def test_module_hash_sees_weights_and_source():
    a, b = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    assert module_hash(a) != module_hash(b)
    b.load_state_dict(a.state_dict())
    assert module_hash(a) == module_hash(b)
    assert module_hash(a, b"one source") != module_hash(a, b"another")
