"""Random crops and flips of a training batch. The generator is an argument; the global one is not touched."""

import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from smoothcert.checks import check_count, check_known
from smoothcert.draws import draw_rows
from smoothcert.errors import InputError

KINDS = ("none", "crop", "flip", "crop-flip", "resized-crop", "resized-crop-flip")

_AREA, _RATIO, _TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10


def augment(images: Tensor, kind: str, generator: torch.Generator, padding: int = 4) -> Tensor:
    """Return the batch (B, C, H, W) with every image cropped and flipped at random, independently of the others.

    Inputs of another shape are left as they are by "none", and refused by the others.

    "crop" pads `padding` zeros on every side and takes a window of the old size, uniformly among the (2 padding + 1)^2;
    "flip" mirrors left to right with probability 1/2; "crop-flip" does both, "none" neither. "resized-crop", with
    "-flip" or without, takes a window of 8 % to 100 % of the area whose width is 3/4 to 4/3 of its height, and resizes
    it to the old size (Szegedy et al. 2015, as is usual for ImageNet). The draws depend on `generator`, B and padding
    alone, not on the device of the images. Raises UnknownNameError for another kind, InputError for another shape.
    """
    check_known("augmentation", kind, KINDS)
    check_count("padding", padding, least=0)
    if kind == "none":
        return images
    if images.ndim != 4:
        raise InputError(f"augmentation {kind} is for images (B, C, H, W), got inputs of shape {tuple(images.shape)}")
    if kind.startswith("resized-crop"):
        images = _resize_random_crop(images, generator)
    elif "crop" in kind:
        images = _random_crop(images, generator, padding)
    if "flip" in kind:
        coins = draw_rows(lambda size: torch.randint(0, 2, size, generator=generator, device=generator.device),
                      (len(images), 1, 1, 1), generator)
        images = torch.where(coins.to(images.device, torch.bool), images.flip(3), images)
    return images


def _random_crop(images: Tensor, generator: torch.Generator, padding: int) -> Tensor:
    batch, channels, height, width = images.shape
    offsets = draw_rows(lambda size: torch.randint(0, 2 * padding + 1, size, generator=generator,
                                                   device=generator.device), (2, batch, 1), generator, dim=1)
    top, left = offsets.to(images.device)
    rows = top + torch.arange(height, device=images.device)
    columns = left + torch.arange(width, device=images.device)
    image = torch.arange(batch, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[:, None, None]
    padded = pad(images, (padding, padding, padding, padding))
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _resize_random_crop(images: Tensor, generator: torch.Generator) -> Tensor:
    height, width = images.shape[2:]
    numbers = draw_rows(lambda size: torch.rand(size, generator=generator, device=generator.device,
                                                dtype=torch.float64), (len(images), _TRIES, 4), generator).tolist()
    windows = [_window(tries, height, width) for tries in numbers]
    enlarged = torch.empty_like(images)
    for number, (top, left, h, w) in enumerate(windows):
        window = images[number:number + 1, :, top:top + h, left:left + w]
        enlarged[number] = interpolate(window, (height, width), mode="bilinear", antialias=True)[0]
    return enlarged.clamp(*images.aminmax()) if len(images) else enlarged  # rounding may pass the largest value


def _window(tries: list[list[float]], height: int, width: int) -> tuple[int, int, int, int]:
    """Return (top, left, height, width) of the first window that fits, or of the last one, cut to fit, if none does."""
    h, w = height, width
    for area, ratio, _, _ in tries:
        size = height * width * (_AREA[0] + (_AREA[1] - _AREA[0]) * area)
        shape = math.exp(math.log(_RATIO[0]) + (math.log(_RATIO[1]) - math.log(_RATIO[0])) * ratio)
        h, w = max(1, round(math.sqrt(size / shape))), max(1, round(math.sqrt(size * shape)))
        if h <= height and w <= width:
            break
    h, w = min(h, height), min(w, width)
    down, right = tries[0][2:]
    return int(down * (height - h + 1)), int(right * (width - w + 1)), h, w
