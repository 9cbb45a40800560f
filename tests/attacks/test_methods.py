"""PGD, DDN, Stein and DeepFool against closed forms, and against Foolbox."""

import math
import sys
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from attack_problems import MIDDLE, ZERO, W, generator, linear, random
from smoothcert.attacks import (
    DDN,
    PGD,
    Stein,
    attack_images,
    build_attack,
    deepfool,
    l2_norms,
    stein_gradient,
)
from smoothcert.errors import MissingExtraError, ModelError
from smoothcert.smoothing.soft import (
    draw_noise,
    noisy_logits,
)


class TestClosedForms:
    @pytest.mark.parametrize("steps", [1, 2, 7])
    @pytest.mark.parametrize("surrogate", ["smoothed", "wrong"])
    def test_pgd_on_a_linear_model_ends_at_the_far_point_of_the_ball(self, steps, surrogate):
        noise = draw_noise(MIDDLE, 5, 0.5, generator())
        found = attack_images(PGD(0.3, steps, surrogate=surrogate), linear(W), MIDDLE, ZERO, noise,
                              generator=generator())
        assert torch.allclose(found - MIDDLE, -0.3 * W / W.norm(), atol=1e-5)
        found = attack_images(PGD(0.3, steps, surrogate=surrogate, norm="linf"), linear(W), MIDDLE, ZERO, noise,
                              generator=generator())
        assert torch.allclose(found - MIDDLE, -0.3 * W.sign(), atol=1e-5)

    def test_pgd_changes_a_linear_classifier_outside_its_radius_only(self):
        """g = sign(s) with radius |s| / ||w||: the theorem, met from both sides."""
        model = linear(W, -float(W.sum()) / 2)
        x = 0.3 + 0.4 * random(64, 1, 3, 3)
        labels = model(x).argmax(dim=1)
        radius = (model(x)[:, 0].abs() / W.norm()).double()
        keep = (radius > 0.01) & (radius < 0.25)  # the box, and rounding, stay out of the way
        x, labels, radius = x[keep], labels[keep], radius[keep]
        assert len(x) > 8
        for times, changed in ((0.999, False), (1.001, True)):
            found = attack_images(PGD(1.0, 10), model, x, labels, draw_noise(x, 4, 0.3, generator()),
                                  eps=times * radius, generator=generator())
            assert ((model(found).argmax(dim=1) != labels) == changed).all()

    def test_the_step_of_pgd_is_two_eps_over_steps(self):
        seen = []

        def model(images):
            seen.append(images)
            return linear(W)(images)

        attack_images(PGD(0.4, 8), model, MIDDLE, ZERO, generator=generator())
        lengths = [float((x - MIDDLE).norm().detach()) for x in seen]
        assert np.allclose(lengths, [0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4], atol=1e-5)
        seen.clear()
        attack_images(PGD(0.4, 3, step_size=0.05), model, MIDDLE, ZERO, generator=generator())
        assert np.allclose([float((x - MIDDLE).norm().detach()) for x in seen], [0, 0.05, 0.1], atol=1e-5)

    def test_ddn_finds_the_distance_to_a_linear_boundary(self):
        model = linear(W, -float(W.sum()) / 2 + 0.5)  # s = .5 at the middle
        exact = 0.5 / float(W.norm())
        rule = DDN(eps=math.inf, steps=100, initial_norm=0.5)
        found = attack_images(rule, model, MIDDLE, ZERO, generator=generator())
        assert model(found).argmax(dim=1) == 1
        assert 1 <= float((found - MIDDLE).norm()) / exact < 1.06  # it moves in steps of 5%
        found = attack_images(DDN(eps=0.9 * exact, steps=100), model, MIDDLE, ZERO, generator=generator())
        assert model(found).argmax(dim=1) == 0
        assert float((found - MIDDLE).norm()) == pytest.approx(0.9 * exact, rel=1e-4)

    def test_ddn_with_one_step_tests_the_last_iterate(self):
        """The only iterate besides 0 is the last one: adversarial, it is found; not adversarial, it is the fallback."""
        near, far = linear(W, -float(W.sum()) / 2 + 0.01), linear(W, 100.0)
        for model, rule, size in (
            (near, DDN(0.5, 1, gamma=0.1), 0.5),
            (near, DDN(0.5, 1, gamma=0.1, zero_on_failure=True), 0.5),
            (far, DDN(0.5, 1, gamma=0.1), 0.5),
            (far, DDN(0.5, 1, gamma=0.1, zero_on_failure=True), 0.0),
            (far, DDN(2.0, 1, gamma=0.1, initial_norm=0.2), 0.22),
            (far, DDN(2.0, 2, gamma=0.1, initial_norm=0.2), 0.242),
            (linear(W, -100.0), DDN(0.5, 5), 0.0),
        ):
            found = attack_images(rule, model, MIDDLE, ZERO, generator=generator())
            assert float((found - MIDDLE).norm()) == pytest.approx(size, abs=1e-4), rule

    def test_the_test_gamma_of_ddn_can_shrink_eps_to_its_end(self):
        gamma = DDN(0.5, 20, gamma=None)._gamma(torch.tensor([0.5, 2.0], dtype=torch.float64))
        assert torch.allclose(torch.tensor([0.5, 2.0]).double() * (1 - gamma) ** 20,
                              torch.tensor([1.5 / 255, 1.5 / 255]).double())

    def test_ddn_judges_by_the_vote_over_the_noisy_copies(self):
        """Copies at +1, -.2 and -.2 of the boundary: the mean is right and the vote wrong, so delta = 0 is enough."""
        model = linear(torch.tensor([1.0, 0.0, 0.0, 0.0]), -0.5)
        x = torch.full((1, 1, 2, 2), 0.5)
        noise = torch.zeros(1, 3, 1, 2, 2)
        noise[0, :, 0, 0, 0] = torch.tensor([1.0, -0.2, -0.2])
        assert torch.equal(attack_images(DDN(0.5, 5), model, x, ZERO, noise, generator=generator()), x)
        noise[0, :, 0, 0, 0] = torch.tensor([-1.0, 0.2, 0.2])
        found = attack_images(DDN(0.5, 30), model, x, ZERO, noise, generator=generator())
        assert 0.2 <= float((found - x).norm()) < 0.22

    @pytest.mark.parametrize("rule", [PGD(0.3, 5), DDN(0.3, 5), Stein(0.3, 10), Stein(0.3, 10, hard=True, sigma=0.3)])
    def test_a_targeted_attack_moves_towards_its_class(self, rule):
        centres = torch.tensor([[0.2, 0.2], [0.8, 0.2], [0.2, 0.8]])

        def model(images):
            return -8 * ((images.flatten(1)[:, None] - centres) ** 2).sum(dim=2)

        x = torch.full((2, 1, 1, 2), 0.25)
        target = torch.tensor([1, 2])
        noise = draw_noise(x, 200, 0.3, generator())
        found = attack_images(rule, model, x, target, noise, targeted=True, generator=generator())
        before, after = (noisy_logits(model, z, noise).softmax(-1).mean(1)[[0, 1], target] for z in (x, found))
        assert (after > before + 0.02).all()


