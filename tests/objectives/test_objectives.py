"""Objectives: one battery for all of them, then each against its paper's formula worked out by hand."""

import dataclasses
import math
import weakref

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from smoothcert.attacks import AdreSurrogate
from smoothcert.errors import ConfigError, InputError, QualityWarning
from smoothcert.objectives import OBJECTIVES, Step, build_objective
from smoothcert.objectives.protocol import warm_up
from smoothcert.objectives.trades import divergence
from smoothcert.smoothing.soft import draw_noise, noisy_logits

CASES: dict[str, list[dict]] = {
    "gaussian": [{}],
    "clean": [{}],
    "smoothadv": [{"warmup": 0}, {"m": 1, "steps": 1}, {"m": 4, "attack": "ddn"}],
    "adre": [{}, {"k": 1}, {"k": 3, "eps": 0.5}, {"single_draw": True, "cap": None}, {"regulariser": "gap"},
             {"k": 2, "eps": 0.2, "regulariser": "gap", "label_smoothing": 0.1}],
    "stability": [{}],
    "trades": [{"steps": 2}],
    "adversarial": [{"steps": 2}],
    "macer": [{}, {"k": 4, "robust_from": 2}],
    "consistency": [{}, {"m": 4, "lam": 5, "eta": 0}],
    "nal": [{"K": 2, "s": 2}, {"K": 1, "s": 1, "resample": False}],
    "wrm": [{"steps": 2}],
}
ROWS = [pytest.param(name, options, id=f"{name} {options}") for name, rows in CASES.items() for options in rows]
FORWARDS = {"gaussian": 1, "clean": 1, "smoothadv": 3, "adre": 1, "stability": 1, "trades": 4, "adversarial": 3,
            "macer": 1, "consistency": 1, "nal": 3, "wrm": 4}
"""Passes of the network a step, each row's first case: the cost that the papers' methods need, and no more."""

