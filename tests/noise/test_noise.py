"""Grid noise tells nothing of its centre but the sum; streams are a function of their key and follow the normal law."""

import hashlib
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from smoothcert.errors import InputError, UnknownNameError
from smoothcert.noise import (
    FORMATS,
    NOISES,
    STAGES,
    BoxMullerStream,
    GaussianNoise,
    GridNoise,
    box_muller,
    build_noise,
    fresh_seed,
    image_key,
    open_stream,
    philox4x32,
    row_key,
)
from smoothcert.noise.boxmuller import ieee_box_muller
from smoothcert.stats import ProbabilityBounds, gaussian_radius

GAUSSIAN = {"gaussian", "grid", "sound"}  # the kinds whose law is normal, and whose theorem is the l2 one
BLOCKS = {"sfc64-v1": 100, "sfc64-bm-v1": 10_000, "philox-v1": 100}  # any number will do for the last, which has none
every_format = pytest.mark.parametrize("stream_format", FORMATS)


def stream(stream_format="sfc64-v1", seed=1, image=0, stage="estimate", dimension=12, start=0):
    return open_stream(stream_format, seed, image, stage, dimension, start)


def read(samples, *args, **key):
    key = {"dimension": 12} | key
    out = np.empty((samples, key["dimension"]), dtype=np.float32)
    stream(*args, **key).fill(out)
    return out


class Written:
    """A stream that reads out values written down beforehand."""

    def __init__(self, values):
        self.values = values

    def fill(self, out):
        out[:] = self.values


def noisy(noise, image, source, samples):
    """Copies around an image; a source of None is the noise's own stream."""
    source = noise.stream(1, 0, "estimate", noise.centre(image)) if source is None else source
    out = np.empty((samples, image.size), dtype=np.float32)
    noise.fill(out, noise.centre(image), source)
    return out


def levels_image(levels=255, size=12, seed=0):
    return (np.random.default_rng(seed).integers(0, levels + 1, size) / levels).astype(np.float32)


SIGMAS = [(0.12, 255), (0.25, 255), (1.0, 255), (4.0, 255), (100.0, 255), (0.5, 16), (0.25, 65_535), (2.0, 1)]


def fineness(noise):
    """L 2^e, the number of grid steps per unit."""
    return float(noise.levels * 2**noise.exponent)


@pytest.mark.parametrize(("sigma", "levels"), SIGMAS)
def test_every_value_is_a_whole_number_of_steps(sigma, levels):
    """y = (t + i) h for one integer |t + i| < 2^24: the sum was exact, and only the last product was rounded."""
    noise = GridNoise(sigma, levels)
    y = noisy(noise, np.array([0.0, 1.0] * 50, np.float32), stream(dimension=100), 500)
    steps = y.astype(np.float64) * fineness(noise)
    whole = np.rint(steps)
    assert np.abs(whole).max() < 2**24
    candidates = [(whole + shift).astype(np.float32) * noise.step for shift in (-1, 0, 1)]  # 2^24 (2^-24 + 2^-25) = 1.5
    assert np.all(np.any([candidate == y for candidate in candidates], axis=0))
    small = np.abs(whole) < 2**12
    assert np.all(np.abs(steps - whole)[small] < 1e-3)
    assert small.any()
    assert len(np.unique(whole)) > 1000


@pytest.mark.parametrize(("sigma", "levels"), SIGMAS[:6])
def test_values_depend_on_the_sum_alone(sigma, levels):
    """Two centres, and noise that makes up for the difference: the same bits."""
    noise = GridNoise(sigma, levels)
    first, second = levels_image(levels, 3000, 1), levels_image(levels, 3000, 2)
    i1, i2 = (np.rint(image * np.float64(levels)) * 2**noise.exponent for image in (first, second))
    t1 = np.rint(np.random.default_rng(3).normal(0, 0.3 * sigma * fineness(noise), (20, 3000)))
    t2 = t1 + i1 - i2
    scale = np.float32(sigma * fineness(noise))
    normals = [(t / np.float64(scale)).astype(np.float32) for t in (t1, t2)]
    wanted = [np.array_equal(np.rint(z * scale), t) for z, t in zip(normals, (t1, t2), strict=True)]
    assert wanted == [True, True]
    y1, y2 = (noisy(noise, image, Written(z), 20) for image, z in zip((first, second), normals, strict=True))
    assert np.array_equal(y1, y2)
    assert np.array_equal(y1, (t1 + i1).astype(np.float32) * noise.step)


