"""Base classifiers opened by name: the callable, its identity, and its classes."""

import hashlib
import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from smoothcert.classes import choose_names, own_classes
from smoothcert.classifiers.denoisers import identify_denoiser, put_behind_denoiser
from smoothcert.classifiers.ensembles import ENSEMBLE_FORMS, ensemble_card, is_ensemble, read_ensemble
from smoothcert.classifiers.folder import (
    ModelCard,
    check_model_dir,
    integer_file,
    module_hash,
    read_card,
    read_network,
    source_of,
)
from smoothcert.config.model import ModelConfig
from smoothcert.config.sampling import RunConfig
from smoothcert.denoise import DenoisedClassifier, DiffusionDenoiser, generator_normals
from smoothcert.errors import FileError, InputError, ModelError, RandomWeightsWarning
from smoothcert.io.paths import is_weights_file, local_path
from smoothcert.models import MODEL_FORMS, MODELS, is_model_spec, label_model, load_model, model_names, model_sources
from smoothcert.models.loaded import FILES, SKLEARN
from smoothcert.models.random_weights import has_random_weights
from smoothcert.models.weights import check_network
from smoothcert.smoothing import BaseClassifier, base_classifier, check_ready
from smoothcert.smoothing.adapters import Fit, adapted, behind_fit
from smoothcert.smoothing.batching import ONE_ROW
from smoothcert.smoothing.classifier import refuse_smoothed
from smoothcert.smoothing.content import attributes_hash, attributes_of, keep_equal
from smoothcert.smoothing.contract import Conduct, try_rows
from smoothcert.smoothing.files import runtime_of
from smoothcert.smoothing.outputs import real_function
from smoothcert.smoothing.precision import reduce_precision
from smoothcert.smoothing.protocols import check_logits, is_random, owner_of


@dataclass(frozen=True)
class Classifier:
    """A base classifier ready to certify.

    Attributes:
        identity: a part of the store's identity; it says how the model was identified.
        conduct: the model's behaviour on a few rows.
        num_classes: K. class_names: in the order of its outputs; None where its classes have no names.
        note: how the weights of a file became the network's; "" for other models.
        columns: of the table that the model was fitted on; () where it does not say.
    """

    model: BaseClassifier
    identity: dict[str, Any]
    conduct: Conduct
    num_classes: int
    class_names: tuple[str, ...] | None = None
    note: str = ""
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Loaded:
    """A model as it was loaded, before it is adapted.

    Attributes:
        source: the bytes that identify its code or file, None for a named network.
        code: the factory or hub name whose code made it, or the object that was given; None where smoothcert's own
            code or a file did.
        output: the output to select, where the loader did not.
        names: the names of its classes, None where it has none.
        columns: the classes of its outputs, None for all in order.
        beside: further parts of its identity.
        note: that of the `Classifier`.
    """

    model: Any
    source: bytes | None
    code: Any
    output: str | int | None
    names: Sequence[str] | None
    columns: Sequence[int | str] | None
    beside: dict[str, Any]
    note: str = ""


def model_card(asked: ModelConfig) -> ModelCard | None:
    """Return the card of a model folder, an entry of the zoo or an ensemble of these, None for a model that is named in
    another way or given as an object.

    Raises:
        FileError: neither; the message lists the ways. UnknownNameError: no such entry. ModelError: the folder holds a
        denoiser. InputError: a file of weights without its network, or a normalisation for a folder's model.
    """
    spec = asked.model
    if not isinstance(spec, str):
        return None
    if is_ensemble(spec):
        if asked.mean is not None:
            raise InputError("mean and std: the members of an ensemble normalise inside: leave them out")
        return ensemble_card(spec)
    folder = local_path(spec)
    if not folder.is_dir():
        if spec in model_names():
            raise FileError(f"{spec} is a network without weights: give a file of them (certify FILE.pt --model "
                            f"{spec}), or train it (train --model {spec} -o DIR) and give its directory")
        if not is_model_spec(spec):
            raise FileError(f"there is no model folder {spec}; other ways to name a model: zoo:NAME, "
                            f"{', '.join((*ENSEMBLE_FORMS, *MODEL_FORMS))}")
        if is_weights_file(spec):
            check_network(spec, asked.network)
        return None
    check_model_dir(folder)
    if asked.mean is not None:
        raise InputError(f"mean and std: {folder} has its normalisation inside already: leave them out")
    card = read_card(folder)
    if card.kind == "denoiser":
        raise ModelError(f"{folder} is a denoiser, whose answers are images: put it in front of a classifier with "
                         f"--denoiser")
    return card