WITH_A_DENOISER = {"deen", "denoise", "xhat"}
"""These train or need a denoiser: test_denoise_objectives.py."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(classes: int = 3, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, classes))


IMAGES = torch.rand(6, 1, 4, 4, generator=generator(5))
LABELS = torch.arange(6) % 3


def loss_of(objective, model, images=IMAGES, labels=LABELS, seed=0, epoch=100.0):
    return objective.loss(model, images, labels, Step(generator(seed), epoch))


def gradients(total: Tensor, model: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(total, list(model.parameters()), allow_unused=True))


class TestEveryObjective:
    def test_each_is_in_the_table(self):
        assert CASES.keys() == FORWARDS.keys() == OBJECTIVES.keys() - WITH_A_DENOISER

    @pytest.mark.parametrize(("name", "options"), ROWS)
    def test_a_training_step(self, name, options):
        """Finite loss and named finite parts, gradients everywhere, a function of the generator alone; the model is
        left as one training pass leaves it."""
        objective, model = build_objective(name, 0.5, **options), network()
        before = [p.clone() for p in model.parameters()]
        images, labels, state = IMAGES.clone(), LABELS.clone(), torch.get_rng_state()
        loss = loss_of(objective, model, images, labels)
        assert loss.total.ndim == 0
        assert loss.total.isfinite()
        for part, value in loss.parts.items():
            assert part not in {"loss", "lr", "epoch", "seconds", "validation_loss", "validation_accuracy"}
            assert value.ndim == 0, part
            assert value.isfinite(), part
        assert loss_of(objective, network(), epoch=0.0).parts.keys() == loss.parts.keys()
        assert torch.equal(state, torch.get_rng_state())
        assert torch.equal(images, IMAGES)
        assert torch.equal(labels, LABELS)
        assert all(m.training for m in model.modules())
        assert all(p.requires_grad and p.grad is None for p in model.parameters())
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
        assert int(model[1].num_batches_tracked) == 1
        found = gradients(loss.total, model)
        assert all(g is not None and g.isfinite().all() for g in found)
        assert all(g.abs().sum() > 0 for g in found[1:])  # BatchNorm swallows the convolution's bias
        again, other = loss_of(objective, network()).total, loss_of(objective, network(), seed=1).total
        assert torch.equal(again, loss.total)
        assert name in ("clean", "adversarial", "wrm") or not torch.equal(other, loss.total)

    @pytest.mark.parametrize(("name", "options"), ROWS)
    def test_a_batch_of_one_and_every_image_in_some_part(self, name, options):
        objective = build_objective(name, 0.5, **options)
        assert loss_of(objective, network(), IMAGES[:1], LABELS[:1]).total.isfinite()
        for size in (1, 2, 5, 6):
            parts = objective.split(size)
            assert all(len(part) > 0 for part in parts)
            assert [row for part in parts for row in part] == list(range(size))

    @pytest.mark.parametrize(("name", "options"), ROWS)
    def test_it_learns(self, name, options):
        """Bright and dark images, told apart under noise within 20 steps of the optimiser."""
        labels = torch.arange(32) % 2
        images = (0.15 + 0.7 * labels.float()).view(-1, 1, 1, 1) + 0.1 * torch.rand(32, 1, 4, 4, generator=generator())
        objective, model, noise, steps = build_objective(name, 0.25, **options), network(classes=2), generator(1), 0
        while steps < 20:
            for part in map(list, objective.split(len(images))):
                loss = objective.loss(model, images[part], labels[part], Step(noise, steps / 5))
                found = gradients(loss.total, model)
                with torch.no_grad():
                    for parameter, gradient in zip(model.parameters(), found, strict=True):
                        parameter -= 0.3 * gradient
                steps += 1
        right = model.eval()(images + 0.25 * torch.randn(images.shape, generator=noise)).argmax(1) == labels
        assert right.float().mean() > 0.9

    @pytest.mark.parametrize(("name", "options"), ROWS)
    def test_under_bfloat16_autocast(self, name, options):
        model = network()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            total = loss_of(build_objective(name, 0.5, **options), model).total
        assert total.isfinite()
        assert all(g is not None and g.isfinite().all() for g in gradients(total, model))

    @pytest.mark.parametrize("name", FORWARDS)
    def test_no_more_passes_than_the_method_needs_and_no_graph_kept_from_one_to_the_next(self, name):
        """All but one in eval mode with frozen weights; what a backward pass needs is gone before the next forward."""
        model, passes, alive = network(), [], weakref.WeakSet()

        class Saved:
            def __init__(self, tensor: Tensor):
                self.tensor = tensor
                alive.add(self)

        def look(*_):
            passes.append((model.training, any(p.requires_grad for p in model.parameters()), len(alive)))

        model.register_forward_pre_hook(look)
        with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
            total = loss_of(build_objective(name, 0.5, **CASES[name][0]), model).total
            assert len(alive) > 0
            total.backward()
        assert passes == [(False, False, 0)] * (FORWARDS[name] - 1) + [(True, True, 0)]

    @pytest.mark.parametrize("name", CASES)
    def test_in_a_network_of_several_processes(self, name):
        """Processes meet in the wrapped network's forward pass: once a step, however many steps an attack takes."""

        class Wrapped(nn.parallel.DistributedDataParallel):
            def __init__(self, module: nn.Module):
                nn.Module.__init__(self)
                self.module, self.meetings = module, 0

            def forward(self, images: Tensor) -> Tensor:
                self.meetings += 1
                return self.module(images)

        wrapped, objective = Wrapped(network()), build_objective(name, 0.5, **CASES[name][0])
        assert torch.equal(loss_of(objective, wrapped).total, loss_of(objective, network()).total)
        assert wrapped.meetings == 1
        assert all(m.training for m in wrapped.modules())

    @pytest.mark.parametrize(("name", "option"), [
        (name, field.name) for name, kind in OBJECTIVES.items() for field in dataclasses.fields(kind)
        if field.name != "sigma"
    ])
    def test_every_option_is_checked(self, name, option):
        with pytest.raises(InputError, match=option if option != "attack" else "smoothadv"):
            build_objective(name, 0.5, **{option: "nonsense"})

    @pytest.mark.parametrize(("name", "options", "words"), [
        ("adre", {"lam": 1.0}, "lam"), ("adre", {"lam": -0.1}, "lam"), ("adre", {"k": 0}, "k must"),
        ("adre", {"cap": 0}, "cap"), ("adre", {"eps": -1}, "eps"), ("adre", {"label_smoothing": 1}, "label_smoothing"),
        ("smoothadv", {"m": 0}, "m must"), ("smoothadv", {"eps": 0}, "eps"), ("smoothadv", {"steps": 0}, "steps"),
        ("smoothadv", {"attack": "stein"}, "attack"), ("smoothadv", {"warmup": -1}, "warmup"),
        ("smoothadv", {"lambda": 0.1}, "no option 'lambda'"), ("trades", {"eps": 0.0}, "eps"),
        ("trades", {"beta": math.nan}, "beta"), ("adversarial", {"eps": math.inf}, "eps"),
        ("macer", {"gamma": 0}, "gamma"), ("macer", {"lam": -1}, "lam"), ("consistency", {"m": 2.5}, "m must"),
        ("consistency", {"eta": -0.5}, "eta"), ("stability", {"lam": None}, "lam"),
        ("adre", {"lam": -0.1, "cap": None}, "lam"), ("adre", {"lambda": 0.1}, 'did you mean "lam"'),
    ])
    def test_values_out_of_range(self, name, options, words):
        with pytest.raises(InputError, match=words):
            build_objective(name, 0.5, **options)

    def test_without_a_noise_level(self):
        for name, kind in OBJECTIVES.items():
            if any(field.name == "sigma" for field in dataclasses.fields(kind)):
                with pytest.raises(InputError, match="sigma"):
                    build_objective(name)
            else:
                build_objective(name)


