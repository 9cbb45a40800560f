"""Model folders: the description of a trained model, its weights, and the state of its training.

    model.json               how to rebuild the network, and the data that it was trained on
    best.safetensors         the weights that certification uses
    denoiser/                the denoiser it was trained behind, if any: model.json and best.safetensors
    metrics.jsonl            one line an epoch
    checkpoints/0004/        the latest epoch: weights.safetensors and state.pt (optimiser, loaded weights-only)
    model.onnx               an integer network, in place of weights and checkpoints (see `smoothcert.quantisation`)

`write_compact_model` stores weights in few bytes: int8 with a scale for each output channel, or bfloat16. A network
that loads them has float32 weights close to the trained ones, so it is another network. An int8 number times a float32
number is rounded once, alike on every machine.
"""

import hashlib
import inspect
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from smoothcert.checks import check_known
from smoothcert.classifiers.card import INTEGER, ModelCard, check_model_dir, is_model_dir, read_card, write_card
from smoothcert.denoise import DENOISERS, Attractor, DenoisedClassifier, WalkJump, build_denoiser
from smoothcert.errors import FileError, InputError, ModelError, SmoothcertError
from smoothcert.io.files import claim_folder, make_folder, sha256, write_error, write_whole
from smoothcert.io.paths import local_path
from smoothcert.limits import path_inside
from smoothcert.models import MODELS, build_model, load_model
from smoothcert.parts import Registry
from smoothcert.smoothing.content import state_parts
from smoothcert.smoothing.ensemble import Ensemble
from smoothcert.smoothing.real import RealNetwork

DENOISER = "denoiser"
"""The folder, within that of a classifier, of the denoiser that it was trained behind."""
DTYPES = ("int8", "bf16")
"""Types of compact weights."""

_LARGEST = 127  # of int8 weights; symmetric, so -128 is never used
_SCALE = ".scale"
_NO_SETTINGS = ("denoiser", "classifier", "network", "first", "second", "unroll")  # parts, and what changes no answer


def build_network(card: ModelCard, trust: bool = False) -> nn.Module:
    """Build the network of a card, by name or by a user's factory, without a denoiser in front.

    Initial weights come from torch's global generator. `trust` is that of `load_model`.
    """
    if card.kind == "denoiser":
        return build_denoiser(card.model, card.input_shape, card.sigma, **card.options)
    if card.model in MODELS:
        return build_model(card.model, input_shape=card.input_shape, num_classes=card.num_classes, **card.options)
    if card.options:
        raise InputError(f"model_option is for named models ({', '.join(MODELS)}); {card.model} takes none")
    network = load_model(card.model, num_classes=card.num_classes, input_shape=card.input_shape,
                         trust=trust).model
    if not isinstance(network, nn.Module):
        raise ModelError(f"only torch networks can be trained; {card.model} gave {type(network).__name__}")
    return network


def builders_of(card: ModelCard) -> Registry[Callable[..., nn.Module]]:
    """Return the builders that the card's model is one of, unless it is a user's own code."""
    return MODELS if card.kind == "classifier" else cast(Any, DENOISERS)


def runs_code(card: ModelCard) -> bool:
    """Return True where rebuilding the network runs code that the card names."""
    return card.quantised is None and card.model not in builders_of(card)


def integer_file(folder: Path, card: ModelCard) -> Path:
    """Return the file of the integer network in a model folder. Raises FileError where it is missing or another one."""
    path = path_inside(folder, INTEGER)
    if not path.is_file():
        raise FileError(f"{folder} has no {INTEGER}, the integer network that its model.json describes")
    if card.quantised is None or sha256(path) != card.quantised.sha256:
        raise FileError(f"{path} is not the integer network that {folder / 'model.json'} describes: their SHA-256 "
                        f"differ; quantise the float32 network again")
    return path


def read_network(folder: Path | str, weights: str = "best", trust: bool = False) -> tuple[nn.Module, ModelCard]:
    """Read the network of a model folder with its best or last weights, in eval mode; a `DenoisedClassifier` where it
    was trained behind a denoiser.

    Args:
        folder: a path, or `zoo:NAME`.
    Raises:
        FileError: missing or corrupt files. ModelError: weights of another network, code that is not trusted, or an
        integer network. UnknownNameError: no such entry of the zoo.
    """
    folder = local_path(folder)
    card = read_card(folder)
    refuse_integer(folder, card)
    if runs_code(card) and not trust:
        raise ModelError(f"{folder} was trained from {card.model}, and rebuilding it runs that code: read it, then "
                         f"pass --trust")
    path = weights_file(folder, weights)
    state = read_weights(path)
    if not runs_code(card):
        _check_shapes(folder, card, path, state)
    network = build_network(card, trust)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"{path} holds the weights of another network than {folder / 'model.json'} describes: {error}"
                         ) from None
    if card.kind == "classifier" and card.denoiser is not None and card.sigma is not None:
        network = DenoisedClassifier(read_denoiser(path_inside(folder, DENOISER), trust)[0], network, card.sigma)
    return network.eval(), card


