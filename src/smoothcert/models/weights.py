"""Networks whose weights come from a file: by name, from a user's factory, or from the code of timm or torchvision."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from smoothcert.checks import suggestion
from smoothcert.errors import FileError, InputError, MissingExtraError, ModelError, SmoothcertError
from smoothcert.models.checkpoints import Checkpoint, read_checkpoint
from smoothcert.models.factory import load_factory
from smoothcert.models.layers import Shape, channel_constants, normalise_input
from smoothcert.models.loaded import LoadedModel, is_factory
from smoothcert.models.matching import RENAMED_NETWORKS, Match, find_match, last_layer
from smoothcert.models.registry import MODELS, build_model, model_names

PUBLISHED = {
    "CIFAR-10": "--mean 0.4914,0.4822,0.4465 --std 0.2023,0.1994,0.2010",
    "ImageNet": "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
}
"""The normalisation of the published models of Cohen et al. 2019 and of the work that followed."""

_ENTRIES_SHOWN = 20
_GUESS = 10  # classes, until the file says how many
_FORMS = "a name (resnet110), file.py:factory, package.module:factory, timm:NAME or torchvision:NAME"


@dataclass(frozen=True, eq=False)
class _Architecture:
    """A network as a user names it, which can be built for any number of classes.

    Attributes:
        build: K -> the network, with weights of no use. sketch: the same, without memory where that is possible.
        code: the factory or hub name whose code builds it; None for smoothcert's own.
        content: bytes that identify that code.
    """

    name: str
    build: Callable[[int | None], nn.Module]
    sketch: Callable[[int | None], nn.Module]
    code: str | None = None
    content: Callable[[], bytes | None] = lambda: None


def load_weights(
    spec: str, network: str | None, num_classes: int | None, input_shape: Shape | None,
    options: Mapping[str, Any] | None = None, part: str | None = None, mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> LoadedModel:
    """Return the network that `network` names with the weights in the file `spec`, in eval mode.

    The number of classes is that of the file. A normalisation in the file, or the given one, stands in front of it.
    Initial weights are drawn, and torch's, NumPy's and Python's generators are as before afterwards.

    Args:
        part: the entry of the file to take, where several fit.
    Raises:
        FileError, ModelError: the file is not one of weights, or of another network; the first differences are named.
        InputError: no network or no normalisation is named, or another one than in the file.
    """
    network = check_network(spec, network)
    checkpoint = read_checkpoint(Path(spec).expanduser())
    architecture = _architecture(network, input_shape, options or {})
    with keep_generators():
        blank, match, classes = _fit(checkpoint, architecture, num_classes, part)
        if not match.complete or match.unexpected:
            raise ModelError(_explain(checkpoint, architecture, match, input_shape))
        shape = input_shape or (len(match.mean or mean or (0,)), 1, 1)
        mean, std = _normalisation(checkpoint, match, mean, std, shape)
        if architecture.code is None:
            whole = build_model(network, input_shape or (), classes or _GUESS, mean=mean, std=std, **(options or {}))
            inner = whole.network if mean is not None else whole
        else:
            inner = blank
            whole = normalise_input(inner, mean, std, shape, network)
    try:
        inner.load_state_dict(match.found, strict=False)  # type: ignore[union-attr]
    except RuntimeError as error:
        raise ModelError(f"the weights {checkpoint.path} cannot be copied into {network}: {error}") from None
    front = "" if mean is None else f", mean {_numbers(mean)}{f' and std {_numbers(std)}' if std else ''} in front"
    return LoadedModel(whole.eval(), spec, "weights", architecture.content(), code=architecture.code,
                       note=f"{network} with the weights of {checkpoint.path.name}: {match.describe()}{front}")


def check_network(spec: str, network: str | None, option: str = "--network") -> str:
    """Return the network that a file of weights is said to be of by an option.

    Raises:
        InputError: none is named; the message guesses at it. FileError, ModelError: there is no such file, or none of
        weights.
    """
    path = Path(spec).expanduser()
    if network is None:
        raise InputError(f"{spec} holds weights alone: name the network that they are of with {option}, "
                         f"{_FORMS}{_guess_network(read_checkpoint(path), None)}")
    if not path.is_file():
        raise FileError(f"there is no file of weights {path}")
    return network


@contextmanager
def keep_generators() -> Iterator[None]:
    """Put the global generators of torch, NumPy and Python back as they were, whatever is drawn meanwhile."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)


