"""Models of the hubs, with their preprocessing inside."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from model_files import NET, Small
from smoothcert.errors import InputError, MissingExtraError, ModelError, SmoothcertError
from smoothcert.models import load_model


@pytest.fixture
def net(write):
    write("sibling_of_net.py", "CLASSES = 5\n")
    write("lazy_sibling.py", "model = print\n")
    return write("net.py", NET)


@pytest.fixture(scope="module")
def network():
    network = Small().eval()
    network.norm.running_mean.uniform_(-1, 1)
    return network


MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.1, 0.5]


class Seen(nn.Module):
    """A network that keeps what it is given."""

    def __init__(self, wrap=lambda logits: logits):
        super().__init__()
        self.drop, self.wrap = nn.Dropout(0.5), wrap

    def forward(self, x):
        self.images = x
        return self.wrap(x.mean((2, 3)))


def fake_transformers(processor):
    def from_pretrained(name, trust_remote_code):
        assert not trust_remote_code
        if name != "lab/net":
            raise OSError(f"{name} is not a model")
        return Seen(lambda logits: SimpleNamespace(logits=logits))

    return SimpleNamespace(
        AutoModelForImageClassification=SimpleNamespace(from_pretrained=from_pretrained),
        AutoImageProcessor=SimpleNamespace(from_pretrained=lambda name, trust_remote_code: processor))


def fake_timm():
    def create_model(name, pretrained):
        assert pretrained
        if name != "net":
            raise RuntimeError(f"Unknown model ({name})")
        network = Seen()
        network.pretrained_cfg = {"mean": tuple(MEAN), "std": tuple(STD), "input_size": (3, 6, 8)}
        return network

    return SimpleNamespace(create_model=create_model)


def fake_torchvision():
    def get_model(name, weights):
        if name != "net":
            raise ValueError(f"Unknown model {name}")
        assert weights == "DEFAULT"
        return Seen()

    transforms = SimpleNamespace(mean=MEAN, std=STD, crop_size=[6])
    weights = SimpleNamespace(DEFAULT=SimpleNamespace(transforms=lambda: transforms))
    return SimpleNamespace(models=SimpleNamespace(get_model=get_model, get_model_weights=lambda name: weights))


def install(monkeypatch, name, stand_in):
    module = ModuleType(name)
    module.__dict__.update(vars(stand_in))
    monkeypatch.setitem(sys.modules, name, module)


def processor(**changes):
    return SimpleNamespace(**{"image_mean": MEAN, "image_std": STD, "do_rescale": True, "rescale_factor": 1 / 255,
                              "do_normalize": True, "do_resize": True, "size": {"height": 6, "width": 8}, **changes})


def normalised(images, mean=MEAN, std=STD):
    return (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


@pytest.mark.parametrize(("spec", "package", "stand_in", "size"), [
    ("hf:lab/net", "transformers", fake_transformers(processor()), (6, 8)),
    ("timm:net", "timm", fake_timm(), (6, 8)),
    ("torchvision:net", "torchvision", fake_torchvision(), (6, 6)),
])
def test_hub_models_normalise_and_resize_inside(monkeypatch, spec, package, stand_in, size):
    install(monkeypatch, package, stand_in)
    loaded = load_model(spec)
    assert (loaded.kind, loaded.content) == (spec.partition(":")[0], spec.encode())
    assert not any(module.training for module in loaded.model.modules())
    fitting = torch.rand(2, 3, *size)
    assert loaded.model(fitting).shape == (2, 3)
    torch.testing.assert_close(loaded.model.network.images, normalised(fitting))
    loaded.model(torch.full((1, 3, 12, 10), 0.7))
    torch.testing.assert_close(loaded.model.network.images, normalised(torch.full((1, 3, *size), 0.7)))
    with pytest.raises(InputError, match=r"\(N, 3, H, W\)"):
        loaded.model(torch.rand(1, 1, *size))
    with pytest.raises(ModelError, match=r"other cannot be loaded: \w+Error: .*other"):
        load_model(spec.partition(":")[0] + ":other")


@pytest.mark.parametrize(("changes", "mean", "std", "size"), [
    ({"rescale_factor": 1 / 127.5}, [m / 2 for m in MEAN], [s / 2 for s in STD], (6, 8)),
    ({"do_normalize": False}, [0.0] * 3, [1.0] * 3, (6, 8)),
    ({"do_rescale": False, "do_normalize": False}, [0.0] * 3, [1 / 255] * 3, (6, 8)),
    ({"do_center_crop": True, "crop_size": {"height": 5, "width": 5}}, MEAN, STD, (5, 5)),
    ({"size": {"shortest_edge": 7}}, MEAN, STD, (7, 7)),
    ({"size": SimpleNamespace(height=9, width=4, shortest_edge=None)}, MEAN, STD, (9, 4)),
    ({"size": 5}, MEAN, STD, (5, 5)),
    ({"do_resize": False}, MEAN, STD, None),
    ({"image_mean": 0.5, "image_std": 0.25}, [0.5] * 3, [0.25] * 3, (6, 8)),
    ({"size": {"longest_edge": 7}}, MEAN, STD, (7, 7)),
    ({"size": [5, 4]}, MEAN, STD, (5, 4)),
    ({"do_center_crop": True, "crop_size": None, "size": {"shortest_edge": 4}, "crop_pct": 0.9}, MEAN, STD, (4, 4)),
    ({"do_rescale": True, "rescale_factor": None}, MEAN, STD, (6, 8)),
])
def test_processors_of_transformers_are_put_inside(monkeypatch, changes, mean, std, size):
    install(monkeypatch, "transformers", fake_transformers(processor(**changes)))
    model = load_model("hf:lab/net").model
    images = torch.rand(2, 3, *(size or (11, 3)))
    model(images)
    torch.testing.assert_close(model.network.images, normalised(images, mean, std))
    assert model.size == size


@pytest.mark.parametrize(("changes", "words"), [
    ({"do_flip_channel_order": True}, "do_flip_channel_order = True"),
    ({"size": {"max_height": 4, "max_width": 4}}, r"size = .*max_height.*height and width, shortest_edge"),
    ({"size": None}, "size = None"),
    ({"image_mean": None}, "image_mean = None"),
    ({"image_std": [0.5]}, r"3 channel\(s\) and std has 1|image_std"),
])
def test_processors_that_cannot_go_inside_are_refused(monkeypatch, changes, words):
    install(monkeypatch, "transformers", fake_transformers(processor(**changes)))
    with pytest.raises(SmoothcertError, match=words):
        load_model("hf:lab/net")


@pytest.mark.parametrize("changes", [
    {"do_normalize": False}, {"image_mean": 0.0, "image_std": 1.0}, {"image_mean": [0.0], "image_std": [1.0]}])
def test_processors_of_grey_images_are_put_inside(monkeypatch, changes):
    stand_in = fake_transformers(processor(**changes))
    network = Seen(lambda logits: SimpleNamespace(logits=logits))
    network.config = SimpleNamespace(num_channels=1)
    stand_in.AutoModelForImageClassification = SimpleNamespace(from_pretrained=lambda *a, **b: network)
    install(monkeypatch, "transformers", stand_in)
    images = torch.rand(2, 1, 6, 8)
    load_model("hf:lab/net").model(images)
    torch.testing.assert_close(network.images, images)


def test_grey_images_become_colour_if_the_processor_says(monkeypatch):
    install(monkeypatch, "transformers", fake_transformers(processor(do_convert_rgb=True)))
    model, images = load_model("hf:lab/net").model, torch.rand(2, 1, 6, 8)
    model(images)
    torch.testing.assert_close(model.network.images, normalised(images.expand(-1, 3, -1, -1)))


def test_a_longest_edge_keeps_the_shape_of_images(monkeypatch):
    install(monkeypatch, "transformers", fake_transformers(processor(size={"longest_edge": 8})))
    model = load_model("hf:lab/net").model
    model(torch.rand(1, 3, 16, 12))
    assert model.network.images.shape == (1, 3, 8, 6)


@pytest.mark.parametrize(("spec", "package", "extra"), [
    ("hf:lab/net", "transformers", "hub"), ("timm:net", "timm", "vision"), ("torchvision:net", "torchvision", "vision"),
])
def test_hubs_without_their_extras(monkeypatch, spec, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package}.*smoothcert\[{extra}\]"):
        load_model(spec)


def test_a_real_network_of_transformers_from_a_folder(tmp_path):
    transformers = pytest.importorskip("transformers", reason="the hub extra is not installed")
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], num_labels=3)
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path)
    transformers.ConvNextImageProcessor(size={"shortest_edge": 384}).save_pretrained(tmp_path)
    model = load_model(f"hf:{tmp_path}").model
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 3)
