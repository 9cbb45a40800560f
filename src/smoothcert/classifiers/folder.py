"""A trained model is a folder: what it is, its weights, and where its training stands.

    model.json               how to rebuild the network, and what it was trained on
    best.safetensors         the weights that certification uses
    denoiser/                what it was trained behind, if anything: model.json and best.safetensors of a denoiser
    metrics.jsonl            one line an epoch
    checkpoints/0004/        the latest epoch, whole: weights.safetensors and state.pt (optimiser, loaded weights-only)
"""

import hashlib
import inspect
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from smoothcert.classifiers.card import ModelCard, check_model_dir, is_model_dir, read_card, write_card
from smoothcert.classifiers.compact import compact, expanded
from smoothcert.denoise import Attractor, DenoisedClassifier, WalkJump, build_denoiser
from smoothcert.errors import FileError, InputError, ModelError, SmoothcertError
from smoothcert.io.files import claim_folder, make_folder, sha256, write_error, write_whole
from smoothcert.io.limits import path_inside
from smoothcert.io.paths import local_path
from smoothcert.models import build_model, load_model, model_names
from smoothcert.smoothing.content import state_parts

DENOISER = "denoiser"
"""The folder, within that of a classifier, of the denoiser that it was trained behind."""

_NO_SETTINGS = ("denoiser", "classifier", "first", "second", "unroll")  # parts, and what changes no answer


def build_network(card: ModelCard, trust: bool = False) -> nn.Module:
    """The network of a card, by name or by a user's factory, without a denoiser in front.

    Initial weights come from torch's global generator. `trust` is that of `load_model`.
    """
    if card.kind == "denoiser":
        return build_denoiser(card.model, card.input_shape, card.sigma, **card.options)
    if card.model in model_names():
        return build_model(card.model, input_shape=card.input_shape, num_classes=card.num_classes, **card.options)
    if card.options:
        raise InputError(f"model_option goes to named models ({', '.join(model_names())}); {card.model} takes none")
    network = load_model(card.model, num_classes=card.num_classes, input_shape=card.input_shape,
                         trust=trust).model
    if not isinstance(network, nn.Module):
        raise ModelError(f"only torch networks can be trained; {card.model} gave {type(network).__name__}")
    return network


def runs_code(card: ModelCard) -> bool:
    """Whether rebuilding a network runs a user's code."""
    return card.kind == "classifier" and card.model not in model_names()


def read_network(folder: Path | str, weights: str = "best", trust: bool = False) -> tuple[nn.Module, ModelCard]:
    """The network of a model folder with its best or last weights, in eval mode; a `DenoisedClassifier` where it was
    trained behind a denoiser.

    Args:
        folder: a path, or `zoo:NAME`.
    Raises:
        FileError: missing or corrupt files. ModelError: weights of another network, or code that is not trusted.
        UnknownNameError: no such entry of the zoo.
    """
    folder = local_path(folder)
    card = read_card(folder)
    if runs_code(card) and not trust:
        raise ModelError(f"{folder} was trained from {card.model}, and rebuilding it runs that code: read it, then "
                         f"pass --trust")
    path = weights_file(folder, weights)
    state = read_weights(path)
    if not runs_code(card):
        _check_sketch(folder, card, path, state)
    network = build_network(card, trust)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"{path} holds the weights of another network than {folder / 'model.json'} names: {error}"
                         ) from None
    if card.kind == "classifier" and card.denoiser is not None and card.sigma is not None:
        network = DenoisedClassifier(read_denoiser(path_inside(folder, DENOISER))[0], network, card.sigma)
    return network.eval(), card


def _check_sketch(folder: Path, card: ModelCard, path: Path, state: dict[str, Tensor]) -> None:
    """Compare a network that takes no memory yet with the weights there are, so that none larger is ever built."""
    try:
        with torch.device("meta"):
            wanted = {name: _form(tensor) for name, tensor in build_network(card).state_dict().items()}
    except SmoothcertError:
        raise
    except Exception as error:  # sizes that torch cannot count, settings of other types
        raise FileError(f"{folder / 'model.json'} describes no network that can be built: {error}") from None
    differing = [name for name in {**wanted, **state} if name not in wanted or name not in state
                 or wanted[name] != _form(state[name])]
    if differing:
        raise ModelError(f"{path} holds the weights of another network than {folder / 'model.json'} names: they differ "
                         f"in {', '.join(differing[:5])}{' and others' if len(differing) > 5 else ''}")


def _form(tensor: Tensor) -> tuple[torch.Size, bool]:
    """Shape, and whether it holds floating-point numbers: int8 weights whose scales are lost are no weights."""
    return tensor.shape, tensor.is_floating_point()


def read_denoiser(folder: Path) -> tuple[nn.Module, ModelCard]:
    """The denoiser of a model folder with its best weights, in eval mode and frozen.

    Raises FileError or ModelError, as `read_network` does, and ModelError for a classifier.
    """
    denoiser_card(folder)
    network, card = read_network(folder)
    return network.requires_grad_(False), card


def denoiser_card(folder: Path) -> ModelCard:
    """The card of a denoiser's folder. Raises FileError where it is no model folder, ModelError for a classifier."""
    check_model_dir(folder)
    card = read_card(folder)
    if card.kind != "denoiser":
        raise ModelError(f"{folder} is a classifier: a denoiser is trained with objective deen or denoise")
    return card


def write_denoiser(folder: Path, network: nn.Module, card: ModelCard) -> None:
    """Leave a denoiser in the folder of the classifier behind it."""
    make_folder(folder / DENOISER)
    write_weights(folder / DENOISER / "best.safetensors", network)
    write_card(folder / DENOISER, card)


