"""Each objective's loss against its paper's formula."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from objective_batches import (
    IMAGES,
    LABELS,
    PIXEL,
    PIXEL_LABELS,
    SIGNS,
    generator,
    gradients,
    logistic,
    loss_of,
    network,
    right,
)
from smoothcert.attacks import AdreSurrogate
from smoothcert.errors import InputError, QualityWarning
from smoothcert.objectives import Step, build_objective
from smoothcert.objectives.protocol import warm_up
from smoothcert.objectives.trades import divergence
from smoothcert.smoothing.soft import draw_noise, noisy_logits


def noise_of(m: int, sigma: float = 0.5, seed: int = 0) -> np.ndarray:
    return draw_noise(PIXEL, m, sigma, generator(seed)).double().numpy().reshape(3, m)


def pixels() -> np.ndarray:
    return PIXEL.double().numpy().reshape(3, 1)


class TestSmoothAdv:
    @pytest.mark.parametrize("attack", ["pgd", "ddn"])
    @pytest.mark.parametrize("m", [1, 4])
    def test_on_a_linear_model_attack_and_loss_are_known(self, attack, m):
        """x^ = x -+ eps: the loss is the mean cross-entropy there, under the noise of the attack."""
        eps = 0.05 if attack == "pgd" else 0.4
        objective = build_objective("smoothadv", 0.5, m=m, eps=eps, steps=3, attack=attack, warmup=0)
        found = loss_of(objective, logistic(), PIXEL, PIXEL_LABELS)
        moved = float(found.parts["perturbation"])
        if attack == "pgd":
            expected = -np.log(right(pixels() - eps * SIGNS[:, None] + noise_of(m))).mean()
            assert float(found.total) == pytest.approx(expected, rel=1e-5)
            assert moved == pytest.approx(eps, rel=1e-4)
        else:
            assert moved <= eps
            assert float(found.total) > -np.log(right(pixels() + noise_of(m))).mean()

    def test_without_room_it_is_gaussian_augmentation(self):
        gaussian = loss_of(build_objective("gaussian", 0.5), network()).total
        found = loss_of(build_objective("smoothadv", 0.5, m=1, eps=1e-7), network()).total
        assert float(found.detach()) == pytest.approx(float(gaussian.detach()), rel=1e-6)

    def test_a_batch_becomes_m_parts_of_a_share_of_the_images(self):
        objective = build_objective("smoothadv", 0.5, m=4)
        assert objective.split(8) == [[0, 1], [2, 3], [4, 5], [6, 7]]
        assert objective.split(6) == [[0, 1], [2, 3], [4], [5]]
        assert objective.split(3) == [[0], [1], [2]]

    def test_eps_warms_up_epoch_by_epoch(self):
        objective = build_objective("smoothadv", 0.5, eps=0.2, warmup=4)
        for epoch, eps in ((0.0, 0.05), (0.99, 0.05), (1.0, 0.1), (3.5, 0.2), (50.0, 0.2)):
            assert warm_up(0.2, epoch, 4) == pytest.approx(eps)
            parts = loss_of(objective, logistic(), PIXEL, PIXEL_LABELS, epoch=epoch).parts
            assert float(parts["eps"]) == pytest.approx(eps)
            assert float(parts["perturbation"]) == pytest.approx(eps, rel=1e-4)
        assert warm_up(0.2, 0.0, 0) == 0.2

    def test_the_attack_makes_the_loss_larger(self):
        plain = loss_of(build_objective("smoothadv", 0.5, m=4, eps=1e-7), network().eval()).total
        for attack in ("pgd", "ddn"):
            rule = build_objective("smoothadv", 0.5, m=4, eps=0.5, steps=4, attack=attack)
            assert loss_of(rule, network().eval()).total > plain


class TestAdre:
    @pytest.mark.parametrize("k", [1, 4])
    def test_lambda_0_is_gaussian_augmentation_with_k_draws(self, k):
        found = loss_of(build_objective("adre", 0.5, k=k, lam=0), network()).total
        noise = draw_noise(IMAGES, k, 0.5, generator())
        copies = noisy_logits(network(), IMAGES, noise)
        expected = torch.stack([cross_entropy(copies[:, j], LABELS) for j in range(k)]).mean()
        assert torch.allclose(found, expected, rtol=1e-6)
        if k == 1:
            assert torch.allclose(found, loss_of(build_objective("gaussian", 0.5), network()).total, rtol=1e-6)

    @pytest.mark.parametrize("k", [1, 3])
    def test_lambda_0_with_eps_is_smoothadv(self, k):
        shared = {"eps": 0.3, "steps": 3, "warmup": 4}
        adre = loss_of(build_objective("adre", 0.5, k=k, lam=0, **shared), network(), epoch=1)
        smoothadv = loss_of(build_objective("smoothadv", 0.5, m=k, **shared), network(), epoch=1)
        assert torch.equal(adre.total, smoothadv.total)
        assert all(torch.equal(adre.parts[name], value) for name, value in smoothadv.parts.items())

    def test_by_hand(self):
        objective = build_objective("adre", 0.5, k=2, lam=0.2)
        logits = torch.tensor([[[0.7, 0.2, 0.1], [0.3, 0.5, 0.2]], [[0.1, 0.1, 0.8], [0.1, 0.1, 0.8]]]).log()
        labels = torch.tensor([0, 2])  # G = (.5, .35, .15) and (.1, .1, .8)
        loss = objective.of_logits(logits, labels)
        l_per = -(math.log(0.7) + math.log(0.3) + 2 * math.log(0.8)) / 4
        l_adre = -(math.log(0.35) + math.log(0.1)) / 2
        assert float(loss.parts["l_per"]) == pytest.approx(l_per, rel=1e-6)
        assert float(loss.parts["l_adre"]) == pytest.approx(l_adre, rel=1e-6)
        assert float(loss.total) == pytest.approx(l_per - 0.2 * l_adre, rel=1e-6)
        single = build_objective("adre", 0.5, k=2, lam=0.2, single_draw=True).of_logits(logits, labels)
        assert float(single.total) == pytest.approx(-(math.log(0.7) + math.log(0.8)) / 2 - 0.2 * l_adre, rel=1e-6)
        smooth = build_objective("adre", 0.5, k=2, lam=0, label_smoothing=0.3).of_logits(logits, labels)
        expected = 0.7 * l_per - 0.3 * float(logits.mean())
        assert float(smooth.total) == pytest.approx(expected, rel=1e-6)

    def test_without_a_cap_a_lambda_of_1_gives_a_warning(self):
        with pytest.warns(QualityWarning, match="lambda = 1.5 and no cap"):
            objective = build_objective("adre", 0.5, k=1, lam=1.5, cap=None)
        with pytest.raises(InputError, match=r"while l_adre is capped, got 1\.5; without a cap \(cap=null\)"):
            build_objective("adre", 0.5, k=1, lam=1.5)
        logits = torch.tensor([[[1.0, 2.0, -0.5]]])
        log_p = logits.log_softmax(-1)[0, 0]
        found = objective.of_logits(logits, torch.tensor([1])).total
        assert float(found) == pytest.approx(float(-log_p[1] + 1.5 * log_p[0]), rel=1e-6)
        with pytest.warns(QualityWarning):
            adversarial = build_objective("adre", 0.5, k=2, lam=1.5, cap=None, eps=0.2, steps=1, warmup=0)
        images = torch.rand(3, 1, 4, 4, generator=generator())
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
        assert torch.isfinite(adversarial.loss(model, images, torch.arange(3), Step(generator(), 1.0)).total)

    @pytest.mark.parametrize("cap", [None, 9.0])
    def test_the_logit_gradient_at_k_1(self, cap):
        """(1 - lambda) p - e_y + lambda e_c, as the paper's loss has it."""
        logits = torch.tensor([[[1.0, 2.0, -0.5]]], requires_grad=True)
        total = build_objective("adre", 0.5, k=1, lam=0.3, cap=cap).of_logits(logits, torch.tensor([1])).total
        (found,) = torch.autograd.grad(total, logits)
        expected = 0.7 * logits.detach().softmax(-1)[0, 0] + torch.tensor([0.3, -1.0, 0.0])
        assert torch.allclose(found[0, 0], expected, atol=1e-6)

    @pytest.mark.parametrize("regulariser", ["runner-up", "gap"])
    def test_beyond_its_cap_the_regulariser_has_no_gradient(self, regulariser):
        """One image below the cap and one above: only the first is still pushed."""
        low, high = 0.02, 0.001
        probabilities = torch.tensor([[[1 - low, low]], [[1 - high, high]]])
        labels = torch.zeros(2, dtype=torch.long)
        cap = -math.log(0.01)

        def pushes(cap):
            logits = probabilities.log().requires_grad_()
            plain = build_objective("adre", 0.5, k=1, lam=0.0).of_logits(logits, labels).total
            rule = build_objective("adre", 0.5, k=1, lam=0.5, cap=cap, regulariser=regulariser)
            loss = rule.of_logits(logits, labels)
            return loss, torch.autograd.grad(loss.total - plain, logits)[0].abs().sum(dim=(1, 2))

        loss, pushed = pushes(cap)
        assert pushed[0] > 0.01
        assert pushed[1] == 0
        assert float(loss.parts["capped"]) == 0.5
        value = (-math.log(low) + cap) / 2 if regulariser == "runner-up" else -(norm.ppf(low) + norm.ppf(0.01))
        assert float(loss.parts["l_adre"].detach()) == pytest.approx(value, rel=1e-5)
        loss, pushed = pushes(None)
        assert (pushed > 0.01).all()
        assert float(loss.parts["capped"]) == 0

    def test_the_gap_by_hand_without_label_and_without_nan(self):
        objective = build_objective("adre", 0.5, k=2, lam=0.4, regulariser="gap", cap=None)
        logits = torch.tensor([[[0.7, 0.2, 0.1], [0.3, 0.5, 0.2]]]).log()
        for label in (0, 2):
            loss = objective.of_logits(logits, torch.tensor([label]))
            assert float(loss.parts["l_adre"]) == pytest.approx(norm.ppf(0.5) - norm.ppf(0.35), rel=1e-5)
        for sure in (30.0, 90.0, 95.0, 200.0):
            saturated = torch.tensor([[[sure, 0.0], [sure, 0.0]]], requires_grad=True)
            loss = objective.of_logits(saturated, torch.tensor([0]))
            assert loss.total.isfinite()
            assert torch.autograd.grad(loss.total, saturated)[0].isfinite().all()

    @pytest.mark.parametrize("options", [{}, {"regulariser": "gap"}, {"eps": 0.4, "steps": 2}, {"single_draw": True}])
    def test_gradients_against_finite_differences(self, options):
        """With respect to the weights, in float64, x^ held where the attack left it (its derivative is not taken)."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.SiLU(), nn.Linear(3, 3)).double()
        images = torch.rand(3, 1, 2, 2, generator=generator(), dtype=torch.float64)
        objective = build_objective("adre", 0.5, k=3, lam=0.3, **options)
        total = objective.loss(model, images, torch.arange(3), Step(generator(), 100)).total
        found = torch.cat([g.flatten() for g in gradients(total, model)])
        inputs: list[Tensor] = []
        hook = model.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach()))
        objective.loss(model, images, torch.arange(3), Step(generator(), 100))
        hook.remove()
        parameters = list(model.parameters())
        flat = nn.utils.parameters_to_vector(parameters).detach()

        def value(vector: Tensor) -> float:
            nn.utils.vector_to_parameters(vector, parameters)
            with torch.no_grad():
                return float(objective.of_logits(model(inputs[-1]).unflatten(0, (3, 3)), torch.arange(3)).total)

        h = 1e-5
        steps = h * torch.eye(len(flat), dtype=torch.float64)
        exact = [(value(flat + row) - value(flat - row)) / (2 * h) for row in steps]
        assert torch.allclose(found, torch.tensor(exact, dtype=torch.float64), rtol=1e-5, atol=1e-8)

    @pytest.mark.parametrize("regulariser", ["runner-up", "gap"])
    def test_adre_adv_trains_where_the_regularised_loss_is_large(self, regulariser):
        """Three classes on a plane: SmoothAdv's attack ends elsewhere, where J - lambda R is smaller."""
        centres = torch.tensor([[0.5, 0.5], [0.9, 0.5], [0.3, 0.7]])
        seen: list[Tensor] = []

        def model(images):
            seen.append(images.detach())
            return -10 * ((images.flatten(1)[:, None] - centres) ** 2).sum(dim=2)

        x, labels = torch.tensor([0.4, 0.4]).view(1, 1, 1, 2), torch.zeros(1, dtype=torch.long)
        goal = AdreSurrogate(0.9, regulariser)

        def reached(lam: float) -> float:
            rule = build_objective("adre", 0.3, k=50, lam=lam, regulariser=regulariser, eps=0.3, steps=30, warmup=0)
            loss_of(rule, model, x, labels)
            return float(goal(model(seen[-1]).unsqueeze(0), labels))

        assert reached(0.9) > reached(0.0) + 0.01


