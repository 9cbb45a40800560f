"""Smaller spaces: samples have the law that noisy images have behind the first layers; else there is no space."""

import copy
import math
import operator
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import weight_norm

from smoothcert.models import build_model
from smoothcert.smoothing import spaces
from smoothcert.smoothing.rows import Segment
from smoothcert.smoothing.spaces import Space, factor_of, find_space
from smoothcert.smoothing.voters import LogitVoter

SIGMA = 0.5
COLOUR = (3, 10, 9)


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().eval()


def with_statistics(layer: nn.Module) -> nn.Module:
    """A BatchNorm whose scale and shift differ by channel and are not those it starts with."""
    for tensor in (layer.weight, layer.running_var):
        tensor.data.uniform_(0.5, 2)
    for tensor in (layer.bias, layer.running_mean):
        tensor.data.normal_()
    return layer


def of_rank_two() -> nn.Module:
    layer = nn.Linear(64, 5)
    layer.weight.data = torch.randn(5, 2) @ torch.randn(2, 64)
    return nn.Sequential(nn.Flatten(), layer)


class Vit(nn.Module):
    """A vision transformer small enough to test; it reads the number of images off them and uses it throughout."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 8, (5, 3), (5, 3))
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.answer = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        n, channels, _, _ = images.shape
        if channels != 3:
            raise ValueError("colour images, please")
        patches = self.embed(images).reshape(n, 8, -1).permute(0, 2, 1)
        return self.answer(self.block(torch.cat([self.token.expand(n, -1, -1), patches], dim=1))[:, 0])


class Arithmetic(nn.Module):
    """Normalisation in every spelling, ahead of a narrow layer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.rand(3, 1, 1) + 0.5)
        self.first, self.second = nn.Linear(270, 6), nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        x = 2 * (images - torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)) / self.scale
        x = torch.sub(1.0, torch.mul(x, 0.5)).add(x.div(3))
        hidden = self.first(x.view(images.size(0), -1)).tanh()
        return self.second(hidden).reshape(images.shape[0], 4)


def flat(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Flatten(), *layers)


MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
# name: (maker, shape of images, K, space, shape of samples, dimension, how many of the network's layers u comprises)
FOUND: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int], int, str, tuple[int, ...], int, int | None]] = {
    "linear": (lambda: build_model("linear", (1, 8, 8), 5), (1, 8, 8), 5, "logits", (5,), 4, None),
    "normalised": (lambda: build_model("linear", COLOUR, 4, mean=MEAN, std=STD), COLOUR, 4, "logits", (4,), 3, None),
    "centred": (lambda: build_model("linear", COLOUR, 4, mean=MEAN), COLOUR, 4, "logits", (4,), 3, None),
    "binary": (lambda: build_model("linear", (1, 8, 8), 2), (1, 8, 8), 2, "binary", (2,), 1, None),
    "rank 2": (of_rank_two, (1, 8, 8), 5, "logits", (5,), 4, None),
    "few pixels": (lambda: flat(nn.Linear(3, 7)), (1, 1, 3), 7, "logits", (7,), 3, None),
    "deep but linear": (
        lambda: nn.Sequential(with_statistics(nn.BatchNorm2d(3)), nn.Conv2d(3, 4, 3), nn.AvgPool2d(2), nn.Dropout(),
                              nn.Flatten(), with_statistics(nn.BatchNorm1d(48)), nn.Linear(48, 9), nn.Linear(9, 4)),
        COLOUR, 4, "logits", (4,), 3, None),
    "mlp": (lambda: build_model("mlp", (1, 8, 8), 5, hidden=(20,)), (1, 8, 8), 5, "linear", (20,), 20, 2),
    "normalised mlp": (lambda: build_model("mlp", (1, 8, 8), 5, hidden=(20,), mean=[0.4], std=[0.2]),
                       (1, 8, 8), 5, "linear", (20,), 20, None),
    "bottleneck": (lambda: flat(nn.Linear(64, 30), nn.Linear(30, 9), nn.Linear(9, 50), nn.ReLU(inplace=True),
                                nn.Linear(50, 5)),
                   (1, 8, 8), 5, "linear", (9,), 9, 3),
    "pooled": (lambda: nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 10), nn.Tanh(), nn.Linear(10, 5)),
               (1, 8, 8), 5, "linear", (10,), 10, 3),
    "patches": (lambda: nn.Sequential(with_statistics(nn.BatchNorm2d(3)), nn.Conv2d(3, 8, (5, 3), (5, 3)),
                                      nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(48, 4)),
                COLOUR, 4, "patches", (8, 2, 3), 48, 2),
    "patches and a rest": (lambda: nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4)),
                           COLOUR, 4, "patches", (8, 2, 2), 32, 1),
}


