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

    Images of another size than the network was trained on are resized (bilinear, antialiased). An output with `.logits`
    gives those. `classes_` are the names of the classes, where the hub has them.

    Args:
        mean, std: one number a channel.
        size: (H, W) that the network takes; None keeps every size.
        within: keep the shape of images, and fit their longer side to that of `size`.
        to_rgb: repeat the channel of grey images for each channel of the network.
    """

    def __init__(
        self, network: nn.Module, mean: Sequence[float], std: Sequence[float], size: Size | None, *,
        classes: tuple[str, ...] | None = None, within: bool = False, to_rgb: bool = False,
    ):
        super().__init__()
        self.classes_ = classes
        self.normalise = Normalise(mean, std)
        self.network = network
        self.size, self.within, self.to_rgb = size, within, to_rgb

    def forward(self, images: Tensor) -> Tensor:
        if self.to_rgb and images.shape[1] == 1:
            images = images.expand(-1, self.normalise.mean.shape[1], -1, -1)
        height, width = images.shape[2:]
        size = self.size
        if size is not None and self.within:
            longer = max(height, width)
            size = max(1, round(height * size[0] / longer)), max(1, round(width * size[1] / longer))
        if size is not None and (height, width) != size:
            images = functional.interpolate(images, size, mode="bilinear", antialias=True)
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
    for step in ("do_flip_channel_order", "rescale_offset", "include_top", "do_grayscale"):
        if getattr(processor, step, False):
            raise _not_inside(spec, step, True)
    mean, std = _processor_statistics(spec, processor, _channels(network))
    size, within = _processor_size(spec, processor)
    return HubClassifier(network, mean, std, size, classes=_class_names(getattr(network, "config", None)),
                         within=within, to_rgb=bool(getattr(processor, "do_convert_rgb", False)))


def _class_names(config: Any) -> tuple[str, ...] | None:
    """The names that `id2label` gives the classes, else `label2id`; None where both are the library's LABEL_0, ..."""
    for entry in ("id2label", "label2id"):
        names = names_by_index(getattr(config, entry, None) or {})
        if names and names != tuple(f"LABEL_{k}" for k in range(len(names))):
            return names
    return None


def _not_inside(spec: str, setting: str, value: Any, expected: str = "") -> ModelError:
    return ModelError(f"{spec} prepares its images with {setting} = {value!r}, which cannot be put inside the model"
                      f"{expected}; write a factory that does it (path/file.py:factory)")


def _channels(network: nn.Module) -> int | None:
    """How many channels the network takes: as its configuration says, else its first convolution; None if neither."""
    told = getattr(getattr(network, "config", None), "num_channels", None)
    first = next((part.in_channels for part in network.modules() if isinstance(part, nn.Conv2d)), None)
    return told if isinstance(told, int) else first


def _processor_statistics(spec: str, processor: Any, channels: int | None) -> tuple[list[float], list[float]]:
    """Mean and std, one a channel, for pixels in [0, 1]; the processor's are for 0..255 times its rescale_factor."""
    rescales = getattr(processor, "do_rescale", True)
    factor = getattr(processor, "rescale_factor", None)
    scale = 255 * (1 / 255 if factor is None else factor) if rescales else 255
    found = []
    for name, neutral in (("image_mean", 0.0), ("image_std", 1.0)):
        value = getattr(processor, name, None) if getattr(processor, "do_normalize", True) else neutral
        values = [value] * (channels or 3) if isinstance(value, int | float) else value
        if not isinstance(values, list | tuple) or len(values) != (channels or len(values)):
            raise _not_inside(spec, name, value, f": it takes one number for each of {channels or 3} channel(s)")
        found.append([number / scale for number in values])
    return found[0], found[1]


def _processor_size(spec: str, processor: Any) -> tuple[Size | None, bool]:
    """The size of the images that the processor hands on, None where it keeps theirs; and whether it keeps their shape
    and fits their longer side to it."""
    crops = getattr(processor, "do_center_crop", False)
    if not crops and not getattr(processor, "do_resize", True):
        return None, False
    name = "crop_size" if crops and getattr(processor, "crop_size", None) else "size"
    size = getattr(processor, name, None)
    if isinstance(size, int):
        return (size, size), False
    if isinstance(size, list | tuple) and len(size) == 2:
        return (size[0], size[1]), False
    entries = size if isinstance(size, Mapping) else getattr(size, "__dict__", {})
    height, width, shortest, longest = map(entries.get, ("height", "width", "shortest_edge", "longest_edge"))
    if height and width:
        return (height, width), False
    if shortest or longest:
        return (shortest or longest, shortest or longest), not shortest
    raise _not_inside(spec, name, size, ": it takes height and width, shortest_edge, longest_edge, or one number")


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
