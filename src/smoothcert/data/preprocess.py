"""Resize and centre crop, applied to an image once, before any noise.

The sizes follow torchvision's `Resize` and `CenterCrop`, the preprocessing under which ImageNet accuracies are quoted;
the filter is Pillow's bilinear one, which averages when it shrinks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from smoothcert.checks import check_count
from smoothcert.errors import DataError
from smoothcert.limits import PIXELS, within

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Preprocess:
    """Resize the shorter side to `resize` pixels, then crop the central `crop` x `crop`; None leaves a step out.

    >>> str(Preprocess(resize=256, crop=224)), Preprocess(resize=256).output_size((400, 300), "x.png")
    ('shorter side to 256 (bilinear), centre crop 224', (341, 256))
    """

    resize: int | None = None
    crop: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("resize", self.resize), ("crop", self.crop)):
            if value is not None:
                check_count(name, value)

    def __str__(self) -> str:
        steps = [f"shorter side to {self.resize} (bilinear)" if self.resize else "",
                 f"centre crop {self.crop}" if self.crop else ""]
        return ", ".join(filter(None, steps)) or "as stored"

    def output_size(self, size: tuple[int, int], where: str) -> tuple[int, int]:
        """Return (H, W) of an image of `size` (H, W) after both steps.

        Raises DataError if the crop does not fit, or if the image would grow beyond the limit on its pixels.
        """
        height, width = self._resize(size)
        within(f"{where}: the number of pixels after resizing, {height}x{width},", height * width, PIXELS,
               "resize to less, or leave the image out", DataError)
        if self.crop is None:
            return height, width
        if self.crop > min(height, width):
            raise DataError(f"{where}: an image of {height}x{width} is too small for a centre crop of {self.crop}; "
                            f"use a smaller crop, or resize to at least {self.crop} first")
        return self.crop, self.crop

    def apply(self, image: Image) -> Image:
        """Return the preprocessed image, in the mode of `image`."""
        from PIL.Image import Resampling

        if self.resize is not None:
            height, width = self._resize((image.height, image.width))
            image = image.resize((width, height), Resampling.BILINEAR)
        if self.crop is not None:
            left, top = round((image.width - self.crop) / 2), round((image.height - self.crop) / 2)
            image = image.crop((left, top, left + self.crop, top + self.crop))
        return image

    def apply_array(self, pixels: np.ndarray) -> np.ndarray:
        """Return the preprocessed (C, H, W) array; uint8 stays uint8 and float32 stays float32."""
        from PIL.Image import fromarray

        return np.stack([np.asarray(self.apply(fromarray(channel))) for channel in pixels])

    def _resize(self, size: tuple[int, int]) -> tuple[int, int]:
        if self.resize is None:
            return size
        short = min(size)
        height, width = (self.resize if side == short else int(self.resize * side / short) for side in size)
        return height, width


IMAGENET = Preprocess(resize=256, crop=224)
