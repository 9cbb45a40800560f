"""The denoiser that options put in front of a classifier, and the walk or the flow after it."""

import inspect
import warnings
from pathlib import Path
from typing import Any

from torch import nn

from smoothcert.checks import construct
from smoothcert.classifiers.card import DENOISER_FIGURES
from smoothcert.classifiers.folder import ModelCard, denoiser_card, read_denoiser
from smoothcert.config.sampling import RunConfig
from smoothcert.denoise import DENOISERS, Attractor, DenoisedClassifier, WalkJump, build_denoiser
from smoothcert.errors import InputError, ModelError, QualityWarning
from smoothcert.models.layers import Shape

_NO_OPTIONS = ("first", "second", "sigma")


def put_behind_denoiser(classifier: Any, config: RunConfig | None, shape: Shape, sigma: float | None) -> Any:
    """Return a base classifier behind the denoiser that the options ask for; the classifier itself without one.

    Args:
        classifier: a `DenoisedClassifier` where the model includes its own denoiser.
        shape: of one input, (C, H, W) of images.
        sigma: the noise level; None is that of the denoiser.
    Raises:
        InputError: two denoisers, none for a walk or a flow to start from, or another sigma than the denoiser's.
        FileError, ModelError: a denoiser cannot be read, or takes other inputs.
    """
    trust = config.trust if config else False
    bundled = classifier if isinstance(classifier, DenoisedClassifier) else None
    folder = config.denoiser if config else None
    if bundled and folder:
        raise InputError(f"denoiser: {folder} cannot stand in front of a model that was trained behind a denoiser and "
                         f"includes it: leave --denoiser out")
    if bundled:
        first, behind, level = bundled.denoiser, bundled.classifier, sigma or bundled.sigma
    elif folder:
        first, card = read_denoiser_for(folder, shape, sigma, trust)
        behind, level = classifier, sigma or float(card.sigma or 0)
    elif config and (config.walk_jump or config.attractor):
        raise InputError("walk-jump and attractor start from a denoiser's estimate: give denoiser, its directory, or a "
                         "model that was trained behind one")
    else:
        return classifier
    return DenoisedClassifier(_add_walk(first, config, shape, level) if config else first, behind, level)


def read_denoiser_for(part: Any, shape: Shape, sigma: float | None = None, trust: bool = False
                      ) -> tuple[nn.Module, ModelCard]:
    """Return a denoiser, frozen, and its card.

    Args:
        part: the folder of a trained denoiser; or the name or the place of code of another one, or the object itself.
        shape: of one input, (C, H, W) of images. sigma: the noise level, for a denoiser that is not in a folder.
        trust: run the code that a folder names.
    Raises:
        FileError, ModelError: as `read_denoiser` does, or a folder's denoiser takes inputs of another shape.
        InputError: as `build_denoiser` does.
    """
    if not isinstance(part, Path):
        made = build_denoiser(part, shape, sigma) if isinstance(part, str) else part
        if not isinstance(made, nn.Module):
            raise InputError(f"denoiser: a torch module (y, sigma) -> estimate was expected, got {type(made).__name__}")
        card = ModelCard(DENOISERS.label(part), {}, shape, 2, ("0", "1"), 255, {}, sigma, {}, kind="denoiser")
        return made.eval().requires_grad_(False), card
    folder = part
    denoiser, card = read_denoiser(folder, trust)
    warn_if_useless(card, str(folder))
    if card.input_shape != shape:
        raise ModelError(f"the denoiser {folder} takes inputs of shape {card.input_shape}, but the data set has "
                         f"{shape}: use the data it was trained on")
    return denoiser, card


def warn_if_useless(card: ModelCard, name: str) -> None:
    """Warn about a denoiser whose estimates of held-out images were no closer to them than the noisy images."""
    error, without = (card.best.get(figure) for figure in DENOISER_FIGURES)
    if card.kind == "denoiser" and error is not None and without is not None and error >= without:
        warnings.warn(f"the denoiser {name} is worse than none: on held-out images its squared error is {error:.4g} an "
                      f"image, against {without:.4g} for the noisy images themselves; train it longer, or at a lower "
                      f"learning rate", QualityWarning, stacklevel=3)


def identify_denoiser(config: RunConfig | None) -> dict[str, Any]:
    """Return what an identity says of a denoiser that the options name by its code: the SHA-256 of its files."""
    if config is None or config.denoiser is None or isinstance(config.denoiser, Path):
        return {}
    return {"denoiser_sources": DENOISERS.sources(config.denoiser)}


def denoiser_sigma(folder: Any) -> float | None:
    """Return the only noise level that a folder's denoiser serves; None without a folder, or where it serves all."""
    if not isinstance(folder, Path):
        return None
    card = denoiser_card(folder)
    return None if card.options.get("conditioned") else card.sigma


def _add_walk(first: nn.Module, config: RunConfig, shape: Shape, sigma: float) -> nn.Module:
    """Return the denoiser with the walk or the flow that the options ask for; itself without one."""
    folder = config.walk_jump or config.attractor
    if folder is None:
        return first
    kind = WalkJump if config.walk_jump else Attractor
    second = read_denoiser_for(folder, shape, trust=config.trust)[0]
    takes = list(inspect.signature(kind).parameters)
    known = [name for name in takes if name not in _NO_OPTIONS]
    fixed = {"sigma2": getattr(second, "sigma", None), **({"sigma": sigma} if "sigma" in takes else {})}
    if {**fixed, **config.front_option}["sigma2"] is None:
        raise InputError(f"front_option: {folder} serves every noise level: give that of the walk with sigma2=, such "
                         f"as sigma2=0.05")
    return construct(f"front_option: {kind.__name__}", lambda **given: kind(first, second, **{**fixed, **given}), known,
                     config.front_option).eval()
