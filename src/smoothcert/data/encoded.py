"""Images stored as encoded files (PNG, JPEG, ...): headers checked at load, pixels decoded when asked for."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import numpy as np

from smoothcert.data.decode import Header, decode_image, read_header
from smoothcert.data.preprocess import Preprocess
from smoothcert.errors import DataError

CACHE_LIMIT = 1 << 30
"""Decoded images are kept in memory where the whole set takes no more bytes than this."""
SURVEY_LIMIT = 10_000
"""Up to this many images every header is read at load; of more, SURVEY_SAMPLE evenly spaced ones."""
SURVEY_SAMPLE = 1_000
THREADED_PIXELS = 64 * 64
"""Smaller images are decoded in one thread: there the interpreter, which threads share, is the larger part."""
_LEAST_PER_THREAD = 16


class Blobs(Protocol):
    """N encoded images."""

    def __len__(self) -> int: ...

    def open(self, index: int) -> BinaryIO:
        """The encoded bytes of one image as an open binary file."""
        ...

    def where(self, index: int, /) -> str:
        """The image's name in messages: a path, or a row of a file."""
        ...


@dataclass(frozen=True)
class Survey:
    """What the headers say: each (H, W) with the first image that has it, whether all are grey, the formats."""

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
    """The PixelSource of encoded 8-bit images: C = 1 where all surveyed images are grey, else RGB.

    Each image is decoded when first asked for, large ones in threads, and kept where the whole set fits CACHE_LIMIT.
    Raises DataError where the surveyed images do not all come out in one size.
    """

    levels = 255

    def __init__(self, blobs: Blobs, found: Survey, preprocess: Preprocess):
        self._blobs = blobs
        self._preprocess = preprocess
        self.preprocessing = str(preprocess)
        self.shape: tuple[int, int, int] = (1 if found.grey else 3, *_common_size(blobs, found, preprocess))
        self._threaded = max(height * width for height, width in found.sizes) >= THREADED_PIXELS
        cached = len(blobs) * int(np.prod(self.shape)) <= CACHE_LIMIT
        self._cache = np.empty((len(blobs), *self.shape), dtype=np.uint8) if cached else None
        self._known = np.zeros(len(blobs), dtype=bool)

    def __len__(self) -> int:
        return len(self._blobs)

    def pixels(self, indices: np.ndarray) -> np.ndarray:
        """(B, C, H, W) uint8. Raises DataError naming an image that is corrupt or of another size."""
        if self._cache is None:
            return self._decode(indices)
        missing = np.unique(indices[~self._known[indices]])
        self._cache[missing] = self._decode(missing)
        self._known[missing] = True
        return self._cache[indices]

    def stored(self, index: int) -> bytes:
        """The encoded bytes of one image."""
        with self._blobs.open(index) as file:
            return file.read()

    def where(self, index: int) -> str:
        """A path, or a row of a file."""
        return self._blobs.where(index)

    def _decode(self, indices: np.ndarray) -> np.ndarray:
        """(B, C, H, W) uint8, decoded in as many threads as it pays to use."""
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
    """The one (H, W) that all surveyed images have after preprocessing. Raises DataError where they differ."""
    outputs: dict[tuple[int, int], int] = {}
    for size, index in found.sizes.items():
        outputs.setdefault(preprocess.output_size(size, blobs.where(index)), index)
    if len(outputs) > 1:
        examples = ", ".join(f"{blobs.where(index)} is {h}x{w}" for (h, w), index in list(outputs.items())[:2])
        after = "" if preprocess == Preprocess() else f" after preprocessing ({preprocess})"
        raise DataError(f"the images differ in size{after}: {examples}; "
                        "give resize and crop so that all come out alike")
    return next(iter(outputs))