def test_plain_noise_leaks_its_centre_and_grid_noise_does_not():
    """"Is y 2^23 an integer" tells plain noise around 0 from plain noise around 1 (29 % against 81 %), but on the grid,
    among values of one binade, it holds as often for either centre."""
    shares = {}
    for name, noise in (("gaussian", GaussianNoise(0.5)), ("grid", GridNoise(0.5))):
        for centre in (0.0, 1.0):
            y = noisy(noise, np.full(1000, centre, np.float32), stream(image=int(centre), dimension=1000), 1000)
            if name == "grid":
                y = y[(y > 0.3) & (y < 0.5)]
            shares[name, centre] = np.mean(np.mod(y.astype(np.float64) * 2**23, 1) == 0)
    assert shares["gaussian", 0.0] == pytest.approx(0.29, abs=0.01)
    assert shares["gaussian", 1.0] == pytest.approx(0.81, abs=0.01)
    assert shares["grid", 0.0] == pytest.approx(shares["grid", 1.0], abs=0.01)


def test_grid_noise_is_plain_noise_rounded_to_the_grid():
    """Same stream: nearest grid point, so at most half a step from x + sigma Z (and float32 rounding)."""
    for sigma in (0.12, 0.5, 1.0):
        noise, image = GridNoise(sigma), levels_image(size=400)
        y = noisy(noise, image, stream(dimension=400), 100).astype(np.float64)
        plain = image.astype(np.float64) + sigma * read(100, dimension=400).astype(np.float64)
        assert np.abs(y - plain).max() <= 0.5 / fineness(noise) + 6 * (sigma + 1) * 2.0**-23
        assert np.abs(y - plain).max() > 0.4 / fineness(noise)


def test_grid_noise_keeps_the_normal_law():
    noise, image = GridNoise(0.5), levels_image(size=500)
    z = (noisy(noise, image, stream(dimension=500), 1000).astype(np.float64) - image) / 0.5
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    plain = (noisy(GaussianNoise(0.5), image, stream(image=7, dimension=500), 1000).astype(np.float64) - image) / 0.5
    assert stats.ks_2samp(z.ravel(), plain.ravel()).pvalue > 1e-3


def test_noise_is_never_clipped():
    for kind in NOISES:
        y = noisy(build_noise(kind, 1.0), np.array([0.0, 1.0], np.float32), None, 2000)
        assert np.mean(y[:, 0] < 0) == pytest.approx(0.5, abs=0.05)
        assert np.mean(y[:, 1] > 1) == pytest.approx(0.5, abs=0.05)
        assert y.min() < -2
        assert y.max() > 3


def test_placing_rounds_and_then_adds():
    """The arithmetic, operation by operation: out = (rint(scale z) + i) h, each of the three rounded to float32."""
    noise, image, z = GridNoise(0.3), levels_image(), read(50)
    by_hand = (np.rint(z * np.float32(0.3 * fineness(noise))) + noise.centre(image).values) * noise.step
    assert np.array_equal(noisy(noise, image, Written(z), 50), by_hand)
    plain = z * np.float32(0.3) + image
    assert np.array_equal(noisy(GaussianNoise(0.3), image, Written(z), 50), plain)


OFF_GRID = [0.3 / 255 + 0.1, 1e-4, np.float32(0.3333), 1.5, -0.25, np.float32(0.1)]


@pytest.mark.parametrize("off", OFF_GRID)
def test_an_image_off_the_grid_is_flagged_and_never_snapped(off):
    noise, image = GridNoise(0.25), levels_image(size=6)
    image[3] = off
    centre = noise.centre(image)
    assert centre.off_grid
    assert np.all(np.rint(centre.values) == centre.values)
    assert np.abs(centre.fraction).max() <= 0.5
    sum_in_steps = centre.values.astype(np.float64) + centre.fraction
    assert np.abs(sum_in_steps / fineness(noise) - image).max() < 2.0**-24 / fineness(noise)
    y = noisy(noise, image, stream(dimension=6), 40_000).astype(np.float64)
    steps = y * fineness(noise)
    assert np.all(np.abs(steps - np.rint(steps)) <= np.abs(steps) * 2.0**-23)
    error = 0.25 / np.sqrt(40_000)
    assert np.all(np.abs(y.mean(axis=0) - image) < 4.5 * error)
    plain = image.astype(np.float64) + 0.25 * read(40_000, dimension=6).astype(np.float64)
    assert np.abs(y - plain).max() < 0.5 / fineness(noise) + 1e-6  # nearer than any 8-bit level: 1 / 255 = 4e-3


