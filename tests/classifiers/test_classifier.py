"""Base classifiers opened by their options: weights of a file, a normalisation in front, factories without weights."""

import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from model_files import linear_onnx
from smoothcert import build_model
from smoothcert.classifiers import classifier as classifier_module
from smoothcert.classifiers.classifier import open_classifier
from smoothcert.config.model import ModelConfig
from smoothcert.denoise import DenoisedClassifier, DiffusionDenoiser
from smoothcert.denoise.diffusion import noise_schedule
from smoothcert.errors import ConfigError, FileError, InputError, RandomWeightsWarning
from smoothcert.runs.certify import certify
from smoothcert.runs.options import CertifyConfig
from smoothcert.store.store import read_store
from smoothcert.training.options import TrainConfig
from smoothcert.training.train import train
from smoothcert.verify.options import VerifyConfig
from smoothcert.verify.verify import verify

SHAPE = (1, 8, 8)
FACTORY = """
from pathlib import Path
import numpy as np
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.last = nn.Linear(64, num_classes)
    def forward(self, x):
        return self.last(x.flatten(1))

def build(num_classes): return Net(num_classes)
def load(num_classes):
    net = Net(num_classes)
    net.load_state_dict(torch.load(Path(__file__).with_name("w.pt"), weights_only=True))
    return net
def seeded():
    torch.manual_seed(0)
    return Net()
def drawn():
    net = Net()
    for parameter in net.parameters():
        parameter.data = torch.from_numpy(np.random.normal(size=parameter.shape)).float()
    return net
def once(made=[]):
    made.append(Net())
    assert len(made) == 1
    return made[0]
ready = Net()
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "net.py").write_text(FACTORY)
    torch.manual_seed(0)
    torch.save(nn.ModuleDict({"last": nn.Linear(64, 10)}).state_dict(), tmp_path / "w.pt")
    return tmp_path


def opened(model, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error", RandomWeightsWarning)
        return open_classifier(ModelConfig.parse({"model": str(model), **options}), SHAPE, 10)


class TestWeights:
    def test_content_is_what_counts_and_not_its_place(self, folder):
        first = opened(folder / "w.pt", network=f"{folder}/net.py:build")
        (folder / "w.pt").rename(folder / "moved.pth.tar")
        again = opened(folder / "moved.pth.tar", network=f"{folder}/net.py:build")
        assert again.identity == first.identity
        assert set(first.identity) == {"by", "sha256", "sources", "attributes", "answers"}
        state = torch.load(folder / "moved.pth.tar")
        state["last.bias"][0] += 1
        torch.save(state, folder / "moved.pth.tar")
        assert opened(folder / "moved.pth.tar", network=f"{folder}/net.py:build").identity != first.identity

    def test_a_factory_that_loads_them_itself_is_the_same_network(self, folder):
        loads = opened(f"{folder}/net.py:load").identity
        assert opened(folder / "w.pt", network=f"{folder}/net.py:build").identity == loads

    def test_a_named_network_is_that_of_its_directory(self, tmp_path):
        train(TrainConfig.parse({"model": "cnn", "model_option": {"width": 4}, "normalise": "standard", "epochs": 1,
                                 "max_images": 80, "sigma": 0.5, "out": tmp_path / "m"}))
        whole = opened(tmp_path / "m")
        alone = opened(tmp_path / "m" / "best.safetensors", network="cnn", model_option={"width": 4})
        assert alone.identity == whole.identity
        assert "weights of best.safetensors: the file itself, names without network.," in alone.note
        assert whole.note == ""

    def test_a_normalisation_is_part_of_the_identity(self, folder):
        spec = {"model": str(folder / "w.pt"), "network": f"{folder}/net.py:build"}
        digests = [opened(**spec, **given).identity["sha256"]
                   for given in ({}, {"mean": 0.5}, {"mean": 0.25}, {"mean": 0.5, "std": 0.5})]
        assert len(set(digests)) == 4

    def test_a_file_keeps_its_hash_and_tells_the_normalisation(self, tmp_path):
        path = linear_onnx(tmp_path / "net.onnx")
        bare, front = (open_classifier(ModelConfig.parse({"model": str(path), **given}), (3, 2, 2), 3).identity
                       for given in ({}, {"mean": [0.5], "std": [0.25]}))
        assert front == {**bare, "mean": [0.5], "std": [0.25]}

    def test_a_run_is_resumed_and_drawn_again_by_workers_too(self, folder):
        options = {"model": str(folder / "w.pt"), "network": f"{folder}/net.py:build", "mean": (0.3,), "std": (0.4,),
                   "data": "digits", "sigma": 0.25, "n": 100, "max_images": 3, "seed": 0, "out": folder / "s"}

        class Stopped(BaseException):
            pass

        def stop(event):
            if event.phase == "sampling" and event.done == 2:
                raise Stopped

        with pytest.raises(Stopped):
            certify(CertifyConfig.parse(options), stop)
        (folder / "w.pt").rename(folder / "elsewhere.bin")
        moved = {**options, "model": str(folder / "elsewhere.bin")}
        certify(CertifyConfig.parse({**moved, "workers": 2}))
        store = read_store(folder / "s")
        assert store.complete
        assert "net.py:build with the weights of w.pt: the file itself, mean 0.3 and std 0.4 in front" in str(
            store.provenance.raw["weights"])
        given = {name: moved[name] for name in ("model", "network", "mean", "std")}
        assert verify(VerifyConfig.parse({"store": folder / "s", "resample": 2, **given})).problems == []

    def test_what_is_refused_before_anything_is_read(self, folder, tmp_path):
        with pytest.raises(ConfigError) as caught:
            ModelConfig.parse({"model": "m", "weights": "ema", "network": "mlp", "model_option": {"a": 1}, "std": [0]})
        assert len(caught.value.problems) == 4
        options = {"data": "imagefolder:nowhere", "sigma": 0.25, "out": tmp_path / "s"}
        for spec, kind, words in (
            ({"model": str(folder / "w.pt")}, InputError, "name the network that they are of with --network"),
            ({"model": "absent.pt", "network": "mlp"}, FileError, "there is no file of weights absent.pt"),
            ({"model": "resnet20"}, FileError, "resnet20 is a network without weights"),
        ):
            with pytest.raises(kind, match=words):
                certify(CertifyConfig.parse({**spec, **options}))
        assert not (tmp_path / "s").exists()

    def test_a_directory_has_its_normalisation_inside(self, tmp_path):
        out = tmp_path / "m"
        train(TrainConfig.parse({"model": "linear", "epochs": 1, "max_images": 50, "sigma": 0.5, "out": out}))
        with pytest.raises(InputError, match="has its normalisation inside already"):
            opened(out, mean=0.5)


class TestRandomWeights:
    @pytest.mark.parametrize("name", ["build", "drawn"])
    def test_a_factory_without_weights_is_said_so(self, folder, name):
        with pytest.warns(RandomWeightsWarning, match=f"net.py:{name} gives a network with random weights"):
            open_classifier(f"{folder}/net.py:{name}", SHAPE, 10)

    @pytest.mark.parametrize("name", ["build", "drawn"])
    @pytest.mark.filterwarnings("ignore::smoothcert.errors.RandomWeightsWarning")
    def test_looking_for_them_draws_nothing(self, folder, monkeypatch, name):
        def states():
            torch.manual_seed(5)
            np.random.seed(5)  # noqa: NPY002
            open_classifier(f"{folder}/net.py:{name}", SHAPE, 10)
            return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002

        looked = states()
        monkeypatch.setattr("smoothcert.classifiers.classifier.has_random_weights", lambda loaded, seconds: False)
        assert states() == looked

    @pytest.mark.parametrize("name", ["load", "seeded", "ready", "once"])
    def test_others_are_not(self, folder, name):
        opened(f"{folder}/net.py:{name}")

    def test_nor_are_weights_from_a_file_and_large_networks(self, folder, monkeypatch):
        opened(folder / "w.pt", network=f"{folder}/net.py:build")
        monkeypatch.setattr("smoothcert.models.random_weights._MOST_PARAMETERS", 600)
        opened(f"{folder}/net.py:build")

    def test_the_classes_of_the_first_network_stay_their_modules(self, folder):
        with pytest.warns(RandomWeightsWarning):
            model = open_classifier(f"{folder}/net.py:build", SHAPE, 10).model
        torch.save(model, folder / "pickled.pt")


class TestTraining:
    def config(self, folder, **options):
        return TrainConfig.parse({"epochs": 1, "max_images": 80, "sigma": 0.5, "lr": 1e-12, "batch_size": 40,
                                  "out": folder / "m", **options})

    def test_it_starts_from_a_file_of_weights(self, folder):
        network = build_model("mlp", SHAPE, 10, hidden=(8,), mean=(0.5,), std=(0.25,))
        torch.save({"state_dict": network.state_dict()}, folder / "mlp.ckpt")
        card = train(self.config(folder, init=folder / "mlp.ckpt", model="mlp", model_option={"hidden": [8]}))
        assert card.options == {"hidden": [8], "mean": [0.5], "std": [0.25]}
        assert card.init == {"from": str(folder / "mlp.ckpt"), "weights": "best", "fresh": []}
        kept = opened(folder / "m").model.state_dict()
        assert all(torch.allclose(kept[name], tensor) for name, tensor in network.state_dict().items())

    def test_a_head_for_other_classes_is_new(self, folder):
        torch.save(build_model("mlp", SHAPE, 7, hidden=(8,)).state_dict(), folder / "mlp.pt")
        card = train(self.config(folder, init=folder / "mlp.pt", model="mlp", model_option={"hidden": [8]}))
        assert card.init is not None
        assert card.init["fresh"] == ["3"]

    def test_constants_take_the_place_of_the_data(self, folder):
        card = train(self.config(folder, model="mlp", mean=0.5, std=0.25))
        assert card.options == {"mean": [0.5], "std": [0.25]}
        assert card.identity["settings"]["mean"] == [0.5]
        assert "mean" not in train(self.config(folder, model="mlp", out=folder / "n")).identity["settings"]

    @pytest.mark.parametrize(("options", "words"), [
        ({"init": "w.pt"}, "name the network that they are of with --model"),
        ({"init": "w.pt", "model": "net.py:build", "mean": 0.5}, "normalise inside it"),
        ({"model": "net.py:build", "mean": 0.5}, "normalises inside"),
        ({"pseudo_labels": "w.pt", "unlabelled": "digits", "max_images": 500}, "a whole model is needed here"),
        ({"weights": "ema"}, "must be best or last"),
        ({"mean": 0.5, "normalise": "none"}, "give one of them"),
    ])
    def test_what_does_not_go_together(self, folder, monkeypatch, options, words):
        monkeypatch.chdir(folder)
        with pytest.raises(InputError, match=words):
            train(self.config(folder, **options))
        assert not (folder / "m").exists()


def test_a_diffusion_schedule_stays_on_the_cpu():
    """A step is looked up in every pass, which would wait for the GPU that it lay on; the meta device stands for one.
    """
    network = nn.Conv2d(1, 1, 1)
    model = DenoisedClassifier(DiffusionDenoiser(network, noise_schedule({})), nn.Flatten(), 0.5)
    moved = classifier_module._move(model, torch.device("meta"))
    assert network.weight.device.type == "meta"
    assert moved.denoiser.timestep(0.5) == DiffusionDenoiser(network, noise_schedule({})).timestep(0.5)
