"""Any model a run may name, opened: the callable, what identifies it, and what its folder says of it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from smoothcert.classes import choose_names, own_classes
from smoothcert.classifiers.denoisers import fronted
from smoothcert.classifiers.folder import (
    ModelCard,
    check_model_dir,
    module_hash,
    read_card,
    read_network,
    runs_code,
    source_of,
)
from smoothcert.config.sampling import RunConfig
from smoothcert.denoise import DenoisedClassifier, generator_normals
from smoothcert.errors import FileError, InputError, ModelError
from smoothcert.io.zoo import local_path
from smoothcert.models import MODEL_FORMS, is_model_spec, load_model, model_sources
from smoothcert.smoothing import BaseClassifier, base_classifier, check_ready
from smoothcert.smoothing.adapters import Fit, adapted, behind_fit
from smoothcert.smoothing.batching import ONE_ROW
from smoothcert.smoothing.content import attributes_hash, attributes_of, settled
from smoothcert.smoothing.contract import Conduct, try_rows
from smoothcert.smoothing.engines.precision import reduced
from smoothcert.smoothing.protocols import check_logits, is_random, owner_of


@dataclass(frozen=True)
class Classifier:
    """A base classifier ready to certify.

    Attributes:
        identity: goes into the store's, and says how the model was identified.
        conduct: how the model answered on a few rows.
        num_classes: K. class_names: the names of its classes, in the order of its outputs; None where it has none.
    """

    model: BaseClassifier
    identity: dict[str, Any]
    conduct: Conduct
    num_classes: int
    class_names: tuple[str, ...] | None = None


def model_card(spec: str) -> ModelCard | None:
    """The card of a model folder or an entry of the zoo, None for any other way to name a model.

    Raises:
        FileError: neither; the message lists the ways. UnknownNameError: no such entry. ModelError: the folder holds a
        denoiser.
    """
    folder = local_path(spec)
    if not folder.is_dir():
        if not is_model_spec(spec):
            raise FileError(f"there is no model folder {spec}; a model may also be given as zoo:NAME, "
                            f"{', '.join(MODEL_FORMS)}")
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
    sigma: float | None = None, front: RunConfig | None = None, output: str | int | None = None,
) -> Classifier:
    """Open the model that `spec` names, with what is to stand in front of it, and try it on a few images.

    Identified by, in this order: the folder's or network's state dict and source (`module`), the file's bytes
    (`file`), the given `model_id` (`id`), or its answers to fixed inputs (`probe`). A denoiser's state dict and source
    are part of `module`, and come beside the others as `denoiser`. What a user's code or a hub makes is told by three
    things more: `sources`, the local files that its code is in (see `local_sources`); `attributes`, of networks, what
    they hold beside the state dict (see `attributes_of`) and a forward pass leaves alone; and `answers`, one number for
    each of 16 fixed inputs, compared within rounding (see `sameness`), for what neither of them shows.

    Args:
        num_classes: K, for a factory that asks for it; the model may turn out to have another number.
        classes: the names of the model's classes in the order of its outputs; None are its own.
        sigma: noise level that a denoiser will see; None is that of the one the model brings.
        front: options that may put a denoiser in front.
        output: name or position of the output that holds the logits, where the model has several that could; it
            becomes part of the identity.
    Raises:
        FileError, ModelError: what is missing, corrupt, or does not keep a base classifier's contract.
        InputError: another sigma than the denoiser's, two denoisers, or `classes` that the model contradicts.
    """
    beside: dict[str, Any] = {}
    coded: str | None = spec
    outputs: Sequence[int | str] | None = None
    folder = local_path(spec)
    if folder.is_dir():
        model_card(spec)
        model, card = read_network(folder, weights, trust)
        if card.input_shape != input_shape:
            raise ModelError(f"{spec} takes images of shape {card.input_shape}, the data set has {input_shape}: use "
                             f"the data it was trained on, or --resize and --crop")
        own: tuple[str, ...] | None = card.class_names
        source: bytes | None = None
        coded, from_several = card.model if runs_code(card) else None, output
    else:
        expected = num_classes if classes is None else len(classes)
        loaded = load_model(spec, num_classes=expected if expected > 1 else None, input_shape=input_shape, trust=trust,
                            output=output)
        model, source, from_several = loaded.model, loaded.content, None  # the loader has picked it
        coded = None if loaded.kind in ("onnx", "pt2") else spec
        beside = {} if loaded.input_dtype == "float32" else {"input_dtype": loaded.input_dtype}
        labels = getattr(owner_of(model), "classes_", None)
        outputs, own = (None, None) if labels is None else own_classes(labels, expected)
    names = choose_names(own, classes)
    raw = model.classifier if isinstance(model, DenoisedClassifier) else model
    before = attributes_of(raw) if coded and isinstance(raw, nn.Module) else {}
    wanted = len(own or names or ()) or num_classes
    model = _on(device, base_classifier(model, wanted, outputs))
    check_ready(model)
    model = adapted(model, input_shape, wanted, from_several, device)
    classifier = _on(device, fronted(model, front, input_shape, sigma))
    check_ready(classifier)
    conduct = try_rows(reduced(classifier, "float32"), input_shape, None, device or torch.device("cpu"),
                       model=classifier, random=is_random(classifier), sigma=sigma or 0.5)
    count = conduct.answers.shape[1]
    if names is not None and len(names) != count:
        raise InputError(f"{spec} gives {count} scores an image, and {len(names)} classes are named"
                         + (": give --classes FILE with as many names" if classes else ""))
    ready = behind_fit(classifier, Fit(batch=ONE_ROW)) if conduct.alone else classifier
    answers = _probe(ready, input_shape, count, device)
    if coded:
        beside |= _coded(coded, raw, before, None if is_random(classifier) else answers)
    if output is not None:
        beside["output"] = str(output)
    identity = {**_identity(spec, classifier, source, model_id, answers), **beside}
    return Classifier(ready, identity, conduct, count, names)


def _on(device: torch.device | None, model: Any) -> Any:
    return model.to(device) if isinstance(model, nn.Module) and device is not None else model


def _coded(spec: str, model: Any, before: Mapping[str, bytes], answers: np.ndarray | None) -> dict[str, Any]:
    """What is told beside the rest of a model that a user's code or a hub makes; see `open_classifier`.

    Args:
        before: its attributes before it answered; those that are others now are none of it.
        answers: (16, K); None where they are drawn.
    """
    sources = model_sources(spec, model)
    still = settled(before, attributes_of(model)) if isinstance(model, nn.Module) else {}
    return {**({"sources": sources} if sources else {}),
            **({"attributes": attributes_hash(still)} if isinstance(model, nn.Module) else {}),
            **({"answers": _in_brief(answers)} if answers is not None else {})}


def _in_brief(answers: np.ndarray) -> list[float]:
    """One number for each row of logits (16, K): their sum with weights cos(k), with infinities as what lies just
    beyond the largest."""
    beyond = 2 * float(np.abs(answers[np.isfinite(answers)]).max(initial=1.0))
    finite = np.nan_to_num(answers.astype(np.float64), posinf=beyond, neginf=-beyond)
    return [float(f"{value:.7g}") for value in finite @ np.cos(np.arange(answers.shape[1]))]


def _identity(spec: str, model: Any, source: bytes | None, model_id: str | None, answers: np.ndarray) -> dict[str, Any]:
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


def _probe(
    classifier: BaseClassifier, shape: tuple[int, int, int], num_classes: int, device: torch.device | None
) -> np.ndarray:
    """Logits of 16 fixed noisy inputs, (16, K) float32."""
    generator = np.random.default_rng(0)
    inputs = 0.5 + 0.5 * generator.standard_normal((16, *shape), dtype=np.float32)
    where = device or torch.device("cpu")
    normals = [generator_normals(torch.Generator(where).manual_seed(0))] if is_random(classifier) else []
    with torch.no_grad():
        logits = reduced(classifier, "float32")(torch.from_numpy(inputs).to(where), *normals)
    return np.ascontiguousarray(check_logits(logits, 16, num_classes).cpu(), dtype=np.float32)