def found(name: str, seed: int = 0) -> tuple[nn.Module, Space]:
    make, shape, classes, *_ = FOUND[name]
    network = seeded(make, seed)
    space = find_space(network, shape, classes)
    assert space is not None
    return network, space


def images_of(shape: tuple[int, ...], n: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


def first_layers(name: str, network: nn.Module) -> Callable[[Tensor], Tensor]:
    """u in float64, computed by the network's own layers; logits come less their mean."""
    layers = FOUND[name][-1]
    network = copy.deepcopy(network).double()
    if name == "normalised mlp":
        return lambda x: network.network[:2](network.normalise(x))
    if layers is not None:
        return lambda x: network[:layers](x).flatten(1)
    return lambda x: network(x) - network(x).mean(dim=1, keepdim=True)


@pytest.mark.parametrize("name", FOUND)
def test_the_smallest_space_is_found(name):
    _, _, _, kind, shape, dimension, _ = FOUND[name]
    _, space = found(name)
    assert (space.name, space.shape, space.dimension) == (kind, shape, dimension)
    assert space.factor.dtype == np.float32
    assert (space.head is None) == (kind in ("logits", "binary"))
    assert space.factor.shape == (shape[0], dimension // math.prod(shape[1:]))
    assert not np.triu(space.factor, 1).any()
    assert (np.diagonal(space.factor) >= 0).all()


@pytest.mark.parametrize("name", FOUND)
def test_samples_have_the_mean_and_covariance_of_noisy_images(name):
    network, space = found(name)
    u, shape = first_layers(name, network), FOUND[name][1]
    image = images_of(shape, 1).double()
    pixels = math.prod(shape)
    jacobian = (u(torch.eye(pixels).double().reshape(pixels, *shape)) - u(torch.zeros(1, *shape).double())).T
    wanted = SIGMA**2 * (jacobian @ jacobian.T).detach().numpy()

    centre = space.centre(image[0].float().numpy())
    assert centre.shape == space.shape
    assert centre.dtype == np.float64
    np.testing.assert_allclose(centre.ravel(), u(image.float().double())[0].detach().numpy(), rtol=1e-10, atol=1e-12)
    deviations = space.place(np.eye(space.dimension, dtype=np.float32), np.zeros(centre.size, np.float32), SIGMA)
    covariance = deviations.T.astype(np.float64) @ deviations.astype(np.float64)
    np.testing.assert_allclose(covariance, wanted, rtol=0, atol=1e-6 * wanted.max())


def test_no_less_noise_is_drawn_than_is_claimed():
    """As float32 the level 0.12 would be 2.2e-8 too small."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 4, bias=False), nn.ReLU(), nn.Linear(4, 10))
    network[1].weight.data = torch.eye(4, 64)
    space = find_space(network, (1, 8, 8), 10)
    for level in (0.12, 0.7, 0.25):
        normals, none = np.eye(4, dtype=np.float32), np.zeros(4, np.float32)
        assert np.diagonal(space.place(normals, none, level)).min() >= level
        assert space.place(normals, none, 0.25)[0, 0] == 0.25


@pytest.mark.parametrize("name", FOUND)
def test_the_head_takes_it_from_there(name):
    network, space = found(name)
    images = images_of(FOUND[name][1], 7)
    expected = network(images).detach()
    samples = torch.from_numpy(np.stack([space.centre(image) for image in images.numpy()])).float()
    if space.head is None:
        logits = samples + expected.mean(dim=1, keepdim=True)
    else:
        assert not any(layer.training for layer in space.head.modules())
        kept = samples.clone()
        logits = space.head(samples)
        assert torch.equal(samples, kept)
        torch.testing.assert_close(space.head(samples[:1]), logits[:1])
    torch.testing.assert_close(logits, expected)


def pixel_votes(network: nn.Module, image: Tensor, n: int, classes: int, seed: int) -> np.ndarray:
    noise = torch.randn(n, *image.shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return torch.bincount(network(image + SIGMA * noise).argmax(dim=1), minlength=classes).numpy()


def space_votes(space: Space, image: Tensor, n: int, classes: int, seed: int) -> np.ndarray:
    if space.head is None:
        voter = LogitVoter(space, SIGMA, seed)
        return voter.count([Segment(voter.subject(image.numpy(), 0), "estimate", 0, n)])[0]
    normals = np.random.default_rng(seed).standard_normal((n, space.dimension), dtype=np.float32)
    rows = torch.from_numpy(space.place(normals, space.centre(image.numpy()).ravel().astype(np.float32), SIGMA))
    with torch.no_grad():
        return torch.bincount(space.head(rows.view(n, *space.shape)).argmax(dim=1), minlength=classes).numpy()


def p_value(first: np.ndarray, second: np.ndarray) -> float:
    """Chi-square test that two vectors of counts have one law; classes with too few votes are pooled."""
    table = np.stack([first, second])
    rare = table.sum(axis=0) < 20
    table = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)])
    return float(stats.chi2_contingency(table[:, table.sum(axis=0) > 0]).pvalue)


def contested(network: nn.Module, image: Tensor) -> nn.Module:
    """The network with its last bias moved so that every class wins some of the votes around an image."""
    last = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
    with torch.no_grad():
        last.bias -= network(image[None])[0]
    return network


LAWS = {
    **{f"linear {seed}": (lambda: build_model("linear", (1, 8, 8), 6), (1, 8, 8), 6, seed) for seed in range(6)},
    "linear 10": (lambda: build_model("linear", (3, 8, 8), 10, mean=MEAN, std=STD), (3, 8, 8), 10, 0),
    "rank 2": (of_rank_two, (1, 8, 8), 5, 1),
    "mlp 784-256-10": (lambda: build_model("mlp", (1, 28, 28), 10), (1, 28, 28), 10, 0),
    "patches": (
        lambda: nn.Sequential(build_model("linear", (3, 16, 16), 2, mean=MEAN, std=STD).normalise,
                              nn.Conv2d(3, 16, 4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)),
        (3, 16, 16), 10, 0),
    "transformer": (Vit, COLOUR, 4, 0),
}


@pytest.mark.parametrize("name", LAWS)
def test_votes_have_the_law_of_votes_on_noisy_images(name):
    """And the test would notice a wrong factor."""
    make, shape, classes, seed = LAWS[name]
    image = images_of(shape, 1, seed)[0]
    network = contested(seeded(make, seed), image)
    space = find_space(network, shape, classes)
    assert space is not None
    votes = pixel_votes(network, image, 20_000, classes, seed)
    assert np.count_nonzero(votes > 100) > 2
    assert p_value(votes, space_votes(space, image, 20_000, classes, seed)) > 1e-4
    uneven = space.factor * np.linspace(0.3, 1.7, len(space.factor), dtype=np.float32)[:, None]
    wrong = replace(space, factor=uneven)
    assert p_value(votes, space_votes(wrong, image, 20_000, classes, seed)) < 1e-4


def test_the_probability_of_a_binary_space_is_its_frequency():
    for seed, bias in ((0, 0.0), (1, 0.3), (2, -0.4)):
        network, space = found("binary", seed)
        image = images_of((1, 8, 8), 1, seed)[0]
        contested(network, image)
        network[1].bias.data[0] += bias
        space = find_space(network, (1, 8, 8), 2)
        first = int(pixel_votes(network, image, 20_000, 2, seed)[0])
        assert stats.binomtest(first, 20_000, space.probabilities(image.numpy(), SIGMA)[0]).pvalue > 1e-3
        assert stats.binomtest(first, 20_000, space.probabilities(image.numpy(), 1.2 * SIGMA)[0] + 0.02).pvalue < 1e-3


def test_both_tails_of_a_binary_space_are_exact():
    network = flat(nn.Linear(1, 2)).eval()
    network[1].weight.data = torch.tensor([[3.0], [-1.0]])
    for gap in (60.0, 20.0, 2.0, 0.0, -3.0, -60.0):
        network[1].bias.data = torch.tensor([gap, 0.0])
        first, second = find_space(network, (1, 1, 1), 2).probabilities(np.zeros((1, 1, 1), np.float32), SIGMA)
        z = gap / (SIGMA * 4)
        assert first == pytest.approx(stats.norm.cdf(z), rel=1e-12, abs=0)
        assert second == pytest.approx(stats.norm.sf(z), rel=1e-12, abs=0)


@pytest.mark.parametrize(("gap", "first"), [(0.5, 1.0), (0.0, 1.0), (-0.5, 0.0)])
def test_without_a_slope_the_larger_bias_wins_or_class_0(gap, first):
    network = seeded(lambda: build_model("linear", (1, 8, 8), 2))
    network[1].weight.data[1] = network[1].weight.data[0]
    network[1].bias.data = torch.tensor([0.25 + gap, 0.25])
    image = images_of((1, 8, 8), 1)[0]
    assert find_space(network, (1, 8, 8), 2).probabilities(image.numpy(), SIGMA) == (first, 1 - first)
    if gap:  # a processor may round the products of two equal rows to different numbers
        assert network(image[None]).argmax() == 1 - first


def test_classes_keep_their_order():
    network = seeded(lambda: build_model("linear", (1, 8, 8), 5))
    image = images_of((1, 8, 8), 1)[0]
    for winner in range(5):
        network[1].bias.data = 50 * torch.nn.functional.one_hot(torch.tensor(winner), 5).float()
        votes = space_votes(find_space(network, (1, 8, 8), 5), image, 50, 5, 0)
        assert votes.tolist() == [50 * (k == winner) for k in range(5)]


@pytest.mark.parametrize(("gap", "loser"), [(0.0, 3), (-1e-4, 3), (1e-4, 1)])
def test_of_two_classes_with_equal_weights_one_gets_no_votes(gap, loser):
    """The one with the smaller bias, or the later one."""
    image = images_of((1, 8, 8), 1)[0]
    network = seeded(lambda: build_model("linear", (1, 8, 8), 4))
    contested(network, image)[1].weight.data[3] = network[1].weight.data[1]
    network[1].bias.data[3] = network[1].bias.data[1] + gap
    votes = space_votes(find_space(network, (1, 8, 8), 4), image, 5000, 4, 0)
    assert votes[loser] == 0
    assert votes[4 - loser] > 100


def scaled_behind(layer: nn.Module, classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 37), layer, with_statistics(nn.BatchNorm1d(classes)))


WITH_EQUALS: dict[str, Callable[[int], tuple[nn.Module, nn.Module]]] = {  # the network, and its last layer with weights
    "deep": lambda k: (net := flat(nn.Linear(64, 37), nn.Linear(37, k)), net[2]),
    "normalised": lambda k: (net := build_model("linear", (1, 8, 8), k, mean=[0.4], std=[0.3]), net.network[1]),
    "scaled": lambda k: (scaled_behind(layer := nn.Linear(37, k), k), layer),
    "convolutional": lambda k: (net := nn.Sequential(nn.Conv2d(1, 6, 3), nn.Conv2d(6, k, 6), nn.Flatten()), net[1]),
    "convolution alone": lambda k: (net := nn.Sequential(nn.Conv2d(1, k, 8), nn.Flatten()), net[0]),
}


@pytest.mark.parametrize("kind", WITH_EQUALS)
def test_equal_classes_tie_to_the_last_bit(kind, monkeypatch):
    """Also on a processor that sums each row of a product in another order."""
    exact = np.einsum
    monkeypatch.setattr(np, "einsum", lambda *args: exact(*args) * (1 + 1e-15 * np.arange(len(args[1]))))
    for classes in range(3, 14):
        with torch.random.fork_rng():
            torch.manual_seed(classes)
            network, layer = WITH_EQUALS[kind](classes)
        if kind == "scaled":
            for values in network[3].state_dict().values():
                values[...] = values.flatten()[0]
        layer.weight.data[-1], layer.bias.data[-1] = layer.weight.data[0], layer.bias.data[0]
        space = find_space(network.eval(), (1, 8, 8), classes)
        assert np.array_equal(space.weight[0], space.weight[-1])
        assert np.array_equal(space.factor[0], space.factor[-1])
        for image in images_of((1, 8, 8), 10).numpy():
            centre = space.centre(image)
            assert centre[0] == centre[-1]
            assert len(set(centre)) == classes - 1


def test_close_calls_of_equal_classes_go_to_the_first():
    """Also on a processor that sums each row of a product in another order, which would favour the later class."""
    network = seeded(lambda: build_model("linear", (1, 8, 8), 5))
    image = images_of((1, 8, 8), 1)[0]
    contested(network, image)
    network[1].weight.data[3], network[1].bias.data[3] = network[1].weight.data[1], network[1].bias.data[1]
    voter = LogitVoter(find_space(network, (1, 8, 8), 5), SIGMA, 0)
    voter._factor *= 1 + 1e-15 * np.arange(5)[:, None]
    votes = voter.count([Segment(voter.subject(image.numpy(), 0), "estimate", 0, 2000)])[0]
    assert votes[3] == 0
    assert votes[1] > 100


@pytest.mark.parametrize("equal", [(1, 3), (0, 1), (2, 5), (5, 6)])
def test_rounding_turns_no_samples(equal):
    """The factor is one function of W where W's rank is low too: last bits of W move it by as little."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((7, 784))
    weight[equal[1]] = weight[equal[0]]
    weight -= weight.mean(axis=0)
    factor = factor_of(weight, 6)
    scale = np.abs(factor).max()
    assert np.abs(factor.astype(float) @ factor.T - weight @ weight.T).max() < 1e-6 * scale**2
    assert not np.triu(factor, 1).any()
    assert (np.diagonal(factor) >= 0).all()
    assert np.array_equal(factor[equal[0]], factor[equal[1]])
    for _ in range(5):
        shaken = weight * (1 + 1e-15 * rng.standard_normal(weight.shape))
        assert np.abs(factor_of(shaken, 6) - factor).max() < 1e-6 * scale


def test_where_all_classes_are_equal_the_first_gets_every_vote():
    network = seeded(lambda: build_model("linear", (1, 8, 8), 7, mean=[0.4], std=[0.3]))
    layer = network.network[1]
    layer.weight.data[1:] = layer.weight.data[0]
    layer.bias.data[:] = 0.1
    image = images_of((1, 8, 8), 1)[0]
    assert space_votes(find_space(network, (1, 8, 8), 7), image, 500, 7, 0)[0] == 500


def test_arrays_and_tensors_are_placed_alike_for_all_centres():
    for name in ("linear", "mlp", "patches"):
        _, space = found(name)
        normals = np.random.default_rng(0).standard_normal((6, space.dimension), dtype=np.float32)
        centres = np.random.default_rng(1).standard_normal((6, math.prod(space.shape)), dtype=np.float32)
        rows = space.place(normals, centres, SIGMA)
        tensors = space.place(torch.from_numpy(normals), torch.from_numpy(centres), SIGMA)
        assert rows.dtype == np.float32
        assert tensors.dtype == torch.float32
        np.testing.assert_allclose(tensors.numpy(), rows, rtol=0, atol=1e-5)
        for k in range(6):
            np.testing.assert_allclose(space.place(normals[k : k + 1], centres[k], SIGMA)[0], rows[k], atol=1e-5)


class Calls(nn.Module):
    """A network whose forward pass is the given function of itself and the images."""

    def __init__(self, run: Callable[["Calls", Tensor], Tensor], **layers: nn.Module):
        super().__init__()
        self.run = run
        for name, layer in {"first": nn.Linear(64, 9), "second": nn.Linear(9, 5), **layers}.items():
            setattr(self, name, layer)

    def forward(self, images: Tensor) -> Tensor:
        return self.run(self, images)


class Clamped(nn.Linear):
    """Affine on every image anyone would probe it with."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).clamp(-1e6, 1e6)


def hooked() -> nn.Module:
    network = flat(nn.Linear(64, 5))
    network.register_forward_hook(lambda *call: call[2].clamp(-1e6, 1e6))
    return network


def altered(change: Callable[[nn.Module], object], *before: nn.Module) -> nn.Module:
    """A linear network, changed on the instance so that it bends far from every image anyone would probe it with."""
    network = nn.Sequential(*before, *flat(nn.Linear(64, 5)))
    change(network)
    return network


def with_own_forward(part: nn.Module) -> None:
    forward = part.forward
    part.forward = lambda images: forward(images).clamp(-1e6, 1e6)


def with_own_convolution(part: nn.Conv2d) -> None:
    """As published code does that pads otherwise: the step within `forward` is replaced, not `forward`."""
    convolve = part._conv_forward
    part._conv_forward = lambda *args: convolve(*args).clamp(-1e6, 1e6)


def under_autocast(module: nn.Module, images: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        value = module.first(images.flatten(1))
    return module.second(value.float())


def with_weights_swapped(module: nn.Module, images: Tensor) -> Tensor:
    """As binary networks do: other weights for one call, put back behind it."""
    kept = [weight.data for weight in module.first.parameters()]
    for weight in module.first.parameters():
        weight.data = weight.data.sign()
    value = module.first(images.flatten(1))
    for weight, data in zip(module.first.parameters(), kept, strict=True):
        weight.data = data
    return module.second(value)


def with_weights_written(module: nn.Module, images: Tensor) -> Tensor:
    kept = nn.utils.parameters_to_vector(module.first.parameters())
    with torch.no_grad():
        for weight in module.first.parameters():
            weight.sign_()
        value = module.first(images.flatten(1))
    nn.utils.vector_to_parameters(kept, module.first.parameters())
    return module.second(value)


def with_weights_given(module: nn.Module, images: Tensor) -> Tensor:
    weights = {name: value.detach().sign() for name, value in module.first.named_parameters()}
    return module.second(functional_call(module.first, weights, (images.flatten(1),)))


class Bent(Tensor):
    """A weight whose products are clamped."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        given = super().__torch_function__(func, types, args, kwargs or {})
        return given.clamp(-1e6, 1e6) if func is nn.functional.linear else given


class Called(nn.Sequential):
    def __call__(self, images: Tensor) -> Tensor:
        return super().__call__(images).clamp(-1e6, 1e6)


def aliased(change: Callable[[Tensor], object]) -> Callable[[], nn.Module]:
    """The first layer's value, changed under another name."""
    def run(module: nn.Module, images: Tensor) -> Tensor:
        value = module.first(images.flatten(1))
        change(value)
        return module.second(value)

    return lambda: Calls(run)


def added(value: Tensor) -> None:
    value += 1


NO_SPACE: dict[str, Callable[[], nn.Module]] = {
    "wide first layer": lambda: flat(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5)),
    "overlapping patches": lambda: nn.Sequential(nn.Conv2d(1, 2, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(18, 5)),
    "padded patches": lambda: nn.Sequential(nn.Conv2d(1, 2, 4, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 5)),
    "gaps between patches": lambda: nn.Sequential(nn.Conv2d(1, 2, 3, 4), nn.ReLU(), nn.Flatten(), nn.Linear(8, 5)),
    "wide patches": lambda: nn.Sequential(nn.Conv2d(1, 16, 4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)),
    "patches that differ": lambda: Calls(
        lambda m, x: m.second(m.conv(x * torch.arange(8.0)).relu().flatten(1)),
        conv=nn.Conv2d(1, 2, 4, 4), second=nn.Linear(8, 5)),
    "shuffled before patches": lambda: Calls(
        lambda m, x: m.second(m.conv(x.reshape(-1, 1, 16, 4)).relu().flatten(1)),
        conv=nn.Conv2d(1, 2, 4, 4), second=nn.Linear(8, 5)),
    "blurred before patches": lambda: nn.Sequential(
        nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), nn.Conv2d(1, 2, 4, 4), nn.ReLU(), nn.Flatten(),
        nn.Linear(8, 5)),
    "bent before": lambda: nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)),
    "squared before": lambda: Calls(lambda m, x: m.second(m.first((x * x).flatten(1)).relu())),
    "way around": lambda: Calls(lambda m, x: m.second(m.first(x.flatten(1)).relu()) + x.flatten(1)[:, :5]),
    "bent far away": lambda: flat(Clamped(64, 5)),
    "hook": hooked,
    "in place": lambda: Calls(lambda m, x: m.second(m.first(x.flatten(1)).relu_())),
    "in place operator": lambda: Calls(lambda m, x: m.second(m.first(x.mul_(2).flatten(1)))),
    "in place way around": lambda: Calls(
        lambda m, x: m.second(m.act(h := m.first(x.flatten(1))) + h), act=nn.ReLU(inplace=True)),
    "forward of a layer": lambda: altered(lambda network: with_own_forward(network[1])),
    "forward of the network": lambda: altered(with_own_forward),
    "hook of a layer": lambda: altered(lambda network: network[1].register_forward_hook(lambda *call: call[2].relu())),
    "call": lambda: Called(nn.Flatten(), nn.Linear(64, 5)),
    "weight of another kind": lambda: altered(lambda network: setattr(
        network[1], "weight", nn.Parameter(network[1].weight.detach().as_subclass(Bent)))),
    "parametrization": lambda: altered(lambda network: weight_norm(network[1])),
    "added to an alias": aliased(added),
    "added to a view": aliased(lambda value: added(value[:, :2])),
    "added by operator": aliased(lambda value: operator.iadd(value, value)),
    "written out": aliased(lambda value: torch.abs(value, out=value)),
    "data set": aliased(lambda value: setattr(value, "data", value.data.clamp(-1e6, 1e6))),
    "autocast within": lambda: Calls(under_autocast),
    "weights swapped": lambda: Calls(with_weights_swapped),
    "weights written": lambda: Calls(with_weights_written),
    "weights of a functional call": lambda: Calls(with_weights_given),
    "step of a layer": lambda: altered(lambda network: with_own_convolution(network[0]), nn.Conv2d(1, 1, 1)),
    "in place and dropped": lambda: Calls(
        lambda m, x: (h := m.first(x.flatten(1)), m.act(h), m.second(h))[2], act=nn.ReLU(inplace=True)),
    "control flow": lambda: Calls(lambda m, x: m.second(m.first(x.flatten(1)) * (2 if x.sum() > 0 else 1))),
    "statistics of the batch": lambda: nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten(),
                                                     nn.Linear(64, 5)),
    "batch is mixed": lambda: Calls(lambda m, x: m.second(m.first(x.flatten(1) - x.flatten(1).mean(0)).relu())),
    "noise of its own": lambda: Calls(lambda m, x: m.second(m.first(x.flatten(1)) + torch.randn(9)).relu()),
    "too many logits": lambda: flat(nn.Linear(64, 6)),
    "two answers": lambda: Calls(lambda m, x: (m.second(m.first(x.flatten(1))), x)),
    "divides by the image": lambda: Calls(lambda m, x: m.second(m.first((1 / x).flatten(1)).relu())),
    "floored": lambda: Calls(lambda m, x: m.second(m.first(torch.div(x, 2, rounding_mode="floor").flatten(1)))),
}


