"""The frozen denoiser that a classifier can be trained behind."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from smoothcert.classifiers.denoisers import checked_denoiser, denoiser_sigma
from smoothcert.classifiers.folder import DENOISER, ModelCard, module_hash
from smoothcert.data import ImageData
from smoothcert.errors import InputError
from smoothcert.training.initial import Initial
from smoothcert.training.options import TrainConfig


@dataclass(frozen=True, eq=False)
class Front:
    """The frozen denoiser that a classifier is trained behind."""

    module: nn.Module
    card: ModelCard

    @property
    def identity(self) -> dict[str, Any]:
        """What of it determines the run's weights."""
        return {"sha256": module_hash(self.module)}


def read_front(
    config: TrainConfig, data: ImageData, initial: Initial | None
) -> tuple[Front | None, TrainConfig]:
    """The denoiser that the options name, or that `initial` was trained behind, if any; and the options, with its
    noise level where they name none.

    Raises:
        InputError: two denoisers, or no noise level. FileError, ModelError: as `checked_denoiser` says.
    """
    bundled = initial.folder / DENOISER if initial and initial.card.denoiser else None
    if bundled and config.denoiser:
        raise InputError(f"denoiser: {config.init} was trained behind a denoiser and brings it along: leave --denoiser "
                         f"out")
    folder = bundled or config.denoiser
    if folder is None:
        return None, config
    front = Front(*checked_denoiser(folder, data.shape))
    sigma = config.sigma or denoiser_sigma(folder)
    if sigma is None:
        raise InputError(f"sigma: the noise level is required, because the denoiser {folder} serves every one")
    return front, config.model_copy(update={"sigma": sigma})
