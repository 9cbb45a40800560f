"""Denoisers: closed forms, energies against numerical differentiation, graphs, compositions, walks and flows."""

import importlib.util
import itertools
import json
import math
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from smoothcert import SmoothedClassifier
from smoothcert.denoise import (
    DENOISERS,
    Attractor,
    DenoisedClassifier,
    DiffusionDenoiser,
    DirectEstimator,
    EnergyEstimator,
    GaussianDenoiser,
    MixtureDenoiser,
    ResidualEnergy,
    StepLimitWarning,
    WalkJump,
    ZeroCurvatureWarning,
    asymmetry,
    build_denoiser,
    denoiser_options,
    generator_normals,
    load_diffusion,
    noise_schedule,
)
from smoothcert.errors import FileError, InputError, MissingExtraError, ModelError

ENERGIES = [(name, network) for name in ("energy-residual", "energy-scalar") for network in ("mlp", "conv", "unet")]
ALL = [*ENERGIES, *(("direct", network) for network in ("mlp", "conv", "unet", "dncnn"))]
SMALL = {"mlp": {"width": 16}, "conv": {"width": 4, "depth": 3}, "unet": {"width": 4},
         "dncnn": {"width": 4, "depth": 4}}
MU = torch.tensor([[[0.6, -0.2], [0.3, 0.5]]], dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def built(name: str, network: str = "mlp", shape=(1, 4, 5), sigma: float | None = 0.5, seed: int = 0, **options):
    """In float64, with weights of a size that makes it curved."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = build_denoiser(name, shape, sigma, network=network, **{**SMALL[network], **options}).double().eval()
        with torch.no_grad():
            for p in found.parameters():
                p.mul_(1.5)
    return found


def images(n: int = 3, shape=(1, 4, 5), seed: int = 1, dtype=torch.float64) -> Tensor:
    return torch.rand(n, *shape, generator=generator(seed), dtype=dtype)


def numerical_gradient(function, y: Tensor, h: float = 1e-5) -> Tensor:
    """Central differences of a function (N, C, H, W) -> (N,), pixel by pixel."""
    found = torch.zeros_like(y)
    with torch.no_grad():
        for place in itertools.product(*map(range, y.shape[1:])):
            step = torch.zeros_like(y)
            step[(slice(None), *place)] = h
            found[(slice(None), *place)] = (function(y + step) - function(y - step)) / (2 * h)
    return found


class TestClosedForms:
    def test_a_gaussians_is_beta_y(self):
        y = images()
        for s0, sigma in ((1.0, 0.5), (0.2, 0.6)):
            beta = 1 / (1 + sigma**2 / s0**2)
            assert torch.allclose(GaussianDenoiser(s0)(y, sigma), beta * y, rtol=1e-12)
            assert GaussianDenoiser(s0, sigma).beta() == pytest.approx(beta)

    def test_a_mixtures_is_equation_8(self):
        y, s0 = 2 * torch.randn(200, 1, 2, 2, generator=generator(), dtype=torch.float64), 0.3
        for sigma in (0.1, 0.6, 2.0):
            beta = 1 / (1 + sigma**2 / s0**2)
            along = (beta * y).flatten(1) @ MU.flatten() / s0**2
            expected = beta * y + (1 - beta) * torch.tanh(along)[:, None, None, None] * MU
            assert (MixtureDenoiser(MU, s0)(y, sigma) - expected).abs().max() < 1e-12
            single = MixtureDenoiser(MU.float(), s0, sigma)(y.float())
            assert (single - expected).abs().max() < 1e-6

    @pytest.mark.parametrize("s0", [0.2, 1.0])
    @pytest.mark.parametrize("mu", [0.0, 0.7])
    def test_it_is_the_mean_of_x_given_y_by_quadrature(self, s0, mu):
        """One pixel: E[X | y] as a ratio of integrals over x."""
        sigma, x, y = 0.5, np.linspace(-9, 9, 40_001), np.array([-1.5, -0.2, 0.0, 0.4, 2.0])
        prior = stats.norm.pdf(x, mu, s0) + stats.norm.pdf(x, -mu, s0)
        weights = prior * stats.norm.pdf(y[:, None], x, sigma)
        expected = (weights * x).sum(axis=1) / weights.sum(axis=1)
        denoiser = MixtureDenoiser(torch.full((1, 1, 1), mu, dtype=torch.float64), s0) if mu else GaussianDenoiser(s0)
        assert np.allclose(denoiser(torch.from_numpy(y).view(-1, 1, 1, 1), sigma).flatten(), expected, atol=1e-9)

    @pytest.mark.parametrize("denoiser", [GaussianDenoiser(0.4), MixtureDenoiser(MU, 0.3)])
    def test_its_gradient_is_its_energys(self, denoiser):
        y = 3 * images(5, (1, 2, 2)) - 1
        automatic = EnergyEstimator.gradient(denoiser, y, 0.5)
        assert torch.allclose(denoiser.gradient(y, 0.5), automatic, rtol=1e-12)
        assert torch.allclose(numerical_gradient(lambda z: denoiser.energy(z, 0.5), y), automatic, atol=1e-8)

    def test_an_energy_is_minus_the_logarithm_of_the_smoothed_density(self):
        """Up to one constant: by quadrature over x, one pixel."""
        sigma, s0, mu = 0.5, 0.3, 0.8
        x, y = np.linspace(-9, 9, 40_001), np.linspace(-2, 2, 7)
        prior = stats.norm.pdf(x, mu, s0) + stats.norm.pdf(x, -mu, s0)
        density = (prior * stats.norm.pdf(y[:, None], x, sigma)).sum(axis=1)
        denoiser = MixtureDenoiser(torch.full((1, 1, 1), mu, dtype=torch.float64), s0)
        found = denoiser.energy(torch.from_numpy(y).view(-1, 1, 1, 1), sigma).numpy()
        assert np.ptp(found + np.log(density)) < 1e-9

    def test_smoothed_behind_it_a_linear_classifier_is_the_propositions(self):
        """Proposition 2.3: g(x) = h(beta x), radius |<w, beta x> + b| / (beta ||w||), passed with probability at most
        alpha: 500 cases at alpha .05."""
        s0, sigma, draw, exceeded, shares = 0.7, 0.6, np.random.default_rng(0), 0, []
        beta = 1 / (1 + sigma**2 / s0**2)
        for seed in range(10):
            w, b = torch.from_numpy(draw.normal(size=4)).float(), float(draw.normal() / 3)
            h = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
            h[1].weight.data, h[1].bias.data = torch.stack([w / 2, -w / 2]), torch.tensor([b / 2, -b / 2])
            pi = DenoisedClassifier(GaussianDenoiser(s0), h, sigma).eval()
            x = torch.from_numpy(draw.normal(size=(50, 1, 2, 2))).float()
            g = SmoothedClassifier(pi, sigma, 2, seed, noise="gaussian", bounds=None)
            score = (beta * x.flatten(1) @ w + b).numpy()
            exact = np.abs(score) / (beta * float(w.norm()))
            found = g.certify(x, n0=20, n=300, alpha=0.05)
            for c, s, radius in zip(found, score, exact, strict=True):
                exceeded += c.prediction is not None and (c.prediction != int(s < 0) or c.radius > radius)
                if c.prediction is not None and radius < 1:
                    shares.append(c.radius / radius)
        assert exceeded <= stats.binom.ppf(0.999, 500, 0.05)
        assert 0.5 < np.median(shares) < 1


class TestEnergies:
    @pytest.mark.parametrize(("name", "network"), ENERGIES)
    @pytest.mark.parametrize("conditioned", [False, True])
    def test_x_hat_is_y_minus_sigma_squared_times_the_numerical_gradient(self, name, network, conditioned):
        denoiser, y = built(name, network, conditioned=conditioned), images()
        for sigma in (0.3, 1.1) if conditioned else (0.5,):
            expected = y - sigma**2 * numerical_gradient(lambda z: denoiser.energy(z, sigma), y)  # noqa: B023
            assert torch.allclose(denoiser(y, sigma), expected, atol=1e-7)
            assert (denoiser(y, sigma) - y).abs().max() > 1e-3
            assert torch.allclose(denoiser.gradient(y, sigma), (y - denoiser(y, sigma)) / sigma**2, rtol=1e-9)

    @pytest.mark.parametrize(("name", "network"), ENERGIES)
    def test_second_derivatives(self, name, network):
        """Of x_hat with respect to the image (attacks) and the parameters (training), against differences."""
        denoiser, y = built(name, network, shape=(1, 4, 4), **({"width": 2} if network != "mlp" else {})), images(
            2, (1, 4, 4)).requires_grad_()
        v = torch.randn(y.shape, generator=generator(), dtype=torch.float64)
        found = torch.autograd.grad((denoiser(y) * v).sum(), [y, *denoiser.parameters()])

        def value(z: Tensor) -> Tensor:
            return (denoiser(z) * v).flatten(1).sum(dim=1)

        assert torch.allclose(numerical_gradient(value, y.detach()), found[0], atol=1e-7)
        for p, gradient in zip(denoiser.parameters(), found[1:], strict=True):
            flat, k = p.detach().view(-1), p.numel() // 2
            sides = []
            for h in (1e-5, -2e-5):
                flat[k] += h
                sides.append(value(y.detach()).sum().item())
            flat[k] += 1e-5
            assert float(gradient.flatten()[k]) == pytest.approx((sides[0] - sides[1]) / 2e-5, abs=1e-6)
            assert gradient.abs().sum() > 0  # every parameter is trained

    @pytest.mark.parametrize(("name", "network"), ENERGIES)
    def test_a_graph_is_kept_only_where_something_follows_it(self, name, network):
        denoiser = built(name, network)
        for grad, input_grad, trained in itertools.product([False, True], repeat=3):
            denoiser.requires_grad_(trained)
            with torch.set_grad_enabled(grad):
                out = denoiser(images().requires_grad_(input_grad))
            assert out.requires_grad == (grad and (input_grad or trained))
            assert (out.grad_fn is None) == (not out.requires_grad)
            assert all(p.grad is None for p in denoiser.parameters())

    @pytest.mark.parametrize(("name", "network"), ALL)
    def test_every_mode_gives_the_same_values_row_by_row(self, name, network):
        denoiser, y = built(name, network), images()
        with torch.no_grad():
            reference = denoiser(y)
            assert reference.shape == y.shape
            assert torch.allclose(torch.cat([denoiser(y[i : i + 1]) for i in range(3)]), reference, rtol=1e-10)
        with torch.inference_mode():
            assert torch.equal(denoiser(images()), reference)
        assert torch.allclose(denoiser(y), reference, rtol=1e-12)
        leaf = y.clone().requires_grad_()
        assert torch.allclose(denoiser(leaf), reference, rtol=1e-12)
        assert leaf.grad is None

    @pytest.mark.parametrize(("name", "network"), ENERGIES)
    def test_the_cost_of_x_hat_is_two_passes(self, name, network):
        """One forward and one back to the input, none to the weights although they require gradients."""

        class Flops(TorchDispatchMode):
            total = 0

            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                out = func(*args, **(kwargs or {}))
                count = flop_registry.get(func._overloadpacket)
                self.total += count(*args, **(kwargs or {}), out_val=out) if count else 0
                return out

        denoiser, y = build_denoiser(name, (1, 8, 8), 0.5, network=network), torch.rand(2, 1, 8, 8)
        totals = []
        for call in (denoiser.energy, denoiser):
            with torch.no_grad(), Flops() as counted:
                call(y)
            totals.append(counted.total)
        assert 1.9 * totals[0] < totals[1] < 2.1 * totals[0]

    def test_compiled_it_is_one_graph_with_the_same_values(self):
        denoiser, y = built("energy-residual"), images()
        compiled = torch.compile(denoiser, backend="eager", fullgraph=True, dynamic=False)
        with torch.no_grad():
            assert torch.allclose(compiled(y), denoiser(y), rtol=1e-12)

    @pytest.mark.parametrize("name", ["energy-residual", "energy-scalar"])
    def test_relu_warns_of_zero_curvature_and_smooth_ones_do_not(self, name):
        with pytest.warns(ZeroCurvatureWarning, match="ReLU.*silu"):
            build_denoiser(name, (1, 4, 4), 0.5, network="conv", activation="relu")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for activation in ("silu", "softplus"):
                build_denoiser(name, (1, 4, 4), 0.5, activation=activation)
            build_denoiser("direct", (1, 4, 4), 0.5, network="dncnn")

    def test_the_residual_forms_x_hat_by_hand(self):
        """psi(y) = A y: x_hat = A y + A^T (y - A y)."""
        layer = nn.Linear(4, 4, bias=False).double()
        a, y = layer.weight.detach(), images(3, (1, 2, 2))
        psi = nn.Sequential(nn.Flatten(), layer, nn.Unflatten(1, (1, 2, 2)))
        flat = y.flatten(1)
        expected = flat @ a.T + (flat - flat @ a.T) @ a
        assert torch.allclose(ResidualEnergy(psi, 0.7)(y).flatten(1), expected, rtol=1e-12)


class TestSigma:
    @pytest.mark.parametrize("denoiser", [GaussianDenoiser(1.0, 0.5), built("direct"), built("energy-residual")])
    def test_another_than_its_own_is_refused_by_name(self, denoiser):
        y = images()
        assert torch.equal(denoiser(y), denoiser(y, 0.5))
        assert torch.equal(denoiser(y), denoiser(y, 0.5 * (1 + 1e-8)))
        with pytest.raises(InputError, match=r"for sigma 0\.5, and sigma 0\.25"):
            denoiser(y, 0.25)
        with pytest.raises(InputError, match=r"sigma 0\.50001"):
            denoiser(y, 0.50001)

    @pytest.mark.parametrize("name", DENOISERS)
    def test_a_conditioned_one_needs_it_and_answers_by_it(self, name):
        denoiser, y = built(name, conditioned=True), images()
        assert denoiser.sigma is None
        with pytest.raises(InputError, match="pass sigma"):
            denoiser(y)
        with pytest.raises(InputError, match="sigma must be"):
            denoiser(y, 0.0)
        assert (denoiser(y, 0.3) - denoiser(y, 0.6)).abs().max() > 1e-4


class TestRegistry:
    @pytest.mark.parametrize(("name", "network"), ALL)
    @pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 5)])
    def test_every_network_keeps_the_shape(self, name, network, shape):
        for conditioned in (False, True):
            denoiser = build_denoiser(name, shape, 0.5, network=network, conditioned=conditioned, **SMALL[network])
            assert denoiser(images(2, shape, dtype=torch.float32), 0.5).shape == (2, *shape)

    def test_options(self):
        assert denoiser_options("energy-residual")["network"] == "mlp"
        assert len(build_denoiser("energy-residual", (1, 4, 4), 0.5, width=8, depth=3).network.layers) == 7
        assert isinstance(build_denoiser("direct", (1, 4, 4), 0.5, activation="softplus"), DirectEstimator)

    @pytest.mark.parametrize(("name", "options", "words"), [
        ("energy", {}, "energy-"), ("direct", {"widht": 3}, 'did you mean "width"'), ("direct", {"width": 0}, "width"),
        ("direct", {"network": "vgg"}, "unknown network"), ("energy-residual", {"network": "dncnn"}, "unknown network"),
        ("energy-scalar", {"activation": "elu"}, "unknown activation"), ("direct", {"depth": 1.5}, "depth"),
        ("direct", {"network": "conv", "depth": 1}, "at least 2"), ("direct", {"network": "unet", "depth": 4}, "16x16"),
        ("direct", {"sigma": None}, "needs the noise level"), ("direct", {"sigma": -1.0}, "sigma must be"),
        ("direct", {"conditioned": 1}, "conditioned"), ("direct", {"shape": (8, 8)}, "shape must be"),
        ("direct", {"shape": (1, 8, 0)}, r"shape\[2\]"),
    ])
    def test_mistakes(self, name, options, words):
        with pytest.raises(InputError, match=words):
            build_denoiser(name, **{"shape": (1, 8, 8), "sigma": 0.5, **options})

    def test_closed_forms_check_their_arguments(self):
        for make in (lambda: GaussianDenoiser(0.0), lambda: MixtureDenoiser([1.0, 2.0], 1.0),
                     lambda: MixtureDenoiser(MU * math.nan, 1.0), lambda: GaussianDenoiser(1.0, sigma=-1.0)):
            with pytest.raises(InputError, match=r"s0|mu|sigma"):
                make()


def classifier(shape=(1, 4, 5), classes: int = 3, seed: int = 3) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 6), nn.BatchNorm1d(6), nn.Linear(6, classes)
                             ).double()


class TestDenoisedClassifier:
    def test_it_is_the_composition(self):
        denoiser, h, y = built("energy-residual"), classifier().eval(), images()
        pi = DenoisedClassifier(denoiser, h, 0.5).eval()
        assert torch.equal(pi(y), h(denoiser(y, 0.5)))
        assert torch.equal(pi.estimate(y), denoiser(y))
        assert not pi.random
        assert pi.draws == 0
        assert pi.denoiser is denoiser
        assert pi.classifier is h
        plain = DenoisedClassifier(built("direct"), lambda x: x.flatten(1)[:, :2], 0.5)
        assert plain.train()(y).shape == (3, 2)

    def test_the_denoiser_stays_in_eval_mode(self):
        pi = DenoisedClassifier(built("direct", "dncnn").train(), classifier(), 0.5)
        for mode in (True, False, True):
            pi.train(mode)
            assert pi.training == mode
            assert all(m.training == mode for m in pi.classifier.modules())
            assert not any(m.training for m in pi.denoiser.modules())
        assert not DenoisedClassifier(built("direct"), classifier().eval(), 0.5).training, "it takes over the mode"

    def test_gradients_reach_the_image_through_both_and_a_frozen_denoiser_never(self):
        pi, y = DenoisedClassifier(built("energy-residual"), classifier(), 0.5).eval(), images()
        pi.denoiser.requires_grad_(False)
        assert not pi.estimate(y).requires_grad
        pi(y).sum().backward()
        assert all(p.grad is None for p in pi.denoiser.parameters())
        assert all(p.grad is not None for p in pi.classifier.parameters())
        leaf = y.clone().requires_grad_()
        (found,) = torch.autograd.grad(pi(leaf)[:, 0].sum(), leaf)
        assert torch.allclose(numerical_gradient(lambda z: pi(z)[:, 0], y), found, atol=1e-6)

    def test_bad_ones(self):
        with pytest.raises(InputError, match=r"0\.5.*0\.25"):
            DenoisedClassifier(built("direct"), classifier(), 0.25)
        with pytest.raises(InputError, match="sigma"):
            DenoisedClassifier(GaussianDenoiser(1.0), classifier(), 0.0)
        with pytest.raises(ModelError, match="input's shape"):
            DenoisedClassifier(lambda y, sigma: y[:, :, 1:], classifier(), 0.5)(images())
        walk = WalkJump(GaussianDenoiser(1.0), GaussianDenoiser(1.0), 0.5, 0.1, 0.01, 2)
        with pytest.raises(InputError, match="generator_normals"):
            DenoisedClassifier(walk, classifier(), 0.5)(images())


class TestWalkJump:
    S0, SIGMA, SIGMA2, STEP, STEPS = 0.5, 0.6, 0.1, 0.05, 40

    def walk(self, **options) -> WalkJump:
        first, second = GaussianDenoiser(self.S0, self.SIGMA), GaussianDenoiser(self.S0)
        return WalkJump(first, second, self.SIGMA, self.SIGMA2, **{"step": self.STEP, "steps": self.STEPS, **options})

    def test_on_a_gaussian_it_has_the_chains_exact_mean_and_covariance(self):
        """y_{t+1} = a y_t + sqrt(2) delta e, a = 1 - delta^2 / S^2, S^2 = s0^2 + sigma'^2, from beta y: mean
        a^tau beta y and variance 2 delta^2 (1 - a^(2 tau)) / (1 - a^2) a pixel; the jump multiplies by s0^2 / S^2."""
        n, y = 20_000, torch.tensor([0.9, -0.3, 0.5]).view(1, 1, 1, 3)
        spread = self.S0**2 + self.SIGMA2**2
        a, jump = 1 - self.STEP**2 / spread, self.S0**2 / spread
        mean = jump * a**self.STEPS * self.S0**2 / (self.S0**2 + self.SIGMA**2) * y.flatten().numpy()
        variance = jump**2 * 2 * self.STEP**2 * (1 - a ** (2 * self.STEPS)) / (1 - a**2)
        found = self.walk()(y.expand(n, -1, -1, -1), normals=generator_normals(generator())).flatten(1).numpy()
        assert np.abs(found.mean(axis=0) - mean).max() < 4 * math.sqrt(variance / n)
        covariance = np.cov(found.T)
        assert np.abs(np.diag(covariance) / variance - 1).max() < 4 * math.sqrt(2 / n)
        assert np.abs(covariance[np.triu_indices(3, 1)]).max() < 4 * variance / math.sqrt(n)
        assert stats.kstest((found[:, 0] - mean[0]) / math.sqrt(variance), "norm").pvalue > 1e-3

    def test_a_long_walk_forgets_its_start_and_samples_the_smoothed_density(self):
        """delta -> 0, delta^2 tau large: N(0, S^2 I), and behind the jump N(0, s0^4 / S^2)."""
        y = torch.full((4000, 1, 1, 1), 3.0)
        found = self.walk(step=0.1, steps=200)(y, normals=generator_normals(generator(1))).flatten().numpy()
        spread = self.S0**2 + self.SIGMA2**2
        assert abs(found.mean()) < 4 * found.std() / math.sqrt(4000)
        assert found.std() == pytest.approx(self.S0**2 / math.sqrt(spread), rel=0.06)

    def test_its_randomness_is_the_normals_it_asked_for_row_by_row(self):
        asked = []
        fields = torch.randn(self.STEPS, 3, 1, 4, 5, generator=generator(), dtype=torch.float64)

        def normals(rows):
            def draw(t, like):
                asked.append(t)
                assert like.shape == (len(rows), 1, 4, 5)
                return fields[t][rows]
            return draw

        walk, y = self.walk(), images()
        assert walk.random
        assert walk.draws == self.STEPS
        together = walk(y, normals=normals([0, 1, 2]))
        assert asked == list(range(walk.draws))
        assert torch.equal(walk(y, 0.6, normals([0, 1, 2])), together)
        assert torch.allclose(walk(y[[2, 0]], normals=normals([2, 0])), together[[2, 0]], rtol=1e-12)
        assert not torch.allclose(walk(y, normals=normals([1, 2, 0])), together)

    def test_behind_a_classifier_it_makes_a_random_one(self):
        pi, y = DenoisedClassifier(self.walk(), classifier(), 0.6).eval(), images()
        assert pi.random
        assert pi.draws == self.STEPS
        first, again, other = (pi(y, generator_normals(generator(seed))) for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_any_denoiser_will_do_for_the_walk(self):
        """Without an energy the gradient is (y - x_hat) / sigma^2."""
        shrink = GaussianDenoiser(self.S0).beta(self.SIGMA2)
        plain = WalkJump(GaussianDenoiser(self.S0), DirectEstimator(Scale(shrink), self.SIGMA2), self.SIGMA,
                         self.SIGMA2, self.STEP, self.STEPS)
        found, expected = (w(images(), normals=generator_normals(generator())) for w in (plain, self.walk()))
        assert torch.allclose(found, expected, rtol=1e-8)

    def test_gradients_are_unrolled_to_the_stated_limit_only(self):
        y = images(2, (1, 1, 3)).requires_grad_()
        for unroll in (0, 4):
            with pytest.raises(InputError, match=r"unroll is \d: take the attack stein.*set unroll to 5"):
                self.walk(steps=5, unroll=unroll)(y, normals=generator_normals(generator()))
        second = built("energy-residual", shape=(1, 1, 3), sigma=self.SIGMA2)
        walk = WalkJump(GaussianDenoiser(self.S0), second, self.SIGMA, self.SIGMA2, 0.05, 5, unroll=5)
        (found,) = torch.autograd.grad(walk(y, normals=generator_normals(generator())).sum(), y)
        expected = numerical_gradient(lambda z: walk(z, normals=generator_normals(generator())).flatten(1).sum(dim=1),
                                      y.detach())
        assert torch.allclose(found, expected, atol=1e-6)
        assert not walk(y.detach(), normals=generator_normals(generator())).requires_grad  # its parameters do
        with torch.no_grad():
            self.walk(steps=5)(y, normals=generator_normals(generator()))

    def test_a_diverging_walk_names_its_step(self):
        with pytest.raises(ModelError, match=r"diverged.*step 2 and 100"):
            self.walk(step=2.0, steps=100)(images().float(), normals=generator_normals(generator()))

    @pytest.mark.parametrize(("changed", "words"), [
        ({"step": 0.0}, "step"), ({"steps": 0}, "steps"), ({"unroll": -1}, "unroll"), ({"sigma": 0.5}, "0.6.*0.5"),
        ({"sigma2": 0.7}, "below sigma"), ({"sigma2": 0.0}, "sigma2"), ({"second": GaussianDenoiser(1.0, 0.2)}, "0.2"),
    ])
    def test_mistakes(self, changed, words):
        arguments = {"first": GaussianDenoiser(1.0, 0.6), "second": GaussianDenoiser(1.0), "sigma": 0.6, "sigma2": 0.1}
        with pytest.raises(InputError, match=words):
            WalkJump(**{**arguments, **changed})
        with pytest.raises(InputError, match=r"0\.6.*0\.3"):
            WalkJump(**arguments)(images(), 0.3, generator_normals(generator()))


class Scale(nn.Module):
    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, y: Tensor) -> Tensor:
        return self.factor * y


class TestAttractor:
    S0, SIGMA, SIGMA2 = 0.5, 0.6, 0.3
    SPREAD = S0**2 + SIGMA2**2

    def attractor(self, **options) -> Attractor:
        return Attractor(GaussianDenoiser(self.S0, self.SIGMA), GaussianDenoiser(self.S0),
                         **{"sigma2": self.SIGMA2, "tol": 1e-3, "max_steps": 500, **options})

    @pytest.mark.parametrize("method", ["euler", "rk4"])
    @pytest.mark.parametrize("step", [None, 0.2])
    def test_a_gaussians_is_zero_after_the_steps_that_the_linear_flow_needs(self, method, step):
        """x_{t+1} = R(-h / S^2) x_t, R(z) = 1 + z for Euler, and exp(z) to order 4 for rk4; every row for itself."""
        y = images(4) * torch.tensor([1e-4, 0.1, 1.0, 30.0], dtype=torch.float64).view(4, 1, 1, 1)
        flow = self.attractor(method=method, step=step)
        found = flow.flow(y)
        z = -(flow.step) / self.SPREAD
        factor = 1 + z if method == "euler" else 1 + z + z**2 / 2 + z**3 / 6 + z**4 / 24
        start = (GaussianDenoiser(self.S0)(y, self.SIGMA).flatten(1).norm(dim=1) / self.SPREAD).numpy()
        expected = np.maximum(np.ceil(np.log(1e-3 / start) / np.log(abs(factor))), 0)
        assert found.steps.tolist() == expected.tolist()
        assert found.converged.all()
        assert found.unfinished == 0
        assert (found.x.flatten(1).norm(dim=1) / self.SPREAD < 1e-3).all()
        for i in range(4):
            assert torch.allclose(flow.flow(y[i : i + 1]).x, found.x[i : i + 1], rtol=1e-12)

    def test_a_mixtures_are_its_modes(self):
        """Where m = mu tanh(<m, mu> / S^2), on either side."""
        mixture = MixtureDenoiser(MU, 0.3)
        y = torch.randn(40, 1, 2, 2, generator=generator(), dtype=torch.float64)
        found = Attractor(mixture, mixture, 0.2, 1e-6, 5000).eval()(y, 0.6)
        scale = 1.0
        for _ in range(1000):
            scale = math.tanh(scale * float(MU.square().sum()) / (0.3**2 + 0.2**2))
        side = torch.sign(y.flatten(1) @ MU.flatten())[:, None, None, None]
        assert torch.allclose(found, side * scale * MU, atol=1e-5)
        assert len(set(side.flatten().tolist())) == 2

    def test_rows_that_reach_the_limit_are_counted_and_taken_where_they_are(self):
        flow = self.attractor(max_steps=3, tol=1e-6)
        y = torch.cat([torch.zeros(1, 1, 4, 5, dtype=torch.float64), images(2)])
        found = flow.flow(y)
        assert found.converged.tolist() == [True, False, False]
        assert found.steps.tolist() == [0, 3, 3]
        expected = (1 - self.SIGMA2**2 / self.SPREAD) ** 3 * GaussianDenoiser(self.S0)(y, self.SIGMA)
        assert torch.allclose(found.x, expected, rtol=1e-10)
        assert flow.unfinished == 0
        with pytest.warns(StepLimitWarning, match="limit of 3 steps"):
            flow(y)
        with pytest.warns(StepLimitWarning):
            flow(y, self.SIGMA)
        assert flow.unfinished == 4

    def test_an_euler_step_by_default_is_denoising_again(self):
        flow, y = self.attractor(max_steps=1, tol=1e-9), images()
        assert torch.allclose(flow(y), GaussianDenoiser(self.S0)(GaussianDenoiser(self.S0)(y, self.SIGMA), self.SIGMA2))

    def test_gradients_are_unrolled_to_the_stated_limit_only(self):
        y = images(2).requires_grad_()
        with pytest.raises(InputError, match=r"stein.*unroll to 4"):
            self.attractor(max_steps=4)(y)
        flow = self.attractor(max_steps=4, tol=1e-9, unroll=4)
        (found,) = torch.autograd.grad(flow(y).sum(), y)
        factor = (1 - self.SIGMA2**2 / self.SPREAD) ** 4 * GaussianDenoiser(self.S0).beta(self.SIGMA)
        assert torch.allclose(found, torch.full_like(found, factor), rtol=1e-10)

    def test_it_is_a_front_end(self):
        pi, y = DenoisedClassifier(self.attractor(), classifier(), 0.6).eval(), images()
        assert not pi.random
        assert torch.allclose(pi(y), pi.classifier(torch.zeros_like(y)), atol=1e-3)

    def test_a_diverging_flow_names_its_step(self):
        with pytest.raises(ModelError, match=r"diverged.*step 5"):
            self.attractor(step=5.0)(images().float())

    @pytest.mark.parametrize(("changed", "words"), [
        ({"tol": 0.0}, "tol"), ({"max_steps": 0}, "max_steps"), ({"method": "heun"}, "method"),
        ({"step": -1.0}, "step"), ({"sigma2": 0.6}, "below sigma"),
    ])
    def test_mistakes(self, changed, words):
        with pytest.raises(InputError, match=words):
            self.attractor(**changed)


class Linear(nn.Module):
    """x_hat = A y on flattened images."""

    sigma = 0.5

    def __init__(self, a: Tensor):
        super().__init__()
        self.a = a

    def forward(self, y: Tensor, sigma: float | None = None) -> Tensor:
        return (y.flatten(1) @ self.a.T).view_as(y)


class TestAsymmetry:
    def test_of_energies_it_is_zero_and_of_direct_networks_it_is_not(self):
        y = images()
        for name, network in ENERGIES:
            assert asymmetry(built(name, network), y, 3, generator()).max() < 1e-10
        for network in ("mlp", "conv", "unet", "dncnn"):
            assert asymmetry(built("direct", network), y, 3, generator()).min() > 1e-3

    def test_of_known_matrices(self):
        a = torch.randn(20, 20, generator=generator(), dtype=torch.float64)
        y = images(2)
        assert asymmetry(Linear(a + a.T), y, 1, generator()).max() < 1e-12
        assert torch.allclose(asymmetry(Linear(a - a.T), y, 1, generator()), torch.full((2,), 2.0).double())
        exact = float((a - a.T).norm() / a.norm())
        assert torch.allclose(asymmetry(Linear(a), y, 300, generator()), torch.full((2,), exact).double(), rtol=0.05)

    def test_conditioned_ones_and_bad_input(self):
        found = asymmetry(built("direct", conditioned=True), images(), 2, generator(), sigma=0.4)
        assert found.shape == (3,)
        with pytest.raises(InputError, match="probes"):
            asymmetry(built("direct"), images(), 0, generator())


class StandIn(nn.Module):
    """Called as UNet2DModel is; knows the clean image and gives whatever prediction is asked for, exactly."""

    def __init__(self, clean: Tensor, prediction: str, wrapped: bool = True, channels: int = 1):
        super().__init__()
        self.clean, self.prediction, self.wrapped, self.channels = clean, prediction, wrapped, channels
        self.seen: list[tuple[Tensor, Tensor]] = []
        self.ratio = math.nan

    def forward(self, sample: Tensor, timestep: Tensor, class_labels=None, return_dict: bool = True):
        self.seen.append((sample, timestep))
        signal = 1 / math.sqrt(1 + self.ratio**2)
        noise = self.ratio * signal
        epsilon = (sample - signal * self.clean) / noise
        out = {"epsilon": epsilon, "sample": self.clean, "v_prediction": signal * epsilon - noise * self.clean}
        found = out[self.prediction].repeat(1, self.channels, 1, 1)
        return SimpleNamespace(sample=found) if self.wrapped else found


class Cropped(nn.Module):
    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return sample[..., :3]


LINEAR = noise_schedule({"beta_schedule": "linear"})


class TestDiffusion:
    @pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
    def test_a_network_that_knows_the_noise_gives_the_clean_image_back(self, prediction):
        x, e = images(3), torch.randn(3, 1, 4, 5, generator=generator(), dtype=torch.float64)
        for sigma in (0.12, 0.5, 1.0):
            network = StandIn(2 * x - 1, prediction, wrapped=sigma != 0.5, channels=2 if sigma == 1.0 else 1)
            network.ratio = 2 * sigma
            denoiser = DiffusionDenoiser(network, LINEAR, prediction)
            assert torch.allclose(denoiser(x + sigma * e, sigma), x, atol=1e-6)
            ((sample, timestep),) = network.seen
            assert torch.allclose(sample, (2 * (x + sigma * e) - 1) / math.sqrt(1 + 4 * sigma**2))
            ratios = torch.sqrt((1 - LINEAR) / LINEAR)
            below, above = int((ratios < 2 * sigma).sum()) - 1, int((ratios < 2 * sigma).sum())
            assert timestep.shape == (3,)
            assert int(timestep[0]) in (below, above)
            assert ratios[int(timestep[0])] == pytest.approx(2 * sigma, rel=0.02)

    def test_estimates_stay_in_range(self):
        network = StandIn(torch.full((1, 1, 4, 5), 3.0), "sample")
        network.ratio = 1.0
        assert torch.equal(DiffusionDenoiser(network, LINEAR, "sample")(images(1), 0.5), torch.ones(1, 1, 4, 5))

    def test_schedules(self):
        """The constants that DDPM (Ho et al. 2020) and Nichol & Dhariwal (2021) state."""
        assert float(LINEAR[0]) == pytest.approx(1 - 1e-4)
        assert float(LINEAR[-1]) == pytest.approx(4.0358e-5, rel=1e-4)
        steps = 50
        cosine = noise_schedule({"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": steps})
        f = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
        assert np.allclose(cosine[:-1], f[1:-1] / f[0], rtol=1e-9)
        scaled = noise_schedule({"beta_schedule": "scaled_linear", "beta_start": 0.01, "beta_end": 0.04,
                                 "num_train_timesteps": 3})
        assert np.allclose(scaled, np.cumprod([0.99, 1 - 0.15**2, 0.96]))
        assert np.allclose(noise_schedule({"trained_betas": [0.1, 0.2]}), [0.9, 0.72])
        for config in ({"beta_schedule": "sigmoid"}, {"num_train_timesteps": 1}, {"trained_betas": [0.5, 1.0]}):
            with pytest.raises(InputError, match=r"beta|num_train_timesteps"):
                noise_schedule(config)

    def test_mistakes(self):
        with pytest.raises(InputError, match="prediction_type"):
            DiffusionDenoiser(nn.Identity(), LINEAR, "score")
        short = DiffusionDenoiser(nn.Identity(), LINEAR[:300])
        with pytest.raises(InputError, match="schedule ends at sigma 0"):
            short(images(), 2.0)
        with pytest.raises(ModelError, match="got"):
            DiffusionDenoiser(Cropped(), LINEAR)(images(), 0.5)

    @pytest.mark.parametrize("parts", [("unet", "scheduler"), ("", "")])
    def test_a_folder_is_read_as_json_and_safetensors(self, tmp_path, monkeypatch, parts):
        asked = []

        class UNet2DModel:
            @staticmethod
            def from_pretrained(folder, **options):
                asked.append((folder, options))
                return nn.Identity()

        monkeypatch.setitem(sys.modules, "diffusers", SimpleNamespace(UNet2DModel=UNet2DModel))
        with pytest.raises(FileError, match=r"scheduler_config\.json"):
            load_diffusion(tmp_path)
        network, scheduler = (tmp_path / part for part in parts)
        network.mkdir(exist_ok=True)
        scheduler.mkdir(exist_ok=True)
        config = {"beta_schedule": "linear", "num_train_timesteps": 10, "prediction_type": "v_prediction"}
        (scheduler / "scheduler_config.json").write_text(json.dumps(config))
        found = load_diffusion(tmp_path)
        assert asked == [(network, {"use_safetensors": True})]
        assert (found.prediction, len(found.abar), found.training, found.sigma) == ("v_prediction", 10, False, None)
        for content, words in (("{", "corrupt"), ("[]", "no scheduler's config"), ("[" * 9999, "nested")):
            (scheduler / "scheduler_config.json").write_text(content)
            with pytest.raises(FileError, match=words):
                load_diffusion(tmp_path)
        for change in ({"num_train_timesteps": 10**12}, {"beta_start": "x"}):
            (scheduler / "scheduler_config.json").write_text(json.dumps({**config, **change}))
            with pytest.raises(InputError, match=r"num_train_timesteps|gives no betas"):
                load_diffusion(tmp_path)

    def test_without_the_library(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "diffusers", None)
        with pytest.raises(MissingExtraError, match=r"smoothcert\[diffusion\]"):
            load_diffusion("anywhere")

    @pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed")
    def test_with_the_library(self, tmp_path):
        diffusers = pytest.importorskip("diffusers")
        network = diffusers.UNet2DModel(sample_size=8, in_channels=1, out_channels=1, layers_per_block=1,
                                        block_out_channels=(8, 8), norm_num_groups=4,
                                        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2)
        network.save_pretrained(tmp_path / "unet")
        diffusers.DDPMScheduler().save_pretrained(tmp_path / "scheduler")
        denoiser = load_diffusion(tmp_path)
        y = torch.rand(2, 1, 8, 8, requires_grad=True)
        out = denoiser(y, 0.5)
        assert out.shape == y.shape
        assert torch.autograd.grad(out.sum(), y)[0].isfinite().all()
        assert torch.allclose(denoiser.abar.float(), diffusers.DDPMScheduler().alphas_cumprod, rtol=1e-4)
