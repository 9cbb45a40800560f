"""The parts that networks share: normalisation inside the model, activations, and checks of shapes."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from smoothcert.checks import check_known
from smoothcert.errors import InputError

Shape = tuple[int, int, int]
"""(C, H, W) of one image."""

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU}
"""Activations by name; elu and silu are smooth, as the inner maximisation of WRM asks for."""


class Centre(nn.Module):
    """x - mean, channel by channel: (N, C, H, W) -> (N, C, H, W).

    The layer of the models of Salman et al. 2019 and Feng et al. 2020. Raises InputError for another C.
    """

    mean: Tensor

    def __init__(self, mean: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", _channel_values("mean", mean))

    def forward(self, images: Tensor) -> Tensor:
        _check_channels(images, self.mean)
        return images - self.mean


class Normalise(nn.Module):
    """(x - mean) / std, channel by channel: (N, C, H, W) -> (N, C, H, W).

    It stands inside the model, after the noise, so that sigma and radii are in pixel units (Cohen et al. 2019).
    Raises InputError for another C, for a std that is not above 0, or for differing lengths.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", _channel_values("mean", mean))
        self.register_buffer("std", _channel_values("std", std))
        if self.mean.shape != self.std.shape:
            raise InputError(f"mean has {self.mean.shape[1]} channel(s) and std has {self.std.shape[1]}")
        if not bool((self.std > 0).all()):
            raise InputError(f"std must be above 0 in every channel, got {list(std)}")

    def forward(self, images: Tensor) -> Tensor:
        _check_channels(images, self.mean)
        return (images - self.mean) / self.std


def with_normalisation(
    network: nn.Module, channels: int, mean: Sequence[float] | None, std: Sequence[float] | None
) -> nn.Module:
    """Return the network behind `Normalise` (mean and std given), behind `Centre` (mean alone), or itself (neither).

    Raises InputError if std comes without mean, or if there is not one value for each channel.
    """
    if mean is None:
        if std is not None:
            raise InputError("std is given without mean; give both (or mean alone, to subtract it only)")
        return network
    layer = Centre(mean) if std is None else Normalise(mean, std)
    if layer.mean.shape[1] != channels:
        raise InputError(f"mean has {layer.mean.shape[1]} value(s), but the images have {channels} channel(s)")
    return nn.Sequential(OrderedDict(normalise=layer, network=network))


class NormalisedFunction:
    """A model that is not a network, such as an ONNX file, behind a layer: images (N, C, H, W) -> (N, K).

    `classes_` are those of the model.
    """

    classes_: Any
    holds = "model"  # see `smoothcert.smoothing.files`

    def __init__(self, layer: nn.Module, model: Callable[[Tensor], Any]):
        self.layer, self.model = layer, model

    def __call__(self, images: Tensor) -> Any:
        return self.model(self.layer.to(images.device)(images))


def channel_constants(
    mean: Sequence[float] | None, std: Sequence[float] | None, channels: int
) -> tuple[list[float] | None, list[float] | None]:
    """Return one mean and one std for each channel, where one may be given for all of them."""
    return tuple(None if given is None else list(given) * (channels if len(given) == 1 else 1)  # type: ignore
                 for given in (mean, std))


def normalise_input(
    model: Any, mean: Sequence[float] | None, std: Sequence[float] | None, channels: int, spec: str
) -> Any:
    """Return a loaded model behind `Normalise` or `Centre`, in eval mode; itself where no mean is given.

    Args:
        mean, std: one number a channel, or one for all.
        spec: the name of the model, for errors.
    Raises:
        InputError: nothing can stand in front of the model, or the numbers are no mean and std of these channels.
    """
    mean, std = channel_constants(mean, std, channels)
    if mean is None:
        return with_normalisation(model, channels, mean, std)
    if hasattr(model, "predict_proba"):
        raise InputError(f"mean and std: {spec} has predict_proba, in front of which no layer can stand: put a scaler "
                         f"into its pipeline")
    if getattr(model, "random", False) is True:
        raise InputError(f"mean and std: {spec} takes random numbers beside the images, so that no layer can stand in "
                         f"front of it: normalise inside the model")
    network = isinstance(model, nn.Module)
    behind: Any = with_normalisation(model if network else nn.Identity(), channels, mean, std).eval()
    front = behind if network else NormalisedFunction(behind.normalise, model)
    if hasattr(model, "classes_"):
        front.classes_ = model.classes_
    return front


def activation_layer(name: Any) -> nn.Module:
    """Return a new activation by name. Raises UnknownNameError."""
    return ACTIVATIONS[check_known("activation", name, ACTIVATIONS)]()


def check_least_size(network: str, shape: Shape, least: int) -> None:
    """Raise InputError unless images are at least `least` pixels high and wide."""
    if min(shape[1:]) < least:
        raise InputError(
            f"{network} takes images of at least {least}x{least} pixels, got {shape[1]}x{shape[2]}; enlarge them "
            f"or use a network for smaller ones"
        )


def _channel_values(name: str, values: Any) -> Tensor:
    """Return one finite number a channel as a (1, C, 1, 1) tensor. Raises InputError."""
    try:
        tensor = torch.as_tensor(values, dtype=torch.float32, device="cpu")  # also for a network on the meta device
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} must hold one number a channel, got {values!r}") from error
    if tensor.ndim != 1 or len(tensor) == 0 or not bool(tensor.isfinite().all()):
        raise InputError(f"{name} must hold one finite number a channel, got {values!r}")
    return tensor.detach().clone().reshape(1, -1, 1, 1)


def _check_channels(images: Tensor, values: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != values.shape[1]:
        raise InputError(
            f"the model normalises images (N, {values.shape[1]}, H, W), got a tensor of shape {tuple(images.shape)}"
        )
