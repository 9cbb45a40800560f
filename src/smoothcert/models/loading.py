"""Users' own models: from a factory in Python, an exported file, or a hub."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from smoothcert.checks import check_count, check_shape
from smoothcert.errors import InputError
from smoothcert.models.layers import Shape
from smoothcert.models.loaded import LoadedModel
from smoothcert.smoothing.adapters import Fit, behind_fit

HUBS = ("hf", "timm", "torchvision")
MODEL_FORMS = (
    "package.module:factory (mymodels.vision:build)",
    "path/file.py:factory (models/net.py:build)",
    "path/file.onnx (exports/net.onnx)",
    "path/file.pt2, a torch.export program (exports/net.pt2)",
    "hf:NAME (hf:microsoft/resnet-50, or a local folder)",
    "timm:NAME (timm:resnet50.a1_in1k)",
    "torchvision:NAME (torchvision:resnet50)",
)
"""The accepted forms of a model spec, each with an example."""

_FACTORY = re.compile(r"(.+\.py|[^\W\d]\w*(\.[^\W\d]\w*)*):[^\W\d]\w*")


def load_model(
    spec: str, *, num_classes: int | None = None, input_shape: Any = None, trust: bool = False,
    output: str | int | None = None,
) -> LoadedModel:
    """Load a user's model.

    Args:
        spec: one of MODEL_FORMS. A factory may also be a ready module or an object with `predict_proba`.
        num_classes, input_shape: K and (C, H, W) where known; a factory gets those that its signature names, and a
            file that says what images it takes is compared with input_shape.
        trust: let a .pt2 file run code: torch unpickles parts of it, and evaluates its expressions. A factory is code
            that the caller names, so it needs no leave; ONNX files and the hubs' weights cannot run any.
        output: name or position of the output that holds the logits, where the model has several that could.
    Returns:
        A LoadedModel. A torch module is put in eval mode. A file takes any number of images, whatever batches it was
        made for (split and padded), and casts them to its own type; a hub's model has its mean and std inside and
        resizes images to the size it was trained on.
    Raises:
        InputError: a spec of no known form, or bad values. FileError: a file that is missing or corrupt.
        UnknownNameError: no such factory. MissingExtraError: an optional package is absent.
        ModelError: code that fails or is not trusted, or a model that does not take images or does not return logits.
    """
    kind = _kind(spec)
    if kind is None:
        forms = "\n".join(f"  - {form}" for form in MODEL_FORMS)
        raise InputError(f"{spec!r} does not name a model; the accepted forms are\n{forms}")
    if num_classes is not None:
        check_count("num_classes", num_classes, least=2)
    shape: Shape | None = None if input_shape is None else check_shape("input_shape", input_shape)
    if kind not in ("factory", *HUBS):
        from smoothcert.models.exported import load_exported

        return load_exported(spec, kind, Path(spec).expanduser(), num_classes=num_classes, input_shape=shape,
                             trust=trust, output=output)
    if kind == "factory":
        from smoothcert.models.factory import load_factory

        target, _, attribute = spec.rpartition(":")
        loaded = load_factory(spec, target, attribute, num_classes, shape)
    else:
        from smoothcert.models.hub import load_from_hub

        loaded = load_from_hub(spec, kind, spec.partition(":")[2])
    if output is not None and not callable(loaded.model):
        raise InputError(f"output: {spec} has predict_proba, whose answer is one array: leave output away")
    return loaded if output is None else replace(loaded, model=behind_fit(loaded.model, Fit(str(output))))


def model_sources(spec: str, model: Any) -> dict[str, str]:
    """Return the SHA-256 of the local files that the code of a loaded model is in, by module name; see `local_sources`.

    Args:
        spec: what it was loaded from. model: what came of it.
    """
    from smoothcert.models.factory import factory_sources

    return factory_sources(spec.rpartition(":")[0], model) if _kind(spec) == "factory" else {}


def is_model_spec(text: Any) -> bool:
    """Whether a text has one of MODEL_FORMS; it says nothing of whether the model exists.

    >>> is_model_spec("net.py:build"), is_model_spec("timm:resnet50"), is_model_spec("cnn"), is_model_spec("runs/1")
    (True, True, False, False)
    """
    return _kind(text) is not None


def _kind(spec: Any) -> str | None:
    """Which form a spec has: "factory", "onnx", "pt2" or one of HUBS; None for none."""
    if not isinstance(spec, str):
        return None
    prefix, _, name = spec.partition(":")
    if prefix in HUBS:
        return prefix if name else None
    suffix = Path(spec).suffix.lower()
    if suffix in (".onnx", ".pt2"):
        return suffix[1:]
    return "factory" if _FACTORY.fullmatch(spec) else None
