"""From the bytes of an image file to pixels, with every failure named by file or row.

16-bit and floating-point images are refused: Pillow would clip or truncate them to 8 bits without a word.
"""

import struct
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from smoothcert.data.preprocess import Preprocess
from smoothcert.errors import DataError
from smoothcert.limits import PIXELS, within

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
"""The file formats that are decoded, by Pillow's names; its others stay closed (one of them starts a program)."""

_GREY_MODES = ("1", "L", "LA", "La")
_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_CORRUPT = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError, struct.error, zlib.error)


@dataclass(frozen=True)
class Header:
    """What the head of an image file says: (H, W), whether it is grey, and the file format ("PNG", ...)."""

    size: tuple[int, int]
    grey: bool
    format: str


def read_header(file: BinaryIO, where: str) -> Header:
    """The header of one image, without decoding it. Raises DataError naming `where`."""
    with _image_errors(where):
        image = _open(file, where)
        return Header((image.height, image.width), image.mode in _GREY_MODES, image.format or "unknown format")


def decode_image(file: BinaryIO, where: str, channels: int, preprocess: Preprocess) -> np.ndarray:
    """One image as (C, H, W) uint8: grey for one channel, RGB for three, without its alpha channel.

    Raises DataError naming `where` for corrupt bytes, a colour image where C = 1, or a crop that does not fit.
    """
    with _image_errors(where):
        image = _open(file, where)
        if channels == 1 and image.mode not in _GREY_MODES:
            raise DataError(f"{where}: a colour image among grey ones")
        preprocess.output_size((image.height, image.width), where)
        pixels = np.asarray(preprocess.apply(_to_mode(image, "L" if channels == 1 else "RGB")))
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _open(file: BinaryIO, where: str) -> "Image":
    from PIL import Image

    image = Image.open(file, formats=FORMATS)
    within(f"{where}: the number of pixels, {image.height}x{image.width},", image.width * image.height, PIXELS,
           "make the image smaller", DataError)
    if image.mode in _DEEP_MODES:
        raise DataError(f"{where}: an image with more than 8 bits per channel (mode {image.mode}); convert it to 8")
    return image


def _to_mode(image: "Image", mode: str) -> "Image":
    if image.mode == mode:
        return image
    if image.mode == "P" and "transparency" in image.info:  # a palette with alpha; Pillow warns about the short way
        image = image.convert("RGBA")
    return image.convert(mode)


@contextmanager
def _image_errors(where: str):
    """Turn what Pillow raises on bad bytes into a DataError that names the image."""
    from PIL import UnidentifiedImageError
    from PIL.Image import DecompressionBombError, DecompressionBombWarning

    try:
        yield
    except DataError:
        raise
    except (DecompressionBombError, DecompressionBombWarning) as error:
        raise DataError(f"{where}: too large to decode; the limit is {PIXELS:,} pixels ({error})") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{where}: cannot be decoded; the bytes are those of no image format that is read "
                        f"({', '.join(FORMATS)})") from error
    except _CORRUPT as error:
        raise DataError(f"{where}: cannot be decoded as an image ({type(error).__name__}: {error})") from error