def test_off_grid_noise_rounds_the_exact_sum():
    """y is the grid point nearest to x + sigma Z: of a coarse grid, where half a step is far above float32's own."""
    noise, image = GridNoise(0.5, levels=1, reach=2.0**13), np.array([0.1, 0.4, 0.5, 1000.3, -0.7], np.float32)
    assert noise.exponent == 10
    z = read(2000, dimension=5)
    y = noisy(noise, image, Written(z), 2000)
    exact = (image.astype(np.float64) + 0.5 * z.astype(np.float64)) * 1024
    clear = np.abs(exact - np.floor(exact) - 0.5) > 1e-3
    assert clear.mean() > 0.99
    assert np.array_equal(y[clear] * 1024.0, np.rint(exact)[clear])


def test_values_off_the_grid_depend_on_the_sum_alone():
    """Two centres a whole number of steps apart, and noise that makes up for it: the same bits."""
    noise = GridNoise(0.25)
    scale, apart = np.float32(0.25 * fineness(noise)), 40 * 2.0**12
    first = np.linspace(0.1, 0.4, 1000, dtype=np.float32)
    centre = noise.centre(first)
    t = np.rint(np.random.default_rng(5).normal(0, scale / 2, (20, 1000)))
    moved = [((t + shift) / np.float64(scale)).astype(np.float32) for shift in (0, apart)]
    assert all(np.array_equal(np.rint(z * scale), t + shift) for z, shift in zip(moved, (0, apart), strict=True))
    noise.place(moved[0], centre.values, centre.fraction)
    noise.place(moved[1], centre.values - np.float32(apart), centre.fraction)
    assert np.mean(moved[0] != moved[1]) < 1e-2  # float32 rounds t + f where f is within an ulp of 1/2, nowhere else
    assert np.array_equal(moved[0][:, np.abs(np.abs(centre.fraction) - 0.5) > 0.1],
                          moved[1][:, np.abs(np.abs(centre.fraction) - 0.5) > 0.1])


def test_what_float32_rounding_moved_counts_as_on_the_grid():
    noise = GridNoise(0.25)
    for level in (0, 1, 100, 254):
        inside, outside = ((level + share * 2.0**-16) / 255 for share in (0.4, 2.0))
        assert not noise.centre(np.array([inside], np.float32)).off_grid
        assert noise.centre(np.array([outside], np.float32)).off_grid
    for levels in (1, 16, 255):
        assert GridNoise(0.25, levels).centre(np.array([1 / levels + 9e-7], np.float32)).off_grid
    assert noise.centre(np.array([np.nan], np.float32)).off_grid


@pytest.mark.parametrize("levels", [1023, 4095, 65_535])
def test_deep_images_are_on_the_grid(levels):
    """Where float32 is coarser than 2^-16 of a level."""
    for image in (np.arange(levels + 1) / levels, np.arange(levels + 1, dtype=np.float32) / np.float32(levels)):
        assert not GridNoise(0.25, levels).centre(image.astype(np.float32)).off_grid


@pytest.mark.parametrize("sigma", [0.12, 0.7, 0.1, 0.25, 1 / 3, 64 / 255, 0.9999999, 1.2])
@pytest.mark.parametrize("make", [GaussianNoise, GridNoise, lambda sigma: GridNoise(sigma, 16)])
def test_no_less_noise_is_drawn_than_is_claimed(make, sigma):
    """What a normal of 1 is turned into is the level that is drawn: in float32, and never below sigma."""
    noise = make(sigma)
    unit = Fraction(int(getattr(noise, "per_unit", 1)))
    drawn = Fraction(noise.drawn) / unit
    assert Fraction(sigma) <= drawn <= Fraction(sigma) * (1 + Fraction(1, 2**23))
    assert noise.drawn == np.float32(noise.drawn)
    if noise.kind == "gaussian":
        rows, tensor = np.ones((1, 1), np.float32), torch.ones(1, 1)
        noise.place(rows, np.zeros(1, np.float32))
        noise.place(tensor, torch.zeros(1))
        assert rows.item() == tensor.item() == noise.drawn >= sigma


@pytest.mark.parametrize("levels", [1, 16, 255])
def test_images_of_whole_levels_are_on_the_grid(levels):
    noise = GridNoise(0.25, levels)
    image = (np.arange(levels + 1) / levels).astype(np.float32)
    centre = noise.centre(image.reshape(1, -1, 1))
    assert not centre.off_grid
    assert np.array_equal(centre.values, np.arange(levels + 1) * 2.0**noise.exponent)
    assert GridNoise(0.25, levels, reach=2.0).centre(image * 2).off_grid is False
    assert noise.centre(image * 2).off_grid is True


