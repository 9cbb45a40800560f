"""The tensors of a file matched with those of a network: under any prefix, and under the names of other people's code.

Names are compared piece by piece, so that what wraps a network does not matter: `state_dict` and `model_ema` are keys
of the file, `module.`, `_orig_mod.`, `model.` and `1.` are prefixes of names, and all of them are what stands before
the network's own names.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from smoothcert.checks import one_line
from smoothcert.errors import ModelError
from smoothcert.models.checkpoints import Checkpoint, State

Form = tuple[tuple[int, ...], bool]
"""The shape of a tensor, and True for floating-point numbers."""

TORCHVISION = "torchvision's names"
_RENAMED = tuple((re.compile(pattern), ours) for pattern, ours in (
    (r"^conv1\.", "conv."), (r"^bn1\.", "norm."), (r"^(fc|linear)\.", "dense."), (r"^layer(\d)\.", r"stage\1."),
    (r"^(stage\d\.\d+)\.bn(\d)\.", r"\1.norm\2."), (r"^(stage\d\.\d+)\.downsample\.", r"\1.shortcut."),
))
"""From the names of torchvision's ResNets, of the published networks of 2019 and of the usual CIFAR code, to ours."""
RENAMED_NETWORKS = ("resnet18", "resnet20", "resnet50", "resnet110")
"""Networks whose layers those names mean."""

_MEANS, _STDS = ("mean", "means", "mu"), ("std", "stds", "sd", "sds", "sigma")
_COUNTERS = ("num_batches_tracked", "n_averaged", "total_ops", "total_params")
"""Last parts of names of tensors that no answer depends on: how often something was counted or averaged."""
_LISTED = 5


@dataclass(frozen=True, eq=False)
class Match:
    """A part of a file beside a network.

    Attributes:
        entry, prefix: the keys that lead to the state dict, and what its names begin with.
        names: how the file names the layers; None where as the network does.
        found: the network's tensors. missing, unexpected, misshapen: what does not fit, the last with both forms.
        mean, std: a normalisation that the file has beside the network; None for none.
        front: a layer without weights stands before the network in the file.
    """

    entry: str
    prefix: str
    names: str | None
    found: State
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshapen: dict[str, tuple[Form, Form]] = field(default_factory=dict)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    front: bool = False

    @property
    def complete(self) -> bool:
        """Every tensor of the network is there."""
        return not self.missing and not self.misshapen

    @property
    def place(self) -> str:
        """The part of the file, in the form that picks it."""
        return ".".join(filter(None, (self.entry, self.prefix.removesuffix("."))))

    def describe(self) -> str:
        """Return where the weights were found, and what was done to their names."""
        said = [f"entry {one_line(self.entry)}" if self.entry else "the file itself"]
        said += [f"names without {one_line(self.prefix)}"] if self.prefix else []
        said += [f"renamed from {self.names}"] if self.names else []
        return ", ".join(said)

    def differences(self) -> str:
        """Return how the part differs from the network: counts, and the first names of each kind."""
        lines = [f"{name}: {_show(there)} in the file, {_show(here)} in the network"
                 for name, (there, here) in self.misshapen.items()]
        kinds = (("missing in the file", self.missing), ("only in the file", self.unexpected),
                 ("of another shape or type", lines))
        return "\n".join(f"  - {len(found)} {words}: {_first(found)}" for words, found in kinds if found)


def find_match(checkpoint: Checkpoint, network: nn.Module, renamed: bool = False, part: str | None = None) -> Match:
    """Return the one part of a file that fits a network, else the part that comes nearest.

    Args:
        network: its values do not matter; it may be on the meta device.
        renamed: names of torchvision's ResNets are read, too.
        part: the entry, with a prefix of names if need be, that alone is looked at; None looks at all.
    Raises:
        ModelError: several parts fit, `part` does not exist, or no name in the file is one of the network.
    """
    wanted = {name: form_of(tensor) for name, tensor in network.state_dict().items()}
    entries = checkpoint.entries if part is None else _pick(checkpoint, part)
    matches = [match for entry, state in entries.items() for match in _matches(entry, state, wanted, renamed)]
    if not matches:
        raise ModelError(f"{checkpoint.path} has none of the {len(wanted)} names of the network "
                         f"({_first(list(wanted))}); {_overview(checkpoint)}")
    whole = [match for match in matches if match.complete]
    fitting = [match for match in whole if not match.unexpected] or whole
    if len(fitting) > 1:
        raise ModelError(f"{checkpoint.path} holds weights of this network several times: "
                         f"{', '.join(one_line(match.place) or 'the file itself' for match in fitting)}; pick one with "
                         f"--weights NAME (in Python, weights=NAME)")
    return fitting[0] if fitting else max(matches, key=lambda match: (match.complete, len(match.found),
                                                                      -len(match.unexpected)))