class TestMacer:
    OBJECTIVE = build_objective("macer", 0.5, k=1, lam=6.0, gamma=2.0, beta=2.0)

    def test_by_hand(self):
        """Four images: right within the hinge, right beyond it, wrong, and right within it for another class."""
        margins = np.array([0.5, 3.0, -0.5, 0.2])
        logits = torch.tensor(np.stack([margins, 0 * margins], axis=1))[:, None]
        labels = torch.tensor([0, 0, 0, 0])
        sure = 1 / (1 + np.exp(-2.0 * margins))
        gaps = norm.ppf(sure) - norm.ppf(1 - sure)
        assert gaps[0] < 2 < gaps[1]
        radius = 0.25 * ((2 - gaps[0]) + (2 - gaps[3])) / 4
        loss = self.OBJECTIVE.of_logits(logits, labels, 0.0)
        classification = np.log1p(np.exp(-margins)).mean()
        assert float(loss.parts["classification"]) == pytest.approx(classification, rel=1e-9)
        assert float(loss.parts["radius"]) == pytest.approx(radius, rel=1e-9)
        assert float(loss.parts["counted"]) == 0.5
        assert float(loss.total) == pytest.approx(classification + 6 * radius, rel=1e-9)

    def test_soft_votes_are_averaged_over_the_noise_before_the_gap(self):
        objective = build_objective("macer", 0.5, k=2, lam=1.0, beta=1.0)
        logits = torch.tensor([[[0.9, 0.1], [0.5, 0.5]]]).log()
        loss = objective.of_logits(logits, torch.tensor([0]), 0.0)
        assert float(loss.parts["radius"]) == pytest.approx(0.25 * (8 - 2 * norm.ppf(0.7)), rel=1e-5)
        assert float(loss.parts["classification"]) == pytest.approx(-math.log(0.7), rel=1e-5)

    def test_the_second_term_waits(self):
        objective = build_objective("macer", 0.5, k=4, robust_from=3)
        early, late = (loss_of(objective, network(), epoch=epoch) for epoch in (2.9, 3.0))
        assert torch.equal(early.total, early.parts["classification"])
        assert torch.allclose(late.total, late.parts["classification"] + 12 * late.parts["radius"])
        assert late.parts["radius"] > 0

    @pytest.mark.parametrize("sure", [40.0, 44.0, 47.0, 52.0, 1e4])
    def test_infinite_gaps_are_dropped_without_a_trace(self, sure):
        logits = torch.tensor([[[sure, 0.0]], [[0.2, 0.0]]], requires_grad=True)
        loss = self.OBJECTIVE.of_logits(logits, torch.tensor([0, 0]), 0.0)
        (found,) = torch.autograd.grad(loss.total, logits)
        assert found.isfinite().all()
        assert float(loss.parts["counted"]) == 0.5
        assert found[1].abs().sum() > 0


