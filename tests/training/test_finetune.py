"""Fine-tuning and self-training: weights and labels, losses, exact resumption, refusals."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn.functional import cross_entropy

from smoothcert.classifiers.folder import read_card, read_network, read_weights
from smoothcert.data import load_data
from smoothcert.errors import ConfigError, FileError, IdentityError, InputError, ModelError, SmoothcertError
from smoothcert.models import build_model
from smoothcert.objectives import OBJECTIVES, Loss
from smoothcert.objectives.protocol import WholeBatch
from smoothcert.training.batches import TrainingSet, batch_sizes
from smoothcert.training.options import TrainConfig
from smoothcert.training.self_training import FILE
from smoothcert.training.train import split_indices, train

STILL = {"optimizer": "sgd", "lr": 1e-30, "weight_decay": 0, "schedule": "constant", "momentum": 0, "epochs": 1}
"""Steps too small to change a float32 weight: what is saved is what training started from."""


def config(out: Path, **options) -> TrainConfig:
    return TrainConfig.parse({
        "data": "digits", "sigma": 0.25, "epochs": 3, "batch_size": 64, "max_images": 300, "validation": 0.2,
        "out": out, **options,
    })


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    """A two-layer network that knows the digits."""
    folder = tmp_path_factory.mktemp("source") / "mlp"
    train(config(folder, model="mlp", model_option={"hidden": [32]}, max_images=1000, epochs=8))
    return folder


@pytest.fixture(scope="module")
def few_classes(tmp_path_factory) -> str:
    """The digits 0 to 4 as a set of its own."""
    digits = load_data("digits", "train")
    rows = np.flatnonzero(digits.labels < 5)[:200]
    pixels = (digits.batch(rows) * 255).astype(np.uint8)[:, 0]
    path = tmp_path_factory.mktemp("data") / "five.parquet"
    pq.write_table(pa.table({"image": pixels.tolist(), "label": digits.labels[rows]}), path)
    return f"parquet:{path}"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_weights(folder / "best.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def figures(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def assert_resumes(tmp_path: Path, **options) -> None:
    """Stopped in the middle of every epoch in turn, a run ends where the uninterrupted one ends, byte for byte."""
    train(config(tmp_path / "whole", **options))

    class Killed(BaseException):
        pass

    for stop in ("labelling", "epoch 1/3", "epoch 2/3", "epoch 3/3"):
        def progress(event, stop=stop):
            if stop in (event.phase, event.words.split("  ")[0]):
                raise Killed

        if stop == "labelling" and "unlabelled" not in options:
            continue
        with pytest.raises(Killed):
            train(config(tmp_path / "part", **options), progress)
    train(config(tmp_path / "part", **options))
    whole, part = (tmp_path / name / "best.safetensors" for name in ("whole", "part"))
    assert whole.read_bytes() == part.read_bytes()
    assert figures(tmp_path / "whole") == figures(tmp_path / "part")
    assert read_card(tmp_path / "whole") == read_card(tmp_path / "part")


class TestFineTuning:
    def test_everything_is_taken_over_where_the_classes_agree(self, tmp_path, pretrained):
        card = train(config(tmp_path / "m", init=pretrained, **STILL))
        assert same(weights(tmp_path / "m"), weights(pretrained))
        assert (card.model, card.options) == ("mlp", {"hidden": [32]})
        assert card.init == {"from": str(pretrained), "weights": "best", "fresh": []}

    @pytest.mark.parametrize("asked", [True, False])
    def test_a_new_head_is_the_seeds_and_the_rest_is_the_sources(self, tmp_path, pretrained, few_classes, asked):
        """Asked for, or because the data have five classes and not ten."""
        options = {"new_head": True} if asked else {"data": few_classes, "max_images": None}
        told: list[str] = []

        def progress(event):
            told.extend([event.words] if event.words else [])

        card = train(config(tmp_path / "m", init=pretrained, **options, **STILL), progress)
        scratch = {"model": "mlp", "model_option": {"hidden": [32]}, **options, "new_head": False}
        train(config(tmp_path / "scratch", **scratch, **STILL))
        tuned, source, fresh = weights(tmp_path / "m"), weights(pretrained), weights(tmp_path / "scratch")
        for name in ("1.weight", "1.bias"):
            assert torch.equal(tuned[name], source[name])
            assert not torch.equal(tuned[name], fresh[name])
        for name in ("3.weight", "3.bias"):
            assert torch.equal(tuned[name], fresh[name])
        assert read_network(tmp_path / "m")[0](torch.zeros(1, 1, 8, 8)).shape == (1, card.num_classes)
        assert card.num_classes == (10 if asked else 5)
        assert card.init is not None
        assert card.init["fresh"] == ["3"]
        assert told
        assert all("fresh: 3" in words for words in told)

    def test_the_last_weights_can_be_taken(self, tmp_path, pretrained):
        train(config(tmp_path / "m", init=pretrained, weights="last", **STILL))
        (last,) = (pretrained / "checkpoints").glob("*")
        assert same(weights(tmp_path / "m"), read_weights(last / "weights.safetensors"))

    def test_it_starts_where_the_source_ended(self, tmp_path, pretrained):
        tuned = train(config(tmp_path / "m", init=pretrained, epochs=1, lr=0.01, schedule="constant"))
        scratch = train(config(tmp_path / "s", model="mlp", model_option={"hidden": [32]}, epochs=1, lr=0.01,
                               schedule="constant"))
        assert tuned.best["validation_accuracy"] > scratch.best["validation_accuracy"] + 0.3

    def test_the_normalisation_inside_is_the_sources(self, tmp_path, few_classes):
        """Its numbers belong to its weights: other data must not bring others."""
        source = train(config(tmp_path / "a", model="cnn", model_option={"width": 4}, normalise="standard", epochs=1))
        card = train(config(tmp_path / "b", init=tmp_path / "a", data=few_classes, epochs=1))
        own = train(config(tmp_path / "c", model="cnn", model_option={"width": 4}, normalise="standard",
                           data=few_classes, epochs=1))
        assert card.options == source.options != own.options
        taken = weights(tmp_path / "b")
        assert torch.equal(taken["normalise.mean"].flatten(), torch.tensor(source.options["mean"]))
        with pytest.raises(InputError, match="trained with standard"):
            train(config(tmp_path / "d", init=tmp_path / "a", normalise="none"))

    def test_it_resumes_exactly(self, tmp_path, pretrained):
        assert_resumes(tmp_path, init=pretrained, new_head=True, ema=0.9, lr=0.01)

    def test_a_changed_source_is_refused(self, tmp_path, pretrained):
        source = tmp_path / "source"
        train(config(source, model="mlp", epochs=1))
        train(config(tmp_path / "m", init=source, epochs=1))
        for path in sorted(source.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        train(config(source, model="mlp", epochs=1, seed=1))
        before = weights(tmp_path / "m")
        with pytest.raises(IdentityError, match=r"init\.sha256"):
            train(config(tmp_path / "m", init=source, epochs=1))
        with pytest.raises(IdentityError, match=r"init\.sha256: stored .*, asked None"):
            train(config(tmp_path / "m", model="mlp", epochs=1))
        assert same(weights(tmp_path / "m"), before)

    @pytest.mark.parametrize(("options", "kind", "words"), [
        ({"model": "mlp", "model_option": {"hidden": [16]}}, ModelError, r"\(32, 64\) there, \(16, 64\) here"),
        ({"model": "mlp", "model_option": {"hidden": [32, 32]}}, ModelError, r"5\.weight: missing there, \(10, 32\)"),
        ({"model": "linear", "new_head": True}, ModelError, "another architecture"),
        ({"normalise": "centre"}, InputError, "trained with none"),
        ({"resize": 6}, ModelError, r"\(32, 64\) there, \(32, 36\) here"),
        ({"init": Path("nowhere")}, FileError, "nowhere is not a model directory"),
        ({"init": None, "new_head": True}, ConfigError, "give init"),
    ])
    def test_bad_requests_leave_nothing_behind(self, tmp_path, pretrained, options, kind, words):
        with pytest.raises(kind, match=words):
            train(config(tmp_path / "m", **{"init": pretrained, **options}))
        assert not (tmp_path / "m").exists()

    def test_a_head_alone_is_nothing_to_start_from(self, tmp_path):
        train(config(tmp_path / "a", model="linear", epochs=1))
        with pytest.raises(ModelError, match="no weights to start from"):
            train(config(tmp_path / "b", init=tmp_path / "a", new_head=True))
        train(config(tmp_path / "c", init=tmp_path / "a", epochs=1))

    def test_code_that_the_directory_names_runs_only_with_trust(self, tmp_path):
        (tmp_path / "mine.py").write_text(
            "from torch import nn\n"
            "def net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 10))\n")
        spec = f"{tmp_path / 'mine.py'}:net"
        train(config(tmp_path / "a", model=spec, epochs=1))
        with pytest.raises(ModelError, match="--trust"):
            train(config(tmp_path / "b", init=tmp_path / "a"))
        for name, options in {"b": {"trust": True}, "c": {"model": spec}}.items():
            train(config(tmp_path / name, init=tmp_path / "a", **options, **STILL))
            assert same(weights(tmp_path / name), weights(tmp_path / "a"))


def self_training(teacher: Path, **options) -> dict:
    return {"model": "mlp", "model_option": {"hidden": [16]}, "unlabelled": "digits", "pseudo_labels": str(teacher),
            "max_unlabelled": 400, "max_images": 200, **options}


class TestSelfTraining:
    def test_labels_are_the_argmax_on_clean_images_left_over(self, tmp_path, pretrained):
        train(config(tmp_path / "m", **self_training(pretrained, epochs=1, max_unlabelled=None)))
        kept = np.load(tmp_path / "m" / FILE)
        data = load_data("digits", "train")
        with torch.no_grad():
            votes = read_network(pretrained)[0](torch.from_numpy(data.batch(kept["indices"]))).argmax(dim=1)
        assert np.array_equal(kept["labels"], votes.numpy())
        fit, held_out = split_indices(data, config(tmp_path / "m", max_images=200))
        assert sorted([*kept["indices"], *fit, *held_out]) == list(range(len(data)))

    def test_a_step_descends_the_weighted_sum_of_both_means(self, tmp_path, pretrained):
        """One step of plain descent on a linear model, against the gradient worked out beside it."""
        rate, w = 0.5, 0.3
        options = {**self_training(pretrained), "model": "linear", "model_option": {}, "objective": "clean",
                   "sigma": None, "batch_size": 160, "max_unlabelled": 160}
        train(config(tmp_path / "start", **options, **STILL))
        train(config(tmp_path / "m", **options, **STILL | {"lr": rate}, unlabelled_weight=w))
        data, kept = load_data("digits", "train"), np.load(tmp_path / "m" / FILE)
        fit, _ = split_indices(data, config(tmp_path / "m", max_images=200))
        network = build_model("linear", data.shape, 10)
        network.load_state_dict(weights(tmp_path / "start"))
        images, pool = (torch.from_numpy(data.batch(rows)) for rows in (fit, kept["indices"]))
        labelled = cross_entropy(network(images), torch.from_numpy(data.labels[fit]))
        pseudo = cross_entropy(network(pool), torch.from_numpy(kept["labels"]))
        (labelled + w * pseudo).backward()
        reached = weights(tmp_path / "m")
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None
            assert torch.allclose(reached[name], parameter - rate * parameter.grad, atol=1e-6)
            assert not torch.allclose(reached[name], parameter, atol=1e-3)
        (line,) = figures(tmp_path / "m")
        assert line["loss"] == pytest.approx(labelled.item(), rel=1e-5)
        assert line["pseudo_loss"] == pytest.approx(pseudo.item(), rel=1e-5)

    def test_labelled_images_and_noise_stay_as_in_a_run_without(self, tmp_path, pretrained):
        """At a weight too small to count, the weights are equal, and the labelled figures with them."""
        options = self_training(pretrained, unlabelled_weight=1e-30, augment="crop")
        train(config(tmp_path / "with", **options))
        train(config(tmp_path / "without", model="mlp", model_option={"hidden": [16]}, max_images=200, augment="crop"))
        assert same(weights(tmp_path / "with"), weights(tmp_path / "without"))
        for ours, theirs in zip(figures(tmp_path / "with"), figures(tmp_path / "without"), strict=True):
            assert {name: ours[name] for name in theirs} == theirs
            assert ours.keys() - theirs.keys() == {"pseudo_loss"}

    def test_no_two_steps_share_their_noise(self, tmp_path, pretrained, monkeypatch):
        """Not those of two epochs, and not the labelled and the pseudo-labelled half of one step."""
        draws = []

        class Probe(WholeBatch):
            def loss(self, model, images, labels, step):
                draws.append(torch.rand(2, generator=step.generator).tolist())
                return Loss(cross_entropy(model(images), labels))

        monkeypatch.setattr("smoothcert.objectives.build_objective", lambda *_, **__: Probe())
        train(config(tmp_path / "m", **self_training(pretrained)))
        assert len(draws) == 3 * 3 * 2
        assert len({tuple(draw) for draw in draws}) == len(draws)

    def test_unlabelled_images_come_once_before_any_comes_twice(self):
        data = load_data("digits", "train")
        for pool, fit, batch in ((10, 25, 8), (100, 25, 8), (7, 7, 3)):
            pseudo = TrainingSet("pseudo", data, data.labels, np.arange(pool) * 3)
            sizes = batch_sizes(fit, batch)
            seen: Counter[int] = Counter()
            for epoch in range(9):
                batches = pseudo.batches(0, epoch, sizes, fit)
                assert [len(part) for part in batches] == sizes
                seen.update(image for part in batches for image in part)
                counts = [seen[3 * i] for i in range(pool)]
                assert sum(counts) == fit * (epoch + 1)
                assert max(counts) - min(counts) <= 1

    @pytest.mark.parametrize("options", [
        {"augment": "crop-flip", "ema": 0.9, "clip_norm": 1.0},
        {"objective": "smoothadv", "objective_option": {"m": 2}, "max_unlabelled": 40},
        {"model": "cnn", "model_option": {"width": 4}, "autocast": "bf16", "optimizer": "adam"},
    ])
    def test_it_resumes_exactly(self, tmp_path, pretrained, options):
        assert_resumes(tmp_path, **self_training(pretrained, **options))

    def test_it_resumes_exactly_from_another_models_weights(self, tmp_path, pretrained):
        options = {"init": pretrained, "new_head": True, "model": None, "model_option": {}}
        assert_resumes(tmp_path, **self_training(pretrained, **options))

    @pytest.mark.parametrize("name", sorted(OBJECTIVES.keys() - {"deen", "denoise", "xhat"}))
    def test_every_objective_takes_it(self, tmp_path, pretrained, name):
        needed = {"classifier": str(pretrained)} if name == "cat-rs" else {}
        card = train(config(tmp_path / "m", **self_training(pretrained, objective=name, epochs=1, max_images=60,
                                                            **needed)))
        (line,) = figures(tmp_path / "m")
        assert card.complete
        parts = {key.removeprefix("pseudo_") for key in line if key.startswith("pseudo_")}
        assert "loss" in parts
        assert parts <= line.keys()
        assert all(np.isfinite(value) for value in line.values())

    def test_the_labels_are_made_once_and_damage_is_noticed(self, tmp_path, pretrained):
        train(config(tmp_path / "m", **self_training(pretrained)))
        path = tmp_path / "m" / FILE
        stamp = path.stat().st_mtime_ns
        train(config(tmp_path / "m", **self_training(pretrained)))
        assert path.stat().st_mtime_ns == stamp
        whole = path.read_bytes()
        for damaged in (whole[:-30], whole[:90] + bytes([whole[90] ^ 1]) + whole[91:], b""):
            path.write_bytes(damaged)
            with pytest.raises(FileError, match="missing or corrupt"):
                train(config(tmp_path / "m", **self_training(pretrained)))

    def test_another_labeller_or_weight_is_refused(self, tmp_path, pretrained):
        train(config(tmp_path / "other", model="linear", epochs=1))
        options = self_training(pretrained, epochs=1)
        train(config(tmp_path / "m", **options))
        with pytest.raises(IdentityError, match=r"unlabelled\.labelled_by\.sha256"):
            train(config(tmp_path / "m", **options | {"pseudo_labels": str(tmp_path / "other")}))
        with pytest.raises(IdentityError, match=r"unlabelled\.weight: stored 1\.0, asked 0\.5"):
            train(config(tmp_path / "m", **options, unlabelled_weight=0.5))
        with pytest.raises(IdentityError, match=r"unlabelled\.count: stored 400, asked 399"):
            train(config(tmp_path / "m", **options | {"max_unlabelled": 399}))

    def test_labels_may_come_from_a_file(self, tmp_path, pretrained):
        """The model's own labels in a file give the model's weights; the identity is that of the labels."""
        train(config(tmp_path / "m", **self_training(pretrained)))
        kept = np.load(tmp_path / "m" / FILE)
        size = len(load_data("digits", "train"))
        whole = np.zeros(size, dtype=np.int64)
        whole[kept["indices"]] = kept["labels"]
        np.save(tmp_path / "all.npy", whole)
        np.savez(tmp_path / "some.npz", **kept)
        for name in ("all.npy", "some.npz"):
            train(config(tmp_path / name[:3], **self_training(tmp_path / name)))
            assert same(weights(tmp_path / "m"), weights(tmp_path / name[:3]))
        assert read_card(tmp_path / "all").identity == read_card(tmp_path / "som").identity
        np.save(tmp_path / "all.npy", (whole + 1) % 10)
        with pytest.raises(IdentityError, match=r"unlabelled\.labelled_by\.sha256"):
            train(config(tmp_path / "all", **self_training(tmp_path / "all.npy")))

    @pytest.mark.parametrize(("arrays", "words"), [
        ({"labels": np.full(1438, 10)}, "label 10 for image"), ({"labels": np.zeros(9, int)}, "whole number for each"),
        ({"labels": np.zeros(3, int), "indices": np.arange(3)}, "no label for image"),
        ({"labels": np.zeros(1438)}, "got float64"), ({"classes": np.zeros(3, int)}, "`labels`; its arrays: classes"),
    ])
    def test_files_that_hold_no_labels_for_the_images(self, tmp_path, arrays, words):
        np.savez(tmp_path / "labels.npz", **arrays)
        with pytest.raises(SmoothcertError, match=words):
            train(config(tmp_path / "m", **self_training(tmp_path / "labels.npz")))
        with pytest.raises(FileError, match=r"none\.npy cannot be read: No such file"):
            train(config(tmp_path / "m", **self_training(tmp_path / "none.npy")))
        assert not (tmp_path / "m").exists()

    @pytest.mark.parametrize(("options", "kind", "words"), [
        ({"pseudo_labels": None}, ConfigError, "give pseudo-labels"),
        ({"unlabelled": None}, ConfigError, "pseudo-labels and max-unlabelled apply to unlabelled images"),
        ({"unlabelled_weight": 0}, ConfigError, "unlabelled_weight"),
        ({"pseudo_labels": "nowhere"}, FileError, "no model folder nowhere"),
        ({"max_images": None}, InputError, "leave some over"),
        ({"resize": 6}, ModelError, r"takes inputs of shape \(1, 8, 8\)"),
        ({"unlabelled_split": "moon"}, InputError, "moon"),
    ])
    def test_bad_requests_leave_nothing_behind(self, tmp_path, pretrained, options, kind, words):
        with pytest.raises(kind, match=words):
            train(config(tmp_path / "m", **self_training(pretrained) | options))
        assert not (tmp_path / "m").exists()

    def test_other_classes_and_other_shapes_are_refused(self, tmp_path, pretrained, few_classes):
        with pytest.raises(ModelError, match="has 10 classes, but the data set has 5"):
            train(config(tmp_path / "m", **self_training(pretrained, data=few_classes, max_images=None)))
        with pytest.raises(InputError, match=r"shape \(1, 6, 6\).*shape \(1, 8, 8\)"):
            path = tmp_path / "small.parquet"
            pq.write_table(pa.table({"image": [[[i] * 6] * 6 for i in range(20)], "label": [0, 1] * 10}), path)
            train(config(tmp_path / "m", **self_training(pretrained, unlabelled=f"parquet:{path}")))
        assert not (tmp_path / "m").exists()
