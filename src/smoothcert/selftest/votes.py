"""Checks of an engine: votes of known law, votes equal to the plain model's, and certificates that hold."""

import copy
import warnings
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from scipy import special

from smoothcert.errors import EngineWarning, SmoothcertError
from smoothcert.noise import GaussianNoise
from smoothcert.selftest.bounds import Claims, claim_holds
from smoothcert.selftest.finding import Finding, Planned, Setting, binomial_p, by_chance
from smoothcert.selftest.known import (
    CONVOLUTIONAL,
    SHAPE,
    Known,
    band,
    convolutional,
    halfspace,
    image_at,
    positions,
    quadrants,
)
from smoothcert.selftest.normals import catch
from smoothcert.smoothing import Finished, OpenVoter, Sampling, Segment, open_voter, run_plan
from smoothcert.smoothing.engines import ENGINES
from smoothcert.smoothing.engines.protocol import Refused
from smoothcert.smoothing.engines.registry import MARGINS
from smoothcert.smoothing.voters import Voter
from smoothcert.stats import METHODS, FixedCertify, proved_level, reread

POINTS = ((0.0, 0.1), (0.1, 0.0), (0.25, 0.25), (-0.4, 0.3), (0.6, -0.5), (-0.75, -0.1))
"""(u, v) of the images of the vote checks."""

_OTHER_BATCH = 33

ALPHA = 0.05
"""Failure probability of each certificate: large, so that failures can be counted."""

_N0 = 100
_NEAREST, _FARTHEST = 1.0, 3.3  # |u| / sigma: at 1 the class is chosen wrongly from 100 samples in 1 of 10^16 cases
_USED = 0.9  # of alpha, by p_A of the method two-sided
_SLACK = {"float32": 1e-4, "tf32": 2.0**-8, "fp16": 2.0**-8, "bf16": 2.0**-5}
"""Share of the true radius by which that of the network in a precision may differ."""


class Unusable(Exception):
    """An engine that does not run here; the message says why. `wrong`: it would, but gives other votes."""

    def __init__(self, reason: str, wrong: bool = False) -> None:
        super().__init__(reason)
        self.wrong = wrong


