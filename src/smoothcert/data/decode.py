"""From the bytes of an image file to pixels, with every failure named by file or row.

Images of more than 8 bits per channel are refused by what their own header says: Pillow would clip them or cut their
low bits off without a word, and its mode is the same for both.
"""

import re
import struct
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from smoothcert.data.preprocess import Preprocess
from smoothcert.errors import DataError
from smoothcert.io.limits import PIXELS, within

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
"""The file formats that are decoded, by Pillow's names; its others stay closed (one of them starts a program)."""

_GREY_MODES = ("1", "L", "LA", "La")
_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_SPACE = rb"(?:\s|#[^\r\n]*[\r\n])+"
_PNM = re.compile(rb"P[2356]" + 3 * (_SPACE + rb"(\d{1,9})"))
_HEAD = 1 << 16
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

    _check_bits(_bits(file), where)
    image = Image.open(file, formats=FORMATS)
    within(f"{where}: the number of pixels, {image.height}x{image.width},", image.width * image.height, PIXELS,
           "make the image smaller", DataError)
    if image.format == "TIFF":
        _check_tiff(image, where)
    if image.mode in _DEEP_MODES:
        _check_bits(32 if image.mode in ("I", "F") else 16, where)
    return image


def _bits(file: BinaryIO) -> int:
    """Return the bits per channel that the head of a PNG, PNM or JPEG file names; 8 where it is no such head."""
    head, bits = file.read(26), 8
    if head.startswith(b"\x89PNG\r\n\x1a\n") and len(head) == 26:
        bits = head[24]
    elif head.startswith((b"P2", b"P3", b"P5", b"P6")):
        pnm = _PNM.match(head + file.read(_HEAD))
        bits = int(pnm[3]).bit_length() if pnm else 8
    elif head.startswith(b"\xff\xd8"):
        bits = _jpeg_bits(file)
    file.seek(0)
    return bits


def _jpeg_bits(file: BinaryIO) -> int:
    """Return the precision in the frame header of a JPEG file, which comes after any number of other segments."""
    place = 2
    while True:
        file.seek(place)
        segment = file.read(5)
        if len(segment) < 5 or segment[0] != 0xFF:
            return 8
        if 0xC0 <= segment[1] <= 0xCF and segment[1] not in (0xC4, 0xC8, 0xCC):
            return segment[4]
        place += 1 if segment[1] == 0xFF else 2 + int.from_bytes(segment[2:4], "big")


def _check_bits(bits: int, where: str) -> None:
    if bits > 8:
        raise DataError(f"{where}: an image with more than 8 bits per channel ({bits}), whose low ones would be lost; "
                        f"convert it to 8 bits, or give its pixels as floats in [0, 1], in arrays or in parquet")


def _check_tiff(image: "Image", where: str) -> None:
    """Refuse what else TIFF can hold: deep samples, and signed ones, which Pillow reads as if they had no sign."""
    tags: Any = getattr(image, "tag_v2", {})
    bits, kinds = (value if isinstance(value, tuple) else (value,) for value in (tags.get(258, 1), tags.get(339, 1)))
    _check_bits(max(bits), where)
    if set(kinds) - {1, 4}:
        raise DataError(f"{where}: a TIFF image whose samples are signed or floats (SampleFormat {kinds[0]}); convert "
                        f"it to 8 bits without a sign")


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
