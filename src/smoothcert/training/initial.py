"""Fine-tuning: a run that starts from another model directory's weights, with a fresh head where the classes differ."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from smoothcert.classes import are_alike, places_of
from smoothcert.classifiers.folder import ModelCard, is_model_dir, read_card, read_weights, runs_code, weights_file
from smoothcert.data import ImageData
from smoothcert.errors import FileError, InputError, ModelError
from smoothcert.io.files import sha256
from smoothcert.training.options import TrainConfig

_NORMALISATION = ("mean", "std")
_USUAL = {"classifier": "cnn", "denoiser": "energy-residual"}


@dataclass(frozen=True, eq=False)
class Initial:
    """The weights that a run starts from, as in the pre-training of Salman et al. 2019: all but, where the classes
    differ or it is asked for, those of the head, the network's last layer with parameters.

    Attributes:
        folder, weights: the model directory, and whether its best or last weights.
        new_head: leave the head fresh whatever the classes.
        card: what the directory says of its network.
        state: its tensors by name.
        sha256: of the file that holds them.
    """

    folder: Path
    weights: str
    new_head: bool
    card: ModelCard
    state: dict[str, Tensor]
    sha256: str

    @property
    def identity(self) -> dict[str, Any]:
        """What of it determines the run's weights."""
        return {"sha256": self.sha256, "new_head": self.new_head}

    def described(self, fresh: tuple[str, ...]) -> dict[str, Any]:
        """What the card of the run says of it."""
        return {"from": str(self.folder), "weights": self.weights, "fresh": list(fresh)}

    def normalisation(self, asked: str) -> dict[str, Any]:
        """The mean and std inside the source, which its weights are made for; InputError where others are asked for."""
        own = {name: self.card.options[name] for name in _NORMALISATION if name in self.card.options}
        kind = ("none", "centre", "standard")[len(own)]
        if asked not in ("auto", kind):
            raise InputError(f"normalise is {asked}, but {self.folder} was trained with {kind}: leave it out to start "
                             f"from those weights")
        return own

    def ordered(self, data: ImageData) -> ImageData:
        """The data with their classes in the order of the head, where they are the same; else as they are."""
        if self.card.kind != "classifier" or self.new_head or not data.named:
            return data
        if sorted(places_of(self.card.class_names, data.class_names) or ()) != list(range(self.card.num_classes)):
            return data
        return data.with_classes(self.card.class_names, whose=str(self.folder))

    def give(self, network: nn.Module, card: ModelCard) -> tuple[str, ...]:
        """Copy the weights into the `network` of `card` and return the names of the layers left fresh.

        Raises:
            ModelError: a tensor outside the head is missing, left over or of another shape, or nothing is outside.
        """
        others = card.kind == "classifier" and not are_alike(self.card.class_names, card.class_names)
        head = last_layer(network) if self.new_head or others else None
        wanted, given = _without(head, network.state_dict()), _without(head, self.state)
        differing = [name for name in {**wanted, **given} if _shape(wanted, name) != _shape(given, name)]
        if differing:
            lines = [f"  - {name}: {_shape(given, name)} there, {_shape(wanted, name)} here" for name in differing[:5]]
            more = [f"  ... and {len(differing) - 5} more"] if len(differing) > 5 else []
            raise ModelError("\n".join([
                f"{self.folder} ({self.card.model}, images {self.card.input_shape}) has another architecture than the "
                f"network to train{f', whose head is {head!r}' if head else ''}:", *lines, *more,
                "Give the same --model, --model-option and --normalise, or leave them out to take the directory's"]))
        if not any(name in wanted for name, _ in network.named_parameters()):
            raise ModelError(f"{self.folder} has no weights to start from: all of {self.card.model}'s belong to its "
                             f"head {head!r}, which a new one replaces")
        network.load_state_dict(given, strict=False)
        return () if head is None else (head,)


def read_initial(config: TrainConfig) -> Initial | None:
    """What `init` names, or None where it names nothing. Raises FileError for what is no model directory."""
    if config.init is None:
        return None
    if not is_model_dir(config.init):
        raise FileError(f"{config.init} is no model directory to start from: it has no model.json")
    path = weights_file(config.init, config.weights)
    state = read_weights(path)
    return Initial(config.init, config.weights, config.new_head, read_card(config.init), state, sha256(path))


def settled(config: TrainConfig, data: ImageData, initial: Initial | None, trains: str) -> TrainConfig:
    """The configuration with its network named: the one asked for, else that of `initial`, else the usual one.

    Raises:
        ModelError: rebuilding the other network runs code that is not trusted, it takes images of other channels, or
        it is no network of the kind that the objective `trains`.
    """
    if initial is None:
        return config.model_copy(update={"model": config.model or _USUAL[trains]})
    theirs = initial.card
    model = config.model or theirs.model
    if theirs.kind != trains:
        raise ModelError(f"{initial.folder} is a {theirs.kind}, and objective {config.objective} trains a {trains}: "
                         f"start from one of these, or take another objective")
    if config.model is None and runs_code(theirs) and not config.trust:
        raise ModelError(f"{initial.folder} was trained from {model}, and rebuilding it runs that code: read it, then "
                         f"pass --trust, or name it with --model")
    if theirs.input_shape[0] != data.shape[0]:
        raise ModelError(f"{initial.folder} takes images of {theirs.input_shape[0]} channels, {data.name} has "
                         f"{data.shape[0]}")
    options = {name: value for name, value in theirs.options.items() if name not in _NORMALISATION}
    if config.model_option or model != theirs.model:
        options = config.model_option
    return config.model_copy(update={"model": model, "model_option": options})


def last_layer(network: nn.Module) -> str:
    """The name of the last layer that has parameters of its own, in the order the network lists them."""
    return [name for name, layer in network.named_modules() if next(layer.parameters(recurse=False), None) is not None
            ][-1]


def _without(layer: str | None, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that do not belong to a layer."""
    return state if layer is None else {n: t for n, t in state.items() if n.rpartition(".")[0] != layer}


def _shape(state: dict[str, Tensor], name: str) -> tuple[int, ...] | str:
    return tuple(state[name].shape) if name in state else "missing"


