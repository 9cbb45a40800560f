"""The parts that networks share: normalisation inside the model, activations, and checks of shapes."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from smoothcert.checks import check_known
from smoothcert.errors import InputError

Shape = tuple[int, ...]
"""The shape of one input: (C, H, W) of an image, (C, T) of a series, (D,) of a table's row, or any other."""

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU}
"""Activations by name; elu and silu are smooth, as the inner maximisation of WRM asks for."""


class Centre(nn.Module):
    """x - mean, channel by channel, which are the columns of a table: (N, C, ...) -> (N, C, ...).

    The layer of the models of Salman et al. 2019 and Feng et al. 2020. Raises InputError for another C.

    Args:
        mean: one number a channel.
        axes: of one input: 3 of images, 1 of a table's rows.
    """

    mean: Tensor

    def __init__(self, mean: Sequence[float], axes: int = 3):
        super().__init__()
        self.register_buffer("mean", _channel_values("mean", mean, axes))

    def forward(self, images: Tensor) -> Tensor:
        _check_channels(images, self.mean)
        return images - self.mean


class Normalise(nn.Module):
    """(x - mean) / std, channel by channel, which are the columns of a table: (N, C, ...) -> (N, C, ...).

    It stands inside the model, after the noise, so that sigma and radii are in the units of the data, pixel units of
    images (Cohen et al. 2019). Raises InputError for another C, for a std that is not above 0, or for differing
    lengths. Arguments are those of `Centre`, and std like mean.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], axes: int = 3):
        super().__init__()
        self.register_buffer("mean", _channel_values("mean", mean, axes))
        self.register_buffer("std", _channel_values("std", std, axes))
        if self.mean.shape != self.std.shape:
            raise InputError(f"mean has {self.mean.shape[1]} channel(s) and std has {self.std.shape[1]}")
        if not bool((self.std > 0).all()):
            raise InputError(f"std must be above 0 in every channel, got {list(std)}")

    def forward(self, images: Tensor) -> Tensor:
        _check_channels(images, self.mean)
        return (images - self.mean) / self.std


def with_normalisation(
    network: nn.Module, shape: Shape | None, mean: Sequence[float] | None, std: Sequence[float] | None
) -> nn.Module:
    """Return the network behind `Normalise` (mean and std given), behind `Centre` (mean alone), or itself (neither).

    `shape` is that of one input; None takes images of as many channels as there are means. Raises InputError if std
    comes without mean, or if there is not one value for each channel.
    """
    if mean is None:
        if std is not None:
            raise InputError("std is given without mean; give both (or mean alone, to subtract it only)")
        return network
    axes = len(shape or (0, 0, 0))
    layer = Centre(mean, axes) if std is None else Normalise(mean, std, axes)
    if shape and layer.mean.shape[1] != shape[0]:
        raise InputError(f"mean has {layer.mean.shape[1]} value(s), but the inputs have {shape[0]} channel(s)")
    return nn.Sequential(OrderedDict(normalise=layer, network=network))


class NormalisedFunction:
    """A model that is not a network, such as an ONNX file, behind a layer: inputs (N, *shape) -> (N, K).

    `classes_` are those of the model.
    """

    classes_: Any
    holds = "model"  # see `smoothcert.smoothing.files`

    def __init__(self, layer: nn.Module, model: Callable[[Tensor], Any]):
        self.layer, self.model = layer, model

    def __call__(self, images: Tensor) -> Any:
        return self.model(self.layer.to(images.device)(images))


def channel_constants(
    mean: Sequence[float] | None, std: Sequence[float] | None, shape: Shape | None
) -> tuple[list[float] | None, list[float] | None]:
    """Return one mean and one std for each channel of inputs of a shape, where one may be given for all of them."""
    channels = shape[0] if shape else len(mean or ())
    return tuple(None if given is None else list(given) * (channels if len(given) == 1 else 1)  # type: ignore
                 for given in (mean, std))


def normalise_input(
    model: Any, mean: Sequence[float] | None, std: Sequence[float] | None, shape: Shape | None, spec: str
) -> Any:
    """Return a loaded model behind `Normalise` or `Centre`, in eval mode; itself where no mean is given.

    Args:
        mean, std: one number a channel, or one for all.
        shape: of one input; None where it is not known.
        spec: the name of the model, for errors.
    Raises:
        InputError: nothing can stand in front of the model, or the numbers are no mean and std of these channels.
    """
    mean, std = channel_constants(mean, std, shape)
    if mean is None:
        return with_normalisation(model, shape, mean, std)
    if hasattr(model, "predict_proba"):
        raise InputError(f"mean and std: {spec} has predict_proba, in front of which no layer can stand: put a scaler "
                         f"into its pipeline")
    if getattr(model, "random", False) is True:
        raise InputError(f"mean and std: {spec} takes random numbers beside the images, so that no layer can stand in "
                         f"front of it: normalise inside the model")
    network = isinstance(model, nn.Module)
    behind: Any = with_normalisation(model if network else nn.Identity(), shape, mean, std).eval()
    front = behind if network else NormalisedFunction(behind.normalise, model)
    if hasattr(model, "classes_"):
        front.classes_ = model.classes_
    return front


def activation_layer(name: Any) -> nn.Module:
    """Return a new activation by name. Raises UnknownNameError."""
    return ACTIVATIONS[check_known("activation", name, ACTIVATIONS)]()


def check_least_size(network: str, shape: Shape, least: int) -> None:
    """Raise InputError unless inputs are images, at least `least` pixels high and wide."""
    if len(shape) != 3:
        raise InputError(f"{network} takes images (C, H, W), got inputs of shape {shape}: use mlp or linear, which "
                         f"take any shape, or conv1d for series (C, T)")
    if min(shape[1:]) < least:
        raise InputError(
            f"{network} takes images of at least {least}x{least} pixels, got {shape[1]}x{shape[2]}; enlarge them "
            f"or use a network for smaller ones"
        )


def _channel_values(name: str, values: Any, axes: int) -> Tensor:
    """Return one finite number a channel as a tensor (1, C, ...) for inputs of so many axes. Raises InputError."""
    try:
        tensor = torch.as_tensor(values, dtype=torch.float32, device="cpu")  # also for a network on the meta device
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} must hold one number a channel, got {values!r}") from error
    if tensor.ndim != 1 or len(tensor) == 0 or not bool(tensor.isfinite().all()):
        raise InputError(f"{name} must hold one finite number a channel, got {values!r}")
    return tensor.detach().clone().reshape(1, -1, *[1] * (axes - 1))


def _check_channels(images: Tensor, values: Tensor) -> None:
    if images.ndim != values.ndim or images.shape[1] != values.shape[1]:
        sizes = {2: "", 3: ", T", 4: ", H, W"}.get(values.ndim, ", ...")
        raise InputError(f"the model normalises inputs (N, {values.shape[1]}{sizes}), got a tensor of shape "
                         f"{tuple(images.shape)}")
