"""Networks traced by torch.fx: nothing is missed, what is affine in the images is proved, and a network is cut in two.

A trace follows the code of `forward` on stand-ins. It does not see a `forward` or another method that was put on a
module later, nor the hooks of modules that it does not enter: such modules are found before. And it takes `g += h` for
`g = g + h`, though another name of the same tensor sees the change too; here it becomes a step of its own. What would
leave no step at all is an error: `g.data = h`, autocast within `forward`, weights that are replaced for one call.

A node is called affine only if every step that leads to it is on the short lists below. Numbers never decide this:
a layer that bends far from the probed images would pass any numerical test.
"""

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

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
_OPERATORS = (operator.add, operator.sub, operator.mul, operator.truediv, operator.matmul)
_PIXELWISE_LAYERS = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.BatchNorm2d)
_AFFINE_LAYERS = (*_PIXELWISE_LAYERS, nn.BatchNorm1d, nn.Flatten, nn.Unflatten, nn.Linear, nn.Conv2d, nn.ZeroPad2d,
                  nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_RESHAPES = (torch.flatten, torch.reshape, functional.avg_pool2d, functional.adaptive_avg_pool2d,
             "flatten", "reshape", "view", "contiguous")
_SUMS = (operator.add, torch.add, "add", operator.sub, torch.sub, "sub")
_PRODUCTS = (operator.mul, torch.mul, "mul")
_QUOTIENTS = (operator.truediv, torch.div, "div")
_RELUS = (functional.relu, torch.relu)


class Proxy(fx.Proxy):
    """A stand-in that tells `g += h` from `g = g + h`, and refuses `g.data = h`."""

    def __setattr__(self, name: str, value: Any) -> None:
        if hasattr(Tensor, name):
            raise TypeError(f"a trace does not see that {name} of a tensor is set")
        super().__setattr__(name, value)


for _function in _OUT_OF_PLACE:
    setattr(Proxy, f"__{_function.__name__}__", lambda self, other, function=_function: self.tracer.create_proxy(
        "call_function", function, (self, other), {}))


class Tracer(fx.Tracer):
    """A tracer that enters no altered module, so that it is called as a whole.

    Raises TypeError where a step is taken under another autocast than the trace began with, or a module is called with
    other tensors than it held then: the graph would not say so.
    """

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        self._altered = {id(part) for part in root.modules() if is_altered(part)}  # a trace alters `Module.__call__`
        self._held = {id(part): _tensors_of(part) for part in root.modules()}
        self._autocast = _autocast_types()
        return super().trace(root, concrete_args)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        if _autocast_types() != self._autocast:
            raise TypeError("a trace does not see autocast within a forward pass")
        return super().create_node(*args, **kwargs)

    def call_module(self, m: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if any(_tensors_of(part) != self._held.get(id(part)) for part in m.modules()):
            raise TypeError("a trace does not see that a module's weights are replaced within a forward pass")
        return super().call_module(m, *args, **kwargs)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return id(m) in self._altered or super().is_leaf_module(m, module_qualified_name)


def is_altered(module: nn.Module) -> bool:
    """Tell whether a module may compute something else than the `forward` of its class on its own plain tensors."""
    own, kind = vars(module), type(module)
    called = isinstance(module, fx.GraphModule) or kind.__call__ is _CALL
    replaced = "__call__" in own or any(callable(getattr(kind, name, None)) for name in own)  # a method of its own
    patched = kind in _FORWARDS and kind.forward is not _FORWARDS[kind]
    tensors = (*module._parameters.values(), *module._buffers.values(),
               *(value for value in own.values() if isinstance(value, Tensor)))
    special = any(tensor is not None and type(tensor) not in _PLAIN for tensor in tensors)
    return bool(not called or replaced or patched or special or module._forward_hooks or module._forward_pre_hooks)


def _tensors_of(module: nn.Module) -> list[tuple[int, ...]]:
    """Return which tensors a module itself holds, where their values lie, and how often these were written."""
    tensors = [tensor for tensor in (*module._parameters.values(), *module._buffers.values()) if tensor is not None]
    return [(id(tensor), tensor.data_ptr() if type(tensor) in _PLAIN else 0,
             0 if tensor.is_inference() else tensor._version) for tensor in tensors]


def _autocast_types() -> list[torch.dtype | None]:
    """Return the type that autocast computes in on each kind of device, None where it is off."""
    kinds = filter(torch.amp.is_autocast_available, ("cpu", "cuda", "mps", "xpu"))
    return [torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None for kind in kinds]


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
    return node.op == "call_function" and node.target in _OPERATORS


def is_relu(node: fx.Node, layers: dict[str, nn.Module]) -> bool:
    """Tell whether a node is a ReLU, as a layer or as a function."""
    if node.op == "call_module":
        layer = layers[str(node.target)]
        return type(layer) is nn.ReLU and not is_altered(layer)
    return node.op == "call_function" and node.target in _RELUS


def trace(network: nn.Module, shape: tuple[int, ...]) -> fx.Graph:
    """Return the graph of a network on inputs of one shape; torch may leave constants behind on the network.

    Raises whatever the tracing of a network whose steps depend on its data raises.
    """
    return _ImagesTracer(shape).trace(network)


def affine_nodes(graph: fx.Graph, network: nn.Module) -> dict[fx.Node, bool]:
    """Return the nodes that are affine in the images, for a network in eval mode.

    The value says if each pixel of the node depends on the same pixel of the image alone, over all channels.
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
    """Tell whether a layer is a convolution over patches that tile the image without overlap."""
    return (
        type(layer) is nn.Conv2d and layer.kernel_size == layer.stride and layer.padding in ((0, 0), "valid")
        and layer.dilation == (1, 1) and layer.groups == 1
    )


def part_before(network: nn.Module, graph: fx.Graph, node: fx.Node) -> fx.GraphModule:
    """Return the part of a network from the images to the value of a node. It shares the network's layers."""
    needed = _nodes_behind([node], stops=())
    part, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for step in graph.nodes:
        if step in needed:
            copies[step] = part.node_copy(step, copies.__getitem__)
    part.output(copies[node])
    return fx.GraphModule(network, part)


def part_after(
    network: nn.Module, graph: fx.Graph, node: fx.Node, affine: dict[fx.Node, bool]
) -> fx.GraphModule | None:
    """Return the part from an affine node to the logits; None where the rest sees the images by another way too.

    It shares the network's layers. Where the rest asks for the number of images, it gets the number of values.
    """
    output = next(step for step in graph.nodes if step.op == "output")
    batch_sizes = {step for step in graph.nodes if _measures(step) in affine and step.args[1:] == (0,)}
    needed = _nodes_behind([output], stops=(node, *batch_sizes))
    if any(step.op == "placeholder" for step in needed):
        return None
    part = fx.Graph()
    latent = part.placeholder("latent")
    copies = {node: latent, **{step: part.call_method("size", (latent, 0)) for step in batch_sizes & needed}}
    for step in graph.nodes:
        if step in needed and step not in copies:
            copies[step] = part.node_copy(step, copies.__getitem__)
    return fx.GraphModule(network, part)


class _ImagesProxy(Proxy):
    """The images while a network is traced: of known shape, but for their number."""

    def __init__(self, node: fx.Node, tracer: fx.Tracer, sizes: tuple[int, ...]) -> None:
        super().__init__(node, tracer)
        self._sizes = sizes

    @property
    def ndim(self) -> int:
        return 1 + len(self._sizes)

    def dim(self) -> int:
        return self.ndim

    @property
    def shape(self) -> tuple[Any, ...]:
        return (self.tracer.create_proxy("call_method", "size", (self, 0), {}), *self._sizes)

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]


class _ImagesTracer(Tracer):
    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self._shape = shape

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _ImagesProxy(node, self, self._shape) if node.op == "placeholder" else super().proxy(node)


def _is_affine(node: fx.Node, affine: dict[fx.Node, bool], layers: dict[str, nn.Module]) -> bool:
    """Tell whether a node is an affine function of nodes that are affine themselves."""
    moving = [isinstance(arg, fx.Node) and arg in affine for arg in node.args]
    if node.op == "call_module":
        # By exact type: a subclass may compute anything. BatchNorm without running statistics mixes images.
        layer = layers[str(node.target)]
        known = type(layer) in _AFFINE_LAYERS and not is_altered(layer)
        return moving == [True] and not node.kwargs and known and getattr(layer, "running_mean", 0) is not None
    if node.target in _RESHAPES:
        return moving[:1] == [True] and all(map(_is_size, (*node.args[1:], *node.kwargs.values())))
    if node.kwargs or len(node.args) != 2:
        return False
    steady = [isinstance(arg, int | float) or (isinstance(arg, fx.Node) and arg.op == "get_attr") for arg in node.args]
    if node.target in _SUMS:
        return all(map(operator.or_, moving, steady))
    if node.target in _PRODUCTS:
        return any(moving) and any(steady)
    return node.target in _QUOTIENTS and moving == [True, False] and steady[1]


def _is_size(arg: Any) -> bool:
    """Tell whether an argument can only say how values are arranged: numbers, and sizes read off a tensor."""
    if isinstance(arg, tuple | list):
        return all(map(_is_size, arg))
    return arg is None or isinstance(arg, int) or (isinstance(arg, fx.Node) and _measures(arg) is not None)


def _measures(node: fx.Node) -> fx.Node | None:
    """Return the tensor that a node reads a size of, by t.size(i) or t.shape[i]; None where it reads none."""
    if node.op == "call_method" and node.target == "size" and len(node.args) == 2:
        return node.all_input_nodes[0]
    if node.target is operator.getitem and isinstance(node.args[0], fx.Node):
        whole = node.args[0]
        if whole.target is getattr and whole.args[1] == "shape":
            return whole.all_input_nodes[0]
    return None


def _nodes_behind(ends: list[fx.Node], stops: tuple[fx.Node, ...]) -> set[fx.Node]:
    """Return the nodes that the ends depend on, the ends included, and nothing beyond the stops."""
    needed, waiting = set[fx.Node](), list(ends)
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            if node not in stops:
                waiting += node.all_input_nodes
    return needed