def form_of(tensor: Any) -> Form:
    """Return the form of a tensor. Raises ModelError for one whose shape is open until the network has run."""
    if is_lazy(tensor):
        raise ModelError("the network has lazy layers, whose shapes are open until it has run: call it once in its "
                         "factory")
    return tuple(tensor.shape), tensor.is_floating_point()


def last_layer(network: nn.Module) -> str:
    """Return the name of the last layer with parameters of its own, in the order in which the network lists them; ""
    where none has any."""
    return next((name for name, layer in reversed(list(network.named_modules()))
                 if next(layer.parameters(recurse=False), None) is not None), "")


def _pick(checkpoint: Checkpoint, part: str) -> dict[str, State]:
    """Return the entry of that name, or an entry with those of its tensors alone whose names begin so."""
    if part in checkpoint.entries:
        return {part: checkpoint.entries[part]}
    for entry, state in checkpoint.entries.items():
        begin = f"{part.removeprefix(f'{entry}.') if entry else part}."
        if found := {name: tensor for name, tensor in state.items() if name.startswith(begin)}:
            return {entry: found}
    raise ModelError(f"weights: {checkpoint.path} has no entry {part!r}; {_overview(checkpoint)}")


def _matches(entry: str, state: State, wanted: Mapping[str, Form], renamed: bool) -> Iterator[Match]:
    """Yield how a state dict matches, for every prefix under which some names are the network's."""
    votes: Counter[tuple[str, str | None]] = Counter()
    for names in (None, TORCHVISION) if renamed else (None,):
        for key in state:
            pieces = key.split(".")
            votes.update((".".join([*pieces[:k], ""]) if k else "", names) for k in range(len(pieces))
                         if _translate(".".join(pieces[k:]), names) in wanted)
    for prefix, names in list(votes):
        if names and votes[prefix, names] <= votes[prefix, None]:  # the names are the network's own already
            del votes[prefix, names]
    most = max(votes.values(), default=0)
    yield from (_match(entry, prefix, names, state, wanted) for (prefix, names), count in votes.items()
                if 2 * count > most)


def _match(entry: str, prefix: str, names: str | None, state: State, wanted: Mapping[str, Form]) -> Match:
    ours = {_translate(key[len(prefix):], names): key for key in state if key.startswith(prefix)}
    found = {name: state[ours[name]] for name in wanted if name in ours}
    misshapen = {name: (form_of(found[name]), wanted[name]) for name in found if form_of(found[name]) != wanted[name]}
    taken = {ours[name] for name in found}
    left = [key for key in state if key not in taken and key.rpartition(".")[2] not in _COUNTERS]
    normalisation = _find_normalisation(prefix, {key: state[key] for key in left})
    mean, std = (None if key is None else tuple(state[key].double().flatten().tolist()) for key in normalisation)
    return Match(
        entry, prefix, names, {name: tensor for name, tensor in found.items() if name not in misshapen},
        missing=[name for name in wanted if name not in ours and name.rpartition(".")[2] not in _COUNTERS],
        unexpected=[key for key in left if key not in normalisation], misshapen=misshapen, mean=mean, std=std,
        front=mean is None and any(int(piece) > 0 for piece in prefix.split(".") if piece.isdecimal()))


def _translate(name: str, names: str | None) -> str:
    for pattern, ours in _RENAMED if names else ():
        name = pattern.sub(ours, name)
    return name


def _find_normalisation(prefix: str, left: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the names of the mean and the standard deviation of a layer before the network: buffers beside it, or
    beside what wraps it, or of the network itself. (None, None) where there is no such layer, or several."""
    layers: dict[str, dict[str, str]] = {}
    for key, tensor in left.items():
        layer, _, last = key.rpartition(".")
        kind = "mean" if last in _MEANS else "std" if last in _STDS else None
        around = layer.rpartition(".")[0]
        beside = f"{layer}." == prefix or not layer or prefix.startswith(f"{around}." if around else "")
        if kind and beside and tensor.is_floating_point() and 0 < tensor.numel() <= 64:
            layers.setdefault(layer, {}).setdefault(kind, key)
    found = [kinds for kinds in layers.values() if "mean" in kinds]
    return (found[0]["mean"], found[0].get("std")) if len(found) == 1 else (None, None)


def _overview(checkpoint: Checkpoint) -> str:
    """Return the entries of a file, with the number of tensors and the first names of each."""
    shown = [f"{one_line(entry) or 'the file itself'} ({len(state)} tensors: {_first(list(state), 3)})"
             for entry, state in sorted(checkpoint.entries.items(), key=lambda item: -len(item[1]))]
    return f"it holds {'; '.join(shown[:3])}{f'; and {len(shown) - 3} more entries' if len(shown) > 3 else ''}"


def _first(names: list[str], count: int = _LISTED) -> str:
    more = f", ... ({len(names) - count} more)" if len(names) > count else ""
    return ", ".join(one_line(name)[:120] for name in names[:count]) + more


def _show(form: Form) -> str:
    shape, floating = form
    return f"{tuple(shape)}{'' if floating else ' of whole numbers'}"