def _architecture(name: str, shape: Shape | None, options: Mapping[str, Any]) -> _Architecture:
    """Return what a name or a factory says. Raises InputError for another one, or for options that it does not have."""
    prefix, _, hub_name = name.partition(":")
    if name in MODELS:
        if shape is None:
            raise InputError(f"input_shape: {name} is built for inputs of one shape: give it, (C, H, W) of images")
        if fixed := {"mean", "std"} & set(options):
            raise InputError(f"model_option: give {' and '.join(sorted(fixed))} by the options of those names")
        build = lambda k: build_model(name, shape, k or _GUESS, **options)  # noqa: E731
        return _Architecture(name, build, partial(_on_meta, build))
    if prefix in _LIBRARIES and hub_name:
        build = partial(_from_library, name, prefix, hub_name, options)
        return _Architecture(name, build, build, name, name.encode)
    if not is_factory(name):
        raise InputError(f"network: {name!r} does not name a network{suggestion(name, model_names())}; it can be "
                         f"{_FORMS}; named networks: {', '.join(model_names())}")
    if options:
        raise InputError(f"model_option is for named networks and those of timm and torchvision; {name} takes none")
    made: list[LoadedModel] = []

    def from_factory(k: int | None) -> nn.Module:
        target, _, attribute = name.rpartition(":")
        made[:] = [load_factory(name, target, attribute, k, shape)]
        if not isinstance(made[0].model, nn.Module):
            raise ModelError(f"weights go into a torch network; {name} gave a {type(made[0].model).__name__}")
        return made[0].model

    return _Architecture(name, from_factory, from_factory, name, lambda: made[0].content)


def _on_meta(build: Callable[[int | None], nn.Module], k: int | None) -> nn.Module:
    with torch.device("meta"):
        return build(k)


_LIBRARIES: dict[str, Callable[..., Any]] = {
    "timm": lambda library, name, k, **options: library.create_model(name, pretrained=False, **options, **k),
    "torchvision": lambda library, name, k, **options: library.models.get_model(name, weights=None, **options, **k),
}


def _from_library(spec: str, library: str, name: str, options: Mapping[str, Any], k: int | None) -> nn.Module:
    try:
        module = import_module(library)
    except ImportError as error:
        raise MissingExtraError(library, "vision", f"building {spec}") from error
    try:
        return _LIBRARIES[library](module, name, {} if k is None else {"num_classes": k}, **options).eval()
    except Exception as error:  # the libraries pass on what the network raises
        raise ModelError(f"{spec} cannot be built: {type(error).__name__}: {error}") from error


def _fit(
    checkpoint: Checkpoint, architecture: _Architecture, num_classes: int | None, part: str | None
) -> tuple[nn.Module, Match, int | None]:
    """Return a network, the part of the file that comes nearest to it, and K: that of the file where only the last
    layer has another one there."""
    renamed = architecture.name in RENAMED_NETWORKS
    network = architecture.sketch(num_classes)
    match = find_match(checkpoint, network, renamed, part)
    head = last_layer(network)
    rows = {there[0][:1] for name, (there, _) in match.misshapen.items() if name.rpartition(".")[0] == head}
    others = [name for name in match.misshapen if name.rpartition(".")[0] != head]
    classes = next(iter(rows))[0] if len(rows) == 1 and rows != {()} else 0
    if others or classes < 2:
        return network, match, num_classes
    network = architecture.sketch(classes)
    return network, find_match(checkpoint, network, renamed, part), classes


def _normalisation(
    checkpoint: Checkpoint, match: Match, mean: Sequence[float] | None, std: Sequence[float] | None, shape: Shape
) -> tuple[list[float] | None, list[float] | None]:
    """Return mean and std for each channel: those in the file, or the given ones.

    Raises InputError where they differ, or where the file had a layer whose constants it does not have.
    """
    given, told = channel_constants(mean, std, shape), channel_constants(match.mean, match.std, shape)
    if match.front and mean is None:
        constants = ", ".join(f"{words} for {name}" for name, words in PUBLISHED.items())
        raise InputError(
            f"{checkpoint.path}: a layer stood in front of this network (its names begin with {match.prefix}), whose "
            f"constants the file does not have. In the published models that is the normalisation: give {constants}; "
            f"or --mean 0 for a layer that changed nothing")
    if told[0] is None:
        return given
    if len(shape) == 3 and max(map(abs, [*told[0], *(told[1] or ())])) > 2:
        raise InputError(f"{checkpoint.path} carries a normalisation with mean {_numbers(told[0])}, which is not in "
                         f"the units of images in [0, 1]: write a factory that scales them (file.py:factory)")
    if given != (None, None) and not all(_close(*pair) for pair in zip(given, told, strict=True)):
        raise InputError(f"mean and std: {checkpoint.path} carries a normalisation of its own, with mean "
                         f"{_numbers(told[0])} and std {_numbers(told[1] or ())}: leave them out")
    return told