SHOWN_BY_NUMBERS = ("noise of its own",)


@pytest.mark.parametrize("name", NO_SPACE)
def test_there_is_no_space_where_the_law_would_be_another(name):
    assert find_space(seeded(NO_SPACE[name]), (1, 8, 8), 5) is None


@pytest.mark.parametrize("name", [name for name in NO_SPACE if name not in SHOWN_BY_NUMBERS])
def test_the_graph_alone_says_so(name, monkeypatch):
    """But for what no graph can show, no comparison of numbers is needed to refuse."""
    monkeypatch.setattr(spaces, "_agrees", lambda *parts: True)
    assert find_space(seeded(NO_SPACE[name]), (1, 8, 8), 5) is None


def test_a_network_that_has_none_of_these_faults_has_a_space():
    network = seeded(lambda: Calls(lambda m, x: m.second(m.first(x.flatten(1)).relu())))
    assert find_space(network, (1, 8, 8), 5).name == "linear"


def test_a_change_in_place_that_nothing_else_sees_is_a_sum():
    def run(module: nn.Module, images: Tensor) -> Tensor:
        images -= 0.5
        value = module.first(images.flatten(1))
        value += 1
        hidden = module.act(value)
        hidden *= 2
        return module.second(hidden)

    network = seeded(lambda: Calls(run, act=nn.ReLU(inplace=True)))
    space, image = find_space(network, (1, 8, 8), 5), images_of((1, 8, 8), 1)
    assert space.name == "linear"
    sample = torch.from_numpy(space.centre(image[0].numpy())).float()[None]
    torch.testing.assert_close(space.head(sample), network(image.clone()))


