"""Folding: a network made cheaper to run without changing what it computes.

BatchNorm becomes part of the layer before it, and ReLU works in place.
"""

import copy
import warnings
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from smoothcert.smoothing.protocols import put_in_eval_mode
from smoothcert.smoothing.tracing import Tracer, has_global_hooks, is_altered, is_new, is_relu, settle_in_place

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_AFFINE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)

Originals = Mapping[int, nn.Module]
"""The layers whose values a folded layer is computed from, by the id of that layer; itself where it is not there."""


def fold(model: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """Return a copy of a network, in eval mode, with every BatchNorm behind a convolution or dense layer folded in.

    W' = s W and b' = s (b - mean) + beta per output channel, with s = gamma / sqrt(var + eps), computed in float64.
    The graph is found by torch.fx; parts that it cannot follow (control flow that depends on the data) stay as they
    are, and the parts inside them are folded one by one. ReLUs work in place where nothing else sees their input.

    Raises whatever the model's own `deepcopy` raises. A BatchNorm over another axis than the features of a dense
    layer of the same size ((N, L, F) with L = F) cannot be told from the usual one: the votes must be checked.

    Args:
        dtype: the type of the copy's weights and buffers, None for those of the model. What is folded is computed from
            the model's own values, so that it is rounded once.
    """
    copied = put_in_eval_mode(copy.deepcopy(model))
    originals: Originals = {}
    if dtype is not None:
        originals = dict(zip(map(id, copied.modules()), model.modules(), strict=True))
        _cast(copied, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, of the parts of a torch.export program
        folded = _fold_parts(copied, originals)
    return put_in_eval_mode(folded)


def _cast(network: nn.Module, dtype: torch.dtype) -> None:
    """Cast a network in place, except for float64 buffers where the parameters are not float64.

    Such a buffer is a table, like the schedule of a diffusion model: fewer digits would change the steps that are
    looked up in it.
    """
    wide = [(part, name, buffer) for part in network.modules() for name, buffer in part._buffers.items()
            if buffer is not None and buffer.dtype == torch.float64]
    keep = any(parameter.dtype != torch.float64 for parameter in network.parameters())
    network.to(dtype)
    for part, name, buffer in wide if keep else ():
        part._buffers[name] = buffer


def _fold_parts(module: nn.Module, originals: Originals) -> nn.Module:
    """Return the module as a folded graph, or else itself with the folded graphs of its children in their places.

    It stays itself where it is altered, since a graph would lose that, and under global hooks, which would see other
    modules.
    """
    if has_global_hooks() or is_altered(module):
        return module
    try:
        return _graph(module, (), originals)
    except Exception:  # tracing runs the user's own forward on stand-ins, which may raise anything
        pass
    children = [(name, _fold_parts(child, originals) if _is_worth_entering(child) else child)
                for name, child in module.named_children()]
    for name, child in children:
        setattr(module, name, child)
    try:
        return _graph(module, {id(child) for _, child in children}, originals)
    except Exception:
        return module


class _FoldingTracer(Tracer):
    """A tracer that enters only modules with something to fold, so that it meets little that cannot be traced."""

    def __init__(self, closed: Collection[int]) -> None:
        super().__init__()
        self._closed = closed

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = m.__module__.startswith("torch.nn") and not isinstance(m, nn.Sequential)
        return known or id(m) in self._altered or id(m) in self._closed or not _is_worth_entering(m)


def _is_worth_entering(module: nn.Module) -> bool:
    return any(type(part) in (*_NORMS, nn.ReLU) for part in module.modules())


def _graph(module: nn.Module, closed: Collection[int], originals: Originals) -> fx.GraphModule:
    traced = _FoldingTracer(closed).trace(module)
    settle_in_place(traced, module)
    graph = fx.GraphModule(module, traced)
    _fold_norms(graph, originals)
    _relu_in_place(graph)
    graph.delete_all_unused_submodules()
    graph.graph.lint()
    graph.recompile()
    return graph


def _fold_norms(graph: fx.GraphModule, originals: Originals) -> None:
    modules = {node: graph.get_submodule(str(node.target)) for node in graph.graph.nodes if node.op == "call_module"}
    calls = Counter(id(module) for module in modules.values())
    for node, norm in modules.items():
        source: Any = node.args[0] if len(node.args) == 1 else None
        layer: Any = modules.get(source)
        # By exact type, since a subclass may compute anything.
        if type(layer) not in _AFFINE or type(norm) not in _NORMS or is_altered(layer) or is_altered(norm):
            continue
        if len(source.users) > 1 or calls[id(layer)] > 1 or norm.training or norm.running_mean is None:
            continue
        if layer.weight.shape[0] != norm.num_features:
            continue
        _fold_norm(layer, originals.get(id(layer), layer), originals.get(id(norm), norm))
        node.replace_all_uses_with(source)
        graph.graph.erase_node(node)


def _fold_norm(target: Any, layer: Any, norm: Any) -> None:
    """Give the target, a layer of its own type, the weights of a layer with a BatchNorm behind it."""
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    scale = scale if norm.weight is None else scale * norm.weight.detach().double()
    bias: Tensor = -norm.running_mean.double() if layer.bias is None else layer.bias.double() - norm.running_mean
    bias = scale * bias.detach()
    bias = bias if norm.bias is None else bias + norm.bias.detach().double()
    weight = layer.weight.detach().double() * scale.reshape(-1, *[1] * (layer.weight.ndim - 1))
    target.weight, target.bias = (nn.Parameter(value.to(target.weight.dtype), requires_grad=False)
                                  for value in (weight, bias))


def _relu_in_place(graph: fx.GraphModule) -> None:
    layers: dict[str, nn.Module] = dict(graph.named_modules())
    for node in graph.graph.nodes:
        value = node.args[0] if is_relu(node, layers) else None
        # A new tensor, no view of another one, that only this step uses: nothing else sees the change.
        if isinstance(value, fx.Node) and len(value.users) == 1 and is_new(value, layers):
            with graph.graph.inserting_before(node):
                node.replace_all_uses_with(graph.graph.call_function(functional.relu, (value,), {"inplace": True}))
            graph.graph.erase_node(node)
