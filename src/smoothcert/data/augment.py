"""Random crops and flips of a training batch. The generator is an argument; the global one is not touched."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from smoothcert.checks import check_count, check_known
from smoothcert.draws import drawn
from smoothcert.errors import InputError

KINDS = ("none", "crop", "flip", "crop-flip")


def augment(images: Tensor, kind: str, generator: torch.Generator, padding: int = 4) -> Tensor:
    """The batch with every image cropped and flipped at random, independently of the others.

    images: (B, C, H, W). "crop" pads `padding` zeros on every side and takes a window of the old size,
    uniformly among the (2 padding + 1)^2; "flip" mirrors left to right with probability 1/2; "crop-flip" does
    both, "none" neither. The draws depend on `generator`, B and padding alone, not on the device of the images.
    Raises UnknownNameError for another kind, InputError for another shape.
    """
    check_known("augmentation", kind, KINDS)
    check_count("padding", padding, least=0)
    if images.ndim != 4:
        raise InputError(f"images must have shape (B, C, H, W), got {tuple(images.shape)}")
    if "crop" in kind:
        images = _random_crop(images, generator, padding)
    if "flip" in kind:
        images = _random_flip(images, generator)
    return images


def _random_crop(images: Tensor, generator: torch.Generator, padding: int) -> Tensor:
    batch, channels, height, width = images.shape
    offsets = drawn(lambda size: torch.randint(0, 2 * padding + 1, size, generator=generator, device=generator.device),
                    (2, batch, 1), generator, dim=1)
    top, left = offsets.to(images.device)
    rows = top + torch.arange(height, device=images.device)
    columns = left + torch.arange(width, device=images.device)
    image = torch.arange(batch, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[:, None, None]
    padded = pad(images, (padding, padding, padding, padding))
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    coins = drawn(lambda size: torch.randint(0, 2, size, generator=generator, device=generator.device),
                  (len(images), 1, 1, 1), generator)
    return torch.where(coins.to(images.device, torch.bool), images.flip(3), images)
