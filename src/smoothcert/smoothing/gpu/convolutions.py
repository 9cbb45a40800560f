"""A convolution with its bias, a sum and ReLU in one call of cuDNN, in place of three passes over its output."""

import copy
import logging
import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from smoothcert.errors import first_line
from smoothcert.smoothing.precision import no_graph
from smoothcert.smoothing.tracing import is_altered, is_relu, rewrites

_SUMS = (operator.add, torch.add)

_log = logging.getLogger("smoothcert")


class FusedConvolution(nn.Module):
    """relu(conv(x)) or relu(conv(x) + z).

    Args:
        layer: the convolution, whose weights it shares.
        plain: compute in torch's separate operations, as the twin that runs anywhere.
    """

    def __init__(self, layer: nn.Conv2d, plain: bool = False) -> None:
        super().__init__()
        self.weight, self.bias, self._plain = layer.weight, layer.bias, plain
        self._how: Any = layer.stride, layer.padding, layer.dilation, layer.groups

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        if self._plain:
            found = functional.conv2d(x, self.weight, self.bias, *self._how)
            return (found if z is None else found.add_(z)).relu_()
        if z is None:
            return torch.cudnn_convolution_relu(x, self.weight, self.bias, *self._how)
        return torch.cudnn_convolution_add_relu(x, self.weight, z, 1.0, self.bias, *self._how)


def fuse_where_it_runs(network: nn.Module, shape: tuple[int, ...], device: torch.device) -> nn.Module:
    """Return a folded network with fused convolutions, or itself where cuDNN does not compute them."""
    fused = fuse(copy.deepcopy(network))
    try:
        with no_graph():
            kind = next((p.dtype for p in network.parameters()), torch.float32)
            rows = torch.zeros(2, *shape, device=device, dtype=kind)
            fused(rows.contiguous(memory_format=torch.channels_last) if rows.ndim == 4 else rows)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # cuDNN lacks a kernel, or a network does not take such rows
        _log.info("convolutions are not fused: %s", first_line(error))
        return network
    return fused


def fuse(network: nn.Module, plain: bool = False) -> nn.Module:
    """Replace in place, in every graph of a folded network, what `FusedConvolution` computes, and return the network.

    Only where nothing else sees what lies between.
    """
    for graph in [part for part in network.modules() if isinstance(part, fx.GraphModule)]:
        layers: dict[str, nn.Module] = dict(graph.named_modules())
        for node in [node for node in graph.graph.nodes if is_relu(node, layers)]:
            _fuse_node(graph, node, layers, plain)
        graph.delete_all_unused_submodules()
        graph.graph.lint()
        graph.recompile()
    return network


def _fuse_node(graph: fx.GraphModule, relu: fx.Node, layers: dict[str, nn.Module], plain: bool) -> None:
    """Fuse the convolution in front of a ReLU, if there is one, with the sum between the two."""
    value: Any = relu.args[0]
    if not isinstance(value, fx.Node) or len(value.users) > 1:
        return
    convolution, inputs = value, ()
    if value.op == "call_function" and value.target in _SUMS and len(value.args) == 2 and not value.kwargs:
        terms = [term for term in value.args if isinstance(term, fx.Node)]
        order = {node: place for place, node in enumerate(graph.graph.nodes)}
        found = [term for term in terms if _is_convolution(term, layers) and len(term.users) == 1]
        if len(terms) != 2 or terms[0] is terms[1] or not found:
            return
        convolution = max(found, key=order.__getitem__)
        inputs = tuple(term for term in terms if term is not convolution)
    if not _is_convolution(convolution, layers) or _is_written(convolution, relu, layers):
        return
    name = f"fused_{relu.name}"
    graph.add_submodule(name, FusedConvolution(layers[str(convolution.target)], plain))  # type: ignore[arg-type]
    with graph.graph.inserting_before(relu):
        relu.replace_all_uses_with(graph.graph.call_module(name, (convolution.args[0], *inputs)))
    for node in dict.fromkeys((relu, value, convolution)):
        graph.graph.erase_node(node)


def _is_written(convolution: fx.Node, relu: fx.Node, layers: dict[str, nn.Module]) -> bool:
    """Tell whether a step between the two changes a tensor in place, which might be what the convolution reads."""
    node = convolution.next
    while node is not relu:
        if rewrites(node) or getattr(layers.get(str(node.target)), "inplace", False):
            return True
        node = node.next
    return False


def _is_convolution(node: fx.Node, layers: dict[str, nn.Module]) -> bool:
    layer = layers.get(str(node.target)) if node.op == "call_module" else None
    return (type(layer) is nn.Conv2d and not is_altered(layer) and layer.padding_mode == "zeros"
            and not isinstance(layer.padding, str) and len(node.args) == 1 and not node.kwargs)