def test_the_grid_grows_coarser_only_when_it_must():
    assert GridNoise(0.25).exponent == GridNoise(1.0).exponent == 12
    exponents = [GridNoise(sigma).exponent for sigma in (1, 2, 4, 8, 100, 1000, 6000)]
    assert exponents[0] == 12
    assert exponents[-1] == 0
    assert exponents == sorted(exponents, reverse=True)
    for sigma in (1.4, 1.6, 3.0, 17.0, 900.0):
        noise = GridNoise(sigma)
        widest = 255 * (10 * sigma + 1)
        assert widest * 2**noise.exponent <= 2**24
        assert noise.exponent == 12 or widest * 2 ** (noise.exponent + 1) > 2**24
        assert noise.identity()["exponent"] == noise.exponent


@pytest.mark.parametrize(("kind", "sigma", "levels"), [
    ("grid", 1e5, 255), ("grid", 1e300, 255), ("grid", 1e308, 255), ("grid", 0.5, 10**7), ("grid", 0, 255),
    ("grid", -1, 255), ("grid", np.nan, 255), ("grid", np.inf, 255), ("grid", "0.5", 255), ("gaussian", 0, 255),
    ("gaussian", np.nan, 255), ("grid", 0.5, 0), ("grid", 0.5, -255),
])
def test_sigma_and_levels_that_cannot_work_are_refused(kind, sigma, levels):
    with pytest.raises(InputError), np.errstate(all="raise"):
        build_noise(kind, sigma, levels)


def test_an_unknown_noise_is_refused_with_the_closest_name():
    with pytest.raises(UnknownNameError, match='did you mean "gaussian"'):
        build_noise("gausian", 0.5)


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("off_grid", [False, True])
def test_tensors_are_placed_as_arrays_are_and_rows_as_images(kind, off_grid):
    """The same bits from NumPy and from torch, from one centre (d,) and from a centre a row (m, d)."""
    noise = build_noise(kind, 0.37)
    images = np.stack([levels_image(size=300, seed=row) for row in range(8)]) * np.float32(0.999 if off_grid else 1)
    centres = [noise.centre(image) for image in images]
    assert all(centre.off_grid == (off_grid and isinstance(noise, GridNoise)) for centre in centres)
    z = np.rint(read(8, dimension=300) * noise.unit) if noise.unit > 1 else read(8, dimension=300)
    alone = z.copy()
    for row, centre in zip(alone, centres, strict=True):
        noise.place(row[np.newaxis], centre.values, centre.fraction)
    values = np.stack([centre.values for centre in centres])
    fraction = np.stack([centre.fraction for centre in centres]) if centres[0].fraction is not None else None
    together = z.copy()
    noise.place(together, values, fraction)
    assert np.array_equal(together, alone)
    tensor = torch.from_numpy(z.copy())
    noise.place(tensor, torch.from_numpy(values), None if fraction is None else torch.from_numpy(fraction))
    assert tensor.dtype == torch.float32
    assert np.array_equal(tensor.numpy(), alone)
    first = centres[0]
    single, rows = torch.from_numpy(z.copy()), z.copy()
    fractions = None if first.fraction is None else torch.from_numpy(first.fraction)
    noise.place(single, torch.from_numpy(first.values), fractions)
    noise.place(rows, first.values, first.fraction)
    assert np.array_equal(single.numpy(), rows)
    assert np.array_equal(rows[0], alone[0])


@pytest.mark.parametrize("kind", NOISES)
def test_every_noise_keeps_the_protocol(kind):
    """A new noise is one row of NOISES: its samples are a function of the stream, and its radius is safe."""
    noise, image = build_noise(kind, 0.5), levels_image(size=12)
    together = noisy(noise, image, None, 230)
    source, parts = noise.stream(1, 0, "estimate", noise.centre(image)), []
    for size in (1, 99, 30, 100):
        parts.append(noisy(noise, image, source, size))
    assert np.array_equal(np.concatenate(parts), together)
    assert together.dtype == np.float32
    kept = image.copy()
    assert np.array_equal(noise.centre(image.reshape(3, 2, 2)).values, noise.centre(image).values)
    assert np.array_equal(image, kept)
    bounds = ProbabilityBounds(*np.array([[0.9, 0.5], [0.1, 0.5], [0.1, 0.5], [0.9, 0.5]]))
    for margin in (None, 0.1):
        radius = noise.radius(bounds, margin)
        assert radius[0] > 0 == radius[1]
        if kind in GAUSSIAN:
            assert np.array_equal(radius, gaussian_radius(bounds, 0.5, margin))
    assert noise.identity().items() >= {"kind": kind, "sigma": 0.5}.items()
    assert "format" not in noise.identity()
    assert noise.identity() != build_noise(kind, 0.25).identity()
    assert noise.norm == "l2" or kind not in GAUSSIAN


