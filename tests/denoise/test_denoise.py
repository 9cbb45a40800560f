"""Denoisers: closed forms, energies, the composition with a classifier, and the asymmetry."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from small_denoisers import MU, SMALL, built, classifier, generator, images, numerical_gradient
from smoothcert import SmoothedClassifier
from smoothcert.denoise import (
    DENOISERS,
    DenoisedClassifier,
    DirectEstimator,
    EnergyEstimator,
    GaussianDenoiser,
    MixtureDenoiser,
    ResidualEnergy,
    WalkJump,
    ZeroCurvatureWarning,
    asymmetry,
    build_denoiser,
    denoiser_options,
)
from smoothcert.errors import InputError, ModelError

ENERGIES = [(name, network) for name in ("energy-residual", "energy-scalar") for network in ("mlp", "conv", "unet")]
ALL = [*ENERGIES, *(("direct", network) for network in ("mlp", "conv", "unet", "dncnn"))]


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

    def test_an_energy_is_minus_the_log_of_the_smoothed_density(self):
        """Up to one constant: by quadrature over x, one pixel."""
        sigma, s0, mu = 0.5, 0.3, 0.8
        x, y = np.linspace(-9, 9, 40_001), np.linspace(-2, 2, 7)
        prior = stats.norm.pdf(x, mu, s0) + stats.norm.pdf(x, -mu, s0)
        density = (prior * stats.norm.pdf(y[:, None], x, sigma)).sum(axis=1)
        denoiser = MixtureDenoiser(torch.full((1, 1, 1), mu, dtype=torch.float64), s0)
        found = denoiser.energy(torch.from_numpy(y).view(-1, 1, 1, 1), sigma).numpy()
        assert np.ptp(found + np.log(density)) < 1e-9

    def test_a_linear_classifier_behind_it_is_the_propositions(self):
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
    def test_x_hat_agrees_with_the_numerical_gradient(self, name, network, conditioned):
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
        ("direct", {"conditioned": 1}, "conditioned"), ("direct", {"shape": ()}, "shape must be"),
        ("direct", {"shape": (8, 8)}, "unet of a denoiser takes images"),
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

    def test_gradients_reach_the_image_and_no_frozen_denoiser(self):
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
