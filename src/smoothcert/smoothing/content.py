"""Hashes of the content of networks: weights, and the attributes beside them that a forward pass may read.

Equal networks have equal hashes in every process and on every machine. So what belongs to a process and not to a
network is left out: addresses and ids, the clock, paths, open files, locks, the number of a GPU.
"""

import functools
import hashlib
import os
import re
import sys
import time
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from datetime import datetime
from enum import Enum
from numbers import Number
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from smoothcert.parts.code import is_local

_DEPTH = 12  # of objects within objects, below which only types count
_NO_SETTINGS = {*vars(nn.Module()), "training"} - {"_forward_hooks", "_forward_pre_hooks"}
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")
_GPU = re.compile(r"(cuda|xpu|mps|cpu):\d+")
_DATA = (bool, int, float, complex, str, bytes, tuple, list, dict, set, np.ndarray, np.generic, Tensor)
_CLOCKS = (1, 1e3, 1e6, 1e9)  # a second's parts


def tensor_parts(tensor: Tensor) -> Iterator[bytes]:
    """Yield what tells a tensor of any layout from others: its type, its shape, and its values."""
    tensor = tensor.detach()
    yield f"\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode()
    if tensor.is_meta:
        return
    flatten: Any = getattr(tensor, "__tensor_flatten__", None)  # of subclasses that keep their values in other tensors
    if flatten:
        names, context = flatten()
        yield _Reader({}).read((type(tensor).__qualname__, list(names), context))
        for name in names:
            yield from tensor_parts(getattr(tensor, name))
    elif tensor.is_quantized:
        yield from tensor_parts(tensor.int_repr())
        if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
            yield f"{tensor.q_scale()!r} {tensor.q_zero_point()}".encode()
        else:
            yield f"axis {tensor.q_per_channel_axis()}".encode()
            yield from tensor_parts(tensor.q_per_channel_scales())
            yield from tensor_parts(tensor.q_per_channel_zero_points())
    elif tensor.layout is not torch.strided:
        yield from tensor_parts(tensor.to_dense())
    else:
        yield tensor.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def state_parts(state: Iterable[tuple[str, Any]]) -> Iterator[bytes]:
    """Yield the entries of a state dict, which need not be tensors: quantised layers keep their types there, and
    `get_extra_state` may return anything."""
    for name, value in state:
        yield f"\0{name}".encode()
        if isinstance(value, Tensor):
            yield from tensor_parts(value)
        else:
            yield b"\0" + _Reader({}).read(value)


def fingerprint(network: nn.Module) -> str:
    """Return a SHA-256 of a network's printed structure, its weights and buffers, and its attributes.

    What its code does is not in it.
    """
    digest = hashlib.sha256(f"{type(network).__module__}\n{network!r}".encode())
    # The weights of quantised layers are neither parameters nor buffers.
    quantised = any("quantized" in type(part).__module__ for part in network.modules())
    packed = network.state_dict().items() if quantised else ()
    for part in state_parts((*network.named_parameters(), *network.named_buffers(), *packed)):
        digest.update(part)
    digest.update(attributes_hash(attributes_of(network)).encode())
    return digest.hexdigest()


def attributes_hash(attributes: Mapping[str, bytes]) -> str:
    """Return one SHA-256 of what `attributes_of` found."""
    digest = hashlib.sha256()
    for name, content in sorted(attributes.items()):
        digest.update(name.encode() + b"\0" + content)
    return digest.hexdigest()


def attributes_of(network: nn.Module) -> dict[str, bytes]:
    """Return the content of everything beside a network's state dict that its answers may depend on, by its path.

    That is: plain attributes of each of its parts (of a library's class the public ones, of a user's own class all,
    those of the class included), buffers that are not in the state dict, hooks, and the code of traced graphs. Values
    are followed into containers, functions and objects.
    """
    state = {id(tensor): f"tensor {name}" for name, tensor in network.state_dict(keep_vars=True).items()
             if isinstance(tensor, Tensor)}
    reader = _Reader({**state, **{id(part): f"part {name}" for name, part in network.named_modules()}})
    return {f"{path}.{name}": reader.read(value)
            for path, part in network.named_modules() for name, value in _settings(part)}


