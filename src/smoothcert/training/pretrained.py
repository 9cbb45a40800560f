"""Pretrained models that a run uses: the weights that it starts from, and the frozen denoiser in front of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from smoothcert.classes import are_alike, places_of
from smoothcert.classifiers.card import ModelCard, is_model_dir, read_card
from smoothcert.classifiers.denoisers import denoiser_sigma, read_denoiser_for
from smoothcert.classifiers.folder import (
    DENOISER,
    module_hash,
    read_weights,
    refuse_integer,
    runs_code,
    weights_file,
)
from smoothcert.data import ImageData
from smoothcert.errors import FileError, InputError, ModelError
from smoothcert.io.files import sha256
from smoothcert.io.paths import is_weights_file, name_folder
from smoothcert.models import load_model, model_names
from smoothcert.models.matching import last_layer
from smoothcert.models.weights import check_network
from smoothcert.training.options import TrainConfig

_NORMALISATION = ("mean", "std")


@dataclass(frozen=True, eq=False)
class InitialWeights:
    """The weights that a run starts from, as in the pre-training of Salman et al. 2019.

    All of them are used but those of the head, the network's last layer with parameters, where the classes differ or a
    new head is asked for.

    Attributes:
        folder, weights: the model directory, and which of its weights, best or last; or a file of weights, and the
            entry asked for.
        new_head: keep the head fresh whatever the classes.
        card: the directory's model card; of a file, what its weights are of.
        state: its tensors by name.
        sha256: hash of the file that holds them.
    """

    folder: Path
    weights: str
    new_head: bool
    card: ModelCard
    state: dict[str, Tensor]
    sha256: str

    @property
    def identity(self) -> dict[str, Any]:
        """The part of the run's identity that these weights determine."""
        return {"sha256": self.sha256, "new_head": self.new_head}

    def describe(self, fresh: tuple[str, ...]) -> dict[str, Any]:
        """Return the entry `init` of the run's card."""
        return {"from": name_folder(self.folder), "weights": self.weights, "fresh": list(fresh)}

    def normalisation(self, asked: str) -> dict[str, Any]:
        """Return the mean and std inside the source network, which its weights are made for.

        Raises InputError where another normalisation is asked for.
        """
        own = {name: self.card.options[name] for name in _NORMALISATION if name in self.card.options}
        kind = ("none", "centre", "standard")[len(own)]
        if asked not in ("auto", kind):
            raise InputError(f"normalise is {asked}, but {self.folder} was trained with {kind}: leave it out to start "
                             f"from those weights")
        return own

    def order_classes(self, data: ImageData) -> ImageData:
        """Return the data with their classes in the order of the head, where the classes are the same; else as is."""
        if self.card.kind != "classifier" or self.new_head or not data.named:
            return data
        if sorted(places_of(self.card.class_names, data.class_names) or ()) != list(range(self.card.num_classes)):
            return data
        return data.with_classes(self.card.class_names, whose=str(self.folder))

    def name_network(self, config: TrainConfig, data: ImageData, trains: str) -> TrainConfig:
        """Return the configuration with the source's network and options where it names no other network.

        Raises:
            ModelError: rebuilding the source's network runs code that is not trusted, it takes images with another
            number of channels, or it is not of the kind that the objective `trains`.
        """
        theirs = self.card
        model = config.model or theirs.model
        if theirs.kind != trains:
            raise ModelError(f"{self.folder} is a {theirs.kind}, but objective {config.objective} trains a {trains}: "
                             f"start from a {trains}, or take another objective")
        if config.model is None and runs_code(theirs) and not config.trust:
            raise ModelError(f"{self.folder} was trained from {model}, and rebuilding it runs that code: read it, then "
                             f"pass --trust, or name it with --model")
        if theirs.input_shape[0] != data.shape[0]:
            raise ModelError(f"{self.folder} takes images with {theirs.input_shape[0]} channels, but {data.name} has "
                             f"{data.shape[0]}")
        options = {name: value for name, value in theirs.options.items() if name not in _NORMALISATION}
        if config.model_option or model != theirs.model:
            options = config.model_option
        return config.model_copy(update={"model": model, "model_option": options})

    def copy_to(self, network: nn.Module, card: ModelCard) -> tuple[str, ...]:
        """Copy the weights into the `network` of `card` and return the names of the layers that stay fresh.

        Raises ModelError where a tensor outside the head is missing, left over or of another shape, or none is outside.
        """
        differ = card.kind == "classifier" and not are_alike(self.card.class_names, card.class_names)
        head = last_layer(network) if self.new_head or differ else None
        wanted, given = _without(head, network.state_dict()), _without(head, self.state)
        differing = [name for name in {**wanted, **given} if _shape(wanted, name) != _shape(given, name)]
        if differing:
            lines = [f"  - {name}: {_shape(given, name)} there, {_shape(wanted, name)} here" for name in differing[:5]]
            more = [f"  ... and {len(differing) - 5} more"] if len(differing) > 5 else []
            raise ModelError("\n".join([
                f"{self.folder} ({self.card.model}, images {self.card.input_shape}) has another architecture than the "
                f"network to train{f', whose head is {head!r}' if head else ''}:", *lines, *more,
                "Give the same --model, --model-option and --normalise, or leave them out to use those of the folder"]))
        if not any(name in wanted for name, _ in network.named_parameters()):
            raise ModelError(f"{self.folder} has no weights to start from: all weights of {self.card.model} belong to "
                             f"its head {head!r}, which a new one replaces")
        network.load_state_dict(given, strict=False)
        return () if head is None else (head,)