def open_classifier(
    asked: ModelConfig | Any, input_shape: tuple[int, ...], num_classes: int, *, sigma: float | None = None,
    bounds: tuple[float, float] | None = (0, 1), classes: Sequence[str] | None = None, model_id: str | None = None,
    device: torch.device | None = None, front: RunConfig | None = None, output: str | int | None = None,
    runtime: str | None = None, real: bool = False,
) -> Classifier:
    """Open the model that the options name or hold, put it behind a denoiser if `front` says so, and try it on images.

    Its identity is, in this order: its state dict and source (`module`), the file's bytes (`file`), the given
    `model_id` (`id`), or its answers to fixed inputs (`probe`). A denoiser's state dict and source are part of
    `module`, and a part `denoiser` beside the others. A model that a user's code or a hub makes has three more parts:
    `sources`, the local files of its code (see `local_sources`); `attributes`, what a network holds beside the state
    dict (see `attributes_of`) and a forward pass does not change; and `answers`, one number for each of 16 fixed
    inputs, compared within rounding (see `sameness`), for anything that the others miss.

    Args:
        asked: the options, or the name alone.
        num_classes: K, for a factory that asks for it; the model may turn out to have another number.
        classes: the names of the model's classes in the order of its outputs; None takes its own.
        sigma: noise level that a denoiser will see; None takes that of the denoiser in the model.
        bounds: (low, high) of the data, near which the model is tried; None for none.
        front: options that may put a denoiser in front.
        output: name or position of the output that holds the logits, where several could; and
        runtime: that of an integer network in a file (see `load_model`); both part of the identity.
        real: whether its outputs are real values, and its scores one more than those (see `smoothing.outputs`).
    Raises:
        FileError, ModelError: the model is missing, corrupt, or does not keep a base classifier's contract.
        InputError: another sigma than the denoiser's, two denoisers, or `classes` that the model contradicts.
    Warns:
        RandomWeightsWarning: a factory loads no weights.
    """
    asked, classes = _read_options(asked, classes, front)
    spec = asked.model
    loaded = _load(asked, input_shape, num_classes if classes is None else len(classes), output, runtime, real)
    names = None if real else choose_names(loaded.names, classes)
    raw = loaded.model.classifier if isinstance(loaded.model, DenoisedClassifier) else loaded.model
    before = attributes_of(raw) if loaded.code is not None and isinstance(raw, nn.Module) else {}
    wanted = len(loaded.names or names or ()) or num_classes
    refuse_smoothed(loaded.model)
    taken = real_function(loaded.model) if real else loaded.model
    model = _move(base_classifier(taken, wanted, None if real else loaded.columns), device)
    check_ready(model)
    model = adapted(model, input_shape, wanted, loaded.output, device)
    classifier = _move(put_behind_denoiser(model, front, input_shape, sigma), device)
    check_ready(classifier)
    conduct = try_rows(reduce_precision(classifier, "float32"), input_shape, None, device or torch.device("cpu"),
                       model=classifier, random=is_random(classifier), sigma=sigma or 0.5, bounds=bounds)
    count = conduct.answers.shape[1]
    if names is not None and len(names) != count:
        raise InputError(f"{label_model(spec)} gives {count} scores an image, but {len(names)} classes are named"
                         + (": give --classes FILE with as many names" if classes else ""))
    ready = behind_fit(classifier, Fit(batch=ONE_ROW)) if conduct.alone else classifier
    answers = _probe(ready, input_shape, count, device, bounds)
    identity = {**_identify(spec, classifier, loaded.source, model_id, answers), **loaded.beside,
                **identify_denoiser(front)}
    if loaded.code is not None:
        identity |= _identify_code(loaded.code, raw, before)
        identity |= {} if is_random(classifier) else {"answers": _summarise(answers)}
    identity |= {} if output is None else {"output": str(output)}
    return Classifier(ready, identity, conduct, count, names, loaded.note, getattr(raw, "fitted_columns", ()))


