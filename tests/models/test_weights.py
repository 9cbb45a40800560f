"""Files of weights: what they hold, how it is matched with a network, and what is refused."""

import argparse
import random
import sys
import tarfile
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from model_files import linear_onnx
from published_nets import MEANS, SDS, NormalizeLayer, ResNet, resnet20, save_published, with_statistics
from smoothcert import build_model, load_model
from smoothcert.errors import FileError, InputError, MissingExtraError, ModelError, SmoothcertError
from smoothcert.models.weights import PUBLISHED, describe_weights

SHAPE = (3, 32, 32)


def small(num_classes: int = 4) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, num_classes)).eval()


@pytest.fixture
def factory(write):
    return str(write("net.py", """
        from torch import nn

        def build(num_classes=4):
            return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, num_classes))

        def fixed(): return build(4)
        def plain(): return lambda images: images.mean((2, 3))
        def lazy(): return nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    """))


def write_tar(path):
    with tarfile.open(path, "w") as archive:
        archive.add(__file__)


def load(path, network, shape=SHAPE, **options):
    return load_model(str(path), network=network, input_shape=shape, **options)


def assert_same(model, network, shape=SHAPE):
    images = torch.rand(4, *shape)
    with torch.no_grad():
        torch.testing.assert_close(model(images), network(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("buffers", [False, True])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
def test_a_published_model_is_ours_under_other_names(tmp_path, prefix, buffers):
    network = with_statistics(nn.Sequential(NormalizeLayer(buffers), resnet20()))
    path = save_published(tmp_path / "checkpoint.pth.tar", network, "cifar_resnet20", prefix)
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    loaded = load(path, "resnet20", **({} if buffers else {"mean": MEANS, "std": SDS}))
    assert state[1:] == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    assert torch.equal(state[0], torch.get_rng_state())
    assert_same(loaded.model, network)
    assert f"names without {prefix}1., renamed from torchvision's names" in loaded.note
    assert "mean 0.4914,0.4822,0.4465 and std 0.2023,0.1994,0.201" in loaded.note
    assert (loaded.kind, loaded.content, loaded.code) == ("weights", None, None)


def test_a_layer_whose_constants_are_not_in_the_file(tmp_path):
    path = save_published(tmp_path / "c.pth.tar", nn.Sequential(NormalizeLayer(), resnet20()), "cifar_resnet20")
    with pytest.raises(InputError) as caught:
        load(path, "resnet20")
    assert all(constants in str(caught.value) for constants in PUBLISHED.values())
    load(path, "resnet20", mean=[0])


def test_a_normalisation_of_the_file_is_not_replaced(tmp_path):
    network = nn.Sequential(NormalizeLayer(True), resnet20())
    path = save_published(tmp_path / "c.pth.tar", network, "cifar_resnet20")
    load(path, "resnet20", mean=MEANS, std=SDS)
    for given in ({"mean": MEANS, "std": [0.2]}, {"mean": MEANS}, {"mean": [0]}):
        with pytest.raises(InputError, match="carries a normalisation of its own"):
            load(path, "resnet20", **given)
    network[0].means *= 255
    with pytest.raises(InputError, match=r"not in the units of images in \[0, 1\]"):
        load(save_published(path, network, "cifar_resnet20"), "resnet20")


@pytest.mark.parametrize(("ours", "theirs", "shape"), [
    ("resnet110", lambda: ResNet((18, 18, 18), 16), SHAPE),
    ("resnet18", lambda: ResNet((2, 2, 2, 2), 64, shortcut="shortcut", dense="linear"), SHAPE),
    ("resnet50", lambda: ResNet((3, 4, 6, 3), 64, 12, bottleneck=True, imagenet=True), (3, 64, 64)),
])
def test_torchvision_names_mean_our_layers(tmp_path, ours, theirs, shape):
    network = with_statistics(theirs())
    torch.save({"net": {f"module.{name}": tensor for name, tensor in network.state_dict().items()}, "acc": 95.1},
               tmp_path / "ckpt.pth")
    assert_same(load(tmp_path / "ckpt.pth", ours, shape).model, network, shape)


def test_a_network_that_is_laid_out_otherwise_is_refused(tmp_path):
    stem = ResNet((2, 2, 2, 2), 64, imagenet=True)
    torch.save(stem.state_dict(), tmp_path / "stem.pt")
    with pytest.raises(ModelError, match=r"conv.weight: \(64, 3, 7, 7\) in the file, \(64, 3, 3, 3\) in the network"):
        load(tmp_path / "stem.pt", "resnet18")
    torch.save(resnet20().state_dict(), tmp_path / "colour.pt")
    with pytest.raises(ModelError, match="takes images of 3 channels, and these have 1"):
        load(tmp_path / "colour.pt", "resnet20", (1, 32, 32))
    kept = {name: tensor for name, tensor in resnet20().state_dict().items() if "downsample" not in name}
    torch.save(kept, tmp_path / "a.pt")
    with pytest.raises(ModelError, match=r"(?s)10 missing in the file: stage2.*option A of He et al"):
        load(tmp_path / "a.pt", "resnet20")


@pytest.mark.parametrize("wrap", [
    lambda state: state,
    lambda state: {"state_dict": state, "epoch": 3},
    lambda state: {"model": state, "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(8, 12)}}}},
    lambda state: {"model_state_dict": state, "loss": torch.tensor(0.1)},
    lambda state: {"net": {f"module.{name}": tensor for name, tensor in state.items()}},
    lambda state: {"state_dict": {f"model.{name}": tensor for name, tensor in state.items()}},
    lambda state: {"state_dict": {f"model._orig_mod.{name}": tensor for name, tensor in state.items()}},
    lambda state: {"n_averaged": torch.tensor(7), **{f"module.{name}": tensor for name, tensor in state.items()}},
    lambda state: {"total_ops": torch.zeros(1), "1.total_params": torch.zeros(1), **state},
    lambda state: {"ema": {"shadow": {name: tensor.half() for name, tensor in state.items()}}},
    lambda state: (state, {"epoch": 3}),
    lambda state: {"model": state, "args": argparse.Namespace(lr=0.1), "best": np.float64(0.5), "seen": np.arange(3)},
    lambda state: {"model": {name: nn.Parameter(tensor) for name, tensor in state.items()}},
])
def test_usual_wrappers_are_seen_through(tmp_path, factory, wrap):
    network = small()
    for tensor in network.state_dict().values():
        tensor.copy_(tensor.half())
    torch.save(wrap(dict(network.state_dict())), tmp_path / "w.ckpt")
    loaded = load(tmp_path / "w.ckpt", f"{factory}:build", (3, 2, 2), num_classes=2)  # the file knows its own K
    assert_same(loaded.model, network, (3, 2, 2))
    assert loaded.code == f"{factory}:build"
    assert not any(module.training for module in loaded.model.modules())


@pytest.mark.parametrize("ending", [".pt", ".pth", ".pth.tar", ".tar", ".ckpt", ".bin", ".PT", ".th", ".safetensors"])
def test_every_ending_is_read(tmp_path, ending):
    network = build_model("mlp", (1, 2, 2), 3, hidden=(5,), mean=(0.5,), std=(0.25,)).eval()
    path = tmp_path / f"w{ending}"
    save_file(network.state_dict(), path) if ending == ".safetensors" else torch.save(network.state_dict(), path)
    loaded = load(path, "mlp", (1, 2, 2), options={"hidden": [5]})
    assert_same(loaded.model, network, (1, 2, 2))
    assert loaded.model.state_dict().keys() == network.state_dict().keys()


def test_several_entries_that_fit_are_for_the_user_to_choose(tmp_path, factory):
    first, second = small(), small()
    torch.save({"state_dict": first.state_dict(), "state_dict_ema": second.state_dict()}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"several times: state_dict, state_dict_ema; pick one with --weights"):
        load(tmp_path / "w.pt", f"{factory}:build")
    loaded = load(tmp_path / "w.pt", f"{factory}:build", weights="state_dict_ema")
    assert_same(loaded.model, second, (3, 2, 2))
    assert "entry state_dict_ema" in loaded.note
    with pytest.raises(ModelError, match=r"no entry 'ema'; it holds state_dict \(4 tensors: 1.weight"):
        load(tmp_path / "w.pt", f"{factory}:build", weights="ema")


def test_several_networks_of_one_entry_are_for_the_user_to_choose(tmp_path, factory):
    student, teacher = small(), small()
    state = {f"{name}.{key}": tensor for name, network in (("student", student), ("teacher", teacher))
             for key, tensor in network.state_dict().items()}
    torch.save({"state_dict": {**state, "criterion.weight": torch.ones(4)}}, tmp_path / "w.ckpt")
    with pytest.raises(ModelError, match=r"several times: state_dict\.student, state_dict\.teacher; pick one"):
        load(tmp_path / "w.ckpt", f"{factory}:build")
    loaded = load(tmp_path / "w.ckpt", f"{factory}:build", weights="state_dict.teacher")
    assert_same(loaded.model, teacher, (3, 2, 2))


def test_what_is_left_over_is_named_and_can_be_left_out(tmp_path, factory):
    state = {f"model.{name}": tensor for name, tensor in small().state_dict().items()}
    torch.save({"state_dict": {**state, "criterion.weight": torch.ones(4)}}, tmp_path / "w.ckpt")
    with pytest.raises(ModelError, match=r"(?s)1 only in the file: criterion.weight.*--weights state_dict.model$"):
        load(tmp_path / "w.ckpt", f"{factory}:build")
    load(tmp_path / "w.ckpt", f"{factory}:build", weights="state_dict.model")


def test_differences_are_counted_and_the_first_are_named(tmp_path, factory):
    state = small().state_dict()
    state["1.weight"] = torch.zeros(8, 13)
    state["3.bias"] = state["3.bias"].long()
    del state["1.bias"]
    torch.save({**state, "extra": torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(ModelError) as caught:
        load(tmp_path / "w.pt", f"{factory}:fixed")
    for words in ("1 missing in the file: 1.bias", "1 only in the file: extra", "2 of another shape or type",
                  "1.weight: (8, 13) in the file, (8, 12) in the network", "3.bias: (4,) of whole numbers in the file"):
        assert words in str(caught.value)


def test_the_likely_network_is_guessed(tmp_path):
    path = save_published(tmp_path / "c.pth.tar", nn.Sequential(NormalizeLayer(), resnet20()), "cifar_resnet20")
    with pytest.raises(InputError, match=r"--network, .*calls its network cifar_resnet20. .* fit resnet20$"):
        load_model(str(path))
    with pytest.raises(ModelError, match=r"(?s)450 missing .*stage1.3.conv1.weight.*\(445 more\).* fit resnet20\n"):
        load(path, "resnet110", mean=[0])
    facts = describe_weights(path)
    assert facts["architecture"] == "cifar_resnet20"
    assert facts["fits"] == ["resnet20 (entry state_dict, names without 1., renamed from torchvision's names)"]
    assert facts["entries"]["state_dict"].startswith("128 tensors")


@pytest.mark.parametrize(("network", "options", "words"), [
    ("resnte20", {}, 'did you mean "resnet20"'),
    ("folder", {}, "does not name a network"),
    ("{}:plain", {}, "weights go into a torch network"),
    ("{}:build", {"options": {"width": 3}}, "takes none"),
    ("{}:lazy", {}, "lazy layers"),
    ("mlp", {"input_shape": None}, "input_shape"),
    ("mlp", {"options": {"mean": [0.5]}}, "by the options of those names"),
    ("mlp", {"options": {"hiden": [5]}}, "hidden"),
    ("{}:build", {"std": [1]}, "std is given without mean"),
    ("{}:build", {"mean": [1, 2]}, r"mean has 2 value\(s\), but the inputs have 3"),
])
def test_bad_networks_and_options(tmp_path, factory, network, options, words):
    torch.save(small().state_dict(), tmp_path / "w.pt")
    with pytest.raises(SmoothcertError, match=words):
        load(tmp_path / "w.pt", network.format(factory), **({"shape": (3, 2, 2)} | {
            {"input_shape": "shape"}.get(name, name): value for name, value in options.items()}))


class TestFiles:
    @pytest.mark.parametrize(("content", "words"), [
        (small(), "a whole module, not its weights alone: it needs torch.nn.modules.container"),
        (resnet20(), "a whole module, not its weights alone: it needs published_nets.ResNet"),
        ({"model": small().state_dict(), "hook": print}, "more than tensors, numbers and texts: it needs "),
    ])
    def test_a_file_that_could_run_code_is_refused_unread(self, tmp_path, factory, content, words):
        torch.save(content, tmp_path / "w.pt")
        with pytest.raises(ModelError, match=words) as caught:
            load(tmp_path / "w.pt", f"{factory}:build")
        assert "weights_only=False); torch.save(network" in str(caught.value)

    @pytest.mark.parametrize(("write_file", "words"), [
        (lambda path: None, "there is no file of weights"),
        (lambda path: path.write_bytes(b""), "not a file of weights"),
        (lambda path: path.write_text("hello"), "not a file of weights"),
        (lambda path: zipfile.ZipFile(path, "w").writestr("a", "b"), "not a file of weights"),
        (write_tar, "is a tar archive"),
        (lambda path: torch.save(torch.zeros(3), path), "holds one Tensor"),
        (lambda path: torch.save({"epoch": 3}, path), "holds no tensors"),
        (lambda path: torch.save({"weight": torch.zeros(3)}, path), "has none of the 4 names of the network"),
        (lambda path: torch.jit.save(torch.jit.script(small()), path), "TorchScript program, which is not taken"),
    ])
    @pytest.mark.filterwarnings("ignore")
    def test_other_files_are_refused_in_words(self, tmp_path, factory, write_file, words):
        write_file(tmp_path / "w.pt")
        with pytest.raises((FileError, ModelError), match=words):
            load(tmp_path / "w.pt", f"{factory}:build")

    @pytest.mark.parametrize("ending", [".pt", ".safetensors"])
    def test_a_damaged_file(self, tmp_path, factory, ending):
        path = tmp_path / f"w{ending}"
        save_file(small().state_dict(), path) if ending == ".safetensors" else torch.save(small().state_dict(), path)
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(FileError, match=r"damaged|corrupt"):
            load(path, f"{factory}:build")


class TestLibraries:
    """timm and torchvision build a network for a file's weights, and fetch none."""

    @pytest.mark.parametrize("library", ["timm", "torchvision"])
    def test_their_networks_take_weights(self, tmp_path, monkeypatch, library):
        def build(name, num_classes=1000, **options):
            assert name == "net"
            assert options in ({"pretrained": False}, {"weights": None})
            return small(num_classes)

        fake = SimpleNamespace(create_model=build, models=SimpleNamespace(get_model=build))
        monkeypatch.setitem(sys.modules, library, fake)
        torch.save(small(7).state_dict(), tmp_path / "w.pt")
        loaded = load(tmp_path / "w.pt", f"{library}:net", (3, 2, 2), num_classes=4, mean=[0.5], std=[0.25])
        assert loaded.model(torch.rand(2, 3, 2, 2)).shape == (2, 7)
        assert (loaded.code, loaded.content) == (f"{library}:net", f"{library}:net".encode())
        with pytest.raises(ModelError, match="cannot be built"):
            load(tmp_path / "w.pt", f"{library}:other")

    def test_a_library_that_is_missing(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "timm", None)
        torch.save(small().state_dict(), tmp_path / "w.pt")
        with pytest.raises(MissingExtraError, match="vision"):
            load(tmp_path / "w.pt", "timm:net")


class TestNormalisation:
    """mean and std stand in front of whatever takes images."""

    def test_in_front_of_any_model(self, tmp_path, write):
        path = str(linear_onnx(tmp_path / "net.onnx"))
        net = write("nets.py", """
            from torch import nn
            net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
            def plain(): return lambda images: images.mean((2, 3))
        """)
        images = torch.rand(4, 3, 2, 2)
        for spec in (path, f"{net}:net", f"{net}:plain"):
            bare, front = (load_model(spec, input_shape=(3, 2, 2), **given).model
                           for given in ({}, {"mean": [0.5], "std": [0.1, 0.2, 0.5]}))
            if spec.endswith("net"):
                front[1].load_state_dict(bare.state_dict())
            scaled = (images - 0.5) / torch.tensor([0.1, 0.2, 0.5]).view(1, 3, 1, 1)
            torch.testing.assert_close(torch.as_tensor(front(images)), torch.as_tensor(bare(scaled)))

    @pytest.mark.parametrize(("name", "words"), [
        ("estimator", "put a scaler into its pipeline"), ("walk", "normalise inside the model")])
    def test_where_no_layer_can_stand(self, write, name, words):
        net = write("nets.py", """
            from torch import nn
            class Estimator:
                def predict_proba(self, x): return x[:, :2]
            class Walk(nn.Flatten):
                random = True
            estimator, walk = Estimator(), Walk()
        """)
        with pytest.raises(InputError, match=words):
            load_model(f"{net}:{name}", input_shape=(3, 2, 2), mean=[0.5])

    def test_a_hub_has_its_own(self):
        with pytest.raises(InputError, match="normalisation of its hub inside already"):
            load_model("timm:net", mean=[0.5])

    def test_what_goes_with_weights_alone(self, factory):
        for given in ({"network": "mlp"}, {"options": {"a": 1}}, {"weights": "ema"}):
            with pytest.raises(InputError, match="go with a file of weights"):
                load_model(f"{factory}:build", **given)
