"""Walks and flows behind a denoiser."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from small_denoisers import MU, built, classifier, generator, images, numerical_gradient
from smoothcert.denoise import (
    Attractor,
    DenoisedClassifier,
    DirectEstimator,
    GaussianDenoiser,
    MixtureDenoiser,
    StepLimitWarning,
    WalkJump,
    generator_normals,
)
from smoothcert.errors import InputError, ModelError


class TestWalkJump:
    S0, SIGMA, SIGMA2, STEP, STEPS = 0.5, 0.6, 0.1, 0.05, 40

    def walk(self, **options) -> WalkJump:
        first, second = GaussianDenoiser(self.S0, self.SIGMA), GaussianDenoiser(self.S0)
        return WalkJump(first, second, self.SIGMA, self.SIGMA2, **{"step": self.STEP, "steps": self.STEPS, **options})

    def test_on_a_gaussian_it_has_the_chains_mean_and_covariance(self):
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

    def test_a_long_walk_samples_the_smoothed_density(self):
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
    def test_a_gaussians_flow_ends_at_zero_in_the_steps_it_needs(self, method, step):
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

    def test_rows_that_reach_the_limit_are_counted_and_kept(self):
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