def read_initial_weights(config: TrainConfig, data: ImageData) -> InitialWeights | None:
    """Read the weights of option `init`; None without it.

    Raises FileError where it is neither a model directory nor a file of weights, and what `load_model` raises.
    """
    if config.init is None:
        return None
    if is_weights_file(config.init) and not config.init.is_dir():
        return _read_file(config, config.init, data)
    if not is_model_dir(config.init):
        raise FileError(f"{config.init} is not a model directory to start from (it has no model.json), nor a file of "
                        f"weights")
    card = read_card(config.init)
    refuse_integer(config.init, card)
    path = weights_file(config.init, config.weights)
    state = read_weights(path)
    return InitialWeights(config.init, config.weights, config.new_head, card, state, sha256(path))


def _read_file(config: TrainConfig, path: Path, data: ImageData) -> InitialWeights:
    """Read a file of weights, of the network that the options name; its classes are the data's where there are as many.
    """
    model = check_network(str(path), config.model, "--model")
    network: Any = load_model(
        str(path), num_classes=data.num_classes, input_shape=data.shape, network=model, options=config.model_option,
        weights=None if config.weights == "best" else config.weights, mean=config.mean, std=config.std).model
    front = getattr(network, "normalise", None) if isinstance(network, nn.Sequential) else None
    inside = {name: getattr(front, name).flatten().tolist() for name in _NORMALISATION if hasattr(front, name)}
    if inside and model not in model_names():
        raise InputError(f"mean and std: {model} is trained as it is: normalise inside it")
    head = network.get_submodule(last_layer(network))
    count = next(head.parameters(recurse=False)).shape[0]
    names = data.class_names if count == data.num_classes else tuple(f"class {k} of {path.name}" for k in range(count))
    card = ModelCard(model=model, options={**config.model_option, **inside}, input_shape=data.shape, num_classes=count,
                     class_names=names, levels=data.levels, data={}, sigma=None, identity={})
    return InitialWeights(path, config.weights, config.new_head, card, network.state_dict(), sha256(path))


def _without(layer: str | None, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that do not belong to a layer."""
    return state if layer is None else {n: t for n, t in state.items() if n.rpartition(".")[0] != layer}


def _shape(state: dict[str, Tensor], name: str) -> tuple[int, ...] | str:
    return tuple(state[name].shape) if name in state else "missing"


@dataclass(frozen=True, eq=False)
class FrozenDenoiser:
    """The denoiser that a classifier is trained behind."""

    module: nn.Module
    card: ModelCard

    @property
    def identity(self) -> dict[str, Any]:
        """The part of the run's identity that the denoiser determines."""
        return {"sha256": module_hash(self.module)}


def read_frozen_denoiser(
    config: TrainConfig, data: ImageData, initial: InitialWeights | None
) -> tuple[FrozenDenoiser | None, TrainConfig]:
    """Read the denoiser that the options name, or that `initial` was trained behind, if any; and return the options
    with its noise level where they give none.

    Raises:
        InputError: two denoisers, or no noise level. FileError, ModelError: as `read_denoiser_for` says.
    """
    bundled = initial.folder / DENOISER if initial and initial.card.denoiser else None
    if bundled and config.denoiser:
        raise InputError(f"denoiser: {config.init} was trained behind a denoiser and includes it: leave --denoiser out")
    folder = bundled or config.denoiser
    if folder is None:
        return None, config
    front = FrozenDenoiser(*read_denoiser_for(folder, data.shape, config.sigma, config.trust))
    sigma = config.sigma or denoiser_sigma(folder)
    if sigma is None:
        raise InputError(f"sigma: the noise level is required, because the denoiser {folder} serves every level")
    return front, config.model_copy(update={"sigma": sigma})