def logistic(slope: float | Tensor = 3.0, offset: float = 1.0):
    """logits (slope * x - offset, 0) of one-pixel images: class 0 on the bright side."""

    def model(images: Tensor) -> Tensor:
        s = slope * images.flatten(1)[:, 0] - offset
        return torch.stack([s, torch.zeros_like(s)], dim=1)

    return model


PIXEL = torch.tensor([0.45, 0.5, 0.55]).view(3, 1, 1, 1)
PIXEL_LABELS = torch.tensor([0, 1, 0])
SIGNS = np.array([1.0, -1.0, 1.0])
"""Class 0 gains with brightness, class 1 loses."""


def noise_of(m: int, sigma: float = 0.5, seed: int = 0) -> np.ndarray:
    return draw_noise(PIXEL, m, sigma, generator(seed)).double().numpy().reshape(3, m)


def pixels() -> np.ndarray:
    return PIXEL.double().numpy().reshape(3, 1)


def right(x: np.ndarray, slope: float = 3.0, offset: float = 1.0) -> np.ndarray:
    """F_y at (3, m) pixel values."""
    return 1 / (1 + np.exp(-SIGNS[:, None] * (slope * x - offset)))


class TestSmoothAdv:
    @pytest.mark.parametrize("attack", ["pgd", "ddn"])
    @pytest.mark.parametrize("m", [1, 4])
    def test_on_a_linear_model_the_attack_is_known_and_so_is_the_loss(self, attack, m):
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

    def test_without_a_cap_any_lambda_is_taken_with_a_warning_from_1_on(self):
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

    def test_the_gap_by_hand_with_the_label_unseen_and_no_nan_where_it_is_infinite(self):
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

    def test_the_inner_reference_is_the_network_in_use_not_in_training(self):
        """In eval mode the attacked divergence starts at 0: x' = x + .001 randn hardly moves it."""
        model = network().eval()
        small = loss_of(build_objective("trades", eps=0.01, steps=1), model).parts["divergence"]
        large = loss_of(build_objective("trades", eps=1.0, steps=5), model).parts["divergence"]
        assert 0 <= small < large / 10


@pytest.mark.parametrize(("name", "options"), [("stability", {"lam": 2.0}), ("trades", {"beta": 3.0, "eps": 0.2})])
def test_the_clean_answer_that_teaches_is_taught_too(name, options):
    """The slope's derivative, both terms written out: a teacher held constant would give another one."""

    class Slope(nn.Module):
        def __init__(self):
            super().__init__()
            self.slope, self.seen = nn.Parameter(torch.tensor(3.0)), []

        def forward(self, images: Tensor) -> Tensor:
            self.seen.append(images.detach())
            return logistic(self.slope)(images)

    model = Slope()
    total = loss_of(build_objective(name, 0.5, **options), model, PIXEL, PIXEL_LABELS).total
    slope = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    p, q = torch.sigmoid(slope * model.seen[-1].double().flatten() - 1).chunk(2)
    clean = -torch.where(PIXEL_LABELS == 0, p, 1 - p).log()
    second = -(p * q.log() + (1 - p) * (1 - q).log())
    if name == "trades":
        second = second + p * p.log() + (1 - p) * (1 - p).log()
    expected = (clean + next(iter(options.values())) * second).mean()
    assert float(total.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    found, exact = gradients(total, model)[0], torch.autograd.grad(expected, slope)[0]
    assert float(found) == pytest.approx(float(exact), rel=1e-4)


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


def test_everything_wrong_with_the_options_is_said_at_once():
    with pytest.raises(ConfigError) as caught:
        build_objective("smoothadv", 0.5, m=0, eps=-1, warmup=2, lamb=3)
    problems = caught.value.problems
    assert len(problems) == 3
    for problem, word in zip(problems, ("lamb", "m must", "eps must"), strict=True):
        assert word in problem
    with pytest.raises(InputError, match=r"m must be at least 1, got 0") as caught_one:
        build_objective("smoothadv", 0.5, m=0, warmup=2)
    assert not isinstance(caught_one.value, ConfigError)