def _identify_code(code: Any, raw: Any, before: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of an identity that are for models of a user's code, or of a hub; see `open_classifier`."""
    sources = model_sources(code, raw)
    found: dict[str, Any] = {"sources": sources} if sources else {}
    if isinstance(raw, nn.Module):
        found["attributes"] = attributes_hash(keep_equal(before, attributes_of(raw)))
    return found


def _read_options(
    asked: ModelConfig | Any, classes: Sequence[str] | None, front: RunConfig | None
) -> tuple[ModelConfig, Sequence[str] | None]:
    """Return the options that name the model, and the names of its classes where they are given.

    The folder of an integer network stands for the file in it, and gives the classes in its card.

    Raises InputError for `classes` that its card contradicts, weights that it does not have, or a second denoiser.
    """
    asked = asked if isinstance(asked, ModelConfig) else ModelConfig.parse({"model": asked})
    is_folder = isinstance(asked.model, str) and not is_ensemble(asked.model) and local_path(asked.model).is_dir()
    card = model_card(asked) if is_folder else None
    if card is None or card.quantised is None:
        return asked, classes
    if asked.weights != "best":
        raise InputError(f"weights: {asked.model} holds one integer network, and no {asked.weights} weights: leave "
                         f"weights out")
    if card.quantised.denoiser and front is not None and front.denoiser:
        raise InputError(f"denoiser: {asked.model} was quantised behind a denoiser and includes it: leave --denoiser "
                         f"out")
    file = integer_file(local_path(asked.model), card)
    return asked.model_copy(update={"model": str(file)}), choose_names(card.class_names, classes)


def _load(
    asked: ModelConfig, input_shape: tuple[int, ...], num_classes: int, output: str | int | None,
    runtime: str | None, real: bool,
) -> _Loaded:
    """Load the model of a folder, or of any other spec. Raises FileError or ModelError."""
    spec = asked.model
    if is_ensemble(spec):
        model, cards = read_ensemble(spec, asked.weights, asked.trust)
        _check_shape(spec, cards[0], input_shape)
        codes = [card.model for card in cards if not MODELS.is_own(card.model)]
        return _Loaded(model, None, codes[0] if codes else None, output, cards[0].class_names, None, {})
    if isinstance(spec, str) and (folder := local_path(spec)).is_dir():
        model_card(asked)
        model, card = read_network(folder, asked.weights, asked.trust)
        _check_shape(spec, card, input_shape)
        code = None if MODELS.is_own(card.model) else card.model
        return _Loaded(model, None, code, output, card.class_names, None, {})
    started = time.monotonic()
    known = 1 if real else num_classes if num_classes > 1 else None
    loaded = load_model(spec, num_classes=known, input_shape=input_shape, trust=asked.trust, output=output,
                        network=asked.network, options=asked.model_option, weights=asked.entry, mean=asked.mean,
                        std=asked.std, runtime=runtime)
    if has_random_weights(loaded, time.monotonic() - started):
        warnings.warn(f"{spec} gives a network with random weights: each call of the factory gives others, because it "
                      f"loads none. Its certificates are of an untrained network, and no run of it can be resumed. "
                      f"Load the weights in the factory, or give their file: certify FILE.pt --model {spec}",
                      RandomWeightsWarning, stacklevel=3)
    if loaded.note:
        logging.getLogger(__name__).info(loaded.note)
    labels = getattr(owner_of(loaded.model), "classes_", None)
    columns, names = (None, None) if labels is None else own_classes(labels, num_classes)
    beside: dict[str, Any] = {} if loaded.input_dtype == "float32" else {"input_dtype": loaded.input_dtype}
    if (found := runtime_of(loaded.model)) is not None:
        beside["runtime"] = found.identity()
    if loaded.activations is not None:
        beside["activations"] = loaded.activations
    by_file = loaded.kind in (*FILES, SKLEARN)
    if asked.mean is not None and (by_file or not isinstance(loaded.model, nn.Module)):  # else the hash has its buffers
        beside |= {"mean": list(asked.mean), "std": asked.std and list(asked.std)}
    source, code = (None, spec) if loaded.kind == "object" else (loaded.content, loaded.code)
    return _Loaded(loaded.model, source, code, None, names, columns, beside, loaded.note)


def _check_shape(spec: str, card: ModelCard, input_shape: tuple[int, ...]) -> None:
    """Raise ModelError where a folder's network takes inputs of another shape."""
    if card.input_shape != input_shape:
        images = ", or --resize and --crop" if len(input_shape) == len(card.input_shape) == 3 else ""
        raise ModelError(f"{spec} takes inputs of shape {card.input_shape}, but the data set has {input_shape}: "
                         f"use the data it was trained on{images}")


def _move(model: Any, device: torch.device | None) -> Any:
    """Return a network on a device; a diffusion model's schedule stays on the CPU, where no GPU has to be waited for
    when a step is looked up in it."""
    if not isinstance(model, nn.Module) or device is None:
        return model
    schedules = {part: part.abar for part in model.modules() if isinstance(part, DiffusionDenoiser)}
    model.to(device)
    for part, schedule in schedules.items():
        part.abar = schedule
    return model


def _identify(spec: Any, model: Any, source: bytes | None, model_id: str | None, answers: np.ndarray) -> dict[str, Any]:
    """Return the part of the identity that says how the model was identified; see `open_classifier`."""
    composed = isinstance(model, DenoisedClassifier)
    named = isinstance(spec, str) and (Path(spec).suffix[1:] in FILES or spec.startswith(f"{SKLEARN}:"))
    is_file = named and source is not None
    if isinstance(model.classifier if composed else model, nn.Module) and not is_file:
        text = source + source_of(model) if composed and source is not None else source
        return {"by": "module", "sha256": module_hash(model, text)}
    beside = {"denoiser": module_hash(model.denoiser)} if composed else {}
    if is_file:
        return {"by": "file", "sha256": hashlib.sha256(source or b"").hexdigest(), **beside}
    if model_id:
        return {"by": "id", "id": model_id, **beside}
    return {"by": "probe", "sha256": hashlib.sha256(answers.tobytes()).hexdigest(), **beside}


def _probe(
    classifier: BaseClassifier, shape: tuple[int, ...], num_classes: int, device: torch.device | None,
    bounds: tuple[float, float] | None,
) -> np.ndarray:
    """Return the logits of 16 fixed noisy inputs, (16, K) float32: about the middle of the bounds, or about 0 at scales
    from 1/8 to 4096 where the data's own is not known."""
    middle, scales = 0.0, 2.0 ** np.arange(-3, 13)
    if bounds is not None:
        middle, scales = sum(bounds) / 2, np.full(16, (bounds[1] - bounds[0]) / 2)
    normals = np.random.default_rng(0).standard_normal((16, *shape), dtype=np.float32)
    inputs = np.float32(middle) + scales.astype(np.float32).reshape(-1, *[1] * len(shape)) * normals
    where = device or torch.device("cpu")
    drawn = [generator_normals(torch.Generator(where).manual_seed(0))] if is_random(classifier) else []
    with torch.no_grad():
        logits = reduce_precision(classifier, "float32")(torch.from_numpy(inputs).to(where), *drawn)
    return np.ascontiguousarray(check_logits(logits, 16, num_classes).cpu(), dtype=np.float32)


def _summarise(answers: np.ndarray) -> list[float]:
    """Return one number for each row of logits (16, K): their sum with weights cos(k). Infinities count as twice the
    largest finite value."""
    beyond = 2 * float(np.abs(answers[np.isfinite(answers)]).max(initial=1.0))
    finite = np.nan_to_num(answers.astype(np.float64), posinf=beyond, neginf=-beyond)
    return [float(f"{value:.7g}") for value in finite @ np.cos(np.arange(answers.shape[1]))]
