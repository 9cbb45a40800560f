"""Any model a run may name, opened: the callable, what identifies it, and what its folder says of it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from smoothcert.classes import chosen_names, own_classes
from smoothcert.denoise import DenoisedClassifier, generator_normals
from smoothcert.errors import FileError, InputError, ModelError, SmoothcertError
from smoothcert.models import MODEL_FORMS, is_model_spec, load_model
from smoothcert.runs.config import RunConfig
from smoothcert.runs.fronts import fronted
from smoothcert.runs.modeldir import ModelCard, check_model_dir, module_hash, read_card, read_network, source_of
from smoothcert.smoothing import BaseClassifier, base_classifier, check_ready
from smoothcert.smoothing.protocols import is_random, owner_of


@dataclass(frozen=True)
class Classifier:
    """A base classifier ready to certify.

    Attributes:
        identity: goes into the store's, and says how the model was identified.
        num_classes: K. class_names: the names of its classes, in the order of its outputs; None where it has none.
    """

    model: BaseClassifier
    identity: dict[str, str]
    num_classes: int
    class_names: tuple[str, ...] | None = None


def model_card(spec: str) -> ModelCard | None:
    """The card of a model folder, None for any other way to name a model.

    Raises:
        FileError: neither; the message lists the ways. ModelError: the folder holds a denoiser.
    """
    folder = Path(spec)
    if not folder.is_dir():
        if not is_model_spec(spec):
            raise FileError(f"there is no model folder {spec}; a model may also be given as {', '.join(MODEL_FORMS)}")
        return None
    check_model_dir(folder)
    card = read_card(folder)
    if card.kind == "denoiser":
        raise ModelError(f"{folder} is a denoiser, whose answers are images: put it in front of a classifier with "
                         f"--denoiser")
    return card


def open_classifier(
    spec: str, input_shape: tuple[int, int, int], num_classes: int, *, classes: Sequence[str] | None = None,
    weights: str = "best", trust: bool = False, model_id: str | None = None, device: torch.device | None = None,
    sigma: float | None = None, front: RunConfig | None = None,
) -> Classifier:
    """Open the model that `spec` names, with what is to stand in front of it, and try it on one image.

    Identified by, in this order: the folder's or network's state dict and source (`module`), the file's bytes
    (`file`), the given `model_id` (`id`), or its answers to fixed inputs (`probe`). A denoiser's state dict and source
    are part of `module`, and come beside the others as `denoiser`.

    Args:
        num_classes: K, for a factory that asks for it; the model may turn out to have another number.
        classes: the names of the model's classes in the order of its outputs; None are its own.
        sigma: noise level that a denoiser will see; None is that of the one the model brings.
        front: options that may put a denoiser in front.
    Raises:
        FileError, ModelError: what is missing, corrupt, or does not keep a base classifier's contract.
        InputError: another sigma than the denoiser's, two denoisers, or `classes` that the model contradicts.
    """
    outputs: Sequence[int | str] | None = None
    if Path(spec).is_dir():
        model_card(spec)
        model, card = read_network(Path(spec), weights, trust)
        if card.input_shape != input_shape:
            raise ModelError(f"{spec} takes images of shape {card.input_shape}, the data set has {input_shape}: use "
                             f"the data it was trained on, or --resize and --crop")
        own: tuple[str, ...] | None = card.class_names
        source: bytes | None = None
    else:
        expected = num_classes if classes is None else len(classes)
        loaded = load_model(spec, num_classes=expected if expected > 1 else None, input_shape=input_shape, trust=trust)
        model, source = loaded.model, loaded.content
        labels = getattr(owner_of(model), "classes_", None)
        outputs, own = (None, None) if labels is None else own_classes(labels, expected)
    names = chosen_names(own, classes)
    classifier = base_classifier(model, len(own or names or ()) or num_classes, outputs)
    classifier = fronted(classifier, front, input_shape, sigma)
    if isinstance(classifier, nn.Module) and device is not None:
        classifier = classifier.to(device)
    check_ready(classifier)
    answers = _probe(classifier, input_shape, device)
    count = answers.shape[1]
    if names is not None and len(names) != count:
        raise InputError(f"{spec} gives {count} scores an image, and {len(names)} classes are named"
                         + (": give --classes FILE with as many names" if classes else ""))
    return Classifier(classifier, _identity(spec, classifier, source, model_id, answers), count, names)


def _identity(spec: str, model: Any, source: bytes | None, model_id: str | None, answers: np.ndarray) -> dict[str, str]:
    composed = isinstance(model, DenoisedClassifier)
    is_file = Path(spec).suffix in (".onnx", ".pt2") and source is not None
    if isinstance(model.classifier if composed else model, nn.Module) and not is_file:
        text = source + source_of(model) if composed and source is not None else source
        return {"by": "module", "sha256": module_hash(model, text)}
    beside = {"denoiser": module_hash(model.denoiser)} if composed else {}
    if is_file:
        return {"by": "file", "sha256": hashlib.sha256(source or b"").hexdigest(), **beside}
    if model_id:
        return {"by": "id", "id": model_id, **beside}
    return {"by": "probe", "sha256": hashlib.sha256(answers.tobytes()).hexdigest(), **beside}


def _probe(classifier: BaseClassifier, shape: tuple[int, int, int], device: torch.device | None) -> np.ndarray:
    """Logits (16, K) of 16 fixed noisy inputs, after checking that the model takes such images at all."""
    generator = np.random.default_rng(0)
    inputs = 0.5 + 0.5 * generator.standard_normal((16, *shape), dtype=np.float32)
    where = device or torch.device("cpu")
    normals = [generator_normals(torch.Generator(where).manual_seed(0))] if is_random(classifier) else []
    try:
        with torch.no_grad():
            logits = classifier(torch.from_numpy(inputs).to(where), *normals)
    except SmoothcertError:
        raise
    except Exception as error:
        raise ModelError(f"the model cannot take float32 images of shape (N, {', '.join(map(str, shape))}): "
                         f"{type(error).__name__}: {error}") from error
    if isinstance(logits, torch.Tensor):
        logits = logits.cpu().numpy()
    if not isinstance(logits, np.ndarray) or logits.ndim != 2 or len(logits) != 16:
        raise ModelError(f"the model must return logits of shape (16, K), K classes, for 16 images, got "
                         f"{getattr(logits, 'shape', type(logits).__name__)}")
    if np.isnan(logits).any():
        raise ModelError("the model returns NaN logits: check its weights, and that it takes images in [0, 1]")
    return np.ascontiguousarray(logits, dtype=np.float32)