def weights_file(folder: Path, weights: str) -> Path:
    """Where the best or last weights of a model folder lie; FileError where no epoch was finished, or they lie
    elsewhere."""
    if weights == "best":
        return path_inside(folder, "best.safetensors")
    return path_inside(folder, str(last_checkpoint(folder).relative_to(folder) / "weights.safetensors"))


def write_weights(path: Path, network: nn.Module) -> None:
    """The state dict as safetensors, whole or not at all."""
    _write_state(path, network.state_dict())


def _write_state(path: Path, state: dict[str, Tensor]) -> None:
    content = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    write_whole(path, lambda temporary: save_file(content, temporary))


def write_compact_model(source: Path, out: Path, dtype: str = "int8") -> ModelCard:
    """Write a model folder with the best weights of another one in few bytes, and return its card.

    Only weights are stored in `dtype` (see `compact`): the network is float32 as ever, with other weights than the
    source's. Its card's identity says of which file (SHA-256) and how they were made. A denoiser that belongs to the
    source is made compact likewise. There are no checkpoints: training cannot go on from it, though another can start.

    Raises:
        FileError: the source is no model folder, or is corrupt. InputError: it is compact already, or an unknown dtype.
        ModelError: weights that are not finite. StoreError: `out` holds other things.
    """
    check_model_dir(source)
    card, path = read_card(source), weights_file(source, "best")
    if "compact" in card.identity:
        raise InputError(f"{source} is compact already: give the model folder that it was made from")
    state = compact(read_weights(path), dtype)
    claim_folder(out, "model.json")
    if card.kind == "classifier" and card.denoiser is not None:
        write_compact_model(path_inside(source, DENOISER), out / DENOISER, dtype)
    _write_state(out / "best.safetensors", state)
    made = replace(card, identity={**card.identity, "compact": {"dtype": dtype, "sha256": sha256(path)}})
    write_card(out, made)
    return made


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, int8 weights as float32. Raises FileError for a missing or corrupt file."""
    if not path.is_file():
        raise FileError(f"there are no weights {path}: was the model trained to the end of an epoch?")
    try:
        state = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise FileError(f"the weights {path} are corrupt: {error}") from None
    return expanded(state, path)


def write_checkpoint(folder: Path, epoch: int, network: nn.Module, state: dict[str, Any]) -> None:
    """Keep `epoch` (counted from 1) whole, then drop the ones before it."""
    final = folder / "checkpoints" / f"{epoch:04d}"
    draft = final.with_name(f".{final.name}")
    shutil.rmtree(draft, ignore_errors=True)
    make_folder(draft)
    write_weights(draft / "weights.safetensors", network)
    write_whole(draft / "state.pt", lambda temporary: torch.save(state, temporary))
    try:
        shutil.rmtree(final, ignore_errors=True)
        draft.rename(final)
    except OSError as error:
        raise write_error(error, final) from error
    for older in checkpoints(folder)[:-1]:
        shutil.rmtree(older, ignore_errors=True)


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    return sorted((folder / "checkpoints").glob("[0-9]*"))


def last_checkpoint(folder: Path) -> Path:
    """The latest whole checkpoint, or FileError."""
    found = checkpoints(folder)
    if not found:
        raise FileError(f"{folder} has no checkpoint: no epoch was finished, or only its best weights were kept")
    return found[-1]


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The optimiser's side of a checkpoint; nothing in the file is executed."""
    try:
        return torch.load(path_inside(checkpoint, "state.pt"), weights_only=True, map_location="cpu")
    except Exception as error:  # torch.load raises many kinds for a damaged file
        raise FileError(f"the checkpoint {checkpoint / 'state.pt'} is missing or corrupt: {error}") from None


def module_hash(network: nn.Module, source: bytes | None = None) -> str:
    """SHA-256 of the source that made the network (its class's module, unless given), of the names of its parts and of
    their classes, and of the sorted state dict."""
    digest = hashlib.sha256(source_of(network) if source is None else source)
    for name, part in network.named_modules():
        digest.update(f"\0{name}\0{type(part).__qualname__}\0".encode())
    for part in state_parts(sorted(network.state_dict().items())):
        digest.update(part)
    return digest.hexdigest()


def source_of(network: nn.Module) -> bytes:
    """The source text of the module that defines a network's class, or its qualified name where there is no source.

    Of a composition: those of itself and its parts, and the settings that its answers depend on.
    """
    kind = type(network)
    if isinstance(network, DenoisedClassifier | WalkJump | Attractor):
        names = [name for name in inspect.signature(kind).parameters if name not in _NO_SETTINGS]
        settings = json.dumps({name: getattr(network, name) for name in names}, sort_keys=True)
        return b"\0".join([settings.encode(), _text_of(kind), *map(source_of, network.children())])
    return _text_of(kind)


def _text_of(kind: type) -> bytes:
    try:
        return inspect.getsource(sys.modules[kind.__module__]).encode()
    except (OSError, TypeError, KeyError):
        return f"{kind.__module__}.{kind.__qualname__}".encode()


__all__ = [
    "DENOISER", "ModelCard", "build_network", "check_model_dir", "checkpoints", "denoiser_card", "is_model_dir",
    "last_checkpoint", "module_hash", "read_card", "read_denoiser", "read_network", "read_state", "read_weights",
    "runs_code", "source_of", "weights_file", "write_card", "write_checkpoint", "write_compact_model", "write_denoiser",
    "write_weights",
]
