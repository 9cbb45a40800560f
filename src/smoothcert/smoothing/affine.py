"""Which part of a network is affine in its images, proved on its traced graph, and the network cut in two there.

A node is called affine only if every step that leads to it is on the short lists below. Numbers never decide this:
a layer that bends far from the probed images would pass any numerical test.
"""

import operator
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from smoothcert.smoothing.tracing import Proxy, Tracer, is_altered

_PIXELWISE_LAYERS = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.BatchNorm2d)
_AFFINE_LAYERS = (*_PIXELWISE_LAYERS, nn.BatchNorm1d, nn.Flatten, nn.Unflatten, nn.Linear, nn.Conv2d, nn.ZeroPad2d,
                  nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_RESHAPES = (torch.flatten, torch.reshape, functional.avg_pool2d, functional.adaptive_avg_pool2d,
             "flatten", "reshape", "view", "contiguous")
_SUMS = (operator.add, torch.add, "add", operator.sub, torch.sub, "sub")
_PRODUCTS = (operator.mul, torch.mul, "mul")
_QUOTIENTS = (operator.truediv, torch.div, "div")


def trace(network: nn.Module, shape: tuple[int, int, int]) -> fx.Graph:
    """The graph of a network on images of one shape (C, H, W); torch may leave constants behind on the network.

    Raises whatever the tracing of a network whose steps depend on its data raises.
    """
    return _Tracer(shape).trace(network)


def affine_nodes(graph: fx.Graph, network: nn.Module) -> dict[fx.Node, bool]:
    """The nodes that are affine in the images, for a network in eval mode.

    The value says whether each pixel of the node depends on the same pixel of the image alone, over all channels.
    """
    layers = dict(network.named_modules())
    found: dict[fx.Node, bool] = {}
    for node in graph.nodes:
        sources = [source for source in node.all_input_nodes if source in found]
        if node.op == "placeholder":
            found[node] = True
        elif sources and _is_affine(node, found, layers):
            arithmetic = node.target in _SUMS + _PRODUCTS + _QUOTIENTS
            pixelwise = arithmetic or type(layers.get(str(node.target))) in _PIXELWISE_LAYERS
            found[node] = pixelwise and all(found[source] for source in sources)
    return found


def is_patchwise(layer: nn.Module) -> bool:
    """Whether a layer is a convolution over patches that tile the image without overlap."""
    return (
        type(layer) is nn.Conv2d and layer.kernel_size == layer.stride and layer.padding in ((0, 0), "valid")
        and layer.dilation == (1, 1) and layer.groups == 1
    )


def part_before(network: nn.Module, graph: fx.Graph, node: fx.Node) -> fx.GraphModule:
    """Images -> the value of a node. Shares the network's layers."""
    needed = _needed([node], stops=())
    part, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for step in graph.nodes:
        if step in needed:
            copies[step] = part.node_copy(step, copies.__getitem__)
    part.output(copies[node])
    return fx.GraphModule(network, part)


def part_after(
    network: nn.Module, graph: fx.Graph, node: fx.Node, affine: dict[fx.Node, bool]
) -> fx.GraphModule | None:
    """The value of an affine node -> logits; None where the rest of the network sees the images by another way too.

    Shares the network's layers. Where the rest asks for the number of images, it gets the number of values.
    """
    output = next(step for step in graph.nodes if step.op == "output")
    batch_sizes = {step for step in graph.nodes if _counts_images(step, affine)}
    needed = _needed([output], stops=(node, *batch_sizes))
    if any(step.op == "placeholder" for step in needed):
        return None
    part = fx.Graph()
    latent = part.placeholder("latent")
    copies = {node: latent, **{step: part.call_method("size", (latent, 0)) for step in batch_sizes & needed}}
    for step in graph.nodes:
        if step in needed and step not in copies:
            copies[step] = part.node_copy(step, copies.__getitem__)
    return fx.GraphModule(network, part)


class _Images(Proxy):
    """The images while a network is traced: of known shape, but for their number."""

    ndim = 4

    def __init__(self, node: fx.Node, tracer: fx.Tracer, sizes: tuple[int, int, int]):
        super().__init__(node, tracer)
        self._sizes = sizes

    def dim(self) -> int:
        return 4

    @property
    def shape(self) -> tuple[Any, ...]:
        return (self.tracer.create_proxy("call_method", "size", (self, 0), {}), *self._sizes)

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]


class _Tracer(Tracer):
    def __init__(self, shape: tuple[int, int, int]):
        super().__init__()
        self._shape = shape

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Images(node, self, self._shape) if node.op == "placeholder" else super().proxy(node)


def _is_affine(node: fx.Node, affine: dict[fx.Node, bool], layers: dict[str, nn.Module]) -> bool:
    """Whether a node is an affine function of nodes that are affine themselves."""
    moving = [isinstance(arg, fx.Node) and arg in affine for arg in node.args]
    if node.op == "call_module":
        return moving == [True] and not node.kwargs and _is_affine_layer(layers[str(node.target)])
    if node.target in _RESHAPES:
        return moving[:1] == [True] and all(map(_is_size, (*node.args[1:], *node.kwargs.values())))
    if node.kwargs or len(node.args) != 2:
        return False
    steady = [_is_constant(arg) for arg in node.args]
    if node.target in _SUMS:
        return all(map(operator.or_, moving, steady))
    if node.target in _PRODUCTS:
        return any(moving) and any(steady)
    return node.target in _QUOTIENTS and moving == [True, False] and steady[1]


def _is_affine_layer(layer: nn.Module) -> bool:
    """By exact type: a subclass may compute anything. BatchNorm without running statistics mixes images."""
    return type(layer) in _AFFINE_LAYERS and not is_altered(layer) and getattr(layer, "running_mean", 0) is not None


def _is_constant(arg: Any) -> bool:
    return isinstance(arg, int | float) or (isinstance(arg, fx.Node) and arg.op == "get_attr")


def _is_size(arg: Any) -> bool:
    """Whether an argument can only say how values are arranged: numbers, and sizes read off a tensor."""
    if isinstance(arg, tuple | list):
        return all(map(_is_size, arg))
    return arg is None or isinstance(arg, int) or (isinstance(arg, fx.Node) and _measured(arg) is not None)


def _measured(node: fx.Node) -> fx.Node | None:
    """The tensor one of whose sizes a node reads, by t.size(i) or t.shape[i]."""
    if node.op == "call_method" and node.target == "size" and len(node.args) == 2:
        return node.all_input_nodes[0]
    if node.target is operator.getitem and isinstance(node.args[0], fx.Node):
        whole = node.args[0]
        if whole.target is getattr and whole.args[1] == "shape":
            return whole.all_input_nodes[0]
    return None


def _counts_images(node: fx.Node, affine: dict[fx.Node, bool]) -> bool:
    return _measured(node) in affine and node.args[1:] == (0,)


def _needed(ends: list[fx.Node], stops: tuple[fx.Node, ...]) -> set[fx.Node]:
    """Nodes that the ends depend on, the ends included; nothing beyond the stops."""
    needed, waiting = set[fx.Node](), list(ends)
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            if node not in stops:
                waiting += node.all_input_nodes
    return needed
