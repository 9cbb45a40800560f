"""Distributional robustness against closed forms, brute force, and the laws that the confidence limits promise."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.stats import binom, norm
from torch import Tensor, nn
from torch.nn import functional

from smoothcert import SmoothedClassifier
from smoothcert.attacks import Ascent, attack_images
from smoothcert.distributional import (
    PointLoss,
    Search,
    certificate_from_counts,
    certificate_from_limits,
    certify_losses,
    clipped_cross_entropy,
    concavity_threshold,
    cross_entropy,
    eps_equivalent,
    eps_of_rho,
    errors_of,
    inside_bound,
    outside_bound,
    rho_of_eps,
    sample_losses,
    side_by_side,
    smoothness,
    surrogate,
    worst_case,
    zero_one,
)
from smoothcert.distributional.concavity import gradient_error, inside_standing, outside_standing
from smoothcert.distributional.limits import bernstein_limit, hoeffding_limit, upper_mean
from smoothcert.errors import InputError, ModelError
from smoothcert.noise import GaussianNoise, GridNoise
from smoothcert.stats import ClassCounts

D = 4
W = torch.tensor([0.5, -1.0, 0.25, 0.75], dtype=torch.float64)
IMAGES = torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LABELS = torch.zeros(6, dtype=torch.long)
EXACT = Search(steps=200, draws=2, tolerance=1e-16, check=2)


def flat(images: Tensor) -> Tensor:
    return images.flatten(1)


def batches(images: Tensor = IMAGES, labels: Tensor = LABELS, size: int = 4):
    return zip(images.split(size), labels.split(size), strict=True)


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

    for module in ("distributional.search", "distributional.curves", "attacks.ascent"):
        monkeypatch.setattr(f"smoothcert.{module}.draw_noise", balanced)


class TestSmoothness:
    @pytest.mark.parametrize(("ceiling", "sigma"), [(1.0, 1.0), (2.3, 0.25)])
    def test_the_constant_is_attained_and_decides_on_concavity(self, ceiling, sigma):
        """l = M 1[|u| > sigma]: the second derivative of l_hat at 0, by quadrature; gamma 1 % above and below."""
        z = np.linspace(-9, 9, 180_001)

        def l_hat(x: float) -> float:
            return float(ceiling * np.sum((np.abs(x + sigma * z) > sigma) * norm.pdf(z)) * (z[1] - z[0]))

        h = 0.1 * sigma
        second = (l_hat(h) - 2 * l_hat(0) + l_hat(-h)) / h**2
        assert second == pytest.approx(smoothness(ceiling, sigma), rel=0.01)
        assert smoothness(ceiling, sigma) == pytest.approx(0.48394 * ceiling / sigma**2, rel=1e-4)
        threshold = concavity_threshold(ceiling, sigma)
        exact = 2 * norm.pdf(1) * ceiling / sigma**2
        assert exact - 2 * 1.01 * threshold < 0 < exact - 2 * 0.99 * threshold
        assert outside_standing(1.01 * threshold, sigma, ceiling).label == "certificate"
        assert outside_standing(0.99 * threshold, sigma, ceiling).label == "estimate"

    def test_no_bounded_loss_is_less_smooth(self):
        """Second derivatives of l_hat for random steps between 0 and 1."""
        rng, z = np.random.default_rng(0), np.linspace(-8, 8, 4001)
        weight = norm.pdf(z) * (z**2 - 1) * (z[1] - z[0])
        for _ in range(200):
            edges = np.sort(rng.normal(size=rng.integers(1, 6)))
            values = rng.random(len(edges) + 1)[np.searchsorted(edges, z)]
            assert abs(values @ weight) <= smoothness(1.0, 1.0)

    @pytest.mark.parametrize(("sigma", "gammas"), [(0.05, (0.25, 1.5, 3)), (0.1, (0.25, 1.5, 5))])
    def test_the_paper_s_settings_are_estimates(self, sigma, gammas):
        for gamma in gammas:
            for ceiling in (None, 1.0, math.log(10)):
                assert outside_standing(gamma, sigma, ceiling).label == "estimate"
            assert inside_standing(gamma, 1.0, None).label == "estimate"

    def test_the_label_of_a_bound_follows(self):
        loss, threshold = clipped_cross_entropy(1.0), concavity_threshold(1.0, 0.5)
        bound = outside_bound(flat, loss, batches(), [0.99 * threshold, 1.01 * threshold], GaussianNoise(0.5), seed=0,
                              search=Search(steps=3, check=16))
        assert [s.label for s in bound.surrogates] == ["estimate", "certificate"]
        assert "not above" in bound.surrogates[0].reason
        assert bound.surrogates[1].reason == ""
        labels = [s.label for s in inside_bound(flat, loss, batches(), [0.4, 0.6], smoothness=1.0, seed=0).surrogates]
        assert labels == ["estimate", "certificate"]


class TestSurrogate:
    def test_it_is_the_supremum_and_never_below(self):
        rng = np.random.default_rng(0)
        u = np.concatenate([10.0 ** rng.uniform(-14, 0, 12), rng.random(6), [1.0]])
        for kappa in [*10.0 ** rng.uniform(-3, 3, 40), 0.12, 0.1209, 0.121, 0.122]:
            t = np.linspace(0, min(0.2 / kappa + 1e-9, kappa**-0.5), 8001)[:, None]
            brute = (norm.cdf(norm.ppf(u) + t) - kappa * t**2).max(axis=0)
            found = surrogate(u, kappa, 1.0)
            assert (found >= brute).all()
            assert (found <= brute + 1e-6).all()

    def test_it_scales_with_the_ceiling_and_sigma(self):
        u = np.array([0.02, 0.3, 0.9])
        assert np.allclose(surrogate(2.5 * u, 3.0, 0.2, 2.5), 2.5 * surrogate(u, 3.0 * 0.04 / 2.5, 1.0), rtol=1e-12)

    def test_it_falls_with_gamma_and_grows_with_the_limit(self):
        u, gammas = np.linspace(0, 1, 101), 10.0 ** np.linspace(-4, 3, 40)
        table = np.array([surrogate(u, gamma, 0.7) for gamma in gammas])
        assert (np.diff(table, axis=0) <= 1e-12).all()
        assert (np.diff(table, axis=1) >= -1e-12).all()
        assert (table[:, 0] == 0).all()
        assert (table[:, -1] == 1).all()
        assert np.allclose(table[-1], u, atol=1e-4)


class TestLimits:
    @pytest.mark.parametrize("n", [1, 2, 5, 60])
    @pytest.mark.parametrize("alpha", [0.2, 0.01])
    def test_coverage_of_coins_is_exact(self, n, alpha):
        """P(limit < p) <= alpha, summed over all outcomes, for every p of a grid."""
        k = np.arange(n + 1)
        variance = k * (n - k) / (n * max(n - 1, 1))
        for limit in (hoeffding_limit(k / n, n, alpha), bernstein_limit(k / n, variance, n, alpha),
                      upper_mean(k / n, variance, n, alpha)):
            assert (limit >= k / n).all()
            for p in np.linspace(0.003, 0.997, 60):
                assert binom.pmf(k, n, p) @ (limit < p) <= alpha * (1 + 1e-9)

    def test_each_is_tight_where_it_should_be(self):
        assert hoeffding_limit(0.0, 1000, 0.05) == pytest.approx(1 - 0.05 ** (1 / 1000), rel=1e-9)
        assert hoeffding_limit(0.5, 1000, 0.05) <= 0.5 + math.sqrt(math.log(20) / 2000)
        assert bernstein_limit(0.5, 0.0, 10**5, 0.05) < 0.501 < hoeffding_limit(0.5, 10**5, 0.05)
        assert hoeffding_limit(1.0, 10, 0.05) == 1

    def test_the_gradient_s_error_is_within_its_limit(self):
        """l = 1[<w, x + z> > 0] at distance a from its plane: grad l_hat = phi(a / sigma) / sigma along w."""
        model = nn.Sequential(nn.Flatten(), nn.Linear(D, 2)).eval()
        with torch.no_grad():
            model[1].weight[:] = torch.stack([torch.zeros(D), W.float()])
            model[1].bias.zero_()
        sigma, n, x = 0.5, 400, torch.full((40, 1, 2, 2), 0.2)
        found = sample_losses(model, zero_one, x, torch.zeros(40, dtype=torch.long), GaussianNoise(sigma), n, seed=3,
                              keys=range(40), gradient=True)
        unit = (W / W.norm()).numpy()
        exact = norm.pdf(0.2 * unit.sum() / sigma) / sigma * unit
        errors = np.linalg.norm(found.gradient - exact, axis=1)
        assert (errors <= gradient_error(D, n, 1.0, sigma, 0.05)).mean() >= 0.9
        assert errors.mean() > 0.1 * gradient_error(D, n, 1.0, sigma, 0.05)
        assert np.linalg.norm(found.gradient.mean(axis=0) - exact) < errors.mean() / 3


MU, TAU, SIGMA = 0.5, 0.4, 0.5


def truth(rho: float) -> tuple[float, float]:
    """The worst expected error over the ball, and its gamma: margins N(MU, TAU^2), l_hat = Phi(-margin / SIGMA).

    By duality it is min over gamma of gamma rho + E sup_t [ Phi((t - margin) / SIGMA) - gamma t^2 ]: here on a grid.
    """
    nodes = MU + TAU * np.linspace(-7, 7, 201)
    weights = norm.pdf(np.linspace(-7, 7, 201))
    t = np.linspace(0, 3, 601)[:, None]
    errors = norm.cdf((t - nodes) / SIGMA)
    values = {gamma: gamma * rho + float((errors - gamma * t**2).max(axis=0) @ weights / weights.sum())
              for gamma in 10.0 ** np.linspace(-1.3, 0.6, 50)}
    best = min(values, key=values.__getitem__)
    return values[best], best


def linear_errors(rng: np.random.Generator, m: int, n: int) -> np.ndarray:
    return rng.binomial(n, norm.cdf(-(MU + TAU * rng.normal(size=m)) / SIGMA))


class TestClosedCertificate:
    def test_it_holds_as_often_as_it_says(self):
        """500 data sets from a known law; the least of several gammas, which the level covers."""
        rng, rho, alpha, m, n = np.random.default_rng(0), 0.1, 0.1, 100, 100
        worst, best = truth(rho)
        held, naive = 0, 0
        for _ in range(500):
            errors = linear_errors(rng, m, n)
            certificate = certificate_from_counts(errors, n, SIGMA, alpha)
            held += min(certificate.value(rho, best * f) for f in (1.0, 1.25)) >= worst
            naive += float(np.mean(surrogate(errors / n, best, SIGMA))) + best * rho >= worst
        assert held >= binom.ppf(0.001, 500, 1 - alpha)
        assert naive < binom.ppf(0.001, 500, 1 - alpha)  # without confidence limits it would not

    @pytest.mark.parametrize("rho", [0.01, 0.1, 0.4])
    def test_it_is_near_the_truth_for_many_images_and_copies(self, rho):
        worst, best = truth(rho)
        found = certificate_from_counts(linear_errors(np.random.default_rng(1), 20_000, 10**5), 10**5, SIGMA, 0.05)
        at = found.at(rho)
        assert worst <= at.value <= 1.1 * worst
        assert at.sample <= at.value
        assert at.label == "certificate"
        assert at.gamma == pytest.approx(best, rel=0.1)

    def test_the_gamma_is_the_best_of_all(self):
        certificate = certificate_from_counts(linear_errors(np.random.default_rng(2), 300, 1000), 1000, SIGMA, 0.01)
        for rho in (1e-6, 0.01, 0.3, 5.0):
            grid = min(certificate.value(rho, gamma) for gamma in 10.0 ** np.linspace(-3, 3, 60))
            assert certificate.at(rho).value <= grid + 1e-6

    def test_at_no_distance_it_is_the_mean_and_it_never_passes_the_ceiling(self):
        limits = np.array([0.1, 0.4, 2.0])
        certificate = certificate_from_limits(limits, 0.5, 2.0, 0.05)
        at = certificate.at(0.0)
        assert at.sample == pytest.approx(2.5 / 3, rel=1e-9)
        assert at.sample >= 2.5 / 3
        assert certificate.at(1e6).value == certificate.at(1e6).sample == 2.0
        many = certificate_from_limits(np.repeat(limits, 10_000), 0.5, 2.0, 0.05)
        values = [many.at(rho).value for rho in (0.0, 1e-8, 1e-3, 0.1, 1.0)]
        assert values == sorted(values)
        assert many.sampling_error == pytest.approx(2 * math.sqrt(math.log(40) / 60_000))
        assert values[0] == pytest.approx(2.5 / 3 + many.sampling_error, rel=1e-9)

    def test_counts_are_read_as_errors(self):
        counts = ClassCounts([[90, 7, 3], [10, 80, 10]])
        errors, n = errors_of(counts, [0, 2])
        assert errors.tolist() == [10, 90]
        assert n.tolist() == [100, 100]
        for labels in ([0], [0, 3], [0, -1], [0.0, 1.0]):
            with pytest.raises(InputError, match="labels must name one of 3 classes"):
                errors_of(counts, labels)

    def test_the_statistics_need_no_torch(self):
        code = ("import sys; from smoothcert.distributional import certificate_from_counts as c; "
                "print(c([1, 2], 100, .5, .1).at(.1).label, 'torch' in sys.modules)")
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["certificate", "False"]


def classifier(seed: int = 0, classes: int = 3) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(D, 8), nn.ELU(), nn.Linear(8, classes)).eval()


class TestSampling:
    def test_errors_are_those_that_certification_counts(self):
        model, x, y = classifier(), (IMAGES * 255).round().float() / 255, torch.arange(6) % 3
        g = SmoothedClassifier(model, 0.5, 3, seed=11)
        counts = ClassCounts([c.looks[-1].tolist() for c in g.certify(x, n0=10, n=500, index=range(6))])
        errors, _ = errors_of(counts, y.numpy())
        found = sample_losses(model, zero_one, x, y, GridNoise(0.5), 500, seed=11, keys=range(6))
        assert np.rint(found.mean * 500).astype(int).tolist() == errors.tolist()
        by_losses = certify_losses(model, zero_one, batches(x, y), GridNoise(0.5), 500, alpha=0.01, seed=11)
        assert by_losses.ceiling == 1.0
        hashed = sample_losses(model, zero_one, x, y, GridNoise(0.5), 500, seed=11)
        limits = certificate_from_counts(np.rint(hashed.mean * 500).astype(int), 500, 0.5, 0.01).limits
        assert np.allclose(by_losses.limits, limits, rtol=1e-12)

    def test_moments_by_hand_whatever_the_rows(self):
        model, x, loss = classifier(), IMAGES.float(), clipped_cross_entropy(1.2)
        seen = []
        spy = PointLoss("spy", lambda logits, labels: (seen.append(v := loss.values(logits, labels)), v)[1], 1.2)
        found = sample_losses(model, spy, x[:1], LABELS[:1], GaussianNoise(0.5), 100, seed=0, rows=30)
        values = torch.cat(seen).double().numpy() / 1.2
        assert [len(v) for v in seen] == [30, 30, 30, 10]
        assert found.mean[0] == pytest.approx(values.mean())
        assert found.variance[0] == pytest.approx(values.var(ddof=1))
        other = sample_losses(model, loss, x, LABELS, GaussianNoise(0.5), 100, seed=0)
        assert other.mean[0] == pytest.approx(found.mean[0])

    def test_the_certificate_of_a_clipped_loss_is_above_its_mean(self):
        loss = clipped_cross_entropy(1.2)
        model, noise, x = classifier(), GaussianNoise(0.5), IMAGES.float()
        certificate = certify_losses(model, loss, batches(x), noise, 2000, alpha=0.05, seed=0)
        more = sample_losses(model, loss, x, LABELS, noise, 20_000, seed=1)
        assert (certificate.limits >= 1.2 * more.mean).all()
        assert (certificate.limits <= 1.2 * more.mean + 0.15).all()
        assert certificate.images == 6


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

    def test_an_outside_certificate_is_above_the_supremum_and_its_estimate_near_it(self):
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

    def test_randomness_is_the_seed_s_alone_and_the_model_is_left_as_it_was(self):
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
