"""Options that say which network a model is and which weights it has."""

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from smoothcert.config.base import Config
from smoothcert.config.fields import Channels, Options
from smoothcert.io.paths import WEIGHTS_SUFFIXES, is_weights_file

_OF_DIRECTORY = ("best", "last")


class ModelConfig(Config):
    """Options of every run and check that opens a model, beside the model's name."""

    model: Any
    weights: str = Field("best", description="which weights: of a model directory best or last; of a file of weights "
                                             "the entry, such as state_dict_ema, where several fit")
    network: str | None = Field(
        None, description="network of a file of weights: resnet110 or another name that train takes, file.py:factory, "
                          "package.module:factory, timm:NAME or torchvision:NAME",
        json_schema_extra={"also": "--model"})
    model_option: Options = Field(default_factory=dict, description="option of that network, KEY=VALUE (repeatable), "
                                                                    "such as activation=elu")
    mean: Channels | None = Field(None, description="normalisation to put in front of the model, (x - mean) / std: one "
                                                    "number for each channel, such as 0.4914,0.4822,0.4465, or one "
                                                    "for all (default: the model normalises by itself)")
    std: Channels | None = Field(None, description="standard deviation of that normalisation; mean alone is only "
                                                   "subtracted")
    trust: bool = Field(False, description="run the code that a model directory or a .pt2 file brings, or make the "
                                            "objects of any type that a .skops file names")

    @property
    def entry(self) -> str | None:
        """The entry of a file of weights that is asked for; None takes the only one that fits."""
        return None if self.weights == "best" else self.weights

    def _contradictions(self) -> Iterator[str]:
        yield from check_weights_options(self.model, self.weights, self.network, self.model_option)
        yield from check_normalisation(self.mean, self.std)


def check_weights_options(
    model: str | None, weights: str, network: str | None, options: dict[str, Any]
) -> Iterator[str]:
    """Yield what is wrong with the options of a file of weights where the model is none, and the other way round."""
    if model is None or is_weights_file(model):
        return
    if weights not in _OF_DIRECTORY:
        yield f"weights: must be best or last, got {weights!r}; only a file of weights has other entries"
    given = [name for name, value in (("network", network), ("model-option", options)) if value]
    if given:
        yield (f"{' and '.join(given)} go with a file of weights ({', '.join(WEIGHTS_SUFFIXES)}); {model} is none, and "
               f"names its network by itself")


def check_normalisation(mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> Iterator[str]:
    """Yield what is wrong with a mean and a standard deviation, whatever the images."""
    if std is not None and mean is None:
        yield "std is given without mean: give both, or mean alone, to subtract it only"
    if std is not None and not all(value > 0 for value in std):
        yield f"std: must be above 0 in every channel, got {','.join(f'{value:g}' for value in std)}"
    if mean and std and len(mean) != len(std) and 1 not in (len(mean), len(std)):
        yield f"mean has {len(mean)} channels and std has {len(std)}"
