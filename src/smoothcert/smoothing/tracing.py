"""Tracing of networks by torch.fx that misses nothing: whatever a trace could not show is found before or within it.

A trace follows the code of `forward` on stand-ins. It does not see a `forward` or `__call__` that was put on a module
later, nor the hooks of modules that it does not enter. And it takes `g += h` for `g = g + h`, though another name of
the same tensor sees the change too; here it becomes a step of its own.
"""

import operator
from typing import Any

from torch import Tensor, fx, nn

_CALL, _FORWARDS = nn.Module.__call__, {kind: kind.forward for kind in vars(nn).values()
                                        if isinstance(kind, type) and issubclass(kind, nn.Module)}
_OUT_OF_PLACE: dict[Any, Any] = {
    operator.iadd: operator.add, operator.isub: operator.sub, operator.imul: operator.mul,
    operator.itruediv: operator.truediv, operator.ifloordiv: operator.floordiv, operator.imod: operator.mod,
    operator.ipow: operator.pow, operator.imatmul: operator.matmul, operator.iand: operator.and_,
    operator.ior: operator.or_, operator.ixor: operator.xor, operator.ilshift: operator.lshift,
    operator.irshift: operator.rshift,
}
_PLAIN = (Tensor, nn.Parameter, *filter(None, [getattr(nn, "Buffer", None)]))  # nn.Buffer from torch 2.5 on
_NEW_TENSORS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d,
                nn.SyncBatchNorm)
_SUMS = (operator.add, operator.sub, operator.mul, operator.truediv, operator.matmul)


class Proxy(fx.Proxy):
    """A stand-in that tells `g += h` from `g = g + h`."""


def _in_place(function: Any) -> Any:
    return lambda self, other: self.tracer.create_proxy("call_function", function, (self, other), {})


for _function in _OUT_OF_PLACE:
    setattr(Proxy, f"__{_function.__name__}__", _in_place(_function))


class Tracer(fx.Tracer):
    """Enters no module that is altered, so that it is called as a whole."""

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        self._altered = {id(part) for part in root.modules() if is_altered(part)}  # a trace alters `Module.__call__`
        return super().trace(root, concrete_args)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return id(m) in self._altered or super().is_leaf_module(m, module_qualified_name)


def is_altered(module: nn.Module) -> bool:
    """Tell whether a module may compute something else than the `forward` of its class on its own plain tensors."""
    own, kind = vars(module), type(module)
    called = isinstance(module, fx.GraphModule) or kind.__call__ is _CALL
    replaced = any(name in own for name in ("forward", "__call__", "_call_impl", "_wrapped_call_impl"))
    patched = kind in _FORWARDS and kind.forward is not _FORWARDS[kind]
    tensors = (*module._parameters.values(), *module._buffers.values())
    special = any(tensor is not None and type(tensor) not in _PLAIN for tensor in tensors)
    return bool(not called or replaced or patched or special or module._forward_hooks or module._forward_pre_hooks)


def has_global_hooks() -> bool:
    """Tell whether hooks are registered for the forward passes of all modules."""
    module: Any = nn.modules.module
    return bool(module._global_forward_hooks or module._global_forward_pre_hooks)


def settle_in_place(graph: fx.Graph, network: nn.Module) -> bool:
    """Make `g += h` into `g = g + h` where nothing else can see the change, and tell whether all changes are such.

    Those of layers with `inplace` count as well; they stay as they are.
    """
    layers, settled = dict(network.named_modules()), True
    for node in graph.nodes:
        changes = node.op == "call_module" and getattr(layers[str(node.target)], "inplace", False)
        if not changes and node.target not in _OUT_OF_PLACE:
            settled &= not rewrites(node)
        elif not (isinstance(node.args[0], fx.Node) and is_owned(node.args[0], layers)):
            settled = False
        elif not changes:
            node.target = _OUT_OF_PLACE[node.target]
    return settled


def rewrites(node: fx.Node) -> bool:
    """Tell whether a call changes a tensor in place, so that the graph's arrows do not tell all."""
    if node.op not in ("call_method", "call_function"):
        return False
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__")
    return in_place or node.target in (*_OUT_OF_PLACE, operator.setitem) or name in ("__setitem__", "set_data") or bool(
        node.kwargs.get("inplace")) or node.kwargs.get("out") is not None


def is_owned(node: fx.Node, layers: dict[str, nn.Module]) -> bool:
    """Tell whether one step alone sees the tensor of a node, or any that it may be a view of."""
    if len(node.users) != 1 or node.op == "get_attr":
        return False
    if node.op == "placeholder" or is_new(node, layers):
        return True
    return bool(node.all_input_nodes) and all(is_owned(source, layers) for source in node.all_input_nodes)


def is_new(node: fx.Node, layers: dict[str, nn.Module]) -> bool:
    """Tell whether the tensor of a node is a new one, and no view of another."""
    if node.op == "call_module":
        return type(layers[str(node.target)]) in _NEW_TENSORS and not is_altered(layers[str(node.target)])
    return node.op == "call_function" and node.target in _SUMS
