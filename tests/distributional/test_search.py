"""The bounds by ascent, and the worst case that an ascent finds."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor, nn
from torch.nn import functional

from robust_losses import IMAGES, LABELS, D, W, batches, classifier, flat
from smoothcert.attacks import Ascent, attack_images
from smoothcert.distributional import (
    PointLoss,
    Search,
    certificate_from_counts,
    certificate_from_limits,
    certify_losses,
    clipped_cross_entropy,
    cross_entropy,
    eps_equivalent,
    eps_of_rho,
    inside_bound,
    outside_bound,
    rho_of_eps,
    sample_losses,
    side_by_side,
    worst_case,
    zero_one,
)
from smoothcert.errors import InputError, ModelError
from smoothcert.noise import GaussianNoise

EXACT = Search(steps=200, draws=2, tolerance=1e-16, check=2)

LINEAR = PointLoss("linear", lambda logits, labels: logits @ W.to(logits.dtype) + 5)
A, B = 0.8, 0.3
QUADRATIC = PointLoss("quadratic", lambda logits, labels: A / 2 * (logits - B).square().sum(dim=1))


@pytest.fixture
def fair(monkeypatch):
    """Noise whose draws add up to 0 with mean ||z||^2 = d sigma^2: means of linear and quadratic losses are exact."""

    def balanced(images: Tensor, m: int, sigma: float, generator: torch.Generator) -> Tensor:
        z = torch.randn(images.shape, generator=generator, dtype=images.dtype)
        z = z / z.flatten(1).norm(dim=1).view(-1, 1, 1, 1) * sigma * math.sqrt(images[0].numel())
        return torch.stack([z, -z], dim=1)[:, :m]

    for module in ("distributional.search", "attacks.ascent"):
        monkeypatch.setattr(f"smoothcert.{module}.draw_noise", balanced)


class TestClosedForms:
    def test_a_linear_loss_inside(self):
        """phi = l(x0) + ||w||^2 / (4 gamma); the bound at the best gamma is the worst case, mean l + ||w|| rho^.5."""
        clean, w = float((flat(IMAGES) @ W + 5).mean()), float(W.norm())
        rho = 0.09
        gammas = [w / (2 * math.sqrt(rho)), 0.5, 2.0]
        bound = inside_bound(flat, LINEAR, batches(), gammas, seed=0, search=EXACT)
        curve = worst_case(flat, LINEAR, batches(), gammas, None, seed=0, search=EXACT)
        for s, found, cost, gamma in zip(bound.surrogates, curve.loss, curve.rho, gammas, strict=True):
            assert s.estimate == pytest.approx(clean + w**2 / (4 * gamma), abs=1e-6)
            assert found == pytest.approx(s.loss, abs=1e-12)
            assert found == pytest.approx(clean + w**2 / (2 * gamma), abs=1e-6)
            assert cost == pytest.approx(s.rho, abs=1e-12)
            assert cost == pytest.approx(w**2 / (4 * gamma**2), abs=1e-6)
            assert gamma * cost + s.estimate == pytest.approx(found, abs=1e-6)
        assert bound.at(rho).value == pytest.approx(clean + w * math.sqrt(rho), abs=1e-6)
        assert bound.at(rho).gamma == gammas[0]
        assert bound.at(rho).label == "estimate"
        assert all(s.solved == 1 for s in bound.surrogates)

    def test_a_quadratic_loss_inside(self):
        """phi = a gamma D / (2 gamma - a), D = ||x0 - b||^2; the worst case is a/2 (sqrt(mean D) + sqrt(rho))^2."""
        far = float((flat(IMAGES) - B).square().sum(dim=1).mean())
        rho = 0.04
        gammas = [A / 2 * (1 + math.sqrt(far / rho)), 4.0]
        bound = inside_bound(flat, QUADRATIC, batches(), gammas, seed=0, search=EXACT)
        for s, gamma in zip(bound.surrogates, gammas, strict=True):
            assert s.estimate == pytest.approx(A * gamma * far / (2 * gamma - A), abs=1e-6)
            assert s.rho == pytest.approx(A**2 * far / (2 * gamma - A) ** 2, abs=1e-6)
        assert bound.at(rho).value == pytest.approx(A / 2 * (math.sqrt(far) + math.sqrt(rho)) ** 2, abs=1e-6)
        assert bound.surrogates[0].loss == pytest.approx(bound.at(rho).value, abs=1e-6)
        assert bound.surrogates[0].rho == pytest.approx(rho, abs=1e-6)

    @pytest.mark.parametrize("loss", [LINEAR, QUADRATIC], ids=lambda loss: loss.name)
    def test_outside_and_theorem_3(self, loss, fair):
        """Outside, the noise adds its mean to the loss, a d sigma^2 / 2, and nothing to the cost; at the same cost the
        smoothed bound is below WRM's by exactly (gamma - a/2) d sigma^2."""
        sigma, gammas, a = 0.3, [2.0, 4.0], A if loss is QUADRATIC else 0.0
        outside = outside_bound(flat, loss, batches(), gammas, GaussianNoise(sigma), seed=0, search=EXACT)
        inside = inside_bound(flat, loss, batches(), gammas, seed=0, search=EXACT)
        for s, u in zip(outside.surrogates, inside.surrogates, strict=True):
            assert s.estimate == pytest.approx(u.estimate + a * D * sigma**2 / 2, abs=1e-6)
            assert s.rho == pytest.approx(u.rho, abs=1e-6)
        both = side_by_side(outside, inside)
        gap = (np.array(gammas) - a / 2) * D * sigma**2
        assert np.allclose(both.base - both.smoothed, gap, atol=1e-6)
        assert both.noise_cost == pytest.approx(D * sigma**2)
        smoothed, base = both.at(0.1)
        assert smoothed == pytest.approx(outside.at(0.1).value)
        assert base == pytest.approx(inside.at(0.1 + D * sigma**2).value)
        curve = worst_case(flat, loss, batches(), gammas, sigma, seed=0, search=EXACT)
        assert np.allclose(curve.rho, [s.rho for s in outside.surrogates], atol=1e-6)
        assert np.allclose(curve.loss, [s.loss for s in outside.surrogates], atol=1e-6)

    def test_eps_equivalent(self, fair):
        """Linear: ||w|| / (2 gamma), whatever the noise, of which the norm holds nothing."""
        for sigma in (None, 0.7):
            found = eps_equivalent(flat, batches(), 1.5, sigma, seed=0, loss=LINEAR, draws=2)
            assert found == pytest.approx(float(W.norm()) / 3, abs=1e-6)
        assert eps_of_rho(rho_of_eps(0.84)) == pytest.approx(0.84)


