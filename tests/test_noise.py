"""Grid noise tells nothing of its centre but the sum; streams are a function of their key and follow the normal law."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from smoothcert.errors import InputError, UnknownNameError
from smoothcert.noise import (
    BLOCK,
    NOISES,
    STAGES,
    GaussianNoise,
    GridNoise,
    NormalStream,
    build_noise,
    fresh_seed,
    image_key,
)
from smoothcert.stats import ProbabilityBounds, gaussian_radius


def stream(seed=1, image=0, stage="estimate", dimension=12, start=0):
    return NormalStream(seed, image, stage, dimension, start)


def read(samples, **key):
    key = {"dimension": 12} | key
    out = np.empty((samples, key["dimension"]), dtype=np.float32)
    stream(**key).fill(out)
    return out


class Written:
    """A stream that reads out values written down beforehand."""

    def __init__(self, values):
        self.values = values

    def fill(self, out):
        out[:] = self.values


def sample(noise, image, source, samples):
    out = np.empty((samples, image.size), dtype=np.float32)
    noise.sample(noise.centre(image), source, out)
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
    y = sample(noise, np.array([0.0, 1.0] * 50, np.float32), stream(dimension=100), 500)
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
    y1, y2 = (sample(noise, image, Written(z), 20) for image, z in zip((first, second), normals, strict=True))
    assert np.array_equal(y1, y2)
    assert np.array_equal(y1, (t1 + i1).astype(np.float32) * noise.step)


def test_plain_noise_leaks_its_centre_and_grid_noise_does_not():
    """"Is y 2^23 an integer" tells plain noise around 0 from plain noise around 1 (29 % against 81 %), but on the grid,
    among values of one binade, it holds as often for either centre."""
    shares = {}
    for name, noise in (("gaussian", GaussianNoise(0.5)), ("grid", GridNoise(0.5))):
        for centre in (0.0, 1.0):
            y = sample(noise, np.full(1000, centre, np.float32), stream(image=int(centre), dimension=1000), 1000)
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
        y = sample(noise, image, stream(dimension=400), 100).astype(np.float64)
        plain = image.astype(np.float64) + sigma * read(100, dimension=400).astype(np.float64)
        assert np.abs(y - plain).max() <= 0.5 / fineness(noise) + 6 * (sigma + 1) * 2.0**-23
        assert np.abs(y - plain).max() > 0.4 / fineness(noise)


def test_grid_noise_keeps_the_normal_law():
    noise, image = GridNoise(0.5), levels_image(size=500)
    z = (sample(noise, image, stream(dimension=500), 1000).astype(np.float64) - image) / 0.5
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    plain = (sample(GaussianNoise(0.5), image, stream(image=7, dimension=500), 1000).astype(np.float64) - image) / 0.5
    assert stats.ks_2samp(z.ravel(), plain.ravel()).pvalue > 1e-3


def test_noise_is_never_clipped():
    for kind in NOISES:
        y = sample(build_noise(kind, 1.0), np.array([0.0, 1.0], np.float32), stream(dimension=2), 2000)
        assert np.mean(y[:, 0] < 0) == pytest.approx(0.5, abs=0.05)
        assert np.mean(y[:, 1] > 1) == pytest.approx(0.5, abs=0.05)
        assert y.min() < -2
        assert y.max() > 3


@pytest.mark.parametrize("off", [0.3 / 255 + 0.1, 1e-4, np.float32(0.3333), 1.5, -0.25])
def test_an_image_off_the_grid_is_flagged_and_never_snapped(off):
    noise, image = GridNoise(0.25), levels_image(size=6)
    image[3] = off
    centre = noise.centre(image)
    assert centre.off_grid
    assert np.array_equal(centre.values, image)
    y = sample(noise, image, stream(dimension=6), 40_000).astype(np.float64)
    steps = y * fineness(noise)
    assert np.all(np.abs(steps - np.rint(steps)) <= np.abs(steps) * 2.0**-23)
    error = 0.25 / np.sqrt(40_000)
    assert np.all(np.abs(y.mean(axis=0) - image) < 4.5 * error)
    plain = image.astype(np.float64) + 0.25 * read(40_000, dimension=6).astype(np.float64)
    assert np.abs(y - plain).max() < 0.5 / fineness(noise) + 2e-6  # nearer than any 8-bit level: 1 / 255 = 4e-3


def test_off_grid_is_decided_at_a_4096th_of_a_level():
    noise = GridNoise(0.25)
    for level in (0, 1, 100, 254):
        inside, outside = ((level + share * 2.0**-12) / 255 for share in (0.9, 1.2))
        assert not noise.centre(np.array([inside], np.float32)).off_grid
        assert noise.centre(np.array([outside], np.float32)).off_grid
    assert noise.centre(np.array([np.nan], np.float32)).off_grid


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
def test_every_noise_keeps_the_protocol(kind):
    """A new noise is one row of NOISES: its samples are a function of the stream, and its radius is the theorem's."""
    noise, image = build_noise(kind, 0.5), levels_image(size=12)
    together = sample(noise, image, stream(), 230)
    source, parts = stream(), []
    for size in (1, 99, 30, 100):
        parts.append(sample(noise, image, source, size))
    assert np.array_equal(np.concatenate(parts), together)
    assert together.dtype == np.float32
    kept = image.copy()
    assert np.array_equal(noise.centre(image.reshape(3, 2, 2)).values, noise.centre(image).values)
    assert np.array_equal(image, kept)
    bounds = ProbabilityBounds(*np.array([0.9, 0.1, 0.1, 0.9]))
    assert noise.radius(bounds) == gaussian_radius(bounds, 0.5)
    assert noise.radius(bounds, 0.1) == gaussian_radius(bounds, 0.5, 0.1)
    assert noise.identity().items() >= {"kind": kind, "sigma": 0.5, "format": "sfc64-v1"}.items()
    assert noise.identity() != build_noise(kind, 0.25).identity()
    assert noise.norm == "l2"


