"""Networks made cheaper to run without changing what they compute: BatchNorm folded, ReLU in place."""

import copy
import operator
from collections import Counter
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_AFFINE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_RELUS = (functional.relu, torch.relu)


def fold(model: nn.Module) -> nn.Module:
    """A copy of a network, in eval mode, with every BatchNorm that follows a convolution or dense layer folded in.

    W' = s W and b' = s (b - mean) + beta per output channel, with s = gamma / sqrt(var + eps), computed in float64.
    The graph is found by torch.fx; parts that it cannot follow (control flow that depends on the data) stay as they
    are, and the parts inside them are folded one by one. ReLUs work in place where nothing else sees their input.

    Raises whatever the model's own `deepcopy` raises. A BatchNorm over another axis than the features of a dense
    layer of the same size ((N, L, F) with L = F) cannot be told from the usual one: the votes must be checked.
    """
    folded = _folded(copy.deepcopy(model).eval())
    return folded.eval()


def _folded(module: nn.Module) -> nn.Module:
    """The module as a folded graph, else itself with the folded graphs of its children in their places."""
    try:
        return _graph(module, ())
    except Exception:  # tracing runs the user's own forward on stand-ins, which may raise anything
        pass
    children = [(name, _folded(child) if _is_worth_entering(child) else child)
                for name, child in module.named_children()]
    for name, child in children:
        setattr(module, name, child)
    try:
        return _graph(module, {id(child) for _, child in children})
    except Exception:
        return module


class _Tracer(fx.Tracer):
    """Enters only modules where there is something to do, so that most of what cannot be traced is never met."""

    def __init__(self, closed: Collection[int]):
        super().__init__()
        self._closed = closed

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = m.__module__.startswith("torch.nn") and not isinstance(m, nn.Sequential)
        return known or id(m) in self._closed or not _is_worth_entering(m)


def _is_worth_entering(module: nn.Module) -> bool:
    return any(type(part) in (*_NORMS, nn.ReLU) for part in module.modules())


def _graph(module: nn.Module, closed: Collection[int]) -> fx.GraphModule:
    graph = fx.GraphModule(module, _Tracer(closed).trace(module))
    _fold_norms(graph)
    _relu_in_place(graph)
    graph.delete_all_unused_submodules()
    graph.graph.lint()
    graph.recompile()
    return graph


def _fold_norms(graph: fx.GraphModule) -> None:
    modules = {node: graph.get_submodule(str(node.target)) for node in graph.graph.nodes if node.op == "call_module"}
    calls = Counter(id(module) for module in modules.values())
    for node, norm in modules.items():
        source: Any = node.args[0] if len(node.args) == 1 else None
        layer = modules.get(source)
        if layer is None or len(source.users) > 1 or calls[id(layer)] > 1 or not _fits(layer, norm):
            continue
        _fold_norm(layer, norm)
        node.replace_all_uses_with(source)
        graph.graph.erase_node(node)


def _fits(layer: Any, norm: Any) -> bool:
    """Whether the types are exactly these (a subclass may compute anything) and nothing hooks into them."""
    if type(layer) not in _AFFINE or type(norm) not in _NORMS or norm.training or norm.running_mean is None:
        return False
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, norm._forward_hooks, norm._forward_pre_hooks)
    return not any(hooks) and bool(layer.weight.shape[0] == norm.num_features)


def _fold_norm(layer: Any, norm: Any) -> None:
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    scale = scale if norm.weight is None else scale * norm.weight.detach().double()
    bias: Tensor = -norm.running_mean.double() if layer.bias is None else layer.bias.double() - norm.running_mean
    bias = scale * bias.detach()
    bias = bias if norm.bias is None else bias + norm.bias.detach().double()
    weight = layer.weight.detach().double() * scale.reshape(-1, *[1] * (layer.weight.ndim - 1))
    layer.weight, layer.bias = (nn.Parameter(value.to(layer.weight.dtype), requires_grad=False)
                                for value in (weight, bias))


def _relu_in_place(graph: fx.GraphModule) -> None:
    for node in graph.graph.nodes:
        module = graph.get_submodule(str(node.target)) if node.op == "call_module" else None
        is_relu = type(module) is nn.ReLU or (node.op == "call_function" and node.target in _RELUS)
        if not is_relu or not _is_fresh(graph, node.args[0]):
            continue
        with graph.graph.inserting_before(node):
            node.replace_all_uses_with(graph.graph.call_function(functional.relu, (node.args[0],), {"inplace": True}))
        graph.graph.erase_node(node)


def _is_fresh(graph: fx.GraphModule, value: Any) -> bool:
    """Whether a value is a new tensor, no view of another one, that only one step uses."""
    if not isinstance(value, fx.Node) or len(value.users) > 1:
        return False
    if value.op == "call_module":
        return type(graph.get_submodule(str(value.target))) in (*_AFFINE, *_NORMS)
    return value.op == "call_function" and value.target is operator.add