def keep_equal(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the attributes that a forward pass left alone: what it changes, such as a counter or a cache, is no
    setting."""
    return {name: content for name, content in before.items() if after.get(name) == content}


def _settings(part: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of one part, without those of the parts within it."""
    own = is_local(type(part))
    yield from ((name, value) for name, value in vars(part).items()
                if name not in _NO_SETTINGS and (own or not name.startswith("_")))
    for name in ("_forward_hooks", "_forward_pre_hooks"):
        if hooks := getattr(part, name):
            yield name, list(hooks.values())
    yield from ((name, part._buffers[name]) for name in sorted(part._non_persistent_buffers_set))
    if isinstance(part, fx.GraphModule):
        yield "code", part.code
    for kind in filter(is_local, type(part).__mro__):
        yield from ((f"class {name}", value) for name, value in vars(kind).items()
                    if not name.startswith("__") and not hasattr(value, "__get__"))
        for function in vars(kind).values():
            if isinstance(function, types.FunctionType):
                yield from ((f"global {name}", function.__globals__[name]) for name in function.__code__.co_names
                            if isinstance(function.__globals__.get(name), _DATA))


class _Reader:
    """A reader of values into digests; parts and tensors of the network count by their `names` (id -> name)."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = names
        self._open: dict[int, int] = {}  # what holds the value that is read: id -> depth
        self._done: dict[int, tuple[Any, bytes]] = {}  # with the value, so that its id is not given to another

    def read(self, value: Any) -> bytes:
        if value is None or (isinstance(value, int | float | complex | str | bytes)
                             and not isinstance(value, np.generic | Enum)):
            return _combine(_kind(type(value)), [self._text(value).encode()])
        key = id(value)
        if key in self._names or key in self._open:
            return _combine("known", [str(self._names.get(key, self._open.get(key))).encode()])
        if key not in self._done:
            self._open[key] = len(self._open)
            try:
                content = [] if len(self._open) > _DEPTH else self._content(value)
            except Exception:  # objects may refuse anything; their type counts all the same
                content = [b"cannot be read"]
            finally:
                del self._open[key]
            self._done[key] = value, _combine(_kind(type(value)), content)
        return self._done[key][1]

    def _content(self, value: Any) -> list[bytes]:
        for types_, parts in _CONTENTS:
            if isinstance(value, types_):
                return [self.read(part) for part in parts(value)]
        if isinstance(value, Tensor):
            return list(tensor_parts(value))
        if isinstance(value, nn.Module):
            return [*state_parts(sorted(value.state_dict().items())), *(
                self.read((path, type(part).__qualname__, list(_settings(part))))
                for path, part in value.named_modules())]
        if isinstance(value, Mapping) or (callable(getattr(value, "keys", None)) and hasattr(value, "__getitem__")):
            keys = list(value.keys())
            return [part for pair in sorted((self.read(key), self.read(value[key])) for key in keys) for part in pair]
        if isinstance(value, Set):
            return sorted(map(self.read, value))
        if isinstance(value, Sequence | deque):
            return [self.read(part) for part in value]
        return [self.read(part) for part in _entries(value)]

    def _text(self, value: Any) -> str:
        """Return a number or text as text, without anything in it that names this process."""
        if isinstance(value, str):
            if os.path.isabs(value) and os.path.exists(value):
                return "a path"
            try:
                if _is_recent(datetime.fromisoformat(value).timestamp()):
                    return "a time"
            except (ValueError, OverflowError, OSError):
                pass  # no date
            return _GPU.sub(r"\1", _ADDRESS.sub("0x", value))
        if isinstance(value, int) and value in self._names:
            return "an id"
        if isinstance(value, int | float) and any(_is_recent(value / unit) for unit in _CLOCKS):
            return "a time"
        return repr(value)


def _combine(kind: str, parts: Iterable[bytes]) -> bytes:
    digest = hashlib.sha256(kind.encode())
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()


def _kind(kind: type) -> str:
    """Return the name of a type, without its module where that is a user's, because a file's has no fixed name."""
    return kind.__qualname__ if is_local(kind) else f"{kind.__module__}.{kind.__qualname__}"


def _is_recent(seconds: float) -> bool:
    """Tell whether a number is a clock's, in seconds since 1970: later than this machine was started."""
    now = time.time()
    return now - time.monotonic() <= seconds <= now


def _of_function(value: types.FunctionType) -> list[Any]:
    """Return a function's name and what it closes over; for a user's own also its code, as lambdas share their names.
    """
    found = [value.__qualname__, _cells(value), value.__defaults__, value.__kwdefaults__]
    if not is_local(value):
        return [value.__module__, *found]
    code = value.__code__
    constants = [constant for constant in code.co_consts if not isinstance(constant, types.CodeType)]
    return [*found, code.co_code, code.co_names, constants]


def _cells(function: types.FunctionType) -> list[Any]:
    found: list[Any] = []
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # not assigned yet
            found.append(None)
    return found


def _entries(value: Any) -> list[Any]:
    """Return the attributes of an object: all of a user's own, the public ones of a library's.

    Objects of the standard library have none: they are files, locks and the like.
    """
    kind = type(value)
    if isinstance(value, torch.ScriptObject):
        return [value.__getstate__()]
    root = kind.__module__.partition(".")[0]
    if (root in sys.stdlib_module_names and root not in ("types", "argparse")) or kind.__module__.startswith("torch._"):
        return []
    slots = [name for base in kind.__mro__ for name in vars(base).get("__slots__", ()) if hasattr(value, name)]
    found = {**{name: getattr(value, name) for name in slots}, **getattr(value, "__dict__", {})}
    own = is_local(kind)
    return [part for name in sorted(found) if own or not name.startswith("_") for part in (name, found[name])]


_CONTENTS: tuple[tuple[Any, Callable[[Any], list[Any]]], ...] = (
    (np.ndarray, lambda value: [value.tolist()] if value.dtype.hasobject else [
        str(value.dtype), value.shape, value.tobytes()]),
    (np.generic, lambda value: [str(value.dtype), value.tobytes()]),
    (Enum, lambda value: [value.name]),
    (torch.device, lambda value: [value.type]),
    (datetime | PurePath, lambda value: []),
    (types.FunctionType, _of_function),
    (types.MethodType, lambda value: [value.__func__, value.__self__]),
    (functools.partial, lambda value: [value.func, value.args, value.keywords]),
    (type, lambda value: [_kind(value)]),
    (types.BuiltinFunctionType | np.ufunc, lambda value: [str(getattr(value, "__module__", "")), value.__name__]),
    (re.Pattern, lambda value: [value.pattern, value.flags]),
    (Number | slice | torch.dtype | np.dtype, lambda value: [repr(value)]),
)
"""The parts that are read of values of a type, in place of all that they hold."""
