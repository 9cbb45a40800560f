"""The noise that networks are given on this machine: known answers, the normal law, independence.

The copies are caught where a network would take them, so that everything before it is under test: keys, streams,
placement, moves to the device.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

import numpy as np
import torch
from scipy import special

from smoothcert.noise import BoxMullerStream, binomial, box_muller, build_noise, open_stream
from smoothcert.selftest.finding import Finding, Planned, Setting, binomial_p, by_chance, nearly_normal, two_sided
from smoothcert.smoothing import Segment
from smoothcert.smoothing.voters import Voter

SHAPE = (1, 28, 28)
STREAMS = tuple((key, stage) for key in (0, 1) for stage in ("select", "estimate", "pilot", "predict"))
_CELLS = 64

ANSWERS = {
    "sfc64-v1": "7ed747c9dce1fbb07550203c6a3e99818ea325333b8f8122219c8675803900cb",
    "philox-v1": "219090c990af5a35b0e9836ff0e9011601d19626853e93e5a5995ec73bb472e3",
    "sfc64-bm-v1": "a425c2fd1a4d2db115f04c87f617fb852c5bf905e716d7c160d168cf9c97a1d7",
    "sound-v1": "5ab29f81718ab8c54ca2fea43168438b4767afa5792c9b1932a40d719f3edc2a",
    "sound-philox-v1": "d5dfa8e6d9363b42d2b729e3daf5b7395a5c2ae45c58fa5433d23872097d2434",
    "binomial-v1": "a5f18bafdae1e4016380fc328fb70eac99611dab9a00af5c4976e107af496e62",
}
"""SHA-256 of the first numbers of each format at seed 2024, image 3, stage estimate: 150 samples of 5 values, of
`sfc64-bm-v1` their words; of `binomial-v1` 150 counts."""


class Catcher:
    """A base classifier that keeps the copies it is given, and always answers class 0."""

    def __init__(self) -> None:
        self.rows: list[np.ndarray] = []

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        self.rows.append(rows.flatten(1).cpu().numpy().copy())
        return torch.tensor([[1.0, 0.0]], device=rows.device).expand(len(rows), 2)


def catch(setting: Setting, shape: tuple[int, ...], image: np.ndarray, parts: Sequence[tuple[int, str]],
           samples: int) -> tuple[np.ndarray, Voter]:
    """Return the noisy copies (streams, samples, d) of an image for each (key, stage), as a network gets them."""
    catcher = Catcher()
    voter = replace(setting, precision="float32").voter(catcher, 2, shape, "plain").voter
    catcher.rows.clear()  # of the rows that the model was tried on
    voter.count([Segment(voter.subject(image, key), stage, 0, samples) for key, stage in parts])
    return np.concatenate(catcher.rows).reshape(len(parts), samples, -1), voter


@dataclass(eq=False)
class Normals:
    """Copies of one image in eight streams: two images' keys, four stages each."""

    setting: Setting

    @cached_property
    def image(self) -> np.ndarray:
        """Every level of an 8-bit image."""
        return (np.arange(int(np.prod(SHAPE))) % 256 / np.float32(255)).astype(np.float32).reshape(SHAPE)

    @cached_property
    def _sample(self) -> tuple[np.ndarray, Voter]:
        return catch(self.setting, SHAPE, self.image, STREAMS, self.setting.sizes.copies)

    @property
    def copies(self) -> np.ndarray:
        """(8, samples, 784) float32."""
        return self._sample[0]

    @cached_property
    def z(self) -> np.ndarray:
        """(copies - image) / sigma, float64."""
        return (self.copies.astype(np.float64) - self.image.ravel()) / self.setting.sigma

    def plan_checks(self) -> list[Planned]:
        """Return the checks of this group."""
        name = f"noise, {self.setting.noise_kind}"
        return [
            Planned.certain(name, "known answers of the formats", check_answers),
            Planned.certain(name, "the copies are the format's", self.as_named),
            Planned.certain(name, "no copy comes twice", self.distinct),
            Planned.chance(name, "moments", self.moments),
            Planned.chance(name, "tails to 5 sigma", self.tails),
            Planned.chance(name, "distribution (KS, cells)", self.distribution),
            Planned.chance(name, "independence of images and stages", self.independence),
            Planned.chance(name, "independence of values and samples", self.neighbours),
        ]

    def as_named(self) -> Finding:
        """Check that the network gets the numbers that the host draws from the named format for this key."""
        noise, voter = self.setting.noise, self._sample[1]
        centre, wrong = noise.centre(self.image), 0
        for (key, stage), found in zip(STREAMS, self.copies, strict=True):
            wanted = np.empty_like(found)
            noise.fill(wanted, centre, noise.stream(self.setting.seed, key, stage, centre, 0, voter.format))
            wrong += int((found != wanted).sum())
        return Finding(wrong == 0, f"{voter.format}: {wrong} of {self.copies.size:,} values differ", "0")

    def distinct(self) -> Finding:
        """Check that no two streams share a sample, and that none repeats its own."""
        rows = self.copies.reshape(-1, self.copies.shape[-1])
        repeated = len(rows) - len({hashlib.sha256(row.tobytes()).digest() for row in rows})
        return Finding(repeated == 0, f"{repeated} of {len(rows):,} repeated", "0")

    def moments(self, level: float) -> Finding:
        """Test mean and variance by their exact laws, the third and fourth moment by their nearly normal ones."""
        z = self.z.ravel()
        squares = z * z
        total = float(squares.sum())
        variance = 2 * min(special.chdtr(z.size, total), special.chdtrc(z.size, total))
        third, fourth = float((squares * z).sum()), float((squares * squares).sum() - 3 * z.size)
        tests = {"mean": two_sided(float(z.sum()) / np.sqrt(z.size)), "variance": float(min(1.0, variance)),
                 "third": nearly_normal(third / np.sqrt(15 * z.size)),
                 "fourth": nearly_normal(fourth / np.sqrt(96 * z.size))}
        return by_chance(tests, level, f"{z.size:,} values: mean {z.mean():.1e}, variance {total / z.size:.5f}")

    def tails(self, level: float) -> Finding:
        """Test the binomial counts of values beyond 2, 3, 4, 4.5 and 5 on either side."""
        flat = self.z.ravel()
        tests = {}
        for cut in (2.0, 3.0, 4.0, 4.5, 5.0):
            share = float(special.ndtr(-cut))
            for sign, name in ((1, "above "), (-1, "below -")):
                beyond = int((sign * flat > cut).sum())
                tests[f"{name}{cut:g}"] = binomial_p(beyond, flat.size, share, 1 - share)
        return by_chance(tests, level, f"{int((np.abs(flat) > 4).sum())} beyond 4 sigma, "
                                       f"{2 * special.ndtr(-4) * flat.size:.0f} expected")

    def distribution(self, level: float) -> Finding:
        """Test Kolmogorov and Smirnov's distance by Massart's inequality (1990), and 64 cells of equal probability."""
        share = np.sort(special.ndtr(self.z.ravel()))
        n = share.size
        steps = np.arange(n + 1) / n
        distance = float(max((steps[1:] - share).max(), (share - steps[:-1]).max()))
        tests = {"KS": min(1.0, 2 * float(np.exp(-2 * n * distance**2)))}
        edges = np.searchsorted(share, np.arange(1, _CELLS) / _CELLS)
        for cell, count in enumerate(np.diff([0, *edges.tolist(), n]).tolist()):
            tests[f"cell {cell}"] = binomial_p(count, n, 1 / _CELLS, 1 - 1 / _CELLS)
        return by_chance(tests, level, f"KS distance {distance:.1e}")

    def independence(self, level: float) -> Finding:
        """Test every two of the eight streams, value by value: <z, z'> / |z'| is exactly normal; and their squares."""
        streams = self.z.reshape(len(STREAMS), -1)
        squares = streams**2 - 1
        tests, strongest = {}, 0.0
        for i, j in combinations(range(len(STREAMS)), 2):
            words = " with ".join(f"{stage} of image {key}" for key, stage in (STREAMS[i], STREAMS[j]))
            product = float(streams[i] @ streams[j])
            tests[words] = two_sided(product / float(np.linalg.norm(streams[j])))
            tests[f"squares, {words}"] = nearly_normal(float(squares[i] @ squares[j]) / (2 * np.sqrt(streams[i].size)))
            strongest = max(strongest, abs(product) / streams[i].size)
        return by_chance(tests, level, f"largest correlation {strongest:.1e}")

    def neighbours(self, level: float) -> Finding:
        """Test values side by side, a row apart, and samples 1, 2 and 100 apart: one half against the other."""
        count, width = self.z.shape[1:]
        tests = {}
        for name, lag in (("1 value", 1), ("2 values", 2), ("28 values", 28), ("1 sample", width),
                          ("2 samples", 2 * width), ("100 samples", 100 * width)):
            if 2 * lag <= count * width:
                whole = self.z.reshape(len(STREAMS), -1)
                pairs = whole[:, : whole.shape[1] // (2 * lag) * 2 * lag].reshape(len(STREAMS), -1, 2, lag)
                one, other = (np.ascontiguousarray(pairs[:, :, k]).ravel() for k in (0, 1))
                tests[f"{name} apart"] = two_sided(float(one @ other) / float(np.linalg.norm(other)))
                product = float((one**2 - 1) @ (other**2 - 1))
                tests[f"squares, {name} apart"] = nearly_normal(product / (2 * np.sqrt(one.size)))
        return by_chance(tests, level)


def check_answers() -> Finding:
    """Check that the first numbers of every named format are those that it has on every machine."""
    other = [name for name, digest in answers().items() if digest != ANSWERS[name]]
    words = np.random.SFC64(0).random_raw(10_000)  # the logarithm and cosine of `sfc64-bm-v1` are this machine's
    k, angle = (words >> np.uint64(24)).astype(np.float64), (words & np.uint64(0xFFFFFF)).astype(np.float64)
    radius, theta = np.sqrt(-2 * np.log((k + 0.5) * 2.0**-40)), angle * (2 * np.pi * 2.0**-24)
    cosines, sines = box_muller(words)
    worst = float(max(np.abs(cosines - radius * np.cos(theta)).max(), np.abs(sines - radius * np.sin(theta)).max()))
    measured = f"{len(ANSWERS)} formats, other numbers in: {', '.join(other) or 'none'}; Box-Muller within {worst:.1e}"
    return Finding(not other and worst < 1e-5, measured, "none; 1e-05")


def answers() -> dict[str, str]:
    """Return the values that `ANSWERS` should hold here."""
    key, found = (2024, 3, "estimate"), {}
    for name in ("sfc64-v1", "philox-v1"):
        found[name] = np.empty((150, 5), "<f4")
        open_stream(name, *key, 5).fill(found[name])
    found["sfc64-bm-v1"] = BoxMullerStream(*key, 5).words(150).astype("<u8")
    for name, sigma in (("sound-v1", 0.25), ("sound-philox-v1", 1e-4)):
        noise, found[name] = build_noise("sound", sigma), np.empty((150, 5), "<f4")
        noise.stream(*key, noise.centre(np.zeros(5, np.float32)), format=name).fill(found[name])
    counts = [binomial(*key, start, 1000, p, 1 - p) for start in range(50) for p in (0.01, 0.5, 0.999)]
    found["binomial-v1"] = np.array(counts, "<i8")
    return {name: hashlib.sha256(numbers.tobytes()).hexdigest() for name, numbers in found.items()}