def _close(one: list[float] | None, other: list[float] | None) -> bool:
    if one is None or other is None:
        return one is other
    return len(one) == len(other) and bool(np.allclose(one, other, rtol=1e-5, atol=1e-7))


def _explain(checkpoint: Checkpoint, architecture: _Architecture, match: Match, shape: Shape | None) -> str:
    """Return why a file does not fit a network, and what may help."""
    said = [f"{checkpoint.path} does not fit {architecture.name} ({match.describe()}):", match.differences()]
    if match.complete:
        return "\n".join([*said, f"If what is left over is not of the network: --weights {match.place}" if match.place
                          else "The network is there, with more beside it"])
    inputs = {(there[0][1], here[0][1]) for there, here in match.misshapen.values()
              if len(there[0]) == len(here[0]) == 4 and there[0][0] == here[0][0] and there[0][2:] == here[0][2:]}
    if len(inputs) == len(match.misshapen) == 1 and shape and shape[0] == next(iter(inputs))[1]:
        said.append("The file's network takes images of {} channels, and these have {}".format(*inputs.pop()))
    if match.missing and not match.unexpected and not match.misshapen and all("shortcut" in n for n in match.missing):
        said.append("The file's shortcuts have no weights (option A of He et al.), and those of this network are "
                    "projections (option B)")
    if guess := _guess_network(checkpoint, shape):
        said.append(guess.removeprefix(". "))
    return "\n".join([*said, "A network that is laid out otherwise needs its own code: file.py:factory, timm:NAME or "
                             "torchvision:NAME"])


def describe_weights(path: Path) -> dict[str, Any]:
    """Return facts on a file of weights: its entries, the name of its network, and the named networks that fit it.

    Raises FileError or ModelError where it cannot be read.
    """
    checkpoint = read_checkpoint(path)
    entries = {entry or "the file itself": f"{len(state)} tensors, {sum(t.numel() for t in state.values()):,} numbers"
               for entry, state in checkpoint.entries.items()}
    return {"path": str(path), "is": "file of weights", "entries": dict(list(entries.items())[:_ENTRIES_SHOWN]),
            "architecture": checkpoint.architecture,
            "fits": [f"{name} ({match.describe()})" for name, match in _fitting(checkpoint, None)]}


def _fitting(checkpoint: Checkpoint, shape: Shape | None) -> Iterator[tuple[str, Match]]:
    """Yield the named networks that fit a largest entry of a file, without options of theirs, and how."""
    most = max(map(len, checkpoint.entries.values()))
    largest = {entry: state for entry, state in checkpoint.entries.items() if len(state) == most}
    first = next((tensor for state in largest.values() for tensor in state.values() if tensor.ndim == 4), None)
    shape = shape or (1 if first is not None and first.shape[1] == 1 else 3, 32, 32)
    for name, entry in product(MODELS, list(largest)[:3]):
        with suppress(SmoothcertError):
            _, match, _ = _fit(checkpoint, _architecture(name, shape, {}), None, entry)
            if match.complete and not match.unexpected:
                yield name, match


def _guess_network(checkpoint: Checkpoint, shape: Shape | None) -> str:
    """Return sentences on the network that a file may be of: by its names and shapes, and by what it says."""
    said = f". The file calls its network {checkpoint.architecture}" if checkpoint.architecture else ""
    fitting = dict.fromkeys(name for name, _ in _fitting(checkpoint, shape))
    return f"{said}. Its names and shapes fit {' or '.join(fitting)}" if fitting else said


def _numbers(values: Sequence[float]) -> str:
    return ",".join(f"{value:.6g}" for value in values)