class TestStein:
    NODES, MASS = np.polynomial.hermite_e.hermegauss(40)

    @pytest.mark.parametrize("m", [1, 2, 3])
    def test_the_estimate_is_unbiased_by_quadrature(self, m):
        """f(x) = x^2 + x: grad E f(x + e) = 2 x + 1. Every m-tuple of few nodes is a row, weighted: no sampling."""
        sigma, x = 0.5, 0.3
        nodes, mass = np.polynomial.hermite_e.hermegauss(5)
        noise = torch.tensor(list(product(sigma * nodes, repeat=m))).view(-1, m, 1)
        weights = torch.tensor(list(product(mass / mass.sum(), repeat=m))).prod(dim=1)
        values = ((x + noise) ** 2 + x + noise)[..., 0]
        expected = weights @ stein_gradient(values, noise, sigma)
        assert float(expected) == pytest.approx(2 * x + 1, rel=1e-9)

    def test_the_baseline_lowers_the_variance(self):
        noise = torch.randn(4000, 4, 3, generator=generator(), dtype=torch.float64)
        values = 5 + noise[..., 0]
        plain = torch.einsum("bm,bmd->bd", values, noise) / 4
        ours = stein_gradient(values, noise, 1.0)
        assert torch.allclose(ours.mean(0), torch.tensor([1.0, 0, 0]).double(), atol=0.05)
        assert ours.var(0).sum() < plain.var(0).sum() / 5

    def test_on_a_linear_softmax_model_it_is_unbiased(self):
        """G(x) = E sigmoid(x + e): its derivative to quadrature, the estimate averaged over weighted pairs of nodes."""
        sigma, x = 0.8, -0.4
        e, p = sigma * self.NODES, self.MASS / self.MASS.sum()
        f = 1 / (1 + np.exp(-(x + e)))
        exact = float((p * f * (1 - f)).sum())
        noise = torch.tensor(list(product(e, repeat=2))).view(-1, 2, 1)
        values = 1 / (1 + torch.exp(-(x + noise[..., 0])))
        weights = torch.tensor(list(product(p, repeat=2))).prod(dim=1)
        assert float(weights @ stein_gradient(values, noise, sigma)) == pytest.approx(exact, rel=1e-6)

    @pytest.mark.parametrize("hard", [False, True])
    @pytest.mark.parametrize("sigma", [None, 0.5])
    def test_it_lowers_the_class_of_a_model_that_has_no_gradient(self, hard, sigma):
        w = np.array([3.0, -1.0, 2.0, 1.0], dtype=np.float32)

        def answers(images):
            s = images.flatten(1).numpy() @ w - 2.0
            return np.stack([s, -s], axis=1)

        x, labels = torch.full((3, 1, 2, 2), 0.5), torch.zeros(3, dtype=torch.long)
        noise = draw_noise(x, 300, 0.5, generator())
        found = attack_images(Stein(0.3, 20, hard=hard, sigma=sigma), answers, x, labels, noise, generator=generator())
        moved = (found - x).flatten(1) @ torch.from_numpy(w)
        assert (moved < -0.8 * 0.3 * np.linalg.norm(w)).all()
        with pytest.raises(ModelError, match="stein"):
            attack_images(PGD(0.3, 2), lambda y: answers(y.detach()), x, labels, noise, generator=generator())

    def test_fresh_noise_leaves_the_span_of_the_given_draws(self):
        x = torch.full((1, 1, 4, 4), 0.5)
        w = torch.ones(16)
        noise = draw_noise(x, 2, 0.5, generator())
        for sigma, inside in ((None, True), (0.5, False)):
            found = attack_images(Stein(0.1, 8, sigma=sigma), linear(w, -8.0), x, ZERO, noise, generator=generator(1))
            basis = noise[0].flatten(1).T
            delta = (found - x).flatten()
            rest = delta - basis @ torch.linalg.lstsq(basis, delta[:, None]).solution[:, 0]
            assert (float(rest.norm()) < 1e-4) == inside


