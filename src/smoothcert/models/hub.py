"""Models of the hubs, hf:NAME, timm:NAME and torchvision:NAME, with their preprocessing inside."""

import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from smoothcert.classes import names_by_index
from smoothcert.errors import MissingExtraError, ModelError
from smoothcert.models.layers import Normalise
from smoothcert.models.loaded import LoadedModel

_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"

Size = tuple[int, int]
"""(H, W)."""


class HubClassifier(nn.Module):
    """Resize, normalise, classify: images (N, C, H, W) in [0, 1] -> logits (N, K).

    Images of another size than the network was trained on are resized (bilinear, antialiased); `size` None keeps
    every size. An output with `.logits` gives those. `classes_` are the names of the classes, where the hub has them.
    """

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float], size: Size | None,
                 classes: tuple[str, ...] | None = None):
        super().__init__()
        self.classes_ = classes
        self.normalise = Normalise(mean, std)
        self.network = network
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        if self.size is not None and tuple(images.shape[2:]) != self.size:
            images = functional.interpolate(images, self.size, mode="bilinear", antialias=True)
        output = self.network(self.normalise(images))
        return getattr(output, "logits", output)


def load_from_hub(spec: str, kind: str, name: str) -> LoadedModel:
    """The model `name` of a hub, in eval mode; kind is "hf", "timm" or "torchvision".

    Raises MissingExtraError without the hub's library, ModelError where it cannot give the model, or where the
    model's preprocessing is more than resizing and normalising.
    """
    model = _LOADERS[kind](spec, name).eval()
    return LoadedModel(model, spec, kind, spec.encode())


def _from_transformers(spec: str, name: str) -> HubClassifier:
    transformers = _import("transformers", "hub", spec)
    with _library(spec):
        network = transformers.AutoModelForImageClassification.from_pretrained(name, trust_remote_code=False)
        processor = transformers.AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
    for step in ("do_flip_channel_order", "rescale_offset", "include_top"):
        if getattr(processor, step, False):
            raise ModelError(f"{spec} prepares its images with {step}, which cannot be put inside the model; write a "
                             f"factory that does it (path/file.py:factory)")
    return HubClassifier(network, *_processor_statistics(processor), _processor_size(processor),
                         _class_names(getattr(network, "config", None)))


def _class_names(config: Any) -> tuple[str, ...] | None:
    """The names that `id2label` gives the classes, else `label2id`; None where both are the library's LABEL_0, ..."""
    for entry in ("id2label", "label2id"):
        names = names_by_index(getattr(config, entry, None) or {})
        if names and names != tuple(f"LABEL_{k}" for k in range(len(names))):
            return names
    return None


def _processor_statistics(processor: Any) -> tuple[list[float], list[float]]:
    """Mean and std for pixels in [0, 1]; the processor's are for pixels 0..255 times its rescale_factor."""
    scale = 255 * (processor.rescale_factor if getattr(processor, "do_rescale", True) else 1)
    normalises = getattr(processor, "do_normalize", True)
    mean = processor.image_mean if normalises else [0.0] * 3
    std = processor.image_std if normalises else [1.0] * 3
    return [value / scale for value in mean], [value / scale for value in std]


def _processor_size(processor: Any) -> Size | None:
    """The size of the images that the processor hands on; None where it keeps theirs."""
    crops = getattr(processor, "do_center_crop", False)
    if not crops and not getattr(processor, "do_resize", True):
        return None
    size = processor.crop_size if crops else processor.size
    if isinstance(size, int):
        return size, size
    entries = size if isinstance(size, Mapping) else vars(size)
    edge = entries.get("shortest_edge")
    return (edge, edge) if edge else (entries["height"], entries["width"])


def _from_timm(spec: str, name: str) -> HubClassifier:
    timm = _import("timm", "vision", spec)
    with _library(spec):
        network = timm.create_model(name, pretrained=True)
        trained = network.pretrained_cfg
        return HubClassifier(network, trained["mean"], trained["std"], tuple(trained["input_size"][1:]))


def _from_torchvision(spec: str, name: str) -> HubClassifier:
    models = _import("torchvision", "vision", spec).models
    with _library(spec):
        network = models.get_model(name, weights="DEFAULT")
        trained = models.get_model_weights(name).DEFAULT.transforms()
        (edge,) = trained.crop_size
        return HubClassifier(network, trained.mean, trained.std, (edge, edge))


_LOADERS: dict[str, Callable[[str, str], HubClassifier]] = {
    "hf": _from_transformers,
    "timm": _from_timm,
    "torchvision": _from_torchvision,
}


def _import(package: str, extra: str, spec: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtraError(package, extra, f"loading {spec}") from error


@contextmanager
def _library(spec: str) -> Iterator[None]:
    """Whatever a hub's library raises, as a ModelError that names the spec.

    Meanwhile torch unpickles weights only, even where a library asks for more.
    """
    before = os.environ.get(_WEIGHTS_ONLY)
    os.environ[_WEIGHTS_ONLY] = "1"
    try:
        yield
    except Exception as error:  # the libraries pass on what the network, the disk or the hub raise
        raise ModelError(f"{spec} cannot be loaded: {type(error).__name__}: {error}") from error
    finally:
        if before is None:
            del os.environ[_WEIGHTS_ONLY]
        else:
            os.environ[_WEIGHTS_ONLY] = before
