"""A trained model is a folder: what it is, its weights, and where its training stands.

    model.json               how to rebuild the classifier, what it was trained on, and the hash of its weights
    best.safetensors         the weights that certification uses
    metrics.jsonl            one line an epoch
    checkpoints/0004/        the latest epoch, whole: weights.safetensors and state.pt (optimiser, loaded weights-only)
"""

import hashlib
import inspect
import shutil
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from smoothcert.errors import FileError, InputError, ModelError
from smoothcert.models import build_model, load_model, model_names
from smoothcert.runs.files import explained, make_folder, read_json, write_json, write_whole

VERSION = 1


@dataclass(frozen=True)
class ModelCard:
    """The content of model.json.

    Attributes:
        model: a name of `build_model` (then `options` rebuild it), or a user's factory as the command line takes it.
        input_shape, num_classes, class_names: what goes in and what comes out.
        levels: levels per unit of the training images, for grid noise.
        data: the data set as the command line takes it, with its preprocessing.
        sigma: noise level of the training, or None.
        identity: everything that determined the weights; compared on resume.
        init: the model directory whose weights it started from, which of them, and the layers left fresh; or None.
        epochs_done, best_epoch, best: progress, and the validation figures of the best epoch.
        complete: whether training has ended.
    """

    model: str
    options: dict[str, Any]
    input_shape: tuple[int, int, int]
    num_classes: int
    class_names: tuple[str, ...]
    levels: int
    data: dict[str, Any]
    sigma: float | None
    identity: dict[str, Any]
    init: dict[str, Any] | None = None
    epochs_done: int = 0
    best_epoch: int = 0
    best: dict[str, float] = field(default_factory=dict)
    complete: bool = False

    @property
    def progress(self) -> dict[str, Any]:
        """The fields that change from epoch to epoch."""
        return {name: getattr(self, name) for name in ("epochs_done", "best_epoch", "best", "complete")}


def is_model_dir(folder: Path) -> bool:
    return (folder / "model.json").is_file()


def write_card(folder: Path, card: ModelCard) -> None:
    write_json(folder / "model.json", {"version": VERSION, **asdict(card)})


def read_card(folder: Path) -> ModelCard:
    """Raises FileError for a missing or corrupt model.json."""
    content = read_json(folder / "model.json")
    try:
        if content.pop("version") != VERSION:
            raise FileError(f"{folder / 'model.json'} is not of version {VERSION}, which this smoothcert reads")
        card = ModelCard(**content)
        return ModelCard(**{**vars(card), "input_shape": tuple(card.input_shape),
                            "class_names": tuple(card.class_names)})
    except (KeyError, TypeError, AttributeError) as error:
        raise FileError(f"{folder / 'model.json'} is not the description of a model: {error}") from None


def build_network(
    model: str, options: dict[str, Any], input_shape: tuple[int, int, int], num_classes: int
) -> nn.Module:
    """A network by name or by a user's factory. Initial weights come from torch's global generator."""
    if model in model_names():
        return build_model(model, input_shape=input_shape, num_classes=num_classes, **options)
    if options:
        raise InputError(f"model_option goes to named models ({', '.join(model_names())}); {model} takes none")
    network = load_model(model, num_classes=num_classes, input_shape=input_shape).model
    if not isinstance(network, nn.Module):
        raise ModelError(f"only torch networks can be trained; {model} gave {type(network).__name__}")
    return network


def read_network(folder: Path, weights: str = "best", trust: bool = False) -> tuple[nn.Module, ModelCard]:
    """The network of a model folder with its best or last weights, in eval mode.

    Raises:
        FileError: missing or corrupt files. ModelError: weights of another network, or code that is not trusted.
    """
    card = read_card(folder)
    if card.model not in model_names() and not trust:
        raise ModelError(f"{folder} was trained from {card.model}, and rebuilding it runs that code: read it, then "
                         f"pass --trust")
    path = weights_file(folder, weights)
    network = build_network(card.model, card.options, card.input_shape, card.num_classes)
    try:
        network.load_state_dict(read_weights(path))
    except RuntimeError as error:
        raise ModelError(f"{path} holds the weights of another network than {folder / 'model.json'} names: {error}"
                         ) from None
    return network.eval(), card


def weights_file(folder: Path, weights: str) -> Path:
    """Where the best or last weights of a model folder lie; FileError where no epoch was finished."""
    return folder / "best.safetensors" if weights == "best" else last_checkpoint(folder) / "weights.safetensors"


def write_weights(path: Path, network: nn.Module) -> None:
    """The state dict as safetensors, whole or not at all."""
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    write_whole(path, lambda temporary: save_file(state, temporary))


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Raises FileError for a missing or corrupt file."""
    if not path.is_file():
        raise FileError(f"there are no weights {path}: was the model trained to the end of an epoch?")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise FileError(f"the weights {path} are corrupt: {error}") from None


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
        raise explained(error, final) from error
    for older in checkpoints(folder)[:-1]:
        shutil.rmtree(older, ignore_errors=True)


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    return sorted((folder / "checkpoints").glob("[0-9]*"))


def last_checkpoint(folder: Path) -> Path:
    """The latest whole checkpoint, or FileError."""
    found = checkpoints(folder)
    if not found:
        raise FileError(f"{folder} has no checkpoint: no epoch was finished")
    return found[-1]


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The optimiser's side of a checkpoint; nothing in the file is executed."""
    try:
        return torch.load(checkpoint / "state.pt", weights_only=True, map_location="cpu")
    except Exception as error:  # torch.load raises many kinds for a damaged file
        raise FileError(f"the checkpoint {checkpoint / 'state.pt'} is missing or corrupt: {error}") from None


def module_hash(network: nn.Module, source: bytes | None = None) -> str:
    """SHA-256 of the sorted state dict and of the source that made the network (its class's module, unless given)."""
    digest = hashlib.sha256(source_of(network) if source is None else source)
    for name, tensor in sorted(network.state_dict().items()):
        array = tensor.detach().cpu().contiguous()
        digest.update(f"\0{name}\0{array.dtype}\0{tuple(array.shape)}\0".encode())
        digest.update(array.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def source_of(network: nn.Module) -> bytes:
    """The source text of the module that defines a network's class, or its qualified name where there is no source."""
    kind = type(network)
    try:
        return inspect.getsource(sys.modules[kind.__module__]).encode()
    except (OSError, TypeError, KeyError):
        return f"{kind.__module__}.{kind.__qualname__}".encode()

