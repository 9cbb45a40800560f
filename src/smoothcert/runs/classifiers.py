"""Any model a run may name, opened: the callable, what identifies it, and what its folder says of it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from smoothcert.errors import FileError, ModelError
from smoothcert.models import MODEL_FORMS, is_model_spec, load_model
from smoothcert.runs.modeldir import ModelCard, is_model_dir, module_hash, read_card, read_network
from smoothcert.smoothing import BaseClassifier, base_classifier, check_ready


@dataclass(frozen=True)
class Classifier:
    """A base classifier ready to certify; `identity` goes into the store's, and says how the model was identified."""

    model: BaseClassifier
    identity: dict[str, str]


def model_card(spec: str) -> ModelCard | None:
    """The card of a model folder, None for any other way to name a model.

    Raises:
        FileError: neither; the message lists the ways.
    """
    folder = Path(spec)
    if not folder.is_dir():
        if not is_model_spec(spec):
            raise FileError(f"there is no model folder {spec}; a model may also be given as {', '.join(MODEL_FORMS)}")
        return None
    if not is_model_dir(folder):
        raise FileError(f"{folder} is no model folder: it has no model.json")
    return read_card(folder)


def open_classifier(
    spec: str, input_shape: tuple[int, int, int], num_classes: int, *, weights: str = "best", trust: bool = False,
    model_id: str | None = None, device: torch.device | None = None,
) -> Classifier:
    """Open the model that `spec` names and try it on one image.

    Identified by, in this order: the folder's or network's state dict and source (`module`), the file's bytes
    (`file`), the given `model_id` (`id`), or its answers to fixed inputs (`probe`).

    Raises:
        FileError, ModelError: what is missing, corrupt, or does not keep a base classifier's contract.
    """
    if Path(spec).is_dir():
        model, card = read_network(Path(spec), weights, trust)
        if card.input_shape != input_shape:
            raise ModelError(f"{spec} takes images of shape {card.input_shape}, the data set has {input_shape}: use "
                             f"the data it was trained on, or --resize and --crop")
        if card.num_classes != num_classes:
            raise ModelError(f"{spec} has {card.num_classes} classes, the data set {num_classes}")
        source: bytes | None = None
    else:
        loaded = load_model(spec, num_classes=num_classes, input_shape=input_shape)
        model, source = loaded.model, loaded.content
    if isinstance(model, nn.Module) and device is not None:
        model = model.to(device)
    classifier = base_classifier(model, num_classes)
    check_ready(classifier)
    answers = _probe(classifier, input_shape, num_classes, device)
    return Classifier(classifier, _identity(spec, model, source, model_id, answers))


def _identity(spec: str, model: Any, source: bytes | None, model_id: str | None, answers: np.ndarray) -> dict[str, str]:
    if Path(spec).suffix in (".onnx", ".pt2") and source is not None:
        return {"by": "file", "sha256": hashlib.sha256(source).hexdigest()}
    if isinstance(model, nn.Module):
        return {"by": "module", "sha256": module_hash(model, source)}
    if model_id:
        return {"by": "id", "id": model_id}
    return {"by": "probe", "sha256": hashlib.sha256(answers.tobytes()).hexdigest()}


def _probe(
    classifier: BaseClassifier, shape: tuple[int, int, int], num_classes: int, device: torch.device | None
) -> np.ndarray:
    """Logits of 16 fixed noisy inputs, after checking that the model takes such images at all."""
    generator = np.random.default_rng(0)
    inputs = 0.5 + 0.5 * generator.standard_normal((16, *shape), dtype=np.float32)
    try:
        with torch.no_grad():
            logits = classifier(torch.from_numpy(inputs).to(device or "cpu"))
    except Exception as error:
        raise ModelError(f"the model cannot take float32 images of shape (N, {', '.join(map(str, shape))}): "
                         f"{type(error).__name__}: {error}") from error
    if isinstance(logits, torch.Tensor):
        logits = logits.cpu().numpy()
    if not isinstance(logits, np.ndarray) or logits.shape != (16, num_classes):
        raise ModelError(f"the model must return logits of shape (16, {num_classes}) for 16 images, got "
                         f"{getattr(logits, 'shape', type(logits).__name__)}")
    if np.isnan(logits).any():
        raise ModelError("the model returns NaN logits: check its weights, and that it takes images in [0, 1]")
    return np.ascontiguousarray(logits, dtype=np.float32)