@pytest.mark.parametrize("register", [nn.modules.module.register_module_forward_hook,
                                      nn.modules.module.register_module_forward_pre_hook])
def test_there_is_no_space_under_global_hooks(register):
    handle = register(lambda *call: None)
    try:
        assert find_space(flat(nn.Linear(64, 5)), (1, 8, 8), 5) is None
    finally:
        handle.remove()
    assert find_space(flat(nn.Linear(64, 5)), (1, 8, 8), 5) is not None


def test_no_space_where_the_class_of_a_layer_was_changed(monkeypatch):
    forward = nn.Linear.forward
    monkeypatch.setattr(nn.Linear, "forward", lambda self, images: forward(self, images).clamp(-1e6, 1e6))
    assert find_space(flat(nn.Linear(64, 5)), (1, 8, 8), 5) is None


def test_only_modules_have_spaces():
    assert find_space(lambda images: images.flatten(1)[:, :5], (1, 8, 8), 5) is None


def test_a_space_that_costs_too_much_to_make_is_left_alone(monkeypatch):
    for limit in ("_MOST_ENTRIES", "_MOST_WORK"):
        with monkeypatch.context() as patch:
            patch.setattr(spaces, limit, 64)
            assert find_space(seeded(FOUND["linear"][0]), (1, 8, 8), 5) is None
            assert find_space(seeded(FOUND["mlp"][0]), (1, 8, 8), 5) is None