def recipe(seed, image, stage_number, block, dimension):
    """`sfc64-v1`, written out: one block of 100 samples."""
    sequence = np.random.SeedSequence(entropy=seed, spawn_key=(image, stage_number, block))
    return np.random.Generator(np.random.SFC64(sequence)).standard_normal(100 * dimension, np.float32)


KEYS = [(0, 0), (7, 12), (2**127 + 5, 2**32 - 1), (3, 2**255 + 17)]


@pytest.mark.parametrize(("stage", "number"), [("select", 0), ("estimate", 1), ("pilot", 2), ("predict", 3),
                                               ("attack", 4), ("walk", 5)])
def test_streams_are_the_written_recipe(stage, number):
    assert STAGES[stage] == number
    for seed, image in KEYS:
        got = read(250, seed=seed, image=image, stage=stage, dimension=7)
        written = np.concatenate([recipe(seed, image, number, block, 7).reshape(100, 7) for block in range(3)])
        assert np.array_equal(got, written[:250])


def test_small_space_words_are_the_written_recipe():
    """`sfc64-bm-v1`: blocks of 10,000 samples of ceil(d / 2) words; the cosines, then as many sines as are needed."""
    for seed, image in KEYS:
        blocks = [np.random.SFC64(np.random.SeedSequence(seed, spawn_key=(image, 3, block, 0x424D5631)))
                  .random_raw(10_000 * 4).reshape(-1, 4) for block in range(2)]
        words = np.concatenate(blocks)[:10_200]
        source = BoxMullerStream(seed, image, "predict", 7)
        assert np.array_equal(np.concatenate([source.words(n) for n in (0, 100, 9_850, 250)]), words)
        assert source.position == 10_200
        cosines, sines = box_muller(words)
        assert np.array_equal(read(10_200, "sfc64-bm-v1", seed=seed, image=image, stage="predict", dimension=7),
                              np.hstack([cosines, sines])[:, :7])


