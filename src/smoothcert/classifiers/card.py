"""model.json: what a model directory says of its model, checked when it is read."""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from smoothcert.errors import FileError
from smoothcert.io.files import list_problems, read_json, write_json
from smoothcert.io.limits import CARD_LAYERS, CARD_OPTION, CLASSES, PIXELS, path_inside

VERSION = 1

DENOISER_FIGURES = ("validation_error", "validation_error_without")
"""What validation measures of a denoiser: its squared error an image, and that of the noisy images themselves."""

_Size = Annotated[int, Field(ge=1)]


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return options that are single values or lists of them, small enough to build a network with, or raise."""
    for name, value in values.items():
        single = value if isinstance(value, list | tuple) else [value]
        if len(single) > CARD_LAYERS or not all(v is None or isinstance(v, str | int | float) for v in single):
            raise ValueError(f"{name} must be a value or a list of at most {CARD_LAYERS:,} values")
        limit = CARD_LAYERS if name == "depth" else CARD_OPTION
        if any(isinstance(v, int) and abs(v) > limit for v in single):
            raise ValueError(f"{name} has a number above {limit:,}, the limit for it")
    return values


def _an_image(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    if math.prod(shape) > 3 * PIXELS:
        raise ValueError(f"images have at most {3 * PIXELS:,} values, got {math.prod(shape):,}")
    return shape


@dataclass(frozen=True)
class ModelCard:
    """The content of model.json.

    Attributes:
        model: a name of `build_model`, or of `build_denoiser` (then `options` rebuild it), or a user's factory as the
            command line takes it.
        input_shape, num_classes, class_names: what goes in and what comes out.
        levels: levels per unit of the training images, for grid noise.
        data: the data set as the command line takes it, with its preprocessing.
        sigma: noise level of the training, or None.
        identity: everything that determined the weights; compared on resume.
        init: the model directory whose weights it started from, which of them, and the layers left fresh; or None.
        kind: "classifier" or "denoiser".
        parameters: how many numbers were trained.
        held_out: how many images chose the best epoch; of 0 the best epoch is the last, trained on all images. None
            where an older card does not say.
        denoiser: of a classifier trained behind a denoiser, what that one is (see `told`); or None.
        epochs_done, best_epoch, best: progress, and the validation figures of the best epoch.
        complete: whether training has ended.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    model: str
    options: Annotated[dict[str, Any], AfterValidator(_plain)]
    input_shape: Annotated[tuple[_Size, _Size, _Size], AfterValidator(_an_image)]
    num_classes: Annotated[int, Field(ge=2, le=CLASSES)]
    class_names: tuple[str, ...]
    levels: _Size
    data: Annotated[dict[str, Any], AfterValidator(_plain)]
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

    @property
    def progress(self) -> dict[str, Any]:
        """The fields that change from epoch to epoch."""
        return {name: getattr(self, name) for name in ("epochs_done", "best_epoch", "best", "complete")}

    def told(self) -> dict[str, Any]:
        """What others' cards say of this model."""
        return {"model": self.model, "options": self.options, "sigma": self.sigma, "parameters": self.parameters,
                **self.best}


def is_model_dir(folder: Path) -> bool:
    return (folder / "model.json").is_file()


def check_model_dir(folder: Path) -> None:
    """Raise FileError unless a folder holds a model."""
    if not folder.is_dir():
        raise FileError(f"there is no model folder {folder}")
    if not is_model_dir(folder):
        raise FileError(f"{folder} is no model folder: it has no model.json")


def write_card(folder: Path, card: ModelCard) -> None:
    write_json(folder / "model.json", {"version": VERSION, **asdict(card)})


def read_card(folder: Path) -> ModelCard:
    """Raises FileError for a model.json that is missing, corrupt, or beyond the limits of `smoothcert.io.limits`."""
    path = path_inside(folder, "model.json")
    content = read_json(path)
    if not isinstance(content, dict) or content.pop("version", None) != VERSION:
        raise FileError(f"{path} is not a model's description of version {VERSION}, which this smoothcert reads")
    try:
        return TypeAdapter(ModelCard).validate_python(content)
    except ValidationError as error:
        raise FileError(list_problems(f"{path} is not the description of a model", error)) from None