def insides(network: nn.Module) -> list[tuple]:
    return [(set(vars(layer)), layer.training, getattr(layer, "inplace", None)) for layer in network.modules()]


@pytest.mark.parametrize("name", ["bottleneck", "patches", "linear"])
def test_the_model_is_left_as_it_was(name):
    make, shape, classes, *_ = FOUND[name]
    network = seeded(make).train()
    state = copy.deepcopy(network.state_dict())
    inside = insides(network)
    assert find_space(network, shape, classes) is not None
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in state.items())
    assert inside == insides(network)
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_constants_of_a_forward_pass_leave_nothing_on_the_model():
    network = seeded(Arithmetic)
    before = set(vars(network))
    assert find_space(network, COLOUR, 4) is not None
    assert set(vars(network)) == before


def test_arithmetic_and_reshapes_in_any_spelling_are_affine():
    network = seeded(Arithmetic)
    space = find_space(network, COLOUR, 4)
    assert (space.name, space.shape) == ("linear", (6,))
    image = images_of(COLOUR, 1)[0]
    assert p_value(pixel_votes(contested(network, image), image, 5000, 4, 0),
                   space_votes(find_space(network, COLOUR, 4), image, 5000, 4, 0)) > 1e-4


def test_the_head_is_in_eval_mode_and_stays_as_it_was_found():
    def make() -> nn.Module:
        return flat(nn.Linear(64, 9), with_statistics(nn.BatchNorm1d(9)), nn.Dropout(), nn.ReLU(), nn.Linear(9, 5))

    network = seeded(make).train()
    space = find_space(network, (1, 8, 8), 5)
    assert not any(layer.training for layer in space.head.modules())
    image = images_of((1, 8, 8), 1)
    wanted = copy.deepcopy(network).eval()(image)
    network(images_of((1, 8, 8), 10))
    network[-1].weight.data.zero_()
    torch.testing.assert_close(space.head(torch.from_numpy(space.centre(image[0].numpy())).float()[None]), wanted)


def test_spaces_are_found_where_gradients_are_off():
    for off in (torch.no_grad, torch.inference_mode):
        with off():
            _, space = found("mlp")
            assert space.head(torch.zeros(2, 20)).shape == (2, 5)


class NumPyScalar(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(48, 3)

    def forward(self, x):
        return self.head((x - np.float64(0.4)).flatten(1))


def test_a_network_unlike_its_graph_prints_nothing(capfd):
    assert find_space(NumPyScalar().eval(), (3, 4, 4), 3) is None
    assert capfd.readouterr() == ("", "")
