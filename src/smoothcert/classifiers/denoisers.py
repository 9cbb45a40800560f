"""What the options put between the noise and a classifier: a denoiser, and beyond it a walk or a flow."""

import inspect
import warnings
from pathlib import Path
from typing import Any

from torch import nn

from smoothcert.checks import construct
from smoothcert.classifiers.card import DENOISER_FIGURES
from smoothcert.classifiers.folder import ModelCard, denoiser_card, read_denoiser
from smoothcert.config.sampling import RunConfig
from smoothcert.denoise import Attractor, DenoisedClassifier, WalkJump
from smoothcert.errors import InputError, ModelError, QualityWarning

Shape = tuple[int, int, int]

_NO_OPTIONS = ("first", "second", "sigma")


def fronted(classifier: Any, config: RunConfig | None, shape: Shape, sigma: float | None) -> Any:
    """A base classifier behind what the options put in front of it; itself where that is nothing.

    Args:
        classifier: one that brings its own denoiser is a `DenoisedClassifier`.
        shape: (C, H, W) of the images.
        sigma: the noise level; None is that of the denoiser.
    Raises:
        InputError: two denoisers, none for a walk or a flow to start from, or another sigma than the denoiser's.
        FileError, ModelError: a denoiser cannot be read, or is for other images.
    """
    bundled = classifier if isinstance(classifier, DenoisedClassifier) else None
    folder = config.denoiser if config else None
    if bundled and folder:
        raise InputError(f"denoiser: {folder} cannot stand in front of a model that was trained behind a denoiser and "
                         f"brings it along: leave --denoiser out")
    if bundled:
        first, behind, level = bundled.denoiser, bundled.classifier, sigma or bundled.sigma
    elif folder:
        first, card = checked_denoiser(folder, shape)
        behind, level = classifier, sigma or float(card.sigma or 0)
    elif config and (config.walk_jump or config.attractor):
        raise InputError("walk-jump and attractor start from a denoiser's estimate: give denoiser, its directory, or a "
                         "model that was trained behind one")
    else:
        return classifier
    return DenoisedClassifier(_extended(first, config, shape, level) if config else first, behind, level)


def checked_denoiser(folder: Path, shape: Shape) -> tuple[nn.Module, ModelCard]:
    """The denoiser of a folder, frozen, and its card. Raises FileError or ModelError, also for other images."""
    denoiser, card = read_denoiser(folder)
    warn_if_useless(card, str(folder))
    if card.input_shape != shape:
        raise ModelError(f"the denoiser {folder} takes images of shape {card.input_shape}, the data set has {shape}: "
                         f"use the data it was trained on, or --resize and --crop")
    return denoiser, card


def warn_if_useless(card: ModelCard, name: str) -> None:
    """Warn of a denoiser whose estimates of held-out images were no nearer to them than the noisy images."""
    error, without = (card.best.get(figure) for figure in DENOISER_FIGURES)
    if card.kind == "denoiser" and error is not None and without is not None and error >= without:
        warnings.warn(f"the denoiser {name} is worse than none: on held-out images its squared error is {error:.4g} an "
                      f"image, and that of the noisy images themselves {without:.4g}; train it longer, or at a lower "
                      f"learning rate", QualityWarning, stacklevel=3)


def denoiser_sigma(folder: Path | None) -> float | None:
    """The only noise level that the denoiser of a folder is for; None where there is none, or it serves every one."""
    if folder is None:
        return None
    card = denoiser_card(folder)
    return None if card.options.get("conditioned") else card.sigma


def _extended(first: nn.Module, config: RunConfig, shape: Shape, sigma: float) -> nn.Module:
    """The denoiser with the walk or the flow that the options ask for, or itself."""
    folder = config.walk_jump or config.attractor
    if folder is None:
        return first
    kind = WalkJump if config.walk_jump else Attractor
    second = checked_denoiser(folder, shape)[0]
    takes = list(inspect.signature(kind).parameters)
    known = [name for name in takes if name not in _NO_OPTIONS]
    fixed = {"sigma2": getattr(second, "sigma", None), **({"sigma": sigma} if "sigma" in takes else {})}
    if {**fixed, **config.front_option}["sigma2"] is None:
        raise InputError(f"front_option: {folder} serves every noise level: name the walk's with sigma2=, such as "
                         f"sigma2=0.05")
    return construct(f"front_option: {kind.__name__}", lambda **given: kind(first, second, **{**fixed, **given}), known,
                     config.front_option).eval()