class TestConsistency:
    LOGITS = torch.tensor([[[0.9, 0.1], [0.6, 0.4]]], dtype=torch.float64).log()

    def test_by_hand(self):
        loss = build_objective("consistency", 0.5, m=2, lam=3.0, eta=0.5).of_logits(self.LOGITS, torch.tensor([0]))
        plain = -(math.log(0.9) + math.log(0.6)) / 2
        mean = (0.75, 0.25)
        spread = sum(
            sum(p * math.log(p / q) for p, q in zip(mean, f, strict=True)) for f in ((0.9, 0.1), (0.6, 0.4))) / 2
        entropy = -sum(p * math.log(p) for p in mean)
        for name, value in (("cross_entropy", plain), ("spread", spread), ("entropy", entropy)):
            assert float(loss.parts[name]) == pytest.approx(value, rel=1e-9)
        assert float(loss.total) == pytest.approx(plain + 3 * spread + 0.5 * entropy, rel=1e-9)

    def test_equal_answers_are_consistent(self):
        same = self.LOGITS[:, :1].expand(1, 4, 2)
        loss = build_objective("consistency", 0.5, m=4).of_logits(same, torch.tensor([0]))
        assert float(loss.parts["spread"]) == pytest.approx(0, abs=1e-12)

    def test_without_weights_it_is_the_cross_entropy_of_m_draws(self):
        found = loss_of(build_objective("consistency", 0.5, m=3, lam=0, eta=0), network()).total
        expected = loss_of(build_objective("adre", 0.5, k=3, lam=0), network()).total
        assert torch.equal(found, expected)