def philox_by_hand(counter, key):
    """Salmon et al. 2011, section 3.3, in Python's integers."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        product0, product1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = ((product1 >> 32) ^ c1 ^ k0, product1 % 2**32, (product0 >> 32) ^ c3 ^ k1, product0 % 2**32)
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


def test_philox_gives_the_published_answers():
    """Random123's known-answer vectors for philox4x32-10; and counters at random against the algorithm by hand."""
    pi = 0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0
    for ctr_key, answer in (
        ((0,) * 6, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((0xFFFFFFFF,) * 6, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (pi, "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ):
        words = philox4x32(np.array(ctr_key[:4], np.uint64), ctr_key[4:])
        assert " ".join(f"{int(word):08x}" for word in words) == answer
    counters = np.random.default_rng(1).integers(0, 2**32, (4, 50), dtype=np.uint64)
    words = philox4x32(counters, (123, 2**32 - 5))
    assert [tuple(map(int, column)) for column in words.T] == [
        philox_by_hand(tuple(map(int, column)), (123, 2**32 - 5)) for column in counters.T
    ]


@pytest.mark.parametrize("start", [0, 2**32 - 2, 2**40 + 3])
def test_philox_streams_are_the_written_recipe(start):
    for seed, image in KEYS:
        k0, k1, last = map(int, np.random.SeedSequence(seed, spawn_key=(image, 1)).generate_state(3))
        assert row_key(seed, image, "estimate").tolist() == [k0, k1, last]
        got = read(4, "philox-v1", seed=seed, image=image, start=start, dimension=10)
        for row, position in zip(got, range(start, start + 4), strict=True):
            quads = [philox_by_hand((quad, position % 2**32, position >> 32, last), (k0, k1)) for quad in range(3)]
            words = np.array([[w0 << 32 | w1, w2 << 32 | w3] for w0, w1, w2, w3 in quads], np.uint64)
            assert np.array_equal(row, np.stack(ieee_box_muller(words), axis=-1).ravel()[:10])


def test_the_formats_are_frozen():
    """A format names its bits: stored runs are re-derived from them. `sfc64-bm-v1` names its words."""
    words = BoxMullerStream(2024, 3, "estimate", 5).words(150).astype("<u8")
    bits = {name: read(150, name, seed=2024, image=3, dimension=5).astype("<f4") for name in ("sfc64-v1", "philox-v1")}
    digests = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in {**bits, "words": words}.items()}
    assert digests == {
        "sfc64-v1": "7ed747c9dce1fbb07550203c6a3e99818ea325333b8f8122219c8675803900cb",
        "philox-v1": "219090c990af5a35b0e9836ff0e9011601d19626853e93e5a5995ec73bb472e3",
        "words": "a425c2fd1a4d2db115f04c87f617fb852c5bf905e716d7c160d168cf9c97a1d7",
    }


@cache
def long_read(stream_format):
    return read(20_400, stream_format)


@every_format
def test_a_format_keeps_the_protocol(stream_format):
    """A new format is one row of FORMATS: named, counted in positions, any dimension, any start, pieces or whole."""
    assert FORMATS[stream_format].format == stream_format
    long, block = long_read(stream_format), BLOCKS[stream_format]
    for dimension in (1, 2, 3, 4, 5, 9, 100):
        assert np.isfinite(read(3, stream_format, dimension=dimension)).all()
    for samples in (0, 1, 99, 100, 101, 333, block - 1, block, block + 1, 2 * block):
        assert np.array_equal(read(samples, stream_format), long[:samples])
    for start in (0, 1, 57, 100, 250, block - 1, block, block + 1, 2 * block, 2 * block + 17):
        source = stream(stream_format, start=start)
        assert source.position == start
        out = np.empty((145, 12), np.float32)
        source.fill(out)
        assert source.position == start + 145
        assert np.array_equal(out, long[start : start + 145])


@every_format
@settings(deadline=None, derandomize=True, max_examples=40)
@given(chunks=st.lists(st.integers(0, 130), min_size=1, max_size=12), start=st.integers(-250, 250))
def test_chunks_of_any_size_make_the_same_stream(stream_format, chunks, start):
    start += BLOCKS[stream_format] if start < 0 else 0
    start = max(start, 0)
    source = stream(stream_format, start=start)
    out = np.empty((sum(chunks), 12), np.float32)
    at = 0
    for size in chunks:
        source.fill(out[at : at + size])
        at += size
    assert np.array_equal(out, long_read(stream_format)[start : start + at])


def test_every_part_of_the_key_matters():
    """All distinct: formats, seeds (also 2^32 and 2^64 apart), images, image keys, stages."""
    keys = [{"seed": s} for s in (0, 1, 1 + 2**32, 1 + 2**64, 1 + 2**96, 2**32)]
    keys += [{"seed": 1, "image": i} for i in (1, 2, 2**31, image_key(np.zeros(3)), image_key(np.ones(3)))]
    keys += [{"seed": 1, "stage": stage} for stage in STAGES if stage != "estimate"]
    values = [read(300, name, **key) for key in keys for name in FORMATS]
    heads = {block[row].tobytes() for block in values for row in (0, 100, 200)}
    assert len(heads) == 3 * len(values)
    correlations = np.corrcoef(np.stack([block.ravel() for block in values]))
    assert np.abs(correlations - np.eye(len(values))).max() < 5.5 / np.sqrt(3600)


def test_streams_share_no_values():
    """No stretch of one stream turns up in another, of any format: float32 triples in a row are all distinct."""
    keys = [(name, stage, image) for name in FORMATS for stage in STAGES for image in (0, 1)]
    parts = [read(200, name, stage=stage, image=image).ravel() for name, stage, image in keys]
    triples = {part[i : i + 3].tobytes() for part in parts for i in range(len(part) - 2)}
    assert len(triples) == len(parts) * (len(parts[0]) - 2)


@every_format
def test_normals_follow_the_law(stream_format):
    z = read(1000, stream_format, seed=99, dimension=1000).astype(np.float64).ravel()
    count = len(z)
    assert stats.kstest(z, "norm").pvalue > 1e-3
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3), (6, 15)):
        spread = np.sqrt((special.factorial2(2 * power - 1) - moment**2) / count)
        assert abs(np.mean(z**power) - moment) < 4.5 * spread
    for cut in (1.0, 2.0, 3.0, 4.0, 4.5):
        for side in (z, -z):
            assert stats.binomtest(int((side > cut).sum()), count, special.ndtr(-cut)).pvalue > 1e-3
    for values, spread in ((z, 1), ((z**2 - 1), 2)):
        rows = values.reshape(1000, 1000)
        for a, b in ((rows[:-1], rows[1:]), (rows[:-100], rows[100:]), (rows[:, :-1], rows[:, 1:]),
                     (rows[:, :500], rows[:, 500:])):  # between samples, blocks, pixels and halves of a sample
            assert abs(np.mean(a * b)) < 4.5 * spread / np.sqrt(a.size)


@every_format
def test_values_of_a_sample_are_independent(stream_format):
    """Box-Muller partners among them: all pairs of 6 values, in 8 x 8 cells of equal probability, by chi-square."""
    z = read(60_000, stream_format, seed=5, dimension=6)
    cells = np.searchsorted(special.ndtri(np.arange(1, 8) / 8), z)
    pvalues = []
    for a in range(6):
        for b in range(a):
            table = np.bincount(cells[:, a] * 8 + cells[:, b], minlength=64)
            pvalues.append(stats.chisquare(table).pvalue)
    assert min(pvalues) > 1e-3 / len(pvalues)


@pytest.mark.parametrize("stream_format", ["sfc64-bm-v1", "philox-v1"])
def test_tails_hold_what_they_should(stream_format):
    """Beyond 4 sigma among 1e7 values: within five standard errors of the law."""
    beyond = sum(int((np.abs(read(1000, stream_format, seed=8, image=image, dimension=1000)) > 4).sum())
                 for image in range(10))
    expected = 1e7 * 2 * special.ndtr(-4.0)
    assert abs(beyond - expected) < 5 * np.sqrt(expected)


box_mullers = pytest.mark.parametrize("transform", [box_muller, ieee_box_muller])


def word(k, angle):
    return np.asarray(k, np.uint64) << np.uint64(24) | np.asarray(angle, np.uint64)


@box_mullers
def test_the_tail_is_the_laws_to_its_last_cells(transform):
    """P(|Z| > c) = sum over k of 2^-40 (2 / pi) arccos(c / r_k), exactly, against 2 Phi(-c): the radii that matter are
    the 300,000 smallest k."""
    radii = np.hypot(*(leg.astype(np.float64) for leg in transform(word(np.arange(300_000), 5_000_001))))
    assert radii.max() == radii[0] == pytest.approx(np.sqrt(82 * np.log(2)), rel=1e-6)
    for cut, tolerance in ((5.5, 1e-4), (6.0, 1e-3), (6.5, 1e-2), (7.0, 0.1)):
        beyond = np.arccos(cut / radii[radii > cut]).sum() * 2 / np.pi * 2.0**-40
        assert beyond == pytest.approx(2 * special.ndtr(-cut), rel=tolerance)
    documented = 9.6e-14
    assert 2 * special.ndtr(-np.sqrt(80 * np.log(2))) == pytest.approx(documented, rel=0.01)


@box_mullers
def test_angles_are_evenly_spaced(transform):
    """A 64th of the 2^24 angles: every 64th place, with each sign and orientation, in equal steps around the circle."""
    if transform is box_muller:
        angle = np.arange(0, 2**24, 64)
    else:
        place, orientation = np.divmod(np.arange(2**18), 4)
        angle = place << 7 | 32 << 1 | orientation & 1 | orientation >> 1 << 23
    cosines, sines = transform(word(2**38, angle))
    turns = np.sort(np.arctan2(sines.astype(np.float64), cosines)) / (2 * np.pi)
    gaps = np.diff(turns, append=turns[0] + 1)
    assert np.abs(gaps * 2**18 - 1).max() < 0.05
    assert np.ptp(np.hypot(sines.astype(np.float64), cosines)) < 1e-6


@box_mullers
def test_box_muller_is_accurate(transform):
    """Against the documented formulas in float64, over all radii, the ends of their range and the axes included."""
    rng = np.random.default_rng(3)
    k = np.concatenate([rng.integers(0, 2**40, 40_000), (2 ** rng.uniform(0, 40, 40_000)).astype(np.int64),
                        2**40 - (2 ** rng.uniform(0, 40, 40_000)).astype(np.int64), [0, 1, 2**40 - 1, 2**40 - 2**20]])
    angle = rng.integers(0, 2**24, len(k))
    angle[:400] = np.arange(400) % 8 + np.arange(400) // 8 * 2**18
    u = (k.astype(np.float32) + np.float32(0.5)).astype(np.float64) * 2.0**-40
    assert u.min() == 2.0**-41
    assert u.max() == 1
    radius = np.sqrt(-2 * np.log(u))
    cosines, sines = transform(word(k, angle))
    wanted = legs(transform, angle)
    for got, leg in zip((cosines, sines), wanted, strict=True):
        if transform is box_muller:
            assert np.all(np.abs(got - radius * leg) <= 6e-7 * radius)
        else:
            assert np.all(np.abs(got - radius * leg) <= 5 * np.spacing(np.abs(radius * leg).astype(np.float32)))


def legs(transform, angle):
    """cos(theta) and sin(theta) as documented, in float64."""
    if transform is box_muller:
        return np.cos(2 * np.pi * angle / 2**24), np.sin(2 * np.pi * angle / 2**24)
    phi = (((angle >> 1 & 0x3FFFFF) + 0.5) * 2.0**-22 - 0.5) * np.pi / 2
    long, short = np.cos(phi) * (1 - 2 * (angle & 1)), np.sin(phi)
    swapped = angle >> 23 == 1
    return np.where(swapped, short, long), np.where(swapped, long, short)


@box_mullers
def test_a_words_normals_are_the_same_wherever_it_lies(transform):
    """Vector body or tail, first chunk or last, any alignment, any shape: the bits depend on the word alone."""
    rng = np.random.default_rng(6)
    words = rng.integers(0, 2**64, 40_000, dtype=np.uint64)
    whole = np.stack(transform(words))
    for _ in range(20):
        ends = np.sort(rng.integers(0, len(words) + 1, rng.integers(1, 40)))
        parts = [np.stack(transform(part)) for part in np.split(words, ends)]
        assert np.array_equal(np.concatenate(parts, axis=1), whole)
    singles = [np.stack(transform(words[i : i + 1])) for i in range(200)]
    assert np.array_equal(np.concatenate(singles, axis=1), whole[:, :200])
    assert np.array_equal(np.stack(transform(words.reshape(8, 50, 100))), whole.reshape(2, 8, 50, 100))
    assert np.array_equal(np.stack(transform(words[::3])), whole[:, ::3])
    order = rng.permutation(len(words))
    assert np.array_equal(np.stack(transform(words[order])), whole[:, order])


@every_format
def test_no_global_generator_is_used(stream_format):
    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = read(50, stream_format)
    np.random.seed(6)  # noqa: NPY002
    assert np.array_equal(read(50, stream_format), first)
    np.random.seed(5)  # noqa: NPY002
    read(50, stream_format)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@every_format
def test_keys_that_cannot_be_are_refused(stream_format):
    for key, message in (({"seed": -1}, "seed must be at least 0"), ({"seed": 2**128}, "below 2\\^128"),
                         ({"seed": 1.5}, "whole number"), ({"image": -1}, "must not be negative"),
                         ({"stage": "estimat"}, 'did you mean "estimate"'), ({"start": -1}, "must be at least 0")):
        with pytest.raises(InputError, match=message):
            stream(stream_format, **key)


def test_an_unknown_format_is_refused_with_the_closest_name():
    with pytest.raises(UnknownNameError, match='did you mean "philox-v1"'):
        stream("philox")


def test_image_keys_are_the_hash_of_the_float32_bytes():
    image = levels_image(size=12)
    assert image_key(image) == int(hashlib.sha256(image.tobytes()).hexdigest(), 16)
    assert image_key(image) == image_key(image.astype(np.float64)) == image_key(image[::-1][::-1])
    other = image.copy()
    other[5] = np.nextafter(other[5], np.float32(2))
    keys = {image_key(image), image_key(other), image_key(image[::-1]), image_key(image[:-1]), image_key(-image)}
    assert len(keys) == 5


def test_fresh_seeds_differ_and_fit():
    seeds = {fresh_seed() for _ in range(100)}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(("key", "message"), [
    ({"seed": -1}, "seed must be at least 0"), ({"seed": 2**128}, "seed must be below 2\\^128"),
    ({"seed": 1.5}, "seed must be a whole number"), ({"seed": True}, "seed must be a whole number"),
    ({"image": -1}, "must not be negative"), ({"stage": "estimat"}, 'did you mean "estimate"'),
    ({"start": -50}, "start"),
])
def test_bad_keys_are_refused(key, message):
    with pytest.raises(InputError, match=message):
        stream(**key)