def recipe(seed, image, stage_number, block, dimension):
    """`sfc64-v1`, written out: one block of 100 samples."""
    sequence = np.random.SeedSequence(entropy=seed, spawn_key=(image, stage_number, block))
    return np.random.Generator(np.random.SFC64(sequence)).standard_normal(100 * dimension, np.float32)


@pytest.mark.parametrize(("stage", "number"), [("select", 0), ("estimate", 1), ("pilot", 2), ("predict", 3),
                                               ("attack", 4), ("walk", 5)])
def test_streams_are_the_written_recipe(stage, number):
    assert BLOCK == 100
    assert STAGES[stage] == number
    for seed, image in ((0, 0), (7, 12), (2**127 + 5, 2**32 - 1), (3, 2**255 + 17)):
        got = read(250, seed=seed, image=image, stage=stage, dimension=7)
        written = np.concatenate([recipe(seed, image, number, block, 7).reshape(100, 7) for block in range(3)])
        assert np.array_equal(got, written[:250])


def test_the_format_is_frozen():
    """`sfc64-v1` names these bits: stored runs are re-derived from them."""
    digest = hashlib.sha256(read(150, seed=2024, image=3, stage="estimate", dimension=5).astype("<f4").tobytes())
    assert digest.hexdigest() == "7ed747c9dce1fbb07550203c6a3e99818ea325333b8f8122219c8675803900cb"


def test_a_shorter_read_is_a_prefix():
    long = read(333)
    for samples in (1, 99, 100, 101, 200, 332):
        assert np.array_equal(read(samples), long[:samples])


@pytest.mark.parametrize("start", [0, 1, 57, 99, 100, 101, 200, 250, 317])
def test_start_slices_the_stream(start):
    long = read(400)
    assert np.array_equal(read(60, start=start), long[start : start + 60])
    source = stream(start=start)
    assert source.position == start
    source.fill(np.empty((45, 12), np.float32))
    assert source.position == start + 45


@settings(deadline=None, derandomize=True, max_examples=60)
@given(chunks=st.lists(st.integers(0, 130), min_size=1, max_size=12), start=st.integers(0, 250))
def test_chunks_of_any_size_make_the_same_stream(chunks, start):
    source = stream(start=start)
    out = np.empty((sum(chunks), 12), np.float32)
    at = 0
    for size in chunks:
        source.fill(out[at : at + size])
        at += size
    assert np.array_equal(out, read(start + at)[start:])


def test_every_part_of_the_key_matters():
    """All distinct: seeds (also 2^32 and 2^64 apart), images, image keys, stages."""
    keys = [{"seed": s} for s in (0, 1, 1 + 2**32, 1 + 2**64, 1 + 2**96, 2**32)]
    keys += [{"seed": 1, "image": i} for i in (1, 2, 2**31, image_key(np.zeros(3)), image_key(np.ones(3)))]
    keys += [{"seed": 1, "stage": stage} for stage in STAGES if stage != "estimate"]
    values = [read(300, **key) for key in keys]
    heads = {block[row].tobytes() for block in values for row in (0, 100, 200)}
    assert len(heads) == 3 * len(keys)
    for a in range(len(values)):
        for b in range(a):
            assert abs(np.corrcoef(values[a].ravel(), values[b].ravel())[0, 1]) < 5 / np.sqrt(3600)


def test_stages_and_images_share_no_values():
    """No stretch of one stream turns up in another: float32 triples in a row are all distinct."""
    parts = [read(200, stage=stage, image=image).ravel() for stage in STAGES for image in (0, 1)]
    triples = {part[i : i + 3].tobytes() for part in parts for i in range(len(part) - 2)}
    assert len(triples) == len(parts) * (len(parts[0]) - 2)


def test_normals_follow_the_law():
    z = read(2000, seed=99, dimension=1000).astype(np.float64).ravel()
    count = len(z)
    assert stats.kstest(z, "norm").pvalue > 1e-3
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3), (6, 15)):
        spread = np.sqrt((special.factorial2(2 * power - 1) - moment**2) / count)
        assert abs(np.mean(z**power) - moment) < 4.5 * spread
    for cut in (1.0, 2.0, 3.0, 4.0, 4.5):
        for side in (z, -z):
            assert stats.binomtest(int((side > cut).sum()), count, special.ndtr(-cut)).pvalue > 1e-3
    rows = z.reshape(2000, 1000)
    for a, b in ((rows[:-1], rows[1:]), (rows[:, :-1], rows[:, 1:]), (rows[:-100], rows[100:])):
        assert abs(np.mean(a * b)) < 4.5 / np.sqrt(a.size)  # no correlation between samples, pixels or blocks


def test_no_global_generator_is_used():
    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = read(50)
    np.random.seed(6)  # noqa: NPY002
    assert np.array_equal(read(50), first)
    np.random.seed(5)  # noqa: NPY002
    read(50)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


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
