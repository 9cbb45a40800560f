"""Fused convolutions: the plain twin computes what the folded network does, and cuDNN gets what the twin gets."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from smoothcert.models import build_model
from smoothcert.smoothing.engines import torch_engines
from smoothcert.smoothing.folding import fold
from smoothcert.smoothing.gpu import shortcuts
from smoothcert.smoothing.gpu.convolutions import FusedConvolution, fuse, fuse_where_it_runs

CPU = torch.device("cpu")


def count(network, kind):
    return sum(isinstance(part, kind) for part in network.modules())


@pytest.mark.parametrize(("name", "shape", "fused", "left"), [
    ("resnet20", (3, 16, 16), 19, 2), ("cnn", (1, 28, 28), 4, 0), ("lenet", (1, 28, 28), 2, 0)])
def test_known_networks_are_fused_and_compute_the_same(name, shape, fused, left):
    torch.manual_seed(0)
    network = fold(build_model(name, shape, 10).eval())
    found, rows = fuse(copy.deepcopy(network), plain=True), torch.randn(4, *shape)
    assert (count(found, FusedConvolution), count(found, nn.Conv2d)) == (fused, left)
    assert not any(node.target is functional.relu and "conv" in str(node.args[0]) for node in found.graph.nodes)
    assert torch.equal(found(rows), network(rows))


def cudnn(monkeypatch):
    """cuDNN's two operations as torch computes them on a CPU."""
    seen = []

    def relu(x, weight, bias, stride, padding, dilation, groups):
        seen.append("relu")
        return functional.conv2d(x, weight, bias, stride, padding, dilation, groups).relu()

    def add_relu(x, weight, z, alpha, bias, stride, padding, dilation, groups):
        seen.append("add_relu")
        return (functional.conv2d(x, weight, bias, stride, padding, dilation, groups) + alpha * z).relu()

    monkeypatch.setattr(torch, "cudnn_convolution_relu", relu)
    monkeypatch.setattr(torch, "cudnn_convolution_add_relu", add_relu)
    return seen


def test_cudnn_is_given_the_layers_weights_and_shape(monkeypatch):
    seen = cudnn(monkeypatch)
    network = fold(build_model("resnet20", (3, 16, 16), 10).eval())
    found, rows = fuse_where_it_runs(network, (3, 16, 16), CPU), torch.randn(3, 3, 16, 16)
    seen.clear()
    torch.testing.assert_close(found(rows), network(rows))
    assert (seen.count("relu"), seen.count("add_relu")) == (10, 9)
    grouped = fold(nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1, 1, 2, bias=False), nn.ReLU()).eval())
    rows = torch.randn(2, 4, 9, 9)
    torch.testing.assert_close(fuse(copy.deepcopy(grouped))(rows), grouped(rows))


def test_where_cudnn_refuses_the_network_stays(monkeypatch):
    network = fold(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()).eval())
    assert fuse_where_it_runs(network, (1, 8, 8), CPU) is network, "torch on a CPU has no cuDNN"

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "cudnn_convolution_relu", full)
    with pytest.raises(torch.OutOfMemoryError):
        fuse_where_it_runs(network, (1, 8, 8), CPU)


class Net(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.conv, self.other, self._forward = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 1), forward

    def forward(self, x):
        return self._forward(self, x + 0)


def in_place_between(net, x):
    first = net.conv(x)
    second = functional.relu_(x)
    return functional.relu(first + net.other(second))


@pytest.mark.parametrize(("forward", "fused"), [
    (lambda net, x: functional.relu(net.conv(x) + net.other(x)), 1),
    (lambda net, x: functional.relu(x + net.conv(x)), 1),
    (lambda net, x: functional.relu(net.conv(x)) + x, 1),
    (lambda net, x: functional.relu(torch.add(net.conv(x), x, alpha=2)), 0),
    (lambda net, x: functional.relu(y := net.conv(x)) + y, 0),
    (lambda net, x: functional.relu((y := net.conv(x)) + y), 0),
    (lambda net, x: functional.relu(net.conv(x) + 1), 0),
    (lambda net, x: functional.leaky_relu(net.conv(x)), 0),
    (in_place_between, 1)], ids=range(9))
def test_only_what_is_the_same_is_fused(forward, fused):
    """The one with a change in place between fuses the convolution behind it."""
    torch.manual_seed(0)
    network = Net(forward).eval()
    graph = torch.fx.symbolic_trace(copy.deepcopy(network))
    found, rows = fuse(graph, plain=True), torch.randn(2, 2, 5, 5)
    assert count(found, FusedConvolution) == fused
    assert torch.equal(found(rows), network(rows))


def test_convolutions_that_are_no_plain_ones_stay():
    for layer in (nn.Conv2d(1, 2, 3, padding="same"), nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular")):
        network = fold(nn.Sequential(layer, nn.ReLU()).eval())
        assert count(fuse(network), FusedConvolution) == 0


def test_the_eager_engine_fuses_on_a_gpu_alone(monkeypatch):
    """With a stand-in device, and unless it is left out by name."""
    asked = []
    monkeypatch.setattr(torch_engines, "fuse_where_it_runs", lambda network, shape, device: asked.append(1) or network)
    monkeypatch.setattr(torch_engines, "_prepare", lambda model, precision: model)
    for device, taken in (("cpu", True), ("cuda", False), ("cuda", True)):
        with shortcuts(fused_convolutions=taken):
            torch_engines.eager(nn.Conv2d(1, 1, 1), (1, 4, 4), 8, torch.device(device), "float32")
    assert asked == [1]