class TestBounds:
    def test_inside_is_wrm_s_surrogate_exactly(self):
        model, gamma = classifier().double(), 0.9
        search = Search(steps=16, tolerance=1e-300)
        found = inside_bound(model, cross_entropy, batches(size=6), gamma, seed=0, search=search).surrogates[0]
        moved = attack_images(Ascent(gamma, 16, decay=True), model, IMAGES, LABELS, generator=torch.Generator(),
                              bounds=None)
        losses = functional.cross_entropy(model(moved), LABELS, reduction="none")
        cost = (moved - IMAGES).flatten(1).square().sum(dim=1)
        assert found.estimate == pytest.approx(float((losses - gamma * cost).mean().detach()), rel=1e-12)
        assert found.rho == pytest.approx(float(cost.mean()), rel=1e-12)

    def test_the_noise_inside_leaves_the_supremum_alone(self):
        """sup_x { l(x + z) - gamma ||x + z - x0||^2 } for any z, solved in x, is that in u = x + z."""
        model, gamma = classifier().double(), 3.0
        inside = inside_bound(model, cross_entropy, batches(), gamma, seed=0, search=EXACT).surrogates[0]
        z = torch.randn(6, 1, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        x = attack_images(Ascent(gamma, 200, decay=True), model, IMAGES, LABELS, z, generator=torch.Generator(),
                          bounds=None)
        u = x + z[:, 0]
        losses = functional.cross_entropy(model(u), LABELS, reduction="none")
        value = losses - gamma * (u - IMAGES).flatten(1).square().sum(dim=1)
        assert inside.estimate == pytest.approx(float(value.mean().detach()), abs=1e-6)

    def test_an_outside_certificate_is_above_the_supremum(self):
        """A logistic loss along one direction, clipped: l_hat by quadrature, the supremum by brute force."""
        slope, sigma, ceiling, gamma = 4.0, 0.5, 1.0, 3.0
        unit, images = (W / W.norm()).float(), IMAGES.float()[:4]

        def model(x: Tensor) -> Tensor:
            s = slope * (x.flatten(1) @ unit)
            return torch.stack([s, torch.zeros_like(s)], dim=1)

        z = np.linspace(-8, 8, 2001)
        weight = norm.pdf(z) / norm.pdf(z).sum()
        t = np.linspace(0, 1.0, 501)
        exact = []
        for x in (images.flatten(1) @ unit).double().numpy():
            points = (x - t)[:, None] + sigma * z
            l_hat = np.minimum(np.logaddexp(0, -slope * points), ceiling) @ weight
            exact.append((l_hat - gamma * t**2).max())
        loss = clipped_cross_entropy(ceiling)
        bound = outside_bound(model, loss, batches(images, LABELS[:4]), [gamma, 0.2], GaussianNoise(sigma), seed=0,
                              alpha=0.05, search=Search(steps=20, draws=128, check=2048))
        found = bound.surrogates[0]
        assert found.label == "certificate"
        assert found.estimate == pytest.approx(float(np.mean(exact)), abs=0.01)
        population = ceiling * math.sqrt(math.log(2 * 2 / 0.05) / (2 * 4))
        assert np.mean(exact) + population <= found.value or found.value == ceiling
        several = outside_bound(model, loss, batches(images.repeat(20, 1, 1, 1), LABELS[:4].repeat(20), 50), gamma,
                                GaussianNoise(sigma), seed=0, alpha=0.05, search=Search(steps=6, draws=64, check=1000))
        found = several.surrogates[0]
        assert np.mean(exact) + math.sqrt(math.log(2 / 0.05) / 160) <= found.value < ceiling
        assert several.certificate(0.01).label == "certificate"
        assert bound.at(0.0).value <= bound.certificate(0.0).value

    def test_an_inside_certificate_pays_for_what_the_ascent_left(self):
        """Quadratic with smoothness a: stopped early, the estimate is too low, and the residual makes up for it."""
        capped = PointLoss("quadratic", QUADRATIC.values, ceiling=50.0)
        far = float((flat(IMAGES) - B).square().sum(dim=1).mean())
        exact = A * 0.5 * far / (1.0 - A)
        bound = inside_bound(flat, capped, batches(), 0.5, seed=0, smoothness=A, search=Search(steps=1), alpha=0.5)
        found = bound.surrogates[0]
        assert found.estimate < 0.9 * exact
        assert found.label == "certificate"
        assert found.value == pytest.approx(exact + 50 * math.sqrt(math.log(2) / 12), rel=1e-9)
        assert found.solved < 1

    def test_the_certificate_lies_above_the_worst_case_found(self):
        loss, noise, x = clipped_cross_entropy(1.5), GaussianNoise(0.5), IMAGES.float()
        y = torch.arange(6) % 3
        closed = certify_losses(classifier(), loss, batches(x, y), noise, 2000, alpha=0.05, seed=0)
        curve = worst_case(classifier(), loss, batches(x, y), [4.0, 1.0, 0.25], 0.5, seed=0)
        assert (np.diff(curve.rho) > 0).all()
        assert (np.diff(curve.loss) > 0).all()
        assert all(closed.at(rho).sample >= found for rho, found in zip(curve.rho, curve.loss, strict=True))

    def test_randomness_is_the_seeds_and_the_model_is_unchanged(self):
        model, state = classifier(), torch.get_rng_state()
        noise, search = GaussianNoise(0.5), Search(steps=5, check=50)
        first, again, other = (outside_bound(model, cross_entropy, batches(IMAGES.float()), 1.0, noise, seed=seed,
                                             search=search) for seed in (0, 0, 1))
        assert first == again != other
        assert torch.equal(state, torch.get_rng_state())
        assert all(p.requires_grad and p.grad is None for p in model.parameters())


class TestBadInput:
    CERTIFICATE = certificate_from_limits([0.1], 0.5, 1.0, 0.05)

    @pytest.mark.parametrize("rho", [-0.1, math.nan, math.inf, "1", None])
    def test_rho(self, rho):
        with pytest.raises(InputError, match="rho"):
            self.CERTIFICATE.at(rho)
        with pytest.raises(InputError, match="rho"):
            eps_of_rho(rho)

    @pytest.mark.parametrize("gamma", [0, -1.0, math.nan, math.inf, "1", []])
    def test_gamma(self, gamma):
        for ask in (lambda: self.CERTIFICATE.value(0.1, gamma),
                    lambda: inside_bound(flat, cross_entropy, batches(), gamma, seed=0),
                    lambda: outside_bound(flat, cross_entropy, batches(), gamma, GaussianNoise(0.5), seed=0),
                    lambda: worst_case(flat, cross_entropy, batches(), gamma, None, seed=0),
                    lambda: eps_equivalent(flat, batches(), gamma, None, seed=0)):
            with pytest.raises(InputError, match=r"gamma|at least one"):
                ask()

    def test_a_certificate_of_an_unbounded_loss_explains_clipping(self):
        for ask in (lambda: certify_losses(flat, cross_entropy, batches(), GaussianNoise(0.5), 10, alpha=0.1, seed=0),
                    lambda: certificate_from_limits([0.1], 0.5, math.inf, 0.1),
                    lambda: outside_bound(flat, cross_entropy, batches(), 1e4, GaussianNoise(0.5), seed=0,
                                          search=Search(steps=1, check=2)).certificate(0.1)):
            with pytest.raises(InputError, match="clip it"):
                ask()

    def test_a_certificate_where_the_bracket_may_not_be_concave(self):
        bound = outside_bound(flat, clipped_cross_entropy(2.0), batches(), 1.5, GaussianNoise(0.1), seed=0,
                              search=Search(steps=1, check=2))
        with pytest.raises(InputError, match=r"not above phi\(1\) M / sigma\^2 = 48"):
            bound.certificate(0.1)

    @pytest.mark.parametrize(("ask", "words"), [
        (lambda: certificate_from_counts([], 10, 0.5, 0.1), "at least one image"),
        (lambda: certificate_from_counts([11], 10, 0.5, 0.1), "k must lie"),
        (lambda: certificate_from_counts([1], 10, 0, 0.1), "sigma"),
        (lambda: certificate_from_counts([1], 10, 0.5, 1.0), "alpha"),
        (lambda: certificate_from_limits([1.2], 0.5, 1.0, 0.1), r"\[0, 1.0\]"),
        (lambda: certificate_from_limits([math.nan], 0.5, 1.0, 0.1), r"\[0, 1.0\]"),
        (lambda: clipped_cross_entropy(0), "ceiling"),
        (lambda: Search(steps=0), "steps"), (lambda: Search(draws=0), "draws"), (lambda: Search(check=0), "check"),
        (lambda: Search(tolerance=0), "tolerance"),
        (lambda: inside_bound(flat, cross_entropy, [], 1.0, seed=0), "no images"),
        (lambda: certify_losses(flat, zero_one, [], GaussianNoise(0.5), 10, alpha=0.1, seed=0), "no images"),
        (lambda: certify_losses(flat, zero_one, batches(), GaussianNoise(0.5), 0, alpha=0.1, seed=0), "n must"),
        (lambda: inside_bound(flat, zero_one, batches(), 1.0, seed=0), "no gradient to ascend"),
        (lambda: inside_bound(flat, cross_entropy, batches(), 1.0, seed=-1), "seed"),
        (lambda: inside_bound(flat, cross_entropy, batches(), 1.0, seed=0, alpha=0), "alpha"),
        (lambda: inside_bound(flat, cross_entropy, batches(), 1.0, seed=0, smoothness=0), "smoothness"),
        (lambda: eps_equivalent(flat, batches(), 1.0, 0.0, seed=0), "sigma"),
        (lambda: eps_equivalent(flat, batches(), 1.0, 0.1, seed=0, steps=0), "steps"),
        (lambda: rho_of_eps(-1), "eps"),
        (lambda: sample_losses(flat, PointLoss("off", lambda x, y: x[:, 0] + 9, 1.0), IMAGES, LABELS,
                               GaussianNoise(0.5), 4, seed=0), "must lie in"),
    ])
    def test_the_rest(self, ask, words):
        with pytest.raises(InputError, match=words):
            ask()

    def test_bounds_that_do_not_belong_side_by_side(self):
        inside = inside_bound(flat, cross_entropy, batches(), 1.0, seed=0)
        with pytest.raises(InputError, match="side_by_side takes"):
            side_by_side(inside, inside)

    def test_networks_that_cannot_be_judged(self):
        training = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten())
        broken = nn.Sequential(nn.Flatten(), nn.Linear(D, 2)).eval()
        with torch.no_grad():
            broken[1].bias[:] = math.nan
        noise, x = GaussianNoise(0.5), IMAGES.float()
        for model, words in ((training, "train mode"), (broken, "NaN|not finite")):
            for ask in (lambda m: certify_losses(m, zero_one, batches(x), noise, 4, alpha=0.1, seed=0),
                        lambda m: outside_bound(m, cross_entropy, batches(x), 1.0, noise, seed=0)):
                if model is broken and ask.__code__.co_consts and "zero" in str(ask.__code__.co_names):
                    continue  # an argmax of NaN is a class like any other
                with pytest.raises(ModelError, match=words):
                    ask(model)
