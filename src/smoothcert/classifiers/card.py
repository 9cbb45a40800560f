"""model.json, the description of a model in its directory, checked when it is read."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from smoothcert.display import Displayed
from smoothcert.errors import FileError
from smoothcert.io.files import list_problems, read_json, write_json
from smoothcert.limits import CARD_COLUMNS, CARD_LAYERS, CARD_OPTION, CLASSES, PIXELS, path_inside

VERSION = 1

INTEGER = "model.onnx"
"""The file of a model directory that holds an integer network; it is also the name of its model in the card."""

DENOISER_FIGURES = ("validation_error", "validation_error_without")
"""The validation figures of a denoiser: its squared error an image, and that of the noisy images themselves."""

_Size = Annotated[int, Field(ge=1)]


def _check_plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return options that are values or lists of values, small enough to build a network with, or raise ValueError."""
    for name, value in values.items():
        single = value if isinstance(value, list | tuple) else [value]
        most = CARD_COLUMNS if name == "features" else CARD_LAYERS
        if len(single) > most or not all(v is None or isinstance(v, str | int | float) for v in single):
            raise ValueError(f"{name} must be a value or a list of at most {most:,} values")
        limit = CARD_LAYERS if name == "depth" else CARD_OPTION
        if any(isinstance(v, int) and abs(v) > limit for v in single):
            raise ValueError(f"{name} has a number above {limit:,}, the limit for it")
    return values


def _check_input_size(shape: tuple[int, ...]) -> tuple[int, ...]:
    if math.prod(shape) > 3 * PIXELS:
        raise ValueError(f"inputs have at most {3 * PIXELS:,} values, got {math.prod(shape):,}")
    return shape


_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class Quantisation:
    """The making of an integer network.

    Attributes:
        sha256: of its file.
        original: the float32 network: its name, and its identity as a store of its certificates has it.
        calibration: the images whose noisy copies set the ranges: data set, split, number and SHA-256.
        noise: its kind, level and seed.
        weights: bits of a weight; symmetric, with a scale for each output channel.
        in_float: the operators that compute in floating point, and how many there are of each.
        versions: of the tools.
        denoiser: true where a denoiser stands in front, within the file.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    sha256: _Sha256
    original: dict[str, Any]
    calibration: dict[str, Any]
    noise: dict[str, Any]
    weights: int
    in_float: dict[str, int]
    versions: dict[str, str]
    denoiser: bool = False


@dataclass(frozen=True, repr=False)
class ModelCard(Displayed):
    """The content of model.json.

    Attributes:
        model: a name that `build_model` or `build_denoiser` takes with `options`, or a user's factory as the command
            line takes it.
        input_shape: of one input, (C, H, W) of images. num_classes: K. class_names: in the order of the outputs.
        levels: levels per unit of the training inputs, for grid noise; None where they are on no grid.
        data: the data set as the command line takes it, with its preprocessing.
        sigma: noise level of the training, or None.
        identity: everything that determined the weights; compared on resume.
        init: the model directory that training started from, which of its weights, and the layers left fresh; or None.
        kind: "classifier" or "denoiser".
        parameters: number of trained numbers.
        held_out: number of images that chose the best epoch; 0 where the last epoch, trained on all images, is the
            best. None in older cards.
        denoiser: the `summary` of the denoiser that a classifier was trained behind, or None.
        epochs_done, best_epoch, best: progress, and the validation figures of the best epoch.
        complete: true once training has ended.
        quantised: how the integer network in the directory was made; None for trained networks.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    model: str
    options: Annotated[dict[str, Any], AfterValidator(_check_plain)]
    input_shape: Annotated[tuple[_Size, ...], Field(min_length=1, max_length=16), AfterValidator(_check_input_size)]
    num_classes: Annotated[int, Field(ge=2, le=CLASSES)]
    class_names: tuple[str, ...]
    levels: _Size | None
    data: Annotated[dict[str, Any], AfterValidator(_check_plain)]
    sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
    identity: dict[str, Any]
    init: dict[str, Any] | None = None
    epochs_done: Annotated[int, Field(ge=0)] = 0
    best_epoch: Annotated[int, Field(ge=0)] = 0
    best: dict[str, float] = field(default_factory=dict)
    complete: bool = False
    kind: Literal["classifier", "denoiser"] = "classifier"
    parameters: int | None = None
    denoiser: dict[str, Any] | None = None
    held_out: Annotated[int, Field(ge=0)] | None = None
    quantised: Quantisation | None = None

    @property
    def progress(self) -> dict[str, Any]:
        """The fields that change from epoch to epoch."""
        return {name: getattr(self, name) for name in ("epochs_done", "best_epoch", "best", "complete")}

    def display_facts(self) -> dict[str, Any]:
        return {"model": self.model, "kind": self.kind, "sigma": self.sigma, "data": self.data.get("data"),
                "shape": self.input_shape, "classes": self.num_classes, "parameters": self.parameters,
                "epochs": self.epochs_done, **self.best}

    def summary(self) -> dict[str, Any]:
        """Return the entry for this model in the cards of other models."""
        return {"model": self.model, "options": self.options, "sigma": self.sigma, "parameters": self.parameters,
                **self.best}


def describe_data(asked: Any, name: str, columns: Sequence[str]) -> dict[str, Any]:
    """Return the entry of a card for the data of a training: as the options `asked` name them, else by their `name`.

    The `columns` of a table are its features, so that later tables are read in the same order.
    """
    features = {"features": list(columns)} if 0 < len(columns) <= CARD_COLUMNS else {}
    named = asked.data if isinstance(asked.data, str) else name
    return {"data": named, "resize": None, "crop": None, **features, **asked.reading}


def is_model_dir(folder: Path) -> bool:
    """Return True for a folder that holds a model."""
    return (folder / "model.json").is_file()


def check_model_dir(folder: Path) -> None:
    """Raise FileError unless a folder holds a model."""
    if not folder.is_dir():
        raise FileError(f"there is no model folder {folder}")
    if not is_model_dir(folder):
        raise FileError(f"{folder} is not a model folder: it has no model.json")


def write_card(folder: Path, card: ModelCard) -> None:
    """Write model.json. Raises FileError."""
    content = {"version": VERSION, **asdict(card)}
    if card.quantised is None:
        del content["quantised"]  # so that older releases read the cards of trained networks
    write_json(folder / "model.json", content)


def read_card(folder: Path) -> ModelCard:
    """Read model.json. Raises FileError if it is missing, corrupt, or beyond the limits of `smoothcert.limits`."""
    path = path_inside(folder, "model.json")
    content = read_json(path)
    if not isinstance(content, dict) or content.pop("version", None) != VERSION:
        raise FileError(f"{path} is not a description of a model in version {VERSION}, which this smoothcert reads")
    try:
        return TypeAdapter(ModelCard).validate_python(content)
    except ValidationError as error:
        raise FileError(list_problems(f"{path} is not the description of a model", error)) from None