@dataclass(eq=False)
class Networks:
    """The networks that every engine gets: a linear one of known law, and a convolutional one with its plain votes."""

    setting: Setting

    @cached_property
    def known(self) -> Known:
        found = halfspace()
        found.network.to(self.setting.device)
        return found

    @cached_property
    def images(self) -> np.ndarray:
        """Two images (2, 1, 8, 8) of whole 255ths."""
        levels = np.random.default_rng(0).integers(64, 192, (2, *CONVOLUTIONAL))
        return (levels / 255).astype(np.float32)

    @cached_property
    def rows(self) -> np.ndarray:
        """(2, n, 64) the copies that the network is given."""
        n = self.setting.sizes.votes // 10
        return np.concatenate([catch(self.setting, CONVOLUTIONAL, image, [(key, "estimate")], n)[0]
                               for key, image in enumerate(self.images)])

    @cached_property
    def network(self) -> torch.nn.Module:
        return convolutional(self._tensors().flatten(0, 1)).to(self.setting.device)

    @cached_property
    def reference(self) -> tuple[np.ndarray, np.ndarray]:
        """Votes (2, 10) in float64, and how many of each image's are too close for the precision (2,)."""
        logits = copy.deepcopy(self.network).cpu().double()(self._tensors().flatten(0, 1).double())
        first, second = logits.topk(2, dim=1).values.unbind(dim=1)
        scale = logits.abs().amax(dim=1)
        close = first - second <= MARGINS[self.setting.precision] * scale.clamp(min=scale.median())
        votes = logits.argmax(dim=1).reshape(2, -1).numpy()
        return np.stack([np.bincount(row, minlength=10) for row in votes]), close.reshape(2, -1).sum(dim=1).numpy()

    @cached_property
    def plain(self) -> np.ndarray:
        """Votes (2, 10) of the plain model, in batches of another size."""
        return self.count(self.setting.voter(self.network, 10, CONVOLUTIONAL, "plain", _OTHER_BATCH).voter, 1)

    def count(self, voter: Voter, pieces: int) -> np.ndarray:
        """Return (2, 10) votes, counted in so many uneven pieces of both images by turns."""
        n = self.rows.shape[1]
        ends = [n * k * k // pieces**2 for k in range(pieces + 1)]
        subjects = [voter.subject(image, key) for key, image in enumerate(self.images)]
        parts = [Segment(subject, "estimate", start, end - start) for start, end in pairwise(ends)
                 for subject in subjects if end > start]
        return voter.count(parts).reshape(-1, 2, 10).sum(axis=0)

    def _tensors(self) -> torch.Tensor:
        return torch.from_numpy(self.rows).reshape(2, -1, *CONVOLUTIONAL)


@dataclass(eq=False)
class EngineVotes:
    """One engine's networks. `named`: it was asked for, so it must not be passed over."""

    engine: str
    named: bool
    networks: Networks

    @property
    def setting(self) -> Setting:
        return self.networks.setting

    @property
    def linear(self) -> Voter:
        """The linear network's. Raises Unusable, as `deep` does."""
        return self._opened[0].voter

    @property
    def deep(self) -> OpenVoter:
        """The convolutional network's."""
        return self._opened[1]

    def plan_checks(self) -> list[Planned]:
        """Return the checks of this group, except for those of certificates."""
        name = f"engine {self.engine}"
        return [Planned.certain(name, "runs networks here", self.starts),
                Planned.certain(name, "votes of a convolutional network", self.equal),
                Planned.chance(name, "votes of a linear network", self.lawful)]

    def starts(self) -> Finding:
        """Check that the engine runs, and passes the library's own check on both networks."""
        try:
            return Finding(True, f"in batches of {self.deep.batch} and fewer")
        except Unusable as reason:
            return Finding(False if self.named or reason.wrong else None, str(reason))

    def equal(self) -> Finding:
        """Check that votes add up to n, and are float64's but for close calls; in float32 the plain model's too."""
        (wanted, doubtful), n = self.networks.reference, self.networks.rows.shape[1]
        found = self.networks.count(self.deep.voter, 1)
        right = bool((found.sum(axis=1) == n).all() and (np.abs(found - wanted).sum(axis=1) <= 2 * doubtful).all())
        words = f"{found.size // 10} x {n:,} votes, {np.abs(found - wanted).sum() // 2} unlike float64's"
        allowed = f"at most {doubtful.sum()}, the close calls"
        if self.setting.precision != "float32":
            return Finding(right, words, allowed)
        cut = self.networks.count(self.deep.voter, 7)
        others = int(np.abs(found - self.networks.plain).sum() + np.abs(found - cut).sum()) // 2
        return Finding(right and others == 0, f"{words}, {others} unlike the plain model's in other batches",
                       f"{allowed}; 0")

    def lawful(self, level: float) -> Finding:
        """Test that the votes for class 1 are Bin(n, Phi(u / sigma))."""
        tests = law_tests(self.networks.known, self.linear, self.setting.sizes.votes, self.setting.sigma)
        return by_chance(tests, level, f"{len(POINTS)} images x {self.setting.sizes.votes:,} votes")

    @property
    def _opened(self) -> tuple[OpenVoter, OpenVoter]:
        if isinstance(self._tried, Unusable):
            raise self._tried
        return self._tried

    @cached_property
    def _tried(self) -> tuple[OpenVoter, OpenVoter] | Unusable:
        try:
            return (self._open(self.networks.known.network, 2, SHAPE),
                    self._open(self.networks.network, 10, CONVOLUTIONAL))
        except Unusable as reason:
            return reason

    def _open(self, network: torch.nn.Module, num_classes: int, shape: tuple[int, ...]) -> OpenVoter:
        """Return the voter, or raise Unusable where it would run in another engine."""
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always", EngineWarning)
                opened = self.setting.voter(network, num_classes, shape, self.engine)
        except SmoothcertError as error:  # a package or a precision that it does not have
            raise Unusable(str(error)) from error
        if opened.engine == self.engine:
            return opened
        try:
            ENGINES[self.engine](network, shape, 1, self.setting.device, self.setting.precision)
        except Refused as reason:
            raise Unusable(str(reason)) from None
        raise Unusable(" ".join(str(one.message) for one in said), wrong=True)


@dataclass(eq=False)
class Certificates:
    """A certificate each of many images, at both sides of the boundary, through an engine."""

    votes: EngineVotes

    @property
    def setting(self) -> Setting:
        return self.votes.setting

    @cached_property
    def images(self) -> list[np.ndarray]:
        count, sigma = self.setting.sizes.certified, self.setting.sigma
        return [image_at((1, -1)[k % 2] * sigma * z, 0) for k, z in
                enumerate(np.linspace(_NEAREST, _FARTHEST, count).tolist())]

    @cached_property
    def truth(self) -> np.ndarray:
        """(M,) u of each image: its class is 1 where u > 0, and |u| its true radius."""
        return np.array([positions(image)[0] for image in self.images])

    @property
    def plan(self) -> FixedCertify:
        return FixedCertify(_N0, self.setting.sizes.n, ALPHA, "two-sided", None, self.setting.noise.radius)

    @cached_property
    def done(self) -> list[Finished]:
        tagged = ((tag, image, tag) for tag, image in enumerate(self.images))
        return sorted(run_plan(self.plan, self.votes.linear, tagged, 2), key=lambda finished: finished.tag)

    def plan_checks(self) -> list[Planned]:
        """Return the checks of this group."""
        name = f"engine {self.votes.engine}"
        return [Planned.certain(name, "radii follow from their votes", self.radii),
                Planned.chance(name, "radii above the truth", self.coverage),
                Planned.chance(name, "size of the radii", self.powerful)]

    def radii(self) -> Finding:
        """Check every radius against long arithmetic: as large as its votes allow, and not larger."""
        claims, n = Claims(), self.setting.sizes.n
        for votes, radius in sorted({(int(one.history[-1].counts.max()), one.values["radius"]) for one in self.done}):
            claims.expect(claim_holds(votes, n, radius, "two-sided", ALPHA, self.setting.sigma),
                        f"{votes} of {n} votes: radius {radius!r}")
        return claims.to_finding("within 1e-10 of the exact ones, never above them")

    def coverage(self, level: float) -> Finding:
        """Test that wrong classes and radii beyond |u| are at most Bin(M, alpha) together, in every method."""
        wrong, slack = {}, 1 + _SLACK[self.setting.precision]
        for method in METHODS:
            answers = reread(self.plan, method=method).judge([one.history for one in self.done])
            other = (answers.prediction >= 0) & (answers.prediction != (self.truth > 0))
            wrong[method] = int((other | (answers.values["radius"] > np.abs(self.truth) * slack)).sum())
        count = len(self.done)
        tests = {method: float(special.betainc(k, count - k + 1, proved_level(method, ALPHA))) if k else 1.0
                 for method, k in wrong.items()}
        words = ", ".join(f"{k} ({method})" for method, k in wrong.items())
        return by_chance(tests, level, f"of {count:,} at alpha {ALPHA:g}: {words}")

    def powerful(self, level: float) -> Finding:
        """Test that the mean radius is what n votes of the known law give, by SciPy's quantiles: no more, no less.

        By Chernoff's bound: P(sum >= s) <= exp(K(t) - t s) for every t > 0, K the logarithm of E exp(t sum).
        """
        found = np.array([one.values["radius"] for one in self.done])
        n, sigma = self.setting.sizes.n, self.setting.sigma
        k = np.arange(n + 1)
        limit = np.concatenate([[0.0], special.betaincinv(k[1:], n - k[1:] + 1, _USED * ALPHA)])
        radius = sigma * np.maximum(special.ndtri(limit), 0)
        ways = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
        z = np.abs(self.truth) / sigma
        laws = np.exp(ways + np.outer(special.log_ndtr(z), k) + np.outer(special.log_ndtr(-z), n - k))  # Bin(n, Phi(z))
        mean = float((laws @ radius).mean())
        miss = float(found.sum()) - mean * len(found)
        exponents = [float(np.log(laws @ np.exp(t * (radius - mean))).sum()) - t * miss
                     for t in np.sign(miss) * np.geomspace(1, 300, 60) / sigma]
        words = f"mean {found.mean():.5f}, expected {mean:.5f}, true {np.abs(self.truth).mean():.5f}"
        return by_chance({"mean radius": min(1.0, 2 * float(np.exp(min(exponents))))}, level, words)


def law_tests(known: Known, voter: Voter, n: int, sigma: float) -> dict[str, float]:
    """Return p-values of the votes for each class on each image, n samples each; 0 where they do not add up to n."""
    images = [image_at(u, v) for u, v in POINTS]
    parts = [Segment(voter.subject(image, key), "estimate", 0, n) for key, image in enumerate(images)]
    tests = {}
    for image, counts in zip(images, voter.count(parts), strict=True):
        law = known.law(image, sigma)
        for label, (count, share) in enumerate(zip(counts.tolist(), law.tolist(), strict=True)):
            name = f"class {label} at u = {positions(image)[0]:.3f}"
            tests[name] = binomial_p(count, n, share, 1 - share) if counts.sum() == n else 0.0
    return tests


def spaces(setting: Setting) -> list[Planned]:
    """Return a check for each smaller space of plain Gaussian noise, which only float32 has."""
    if setting.precision != "float32":
        return []
    return [Planned.chance("smaller spaces", known.space, _in_space, setting, known)
            for known in (halfspace(), quadrants(), band())]


def other_shapes(setting: Setting) -> list[Planned]:
    """Return a check for each of a few shapes that are no images'."""
    return [Planned.certain("other shapes", f"inputs {shape} get the votes of an image of the same values", _in_shape,
                            setting, shape) for shape in ((16,), (2, 8), (1, 2, 2, 4))]


def _in_shape(setting: Setting, shape: tuple[int, ...]) -> Finding:
    """Test that the votes of inputs of a shape are those of an image with the same values, drawn by the same key."""
    known, n = quadrants(), setting.sizes.votes // 10
    network, image, votes = known.network.to(setting.device), image_at(*POINTS[1]), []
    for form in (SHAPE, shape):
        voter = setting.voter(network, known.num_classes, form, "plain").voter
        subject = voter.subject(image.reshape(form), 1)
        votes.append(voter.count([Segment(subject, "estimate", 0, n)])[0].tolist())
    return Finding(votes[0] == votes[1], f"{votes[1]} votes, {votes[0]} of the image", "equal")


def _in_space(setting: Setting, known: Known, level: float) -> Finding:
    """Test that votes drawn there follow the law of noise on pixels, however they are cut."""
    network = known.network.to(setting.device)
    opened = open_voter(network, GaussianNoise(setting.sigma), known.num_classes, SHAPE, setting.seed, None,
                        Sampling("plain", device=setting.device))
    if opened.space != known.space:
        return Finding(None, f"the network is sampled in {opened.space} here")
    n = setting.sizes.votes
    if opened.space != "binary":  # whose draws are one a run of samples
        subject = opened.voter.subject(image_at(*POINTS[1]), 1)
        whole, *parts = (opened.voter.count([Segment(subject, "select", start, end - start)])[0]
                         for start, end in ((0, 999), (0, 70), (70, 999)))
        if not np.array_equal(whole, np.sum(parts, axis=0)):
            return Finding(False, f"{whole.tolist()} votes in one piece, {np.sum(parts, axis=0).tolist()} in two")
    return by_chance(law_tests(known, opened.voter, n, setting.sigma), level,
                     f"{known.name}, {len(POINTS)} images x {n:,} votes")

