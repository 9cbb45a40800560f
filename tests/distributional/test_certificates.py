"""The closed certificate: its constants, limits and sampling, and that it holds."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.stats import binom, norm
from torch import nn

from robust_losses import IMAGES, LABELS, D, W, batches, classifier, flat
from smoothcert import SmoothedClassifier
from smoothcert.distributional import (
    PointLoss,
    Search,
    certificate_from_counts,
    certificate_from_limits,
    certify_losses,
    clipped_cross_entropy,
    concavity_threshold,
    errors_of,
    inside_bound,
    outside_bound,
    sample_losses,
    smoothness,
    surrogate,
    zero_one,
)
from smoothcert.distributional.concavity import gradient_error, inside_standing, outside_standing
from smoothcert.errors import InputError
from smoothcert.noise import GaussianNoise, GridNoise
from smoothcert.stats import ClassCounts
from smoothcert.stats.means import bernstein_limit, hoeffding_limit, upper_mean


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

    def test_it_is_the_mean_at_no_distance_and_at_most_the_ceiling(self):
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
