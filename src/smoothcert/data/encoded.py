"""Images that are encoded (PNG, JPEG, ...), in files of their own or in the cells of a table.

Headers are checked at load, and pixels are decoded when they are used.

Every failure names the file or row. Images of more than 8 bits per channel are refused by their own header: Pillow
would clip them or cut their low bits off silently, and its mode is the same for both.
"""

import os
import re
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np

from smoothcert.data.base import Bounds
from smoothcert.data.preprocess import Preprocess
from smoothcert.errors import DataError
from smoothcert.limits import PIXELS, within

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
"""The file formats that are decoded, by Pillow's names. Its others stay closed: one of them starts a program."""
CACHE_LIMIT = 1 << 30
"""Decoded images are kept in memory if the whole set takes no more bytes than this."""
SURVEY_LIMIT = 10_000
"""Up to this many images, every header is read at load; of larger sets, SURVEY_SAMPLE evenly spaced ones."""
SURVEY_SAMPLE = 1_000
THREADED_PIXELS = 64 * 64
"""Smaller images are decoded in one thread: most of their time goes to the interpreter, which threads share."""
_LEAST_PER_THREAD = 16

_GREY_MODES = ("1", "L", "LA", "La")
_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_SPACE = rb"(?:\s|#[^\r\n]*[\r\n])+"
_PNM = re.compile(rb"P[2356]" + 3 * (_SPACE + rb"(\d{1,9})"))
_HEAD = 1 << 16
_CORRUPT = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError, struct.error, zlib.error)


class Blobs(Protocol):
    """N encoded images."""

    def __len__(self) -> int: ...

    def open(self, index: int) -> BinaryIO:
        """Return the encoded bytes of one image as an open binary file."""
        ...

    def where(self, index: int, /) -> str:
        """Return the image's name for messages: a path, or a row of a file."""
        ...


@dataclass(frozen=True)
class Header:
    """The facts in the head of an image file: (H, W), if it is grey, and the file format ("PNG", ...)."""

    size: tuple[int, int]
    grey: bool
    format: str


def read_header(file: BinaryIO, where: str) -> Header:
    """Return the header of one image, without decoding it. Raises DataError naming `where`."""
    with _image_errors(where):
        image = _open(file, where)
        return Header((image.height, image.width), image.mode in _GREY_MODES, image.format or "unknown format")


def decode_image(file: BinaryIO, where: str, channels: int, preprocess: Preprocess) -> np.ndarray:
    """Return one image as (C, H, W) uint8: grey for one channel, RGB for three, without its alpha channel.

    Raises DataError naming `where` for corrupt bytes, a colour image if C = 1, or a crop that does not fit.
    """
    with _image_errors(where):
        image = _open(file, where)
        image = _convert(image, channels, where)
        preprocess.output_size((image.height, image.width), where)
        pixels = np.asarray(preprocess.apply(image))
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def pil_pixels(image: "Image", channels: int | None, where: str) -> np.ndarray:
    """Return a Pillow image as (C, H, W) uint8, by the rules of `decode_image`.

    Args:
        channels: C; None is 1 for a grey image, else 3.
    """
    with _image_errors(where):
        if image.mode in _DEEP_MODES:
            _check_bits(32 if image.mode in ("I", "F") else 16, where)
        channels = channels or (1 if image.mode in _GREY_MODES else 3)
        pixels = np.asarray(_convert(image, channels, where))
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _convert(image: "Image", channels: int, where: str) -> "Image":
    """Return an image as a grey one or in RGB, without its alpha channel."""
    if channels == 1 and image.mode not in _GREY_MODES:
        raise DataError(f"{where}: a colour image among grey ones")
    mode = "L" if channels == 1 else "RGB"
    if image.mode == "P" and "transparency" in image.info:  # Pillow warns if it is converted in one step
        image = image.convert("RGBA")
    return image if image.mode == mode else image.convert(mode)


def _open(file: BinaryIO, where: str) -> "Image":
    from PIL import Image

    _check_bits(_bits(file), where)
    image = Image.open(file, formats=FORMATS)
    within(f"{where}: the number of pixels, {image.height}x{image.width},", image.width * image.height, PIXELS,
           "make the image smaller", DataError)
    if image.format == "TIFF":  # it can hold deep samples, and signed ones, which Pillow reads as if they had no sign
        tags: Any = getattr(image, "tag_v2", {})
        given = tags.get(258, 1), tags.get(339, 1)
        bits, kinds = (value if isinstance(value, tuple) else (value,) for value in given)
        _check_bits(max(bits), where)
        if set(kinds) - {1, 4}:
            raise DataError(f"{where}: a TIFF image whose samples are signed or floats (SampleFormat {kinds[0]}); "
                            f"convert it to 8 bits without a sign")
    if image.mode in _DEEP_MODES:
        _check_bits(32 if image.mode in ("I", "F") else 16, where)
    return image


def _bits(file: BinaryIO) -> int:
    """Return the bits per channel that the head of a PNG, PNM or JPEG file names; 8 for any other head."""
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


