"""Networks known by name: shapes, sizes, normalisation inside, and what is refused."""

import itertools

import pytest
import torch
from safetensors.torch import load_file, save_file

from smoothcert.errors import InputError, UnknownNameError
from smoothcert.models import Centre, Normalise, build_model, model_names, model_options
from smoothcert.models.convolutional import same_padding

LEAST = {"linear": 1, "mlp": 1, "cnn": 4, "lenet": 16, "cnn3": 27, "resnet20": 8, "resnet110": 8, "resnet18": 8,
         "resnet50": 8, "vgg16": 8, "airbench": 9, "conv1d": 2}
OPTIONS = {"mlp": {"hidden": [9, 7], "activation": "silu"}, "cnn": {"width": 3}, "cnn3": {"activation": "elu"},
           "resnet18": {"activation": "elu"}, "vgg16": {"activation": "silu"},
           "airbench": {"width": 8, "activation": "elu"}}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def shaped(name, channels, height, width):
    """The shape of one input: that of an image, or of a series with as many values."""
    return (channels, height * width) if name == "conv1d" else (channels, height, width)


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", model_names())
def test_shapes_of_logits_from_the_least_size_up(name):
    least = LEAST[name]
    for sizes, k in [((1, least, least), 2), ((3, least, least + 5), 10), ((2, 32, 33), 3)]:
        shape = shaped(name, *sizes)
        model = build_model(name, shape, k, **OPTIONS.get(name, {})).eval()
        with torch.no_grad():
            assert model(torch.rand(2, *shape)).shape == (2, k)
    if least > 1:
        with pytest.raises(InputError, match=f"at least {'4 steps' if name == 'conv1d' else f'{least}x{least}'}"):
            build_model(name, shaped(name, 1, least, least - 1), 2)


@pytest.mark.parametrize("name", model_names())
def test_every_network_has_gradients_and_judges_images_alone(name):
    shape = shaped(name, 1, 28, 28)
    model = build_model(name, shape, 4).eval()
    x = torch.rand(3, *shape, requires_grad=True)
    gradient = torch.autograd.grad(model(x)[1].sum(), x)[0]
    assert gradient[1].abs().sum() > 0
    assert gradient[[0, 2]].abs().sum() == 0
    assert set(model_options(name)) >= {"mean", "std"}


@pytest.mark.parametrize("size", [4, 5, 8, 13, 28, 32, 224])
def test_cnn_takes_any_size_and_leaves_four_values_a_channel(size):
    model = build_model("cnn", (1, size, size), 10).eval()
    with torch.no_grad():
        assert model(torch.rand(1, 1, size, size)).shape == (1, 10)
    assert model[-1].in_features in (128, 4 * 128)


def test_parameter_counts_are_those_of_the_papers_architectures():
    def resnet(n):  # convolutions and two numbers a BatchNorm channel, written out from He et al., section 4.2
        total, inputs = 3 * 16 * 9 + 2 * 16, 16
        for width in (16, 32, 64):
            shortcut = inputs * width + 2 * width if inputs != width else 0
            total += inputs * width * 9 + (2 * n - 1) * width * width * 9 + 2 * n * 2 * width + shortcut
            inputs = width
        return total + 64 * 10 + 10

    for name, n, millions in [("resnet20", 3, 0.27), ("resnet110", 18, 1.73)]:
        model = build_model(name, (3, 32, 32), 10)
        assert parameters(model) == resnet(n)
        assert round(resnet(n) / 1e6, 2) == millions
        assert [len(stage) for stage in (model.stage1, model.stage2, model.stage3)] == [n, n, n]
    assert parameters(build_model("resnet50", (3, 224, 224), 1000)) == 25_557_032
    lenet = 20 * 26 + 50 * (20 * 25 + 1) + 500 * (50 * 16 + 1) + 10 * 501
    assert parameters(build_model("lenet", (1, 28, 28), 10)) == lenet
    cnn3 = 64 * (64 + 1) + 128 * (64 * 36 + 1) + 128 * (128 * 25 + 1) + 10 * 129
    assert parameters(build_model("cnn3", (1, 28, 28), 10)) == cnn3
    blocks = 9 * (24 * 64 + 64 * 64 + 64 * 256 + 3 * 256 * 256) + 4 * (64 + 2 * 256)
    assert parameters(build_model("airbench", (3, 32, 32), 10)) == 24 * 13 + blocks + 2570


def test_depth_counts_the_layers_on_the_longest_path():
    for name, depth in [("resnet20", 20), ("resnet50", 50), ("resnet110", 110)]:
        weights = build_model(name, (1, 8, 8), 2).state_dict()
        deep = [key for key, value in weights.items()
                if value.ndim in (2, 4) and key.endswith("weight") and "shortcut" not in key]
        assert len(deep) == depth


def test_resnet_starts_from_he_initialisation():
    weight = build_model("resnet20", (3, 32, 32), 10).stage3[2].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)


def test_same_padding_gives_the_ceiling_and_never_starts_heavier():
    for size, kernel, stride in itertools.product(range(1, 40), range(1, 9), range(1, 5)):
        before, after = same_padding(size, kernel, stride)
        padded = max(size + before + after, kernel)
        assert before in (after, after - 1)
        if before + after:
            assert (padded - kernel) // stride + 1 == -(-size // stride)


@pytest.mark.parametrize("name", ["linear", "cnn", "resnet20"])
def test_normalisation_inside_is_normalisation_by_hand(name):
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.1]
    plain = build_model(name, (3, 8, 8), 5).eval()
    images = torch.rand(4, 3, 8, 8)
    centred = images - torch.tensor(mean).view(3, 1, 1)
    for given, expected in [({"mean": mean, "std": std}, centred / torch.tensor(std).view(3, 1, 1)),
                            ({"mean": mean}, centred)]:
        model = build_model(name, (3, 8, 8), 5, **given).eval()
        model.network.load_state_dict(plain.state_dict())
        torch.testing.assert_close(model(images), plain(expected))
    assert not any(isinstance(module, Centre | Normalise) for module in plain.modules())


