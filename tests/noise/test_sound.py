"""Sound noise has exactly the law of a rounded normal; what gaussian noise leaks, grid and sound noise do not."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from scipy import special, stats
from typer.testing import CliRunner

from nets import write_nets
from smoothcert.cli.main import app
from smoothcert.errors import InputError
from smoothcert.noise import FORMATS, build_noise, philox4x32
from smoothcert.noise.lattice import COARSE, FINE, LatticeNormal, lattice_normal, normal_cdf, normal_density
from smoothcert.smoothing import Sampling, Segment, SmoothedClassifier, open_voter
from smoothcert.store.store import read_store

HALF = Fraction(1, 2)
GAUSSIAN = ("gaussian", "grid", "sound")


def copies(kind, image, n, seed=1, key=0, stage="estimate", sigma=0.5, start=0, stream_format=None):
    noise = build_noise(kind, sigma)
    centre, out = noise.centre(image), np.empty((n, image.size), np.float32)
    noise.fill(out, centre, noise.stream(seed, key, stage, centre, start, stream_format))
    return out


def ratio(x):
    return mpmath.mpf(x.numerator) / x.denominator


@pytest.mark.parametrize("bits", [64, 128, 200])
def test_the_normal_law_is_right_to_its_last_digit(bits):
    with mpmath.workprec(500):
        for x in map(Fraction, ("0", "1/3", "-7/5", "5", "9", "-27/2", "20", "1/1000000000")):
            assert abs(mpmath.ncdf(ratio(x)) * 2**bits - normal_cdf(x, bits)) < 1
            assert abs(mpmath.npdf(ratio(x)) * 2**bits - normal_density(x, bits)) < 1


def drawn_masses(law):
    """P(t) of what one word draws, counted from the tables themselves, in units of 2^-mass / W^2; and of the rest."""
    w, masses, rest = law.width, {}, 0
    falling = 2 * (w - np.arange(w)) - 1
    for column, cut in enumerate(law.cuts.tolist()):
        for side, weight in enumerate((2**law.layout.cut - cut, cut)):
            code = int(law.codes[2 * column + side])
            base, kind = code >> 2, code & 3
            rest += weight * (kind == 2)
            shape = (np.full(w, w), falling if base >= 0 else falling[::-1])[kind] if kind < 2 else ()
            for j, share in enumerate(shape):
                masses[base + j] = masses.get(base + j, 0) + weight * int(share)
    return masses, rest


@pytest.mark.parametrize(("scale", "layout", "shifted"), [
    *((scale, COARSE, True) for scale in (Fraction(1, 5), Fraction(7, 3), Fraction(40), Fraction(301, 2))),
    (Fraction(7, 3), FINE, False), (Fraction(40), FINE, True), (Fraction(1031), FINE, False)])
def test_every_probability_is_exact(scale, layout, shifted):
    """By enumeration: tables + rest = P. What the tables draw is F; F <= P for every shift; and the rest is cut where
    rho V = G(t), to 2^-60."""
    law = LatticeNormal(scale, layout, shifted)
    masses, rest = drawn_masses(law)
    unit, stride, whole = law.width**2, int(scale) // 20 | 1, 2**layout.mass
    assert rest == law.rest
    assert sum(masses.values()) == (whole - rest) * unit
    total = 0
    with mpmath.workprec(200):
        for t in range(min(masses, default=0) - 2, max(masses, default=0) + 3):
            total += masses.get(t, 0)
            assert law.below(t) == total
            below = mpmath.mpf(masses.get(t, 0)) / unit / whole
            for shift in ((-HALF, HALF) if shifted else (0,)) if t % stride == 0 else ():
                low, high = ((t + sign * HALF - shift) / scale for sign in (-1, 1))
                assert below <= mpmath.ncdf(ratio(high)) - mpmath.ncdf(ratio(low))
        rng = np.random.default_rng(1)
        for shift in (Fraction(0), Fraction(-3, 8))[: 1 + shifted]:
            for t in rng.integers(-3 * scale - 2, 3 * scale + 2, 6).tolist():
                g = mpmath.ncdf(ratio((t + HALF - shift) / scale)) - mpmath.mpf(law.below(t)) / unit / whole
                edge = int(mpmath.floor(g * whole / rest * 2**60))
                if 0 < edge < 2**60 - 1:
                    before, after = (law.invert(lambda b, v=v: v << b - 60, shift) for v in (edge - 1, edge + 1))
                    assert before <= t < after


def test_undecided_digits_are_read_further():
    """A V whose first 64 digits lie on a boundary is told by later ones."""
    law = LatticeNormal(Fraction(3))
    with mpmath.workprec(400):
        g = mpmath.ncdf(ratio(Fraction(1, 2) / 3)) - mpmath.mpf(law.below(0)) / law.width**2 / 2**COARSE.mass
        edge = int(mpmath.floor(g * 2**COARSE.mass / law.rest * 2**300))
    asked = []
    for v in (edge - 2**100, edge + 2**100):
        found = law.invert(lambda b, v=v: asked.append(b) or v >> 300 - b)
        assert found <= 0 if v < edge else found > 0
    assert max(asked) == 256


def test_the_words_of_a_stream_are_drawn_by_the_tables():
    """`sound-v1`, written out; the rest by its own words; a centre off the grid moves the rest alone."""
    noise, image = build_noise("sound", 1e-4), np.zeros(7, np.float32)  # s = 104: 4 in 1,000 are of the rest
    law, centre = lattice_normal(noise.scale), noise.centre(image)
    out = np.empty((250, 7), np.float32)
    noise.stream(5, 3, "select", centre).fill(out)
    for block in range(3):
        sequence = np.random.SeedSequence(5, spawn_key=(3, 0, block, 0x534E4431))
        values, rest = law.draw(np.random.SFC64(sequence).random_raw(700))
        for k in rest.tolist():
            key = (3, 0, 100 * block + k // 7, k % 7, 0x534E4432)
            word = int(np.random.SFC64(np.random.SeedSequence(5, spawn_key=key)).random_raw(1)[0])
            values[k] = law.invert(lambda b, word=word: word << b - 64)
        part = out[100 * block : 100 * block + 100]
        assert np.array_equal(part, values.reshape(100, 7)[: len(part)])
    later = np.empty((60, 7), np.float32)
    noise.stream(5, 3, "select", centre, start=133).fill(later)
    assert np.array_equal(later, out[133:193])


def test_the_words_of_a_gpus_stream_are_drawn_by_the_fine_tables():
    """`sound-philox-v1`, written out, at any position; the law of a centre on the grid is made for no shift."""
    noise = build_noise("sound", 1e-4)
    words = np.random.SeedSequence(5, spawn_key=(3, 0, 0x534E4433)).generate_state(3)
    for image, start in ((np.zeros(7, np.float32), 0), (np.full(7, 0.3, np.float32), 2**33 - 100)):
        centre, out = noise.centre(image), np.empty((300, 7), np.float32)
        law, drawn_again = lattice_normal(noise.scale, FINE, shifted=centre.off_grid), 0
        noise.stream(5, 3, "select", centre, start, "sound-philox-v1").fill(out)
        for row in range(300):
            counters = np.array([[c, (start + row) & 0xFFFFFFFF, (start + row) >> 32, words[2]] for c in range(4)])
            w0, w1, w2, w3 = philox4x32(counters.T, words[:2])
            values, rest = law.draw(np.stack([w0 << 32 | w1, w2 << 32 | w3], axis=1).ravel()[:7])
            for k in rest.tolist():
                key = (3, 0, start + row, k, 0x534E4434)
                word = int(np.random.SFC64(np.random.SeedSequence(5, spawn_key=key)).random_raw(1)[0])
                values[k] = law.invert(lambda b, word=word: word << b - 64, Fraction(float(centre.fraction[k])))
                drawn_again += 1
            assert np.array_equal(out[row], values)
        assert (drawn_again > 0) == centre.off_grid


def test_off_grid_centres_are_met_and_far_ones_refused():
    """Rounded with its fraction: the mean is the image, at steps that are coarse against sigma."""
    noise = build_noise("sound", 0.5, levels=1)
    image = np.array([0.3, 0.70003, 0.1], np.float32)
    assert noise.centre(image).off_grid
    y = np.empty((1000, 3), np.float32)
    coarse = build_noise("sound", 1e-6)  # s = 1
    shifted = np.full(3, 2.4 * float(coarse.step), np.float32)  # less than a step off is on the grid
    for source, around in ((noise, image), (coarse, shifted)):
        centre = source.centre(around)
        source.fill(y, centre, source.stream(2, 0, "estimate", centre))
        error = source.sigma * 1.2 / np.sqrt(len(y))
        assert np.all(np.abs(y.mean(axis=0, dtype=float) - around) < 4.5 * error)
    with pytest.raises(InputError, match="needs values in"):
        noise.centre(np.array([1.5], np.float32))


def test_sums_beyond_the_grid_are_set_to_its_end():
    noise = build_noise("sound", 0.5)
    t, centres = np.array([[2.0**24, -(2.0**24), 5]], np.float32), (0.0, 1.0)
    placed = []
    for x in centres:
        out = t.copy()
        noise.place(out, noise.centre(np.full(3, x, np.float32)).values)
        placed.append(out)
    assert np.array_equal(placed[0][:, :2], placed[1][:, :2])
    assert placed[0][0, 2] != placed[1][0, 2]


def reads_the_centre(y):
    """The lattice attack (Mironov 2012; Voracek & Hein 2023; Jin et al. 2022) on centres 0 and 1/255: float32 values
    below 2^-9 are multiples of 2^-32 around 1/255, where the noise was larger, and finer around 0. True: 1/255."""
    near = np.abs(y) < 2.0**-9
    return np.all(~near | (np.mod(y.astype(np.float64) * 2.0**32, 1) == 0), axis=1) & near.any(axis=1)


def test_the_lattice_attack_reads_plain_noise_alone():
    """With centres 0.124 apart at sigma 0.5 no test of real Gaussians tells more than 2 Phi(0.124) - 1 = 0.099 of
    them apart: the attack does on plain noise, and has nothing on the grid."""
    images = [np.full(1000, x, np.float32) / np.float32(255) for x in (0, 1)]
    bound = 2 * special.ndtr(np.sqrt(1000) / 255 / (2 * 0.5)) - 1
    shares = {kind: [reads_the_centre(copies(kind, image, 300, key=key)).mean() for key, image in enumerate(images)]
              for kind in GAUSSIAN}
    advantage = {kind: share[1] - share[0] for kind, share in shares.items()}
    assert advantage["gaussian"] > 0.7
    assert bound < 0.13
    for kind in ("grid", "sound"):
        assert abs(advantage[kind]) < bound + 3 / np.sqrt(300)


USED = [(kind, name) for kind in GAUSSIAN for name in build_noise(kind, 0.5).formats]


@pytest.mark.parametrize(("kind", "stream_format"), USED)
def test_the_normals_that_are_used_follow_the_law(kind, stream_format):
    """(y - x) / sigma of copies of every kind and format: moments, KS, tails to 5 sigma, and independence of stages,
    images, samples and values; 6e6 values."""
    image = (np.arange(1000) % 256 / np.float32(255)).astype(np.float32)
    parts = [copies(kind, image, 1500, key=key, stage=stage, stream_format=stream_format) - image
             for key, stage in ((0, "select"), (0, "estimate"), (1, "select"), (1, "estimate"))]
    z = np.stack(parts).reshape(4, -1) / np.float32(0.5)
    flat = z.ravel()
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3)):
        spread = np.sqrt((special.factorial2(2 * power - 1) - moment**2) / flat.size)
        assert abs(np.mean(flat**power, dtype=float) - moment) < 4.5 * spread
    assert stats.kstest(flat[::40], "norm").pvalue > 1e-3
    for cut in (2, 3, 4, 4.5, 5):
        for beyond in ((flat > cut).sum(), (flat < -cut).sum()):
            assert stats.binomtest(int(beyond), flat.size, special.ndtr(-cut)).pvalue > 1e-4
    for values, spread in ((z, 1), (z * z - 1, 2)):
        products = values @ values.T / values.shape[1]
        assert np.abs(products[np.triu_indices(4, 1)]).max() < 4.5 * spread / np.sqrt(values.shape[1])
        for lag in (1, 1000, 100_000):  # values, samples, blocks
            assert abs(np.mean(values[:, lag:] * values[:, :-lag], dtype=float)) < 4.5 * spread / np.sqrt(flat.size)


def brighter(x):
    return torch.stack([x.mean((1, 2, 3)), 1 - x.mean((1, 2, 3))], dim=1)


def test_votes_under_sound_noise_do_not_depend_on_cuts():
    """Sound noise has its own format, named in the voter, and refuses others; it goes through classifier and voter."""
    noise, shape = build_noise("sound", 0.5), (1, 4, 4)
    image = np.full(shape, 0.6, np.float32)
    with pytest.raises(InputError, match="formats of its own"):
        open_voter(brighter, noise, 2, shape, 3, how=Sampling(noise_format="sfc64-v1"))
    counts = []
    for batch in (7, 64):
        voter = open_voter(brighter, noise, 2, shape, 3, how=Sampling(batch_size=batch)).voter
        assert voter.format == "sound-v1"
        counts.append(voter.count([Segment(voter.subject(image, 0), "estimate", 5, 130)]))
    assert np.array_equal(*counts)
    assert counts[0].sum() == 130
    made = [SmoothedClassifier(brighter, 0.5, 2, seed=1, noise=kind).certify(torch.ones(1, 4, 4), n0=50, n=400)
            for kind in ("grid", "sound")]
    assert [c.prediction for c in made] == [0, 0]
    assert abs(made[0].radius - made[1].radius) < 0.3
    assert "sound-v1" not in FORMATS


def test_the_command_line_takes_it(tmp_path):
    """Certified by two processes as by one, predicted, and certified again from the counts."""
    write_nets(tmp_path, 4, "")
    model = [f"{tmp_path}/nets.py:Means", "--noise", "sound", "--sigma", "0.25", "--seed", "1", "--n", "200",
             "--max-images", "3", "--engine", "plain", "-q"]
    for verb, store, more in (("certify", "one", []), ("certify", "two", ["--workers", "2", "--batch-size", "7"]),
                              ("predict", "p", [])):
        done = CliRunner().invoke(app, [verb, *model, *more, "-o", str(tmp_path / store)])
        assert done.exit_code == 0, done.output
    one, two, predicted = (read_store(tmp_path / name) for name in ("one", "two", "p"))
    assert one.records.equals(two.records)
    assert one.identity.noise.format == predicted.identity.noise.format == "sound-v1"
    assert CliRunner().invoke(app, ["recertify", str(one.folder), "--alpha", "0.01"]).exit_code == 0


def test_a_gpus_format_runs_on_a_cpu_and_a_store_goes_on_in_its_own(tmp_path):
    write_nets(tmp_path, 4, "")
    store = tmp_path / "store"
    run = ["certify", f"{tmp_path}/nets.py:Means", "--noise", "sound", "--sigma", "0.0005", "--seed", "1", "--n", "50",
           "--max-images", "3", "--engine", "plain", "-q", "-o", str(store)]
    for more in (["--noise-format", "sound-philox-v1"], []):
        done = CliRunner().invoke(app, [*run, *more])
        assert done.exit_code == 0, done.output
    assert read_store(store).identity.noise.format == "sound-philox-v1"
    assert len(read_store(store).records) == 3
    done = CliRunner().invoke(app, ["verify", str(store), "--resample", "3", "--model", f"{tmp_path}/nets.py:Means"])
    assert done.exit_code == 0, done.output