@contextmanager
def _image_errors(where: str):
    """Raise a DataError that names the image in place of the errors that Pillow raises on bad bytes."""
    from PIL import UnidentifiedImageError
    from PIL.Image import DecompressionBombError, DecompressionBombWarning

    try:
        yield
    except DataError:
        raise
    except (DecompressionBombError, DecompressionBombWarning) as error:
        raise DataError(f"{where}: too large to decode; the limit is {PIXELS:,} pixels ({error})") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{where}: cannot be decoded; the bytes are not in an image format that is read "
                        f"({', '.join(FORMATS)})") from error
    except _CORRUPT as error:
        raise DataError(f"{where}: cannot be decoded as an image ({type(error).__name__}: {error})") from error


@dataclass(frozen=True)
class Survey:
    """The facts in all headers: each (H, W) with the first image that has it, if all are grey, and the formats."""

    sizes: dict[tuple[int, int], int]
    grey: bool
    formats: tuple[str, ...]


def survey(blobs: Blobs) -> Survey:
    """Read the headers of all images, or of an evenly spaced sample of a large set. Raises DataError."""
    count = len(blobs)
    indices = np.arange(count) if count <= SURVEY_LIMIT else np.arange(SURVEY_SAMPLE) * count // SURVEY_SAMPLE
    headers: dict[Header, int] = {}
    for index in indices.tolist():
        with blobs.open(index) as file:
            headers.setdefault(read_header(file, blobs.where(index)), index)
    sizes: dict[tuple[int, int], int] = {}
    for header, index in headers.items():
        sizes.setdefault(header.size, index)
    return Survey(sizes, all(header.grey for header in headers), tuple(sorted({header.format for header in headers})))


class EncodedSource:
    """The PixelSource of encoded 8-bit images: C = 1 if all surveyed images are grey, else RGB.

    Each image is decoded when it is first used, large ones in threads, and kept if the whole set fits CACHE_LIMIT.
    Raises DataError unless all surveyed images come out in one size.
    """

    levels: int | None = 255
    bounds: Bounds = (0, 1)

    def __init__(self, blobs: Blobs, found: Survey, preprocess: Preprocess) -> None:
        self._blobs = blobs
        self._preprocess = preprocess
        self.preprocessing = str(preprocess)
        self.shape: tuple[int, ...] = (1 if found.grey else 3, *_common_size(blobs, found, preprocess))
        self._threaded = max(height * width for height, width in found.sizes) >= THREADED_PIXELS
        cached = len(blobs) * int(np.prod(self.shape)) <= CACHE_LIMIT
        self._cache = np.empty((len(blobs), *self.shape), dtype=np.uint8) if cached else None
        self._known = np.zeros(len(blobs), dtype=bool)

    def __len__(self) -> int:
        return len(self._blobs)

    def pixels(self, indices: np.ndarray) -> np.ndarray:
        """Return (B, C, H, W) uint8. Raises DataError naming an image that is corrupt or of another size."""
        if self._cache is None:
            return self._decode(indices)
        missing = np.unique(indices[~self._known[indices]])
        self._cache[missing] = self._decode(missing)
        self._known[missing] = True
        return self._cache[indices]

    def read_raw(self, index: int) -> bytes:
        """Return the encoded bytes of one image."""
        with self._blobs.open(index) as file:
            return file.read()

    def where(self, index: int) -> str:
        """Return the image's name for messages: a path, or a row of a file."""
        return self._blobs.where(index)

    def _decode(self, indices: np.ndarray) -> np.ndarray:
        """Return (B, C, H, W) uint8, decoded in as many threads as it pays to use."""
        images = np.empty((len(indices), *self.shape), dtype=np.uint8)

        def decode(places: np.ndarray) -> None:
            for place in places.tolist():
                images[place] = self._decode_one(int(indices[place]))

        workers = min(os.cpu_count() or 1, 16, len(indices) // _LEAST_PER_THREAD) if self._threaded else 1
        if workers <= 1:
            decode(np.arange(len(indices)))
        else:
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(decode, np.array_split(np.arange(len(indices)), workers)))
        return images

    def _decode_one(self, index: int) -> np.ndarray:
        where = self._blobs.where(index)
        with self._blobs.open(index) as file:
            pixels = decode_image(file, where, self.shape[0], self._preprocess)
        if pixels.shape != self.shape:
            height, width = pixels.shape[1:]
            raise DataError(f"{where}: the image comes out as {height}x{width}, the others as "
                            f"{self.shape[1]}x{self.shape[2]}; give resize and crop so that all come out alike")
        return pixels


def _common_size(blobs: Blobs, found: Survey, preprocess: Preprocess) -> tuple[int, int]:
    """Return the one (H, W) that all surveyed images have after preprocessing. Raises DataError if they differ."""
    outputs: dict[tuple[int, int], int] = {}
    for size, index in found.sizes.items():
        outputs.setdefault(preprocess.output_size(size, blobs.where(index)), index)
    if len(outputs) > 1:
        examples = ", ".join(f"{blobs.where(index)} is {h}x{w}" for (h, w), index in list(outputs.items())[:2])
        after = "" if preprocess == Preprocess() else f" after preprocessing ({preprocess})"
        raise DataError(f"the images differ in size{after}: {examples}; "
                        "give resize and crop so that all come out alike")
    return next(iter(outputs))