@pytest.mark.parametrize("name", model_names())
def test_state_dict_survives_safetensors(name, tmp_path):
    options = {**OPTIONS.get(name, {}), "mean": (0.1,), "std": (0.3,)}
    shape = shaped(name, 1, 28, 28)
    model, other = (build_model(name, shape, 3, **options) for _ in range(2))
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    images = torch.rand(2, *shape)
    assert torch.equal(model.eval()(images), other.eval()(images))
    pointers = [tensor.data_ptr() for tensor in model.state_dict().values()]
    assert len(set(pointers)) == len(pointers)


@pytest.mark.parametrize("shape", [(3,), (3, 20), (3, 2, 4, 5)])
def test_normalisation_inside_is_by_channel_whatever_the_shape(shape):
    mean, std = [10.0, -2.0, 0.5], [100.0, 0.1, 1.0]
    model = build_model("mlp", shape, 2, mean=mean, std=std).eval()
    x = torch.rand(4, *shape)
    whitened = (x - torch.tensor(mean).view(-1, *[1] * (len(shape) - 1))) / torch.tensor(std).view(
        -1, *[1] * (len(shape) - 1))
    torch.testing.assert_close(model(x), model.network(whitened))
    with pytest.raises(InputError, match=r"normalises inputs \(N, 3"):
        model(x[:, :2])


def test_options_have_effect():
    sizes = [m.in_features for m in build_model("mlp", (1, 8, 8), 2, hidden=(5, 6)).modules()
             if isinstance(m, torch.nn.Linear)]
    assert sizes == [64, 5, 6]
    assert any(isinstance(m, torch.nn.ELU) for m in build_model("cnn3", (1, 28, 28), 2, activation="elu").modules())
    assert build_model("cnn", (1, 8, 8), 2, width=5)[0].out_channels == 5
    assert model_options("mlp") == {"hidden": (256,), "activation": "relu", "mean": None, "std": None}


@pytest.mark.parametrize(("name", "shape", "k", "options", "message"), [
    ("mlp", (1, 8, 8), 10, {"hiden": (3,)}, r"mlp has no option 'hiden' \(did you mean \"hidden\"\?\).*activation"),
    ("linear", (1, 8, 8), 10, {"width": 3}, "linear has no option 'width'; its options: mean, std"),
    ("mlp", (1, 8, 8), 10, {"hidden": (0,)}, r"hidden\[0\] must be at least 1, got 0"),
    ("mlp", (1, 8, 8), 10, {"hidden": 256}, "hidden must be a sequence"),
    ("mlp", (1, 8, 8), 10, {"hidden": "256"}, "hidden must be a sequence"),
    ("mlp", (1, 8, 8), 10, {"activation": "rleu"}, 'did you mean "relu"'),
    ("cnn", (1, 8, 8), 10, {"width": 0}, "width must be at least 1"),
    ("cnn", (1, 8, 8), 1, {}, "num_classes must be at least 2"),
    ("cnn", (8, 8), 10, {}, r"cnn takes images \(C, H, W\), got inputs of shape \(8, 8\): use mlp"),
    ("resnet20", (30,), 10, {}, r"ResNet takes images \(C, H, W\)"),
    ("conv1d", (1, 8, 8), 10, {}, r"conv1d takes series \(C, T\)"),
    ("conv1d", (1, 8), 10, {"kernel": 4}, "kernel must be an odd number"),
    ("cnn", 8, 10, {}, "input_shape must be the shape of one input"),
    ("mlp", (), 10, {}, "input_shape must be the shape of one input"),
    ("cnn", (1, 0, 8), 10, {}, r"input_shape\[1\] must be at least 1"),
    ("cnn", (1, 8.0, 8), 10, {}, r"input_shape\[1\] must be a whole number"),
    ("cnn", (1, 8, 8), 10, {"std": [1.0]}, "std is given without mean"),
    ("cnn", (3, 8, 8), 10, {"mean": [0.5]}, r"mean has 1 value\(s\), but the inputs have 3"),
    ("cnn", (3, 8, 8), 10, {"mean": [0.5] * 3, "std": [1.0]}, r"mean has 3 channel\(s\) and std has 1"),
    ("cnn", (1, 8, 8), 10, {"mean": [0.5], "std": [0.0]}, "std must be above 0"),
    ("cnn", (1, 8, 8), 10, {"mean": [float("nan")]}, "mean must hold one finite number"),
    ("cnn", (1, 8, 8), 10, {"mean": "grey"}, "mean must hold one number"),
    ("cnn", (1, 8, 8), 10, {"mean": 0.5}, "mean must hold one finite number"),
])
def test_bad_requests_are_refused_in_words(name, shape, k, options, message):
    with pytest.raises(InputError, match=message):
        build_model(name, shape, k, **options)


def test_unknown_names_give_the_closest():
    with pytest.raises(UnknownNameError, match='did you mean "resnet110"'):
        build_model("resnet111", (3, 32, 32), 10)
    with pytest.raises(UnknownNameError, match="lenet"):
        model_options("lent")


@pytest.mark.parametrize("layer", [Normalise([0.1, 0.2, 0.3], [1, 1, 1]), Centre([0.1, 0.2, 0.3])])
@pytest.mark.parametrize("shape", [(2, 1, 4, 4), (3, 4, 4)])
def test_layers_do_not_broadcast_other_channels(layer, shape):
    with pytest.raises(InputError, match=r"\(N, 3, H, W\)"):
        layer(torch.rand(shape))