class TestAgainstFoolbox:
    @pytest.fixture(scope="class")
    @classmethod
    def trained(cls):
        """An undefended network on digits, and test images that it gets right."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.from_numpy((digits.images / 16).astype(np.float32)).unsqueeze(1)
        labels = torch.from_numpy(digits.target)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        for _ in range(150):
            loss = nn.functional.cross_entropy(net(images[:1500]), labels[:1500])
            gradients = torch.autograd.grad(loss, list(net.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(net.parameters(), gradients, strict=True):
                    parameter -= 0.5 * gradient
        net.eval()
        x, y = images[1500:1600], labels[1500:1600]
        right = net(x).argmax(1) == y
        assert right.float().mean() > 0.85
        return net, x[right], y[right]

    def test_ddn_is_as_close(self, trained):
        fb = pytest.importorskip("foolbox")
        net, x, y = trained
        ours = attack_images(DDN(math.inf, 50, initial_norm=1.0), net, x, y, generator=generator())
        assert (net(ours).argmax(1) != y).all()
        _, theirs, fooled = fb.attacks.DDNAttack(steps=50)(fb.PyTorchModel(net, (0, 1), device="cpu"), x, y,
                                                           epsilons=None)
        assert fooled.all()
        assert l2_norms(ours - x).median() <= 1.02 * l2_norms(theirs - x).median()

    def test_pgd_needs_no_larger_a_ball(self, trained):
        fb = pytest.importorskip("foolbox")
        net, x, y = trained
        grid = np.geomspace(0.3, 1.5, 12)
        rule = fb.attacks.L2ProjectedGradientDescentAttack(rel_stepsize=0.1, steps=20, random_start=False)
        _, _, fooled = rule(fb.PyTorchModel(net, (0, 1), device="cpu"), x, y, epsilons=list(grid))
        found = torch.stack([net(attack_images(PGD(e, 20), net, x, y,
                                               generator=generator())).argmax(1) != y for e in grid])
        least = [np.where(a.any(0), grid[a.float().argmax(0)], np.inf) for a in (found, fooled)]
        assert grid[0] < np.median(least[0]) <= 1.02 * np.median(least[1]) < np.inf

    def test_deepfool_is_exact_on_a_linear_model(self, trained, recwarn):
        pytest.importorskip("foolbox")
        model = linear(W, -float(W.sum()) / 2 + 0.5)
        found, fooled = deepfool(model, MIDDLE, ZERO)
        assert fooled.all()
        assert float((found - MIDDLE).norm()) == pytest.approx(1.02 * 0.5 / float(W.norm()), rel=1e-3)
        net, x, y = trained
        net.train()
        found, fooled = deepfool(net, x, y)
        assert net.training
        assert not [w for w in recwarn if "training mode" in str(w.message)]
        assert torch.equal(fooled, net(found).argmax(1) != y)
        assert fooled.float().mean() > 0.95
        assert found.min() >= 0
        assert found.max() <= 1

    def test_deepfool_as_an_attack_stays_within_eps(self, trained):
        pytest.importorskip("foolbox")
        net, x, y = trained
        net.eval()
        whole, _ = deepfool(net, x, y)
        norms = (whole - x).flatten(1).norm(dim=1)
        middle = float(norms.median())
        found = attack_images(build_attack("deepfool", eps=middle, steps=50), net, x, y, generator=generator())
        reached = norms <= middle * (1 - 1e-5)
        assert torch.allclose(found[reached], whole[reached], atol=1e-6)
        rest = (found - x).flatten(1).norm(dim=1)[~reached]
        assert (rest <= middle).all()
        assert torch.allclose(rest, torch.full_like(rest, middle), rtol=1e-3)
        assert (net(found[reached]).argmax(1) != y[reached]).float().mean() > 0.9

    def test_deepfool_without_foolbox(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "foolbox", None)
        monkeypatch.setitem(sys.modules, "foolbox.attacks.deepfool", None)
        with pytest.raises(MissingExtraError, match=r"smoothcert\[attacks\]"):
            deepfool(linear(W), MIDDLE, ZERO)