class TestStability:
    def test_by_hand(self):
        loss = loss_of(build_objective("stability", 0.5, lam=2.5), logistic(), PIXEL, PIXEL_LABELS)
        clean = -np.log(right(pixels())).mean()
        p, q = (1 / (1 + np.exp(-(3 * z - 1))) for z in (pixels(), pixels() + noise_of(1)))
        stability = -(p * np.log(q) + (1 - p) * np.log(1 - q)).mean()
        assert float(loss.parts["clean"]) == pytest.approx(clean, rel=1e-5)
        assert float(loss.parts["stability"]) == pytest.approx(stability, rel=1e-5)
        assert float(loss.total) == pytest.approx(clean + 2.5 * stability, rel=1e-5)

    def test_without_weight_it_is_clean_training(self):
        """In eval mode, where the images' companions do not matter."""
        found = loss_of(build_objective("stability", 0.5, lam=0), network().eval()).total
        assert torch.allclose(found, loss_of(build_objective("clean"), network().eval()).total, rtol=1e-6)


class TestTrades:
    def test_divergence_by_hand(self):
        p, q = (0.7, 0.3), ((0.6, 0.4), (0.2, 0.8))
        expected = sum(sum(a * math.log(a / b) for a, b in zip(p, r, strict=True)) for r in q) / 2
        found = divergence(torch.tensor([q]).log(), torch.tensor([p]))
        assert float(found) == pytest.approx(expected, rel=1e-5)

    def test_by_hand_on_one_pixel(self):
        """The divergence grows away from x on either side, so x' is one end or the other."""
        loss = loss_of(build_objective("trades", beta=4.0, eps=0.2, steps=5), logistic(), PIXEL[:1], PIXEL_LABELS[:1])
        p = float(right(pixels())[0, 0])
        ends = [float(1 / (1 + np.exp(-(3 * (0.45 + side) - 1)))) for side in (-0.2, 0.2)]
        possible = [p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)) for q in ends]
        found = float(loss.parts["divergence"])
        assert min(abs(found - value) for value in possible) < 1e-5
        assert float(loss.parts["perturbation"]) == pytest.approx(0.2, rel=1e-4)
        assert float(loss.total) == pytest.approx(-math.log(p) + 4 * found, rel=1e-5)

    def test_the_inner_reference_is_the_network_in_eval_mode(self):
        """In eval mode the attacked divergence starts at 0: x' = x + .001 randn hardly moves it."""
        model = network().eval()
        small = loss_of(build_objective("trades", eps=0.01, steps=1), model).parts["divergence"]
        large = loss_of(build_objective("trades", eps=1.0, steps=5), model).parts["divergence"]
        assert 0 <= small < large / 10


class TestAdversarial:
    def test_by_hand_on_one_pixel(self):
        loss = loss_of(build_objective("adversarial", eps=0.3, steps=4), logistic(), PIXEL, PIXEL_LABELS)
        expected = -np.log(right(pixels() - 0.3 * SIGNS[:, None])).mean()
        assert float(loss.total) == pytest.approx(expected, rel=1e-5)
        assert float(loss.parts["perturbation"]) == pytest.approx(0.3, rel=1e-4)

    def test_the_box_stops_it(self):
        loss = loss_of(build_objective("adversarial", eps=0.8, steps=4), logistic(), PIXEL, PIXEL_LABELS)
        expected = -np.log(right(np.array([[0.0], [1.0], [0.0]]))).mean()
        assert float(loss.total) == pytest.approx(expected, rel=1e-5)