def refuse_integer(folder: Path, card: ModelCard) -> None:
    """Raise ModelError for the folder of an integer network."""
    if card.quantised is not None:
        raise ModelError(f"{folder} holds an integer network (model.onnx), which has no weights to train or compress "
                         f"and no gradient: give the float32 network that it was made from, "
                         f"{card.quantised.original.get('model', 'which its model.json names')}")


def _check_shapes(folder: Path, card: ModelCard, path: Path, state: dict[str, Tensor]) -> None:
    """Compare a network without memory to the stored weights, so that a card cannot make us build a huge one.

    Raises FileError where the card describes no network, ModelError where the weights belong to another one.
    """
    try:
        with torch.device("meta"):
            wanted = {name: _form(tensor) for name, tensor in build_network(card).state_dict().items()}
    except SmoothcertError:
        raise
    except Exception as error:  # sizes that torch cannot count, settings of other types
        raise FileError(f"{folder / 'model.json'} describes a network that cannot be built: {error}") from None
    differing = [name for name in {**wanted, **state} if name not in wanted or name not in state
                 or wanted[name] != _form(state[name])]
    if differing:
        raise ModelError(f"{path} holds the weights of another network than {folder / 'model.json'} describes: they "
                         f"differ in {', '.join(differing[:5])}{' and others' if len(differing) > 5 else ''}")


def _form(tensor: Tensor) -> tuple[torch.Size, bool]:
    """Return the shape, and True for floating-point numbers, which int8 weights without their scales are not."""
    return tensor.shape, tensor.is_floating_point()


def read_denoiser(folder: Path, trust: bool = False) -> tuple[nn.Module, ModelCard]:
    """Read the denoiser of a model folder with its best weights, in eval mode and frozen.

    `trust` lets it run the code that it was built by. Raises FileError or ModelError, as `read_network` does, and
    ModelError for a classifier.
    """
    denoiser_card(folder)
    network, card = read_network(folder, trust=trust)
    return network.requires_grad_(False), card


def denoiser_card(folder: Path) -> ModelCard:
    """Read the card of a denoiser's folder. Raises FileError for other folders, ModelError for a classifier's."""
    check_model_dir(folder)
    card = read_card(folder)
    if card.kind != "denoiser":
        raise ModelError(f"{folder} is a classifier, but a denoiser was expected: train one with objective deen or "
                         f"denoise")
    return card


def write_denoiser(folder: Path, network: nn.Module, card: ModelCard) -> None:
    """Write a denoiser into the folder of the classifier behind it."""
    make_folder(folder / DENOISER)
    write_weights(folder / DENOISER / "best.safetensors", network)
    write_card(folder / DENOISER, card)


def weights_file(folder: Path, weights: str) -> Path:
    """Return the path of the best or last weights of a model folder. Raises FileError where no epoch was finished, or
    a link leads out of the folder, and UnknownNameError for other weights."""
    if check_known("weights", weights, ("best", "last")) == "best":
        return path_inside(folder, "best.safetensors")
    return path_inside(folder, str(last_checkpoint(folder).relative_to(folder) / "weights.safetensors"))


def write_weights(path: Path, network: nn.Module) -> None:
    """Write the state dict as safetensors, whole or not at all."""
    _write_state(path, network.state_dict())


def _write_state(path: Path, state: dict[str, Tensor]) -> None:
    content = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    write_whole(path, lambda temporary: save_file(content, temporary))


def write_compact_model(source: Path, out: Path, dtype: str = "int8") -> ModelCard:
    """Write a model folder with the best weights of another folder in few bytes, and return its card.

    Only the stored weights have `dtype` (see `compact`); the network is float32 as before, with slightly other weights.
    The identity in its card names the file that they came from (SHA-256) and the dtype. A denoiser in the source is
    made compact likewise. There are no checkpoints: training cannot resume, but another run can start from it.

    Raises:
        FileError: the source is not a model folder, or is corrupt. InputError: it is compact already, or the dtype is
        unknown. ModelError: weights that are not finite. StoreError: `out` holds other things.
    """
    check_model_dir(source)
    card = read_card(source)
    refuse_integer(source, card)
    path = weights_file(source, "best")
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
    """Read the tensors of a file by name, int8 weights as float32. Raises FileError for a missing or corrupt file."""
    if not path.is_file():
        raise FileError(f"there are no weights {path}: was the model trained to the end of an epoch?")
    try:
        state = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise FileError(f"the weights {path} are corrupt: {error}") from None
    return expand(state, path)


