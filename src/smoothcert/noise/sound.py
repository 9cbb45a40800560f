"""`sound`: the grid's noise drawn exactly, t = round(sigma Z / h + f) from whole numbers alone.

`grid` closes what the sum x + sigma Z leaks, but its Z are float32 normals: in steps, and with tails that end. Here the
law of t is that of a rounded real normal to the last digit (see `smoothcert.noise.lattice`), so y = Q(x + sigma Z) has
exactly the law that the theorems speak of, if the generator's bits are uniform. Grid, step h and flag are `grid`'s; a
sum beyond the grid's end is set to the end, and an input may not lie beyond it. Inputs without levels get the finest
grid that holds them and their noise, h a power of two of any sign; nothing is flagged, since they are on no grid.

`sound-v1`: a 64-bit word of SFC64 a value, in blocks of 100 samples, flat in CHW order, seeded by SeedSequence(run
seed, spawn key (image, stage, block, 0x534E4431)). A word that falls on the rest takes as many more, of an SFC64 seeded
with the spawn key (image, stage, sample, value, 0x534E4432). The tables are part of the format.

`sound-philox-v1`, for a GPU: values addressed at random, by the words of Philox4x32-10 at the counters of `philox-v1`
(see `smoothcert.noise.streams`), two values a counter; the three words of a stream come from SeedSequence(run seed,
spawn key (image, stage, 0x534E4433)), and the last number of the rest's key is 0x534E4434. The tables are those of
`FINE`, in which one value in millions is of the rest, made for f = 0 where the image lies on the grid.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from smoothcert.checks import check_known, check_positive
from smoothcert.errors import InputError
from smoothcert.noise.grid import EXACT, GridNoise
from smoothcert.noise.keys import stream_key
from smoothcert.noise.lattice import FINE, LatticeNormal, lattice_normal
from smoothcert.noise.protocol import NoiseCentre
from smoothcert.noise.streams import Blocks, PhiloxStream, row_key

_CHUNK = 8192  # words at a time, so that they and what is made of them stay in a processor's second cache


class WholeSteps:
    """Draws whole numbers t from the words of a format, and those of the rest from words of their own."""

    format: str
    rest: int  # the last number of the spawn key of the rest's own words
    _seed: int
    _key: tuple[int, int]
    _dimension: int
    _position: int
    _law: LatticeNormal
    _fraction: np.ndarray | None

    def fill(self, out: np.ndarray) -> None:
        """Write the next len(out) samples into `out`, float32 (m, dimension), C-contiguous: |t| is cut at 2^24."""
        rows = max(1, _CHUNK // self._dimension)
        for start in range(0, len(out), rows):
            part, first = out[start : start + rows], self._position
            values, rest = self._law.draw(self._read(len(part)).ravel())
            for k in rest.tolist():
                row, value = divmod(k, self._dimension)
                values[k] = self.invert(first + row, value)
            part[:] = values.reshape(part.shape)

    def invert(self, sample: int, value: int) -> int:
        """Return the t of a value that is of the rest, by its sample's position in the stream."""
        shift = Fraction(0) if self._fraction is None else Fraction(float(self._fraction[value]))
        t = self._law.invert(partial(self._digits, sample, value), shift)
        return min(max(t, -EXACT), EXACT)

    def _digits(self, sample: int, value: int, bits: int) -> int:
        """Return the first binary digits of this value's own uniform number, a multiple of 64 of them."""
        sequence = np.random.SeedSequence(self._seed, spawn_key=(*self._key, sample, value, self.rest))
        words = np.random.SFC64(sequence).random_raw(bits // 64)
        return int.from_bytes(words.astype(">u8").tobytes(), "big")

    def _read(self, samples: int) -> np.ndarray:
        """Return the words of the next samples, uint64 (samples, dimension)."""
        raise NotImplementedError


class SoundStream(WholeSteps, Blocks):
    """The whole numbers t of one (run seed, image, stage) in the format `sound-v1`; see `open_stream`.

    Args:
        scale: sigma / h.
        fraction: f, (dimension,) of at most 1/2 each; None for zeros.
    """

    format = "sound-v1"
    block = 100
    spawn = (0x534E4431,)
    rest = 0x534E4432

    def __init__(
        self, seed: int, image: int, stage: str, dimension: int, start: int = 0, *, scale: Fraction,
        fraction: np.ndarray | None = None,
    ) -> None:
        self._law, self._fraction = lattice_normal(scale), fraction
        Blocks.__init__(self, seed, image, stage, dimension, start)

    def _read(self, samples: int) -> np.ndarray:
        return self._raw(samples, self._dimension)

    def _skip(self, samples: int) -> None:
        for rows, bits in self._parts(samples):
            bits.random_raw((rows.stop - rows.start) * self._dimension, output=False)


class SoundPhiloxStream(WholeSteps, PhiloxStream):
    """The whole numbers t of one (run seed, image, stage) in the format `sound-philox-v1`; arguments as before."""

    format = "sound-philox-v1"
    rest = 0x534E4434

    def __init__(
        self, seed: int, image: int, stage: str, dimension: int, start: int = 0, *, scale: Fraction,
        fraction: np.ndarray | None = None,
    ) -> None:
        PhiloxStream.__init__(self, seed, image, stage, dimension, start)
        self._seed, self._key = stream_key(seed, image, stage)
        self._words, self._fraction = self.words(seed, image, stage), fraction
        self._law = lattice_normal(scale, FINE, fraction is not None)

    @staticmethod
    def words(seed: int, image: int, stage: str) -> np.ndarray:
        """Return the three words of a stream; see `row_key`."""
        return row_key(seed, image, stage, 0x534E4433)

    def _read(self, samples: int) -> np.ndarray:
        pairs = self._pairs(np.empty((3, 2, samples, -(-self._dimension // 2)), np.uint64))
        self._position += samples
        return pairs.reshape(samples, -1)[:, : self._dimension]


_STREAMS = (SoundStream, SoundPhiloxStream)


@dataclass(frozen=True)
class SoundNoise(GridNoise):
    """N(0, sigma^2 I) rounded to steps of h = 1 / (levels 2^exponent), drawn exactly.

    Arguments are those of `GridNoise`, but levels may be None, for inputs that were quantised to none.
    """

    kind = "sound"
    formats = tuple(stream.format for stream in _STREAMS)

    def __post_init__(self) -> None:
        if self.levels is not None:
            super().__post_init__()
        check_positive("sigma", self.sigma)
        check_positive("reach", self.reach)

    @property
    def exponent(self) -> int:
        return self._finest if self.levels is None else super().exponent

    @property
    def unit(self) -> float:
        return float(self.scale)

    def centre(self, image: np.ndarray) -> NoiseCentre:
        """Return what `grid` does, with the fractions exact: float64.

        Raises InputError for values beyond `reach`: the grid's ends are laid for those within.
        """
        if self.levels is not None and not (found := super().centre(image)).off_grid:
            return found
        if not (most := np.abs(image).max(initial=0)) <= self.reach:
            other = "grid" if self.levels else "gaussian"
            raise InputError(f"sound noise needs values in [-{self.reach:g}, {self.reach:g}], got {most:.4g} from 0: "
                             f'give the bounds that they keep, or use noise="{other}"')
        steps = np.ravel(image).astype(np.float32).astype(np.float64) * self.per_unit
        values = np.rint(steps).astype(np.float32)
        return NoiseCentre(values, steps - values, off_grid=self.levels is not None)

    @property
    def end(self) -> int:
        """The end of the grid, in steps from 0: what |t| cut at 2^24 cannot reach from within `reach`."""
        return EXACT - int(np.ceil(self.reach * self.per_unit))

    def stream(
        self, seed: int, image: int, stage: str, centre: NoiseCentre, start: int = 0, format: str | None = None
    ) -> SoundStream | SoundPhiloxStream:
        opened = _STREAMS[self.formats.index(check_known("format of sound noise", format or self.formats[0],
                                                         self.formats))]
        return opened(seed, image, stage, len(centre.values), start, scale=self.scale, fraction=centre.fraction)

    def place(self, out: Any, values: Any, fraction: Any = None) -> Any:
        """Turn whole numbers t, in which the fraction is, into noisy copies; see `Noise.place`."""
        out += values
        if hasattr(out, "clamp_"):
            out.clamp_(-self.end, self.end)
        else:
            np.clip(out, -self.end, self.end, out=out)
        out *= float(self.step)
        return out