def compact(state: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
    """Return a state dict with the float32 tensors of two or more axes in `dtype`; all others stay as they are.

    int8 is symmetric, with one scale for each index of the first axis (the output channel of convolutions and dense
    layers): w is stored as round(w / scale) with scale = max |w| / 127, and the scales as float32 beside it.

    Raises:
        UnknownNameError: a dtype that is not in DTYPES. ModelError: weights that are not finite.
    """
    check_known("dtype", dtype, DTYPES)
    small: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if tensor.dtype != torch.float32 or tensor.dim() < 2:
            small[name] = tensor
        elif not tensor.isfinite().all():
            raise ModelError(f"the weights {name} are not all finite numbers")
        elif dtype == "bf16":
            small[name] = tensor.bfloat16()
        else:
            largest = tensor.flatten(1).abs().amax(1)
            scale = (largest / _LARGEST).clamp(min=torch.finfo(torch.float32).tiny)  # zeros need a scale, too
            rounded = (tensor / _align(scale, tensor)).round().clamp(-_LARGEST, _LARGEST)
            small[name], small[name + _SCALE] = rounded.to(torch.int8), scale
    return small


def expand(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return a state dict with float32 tensors in place of the int8 ones that have scales beside them.

    bfloat16 stays: a network copies it into its own float32.

    Args:
        path: the file that it was read from, for errors.
    Raises:
        FileError: scales that are not one finite float32 number for each output channel.
    """
    scaled = [name for name, tensor in state.items() if tensor.dtype == torch.int8 and name + _SCALE in state]
    full = {name: tensor for name, tensor in state.items() if name.removesuffix(_SCALE) not in scaled}
    for name in scaled:
        scale, shape = state[name + _SCALE], state[name].shape
        if scale.dtype != torch.float32 or scale.shape != shape[:1] or not shape or not scale.isfinite().all():
            raise FileError(f"the weights {path} are corrupt: {name}{_SCALE} must be one finite float32 number for "
                            f"each output channel of {name}")
        full[name] = state[name].float() * _align(scale, state[name])
    return {name: full[name] for name in state if name in full}


def _align(scale: Tensor, tensor: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (tensor.dim() - 1))


def write_checkpoint(folder: Path, epoch: int, network: nn.Module, state: dict[str, Any]) -> None:
    """Write the checkpoint of `epoch` (counted from 1) whole, then remove the ones before it."""
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
    """Return the whole checkpoints, oldest first."""
    return sorted((folder / "checkpoints").glob("[0-9]*"))


def last_checkpoint(folder: Path) -> Path:
    """Return the latest whole checkpoint. Raises FileError where there is none."""
    found = checkpoints(folder)
    if not found:
        raise FileError(f"{folder} has no checkpoint: no epoch was finished, or only the best weights were kept")
    return found[-1]


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Read the training state of a checkpoint, without executing anything in the file. Raises FileError."""
    try:
        return torch.load(path_inside(checkpoint, "state.pt"), weights_only=True, map_location="cpu")
    except Exception as error:  # torch.load raises many kinds for a damaged file
        raise FileError(f"the checkpoint {checkpoint / 'state.pt'} is missing or corrupt: {error}") from None


def module_hash(network: nn.Module, source: bytes | None = None) -> str:
    """Return the SHA-256 of a network's source (its class's module, unless given), of the names of its parts and of
    their classes, and of the sorted state dict."""
    digest = hashlib.sha256(source_of(network) if source is None else source)
    for name, part in network.named_modules():
        digest.update(f"\0{name}\0{type(part).__qualname__}\0".encode())
    for part in state_parts(sorted(network.state_dict().items())):
        digest.update(part)
    return digest.hexdigest()


def source_of(network: nn.Module) -> bytes:
    """Return the source text of the module that defines a network's class, or the qualified name where there is none.

    For a composition, return its own text, those of its parts, and the settings that its answers depend on.
    """
    kind = type(network)
    if isinstance(network, Ensemble):
        return b"\0".join([network.mean.encode(), _text_of(kind), *map(source_of, network.members)])
    if isinstance(network, DenoisedClassifier | WalkJump | Attractor | RealNetwork):
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
    "DENOISER", "DTYPES", "ModelCard", "build_network", "check_model_dir", "checkpoints", "compact", "denoiser_card",
    "expand", "integer_file", "is_model_dir", "last_checkpoint", "module_hash", "read_card", "read_denoiser",
    "read_network", "read_state", "read_weights", "refuse_integer", "runs_code", "source_of", "weights_file",
    "write_card", "write_checkpoint", "write_compact_model", "write_denoiser", "write_weights",
]
