"""NAL and WRM against their steps worked out by hand."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from smoothcert.attacks import Ascent, attack_images
from smoothcert.errors import InputError, ModelError
from smoothcert.models import build_model
from smoothcert.objectives import Step, build_objective
from smoothcert.smoothing.soft import draw_noise

IMAGES = torch.rand(5, 1, 3, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
LABELS = torch.arange(5) % 3


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(seed: int = 0, norm: bool = False) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Conv2d(1, 4, 2), *([nn.BatchNorm2d(4)] if norm else []), nn.ELU(), nn.Flatten(), nn.Linear(16, 3)]
        return nn.Sequential(*layers).double()


def gradient(model, x: Tensor, labels: Tensor = LABELS) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(cross_entropy(model(x), labels, reduction="sum"), x)[0]


def by_hand(model, images, noise, gamma, eta, steps, noise_in_cost=True) -> Tensor:
    """x_K; noise (steps, B, s, ...) of each step."""
    x = images
    for z in noise[:steps]:
        pulls = [gradient(model, x + z[:, j]) - 2 * gamma * (x - images + (z[:, j] if noise_in_cost else 0))
                 for j in range(z.shape[1])]
        x = x + eta * torch.stack(pulls).mean(dim=0)
    return x


def loss_of(objective, model, seed=0, images=IMAGES, labels=LABELS):
    return objective.loss(model, images, labels, Step(generator(seed), 0.0))


class TestAscent:
    @pytest.mark.parametrize("s", [1, 4])
    @pytest.mark.parametrize("gamma", [0.25, 3.0])
    def test_a_default_step_is_the_papers_closed_form(self, s, gamma):
        model, noise = network(), draw_noise(IMAGES, s, 0.3, generator(1))
        for steps in (1, 3):
            x = IMAGES
            for _ in range(steps):
                mean = torch.stack([gradient(model, x + noise[:, j]) for j in range(s)]).mean(dim=0)
                x = IMAGES - noise.mean(dim=1) + mean / (2 * gamma)
            found = attack_images(Ascent(gamma, steps), model, IMAGES, LABELS, noise, generator=generator(),
                                  bounds=None)
            assert (found - x).abs().max() < 1e-6

    @pytest.mark.parametrize("noise_in_cost", [True, False])
    def test_several_steps_of_any_size_by_hand(self, noise_in_cost):
        model, noise = network(), draw_noise(IMAGES, 3, 0.3, generator(1))
        expected = by_hand(model, IMAGES, noise.expand(4, *noise.shape), 0.7, 0.2, 4, noise_in_cost)
        ascent = Ascent(0.7, 4, eta=0.2, noise_in_cost=noise_in_cost)
        found = attack_images(ascent, model, IMAGES, LABELS, noise, generator=generator(), bounds=None)
        assert torch.allclose(found, expected, atol=1e-9)

    def test_fresh_noise_is_drawn_anew_for_every_step(self):
        model, drawn = network(), generator(3)
        noise = torch.stack([draw_noise(IMAGES, 2, 0.3, drawn) for _ in range(3)])
        expected = by_hand(model, IMAGES, noise, 0.7, 0.2, 3)
        found = attack_images(Ascent(0.7, 3, eta=0.2, fresh=0.3), model, IMAGES, LABELS, torch.zeros_like(noise[0]),
                              generator=generator(3), bounds=None)
        assert torch.allclose(found, expected, atol=1e-9)

    def test_nothing_is_projected(self):
        """No box, no ball: a steep linear loss moves every image by |grad| / (2 gamma), out of [0, 1]."""
        weights = torch.full((9, 3), 0.0, dtype=torch.float64)
        weights[:, 0] = 40.0
        found = attack_images(Ascent(0.5, 1), lambda x: x.flatten(1) @ weights, IMAGES, torch.full((5,), 1),
                              generator=generator(), bounds=None)
        assert float(found.min()) > 30

    def test_an_example_stops_within_the_tolerance(self):
        model, calls = network(), []
        model.register_forward_hook(lambda _, x, __: calls.append(len(x[0])))
        loose = attack_images(Ascent(5.0, 50, tolerance=1e-3, decay=True), model, IMAGES, LABELS, generator=generator(),
                              bounds=None)
        used = sum(calls)
        tight = attack_images(Ascent(5.0, 50, decay=True), model, IMAGES, LABELS, generator=generator(), bounds=None)
        assert used < 50
        residual = (gradient(model, loose) - 10 * (loose - IMAGES)).flatten(1).norm(dim=1) ** 2 / 20
        assert (residual <= 1e-3).all()
        assert (loose - tight).abs().max() < 0.1

    def test_a_price_too_low_for_a_loss_without_bound_is_noticed(self):
        grows = Ascent(1e-3, 400, surrogate=lambda logits, labels: logits.square().sum(dim=(1, 2)))
        with pytest.raises(ModelError, match="not finite"):
            attack_images(grows, lambda x: x.flatten(1) * 30, IMAGES.float(), LABELS, generator=generator(),
                          bounds=None)


class TestNAL:
    @pytest.mark.parametrize("resample", [True, False])
    def test_the_loss_by_hand(self, resample):
        objective = build_objective("nal", 0.3, K=2, s=2, gamma=0.8, eta1=0.3, resample=resample)
        model, drawn = network(), generator()
        final = draw_noise(IMAGES, 2, 0.3, drawn)
        noise = torch.stack([draw_noise(IMAGES, 2, 0.3, drawn) for _ in range(2)]) if resample \
            else final.expand(2, *final.shape)
        x = by_hand(model, IMAGES, noise, 0.8, 0.3, 2)
        expected = torch.stack([cross_entropy(model(x + final[:, j]), LABELS) for j in range(2)]).mean()
        found = loss_of(objective, model)
        assert float(found.total.detach()) == pytest.approx(float(expected.detach()), rel=1e-9)
        moves = (x - IMAGES).flatten(1).norm(dim=1)
        assert float(found.parts["rho"]) == pytest.approx(float((moves**2).mean()), rel=1e-9)
        assert float(found.parts["perturbation"]) == pytest.approx(float(moves.mean()), rel=1e-9)

    def test_kept_noise_cancels_from_the_training_input_at_s_1(self):
        """x_1 + z = x0 + grad / (2 gamma): with a huge gamma the weights see the clean images; drawn anew, they do
        not."""
        model, clean = network(), float(cross_entropy(network()(IMAGES), LABELS).detach())
        kept = build_objective("nal", 0.5, K=1, s=1, gamma=1e7, resample=False)
        fresh = build_objective("nal", 0.5, K=1, s=1, gamma=1e7)
        assert float(loss_of(kept, model).total.detach()) == pytest.approx(clean, rel=1e-5)
        assert abs(float(loss_of(fresh, model).total.detach()) - clean) > 1e-3

    def test_a_huge_gamma_is_gaussian_augmentation(self):
        nal = loss_of(build_objective("nal", 0.5, s=1, gamma=1e9, noise_in_cost=False), network()).total
        gaussian = loss_of(build_objective("gaussian", 0.5), network()).total
        assert float(nal.detach()) == pytest.approx(float(gaussian.detach()), rel=1e-6)

    def test_a_lower_price_moves_further_and_costs_more(self):
        found = [loss_of(build_objective("nal", 0.1, gamma=g, noise_in_cost=False), network()) for g in (8, 2, 0.5)]
        assert found[0].parts["rho"] < found[1].parts["rho"] < found[2].parts["rho"]
        assert found[0].total < found[1].total < found[2].total

    @pytest.mark.parametrize("name", ["nal", "wrm"])
    def test_batch_statistics_are_those_of_one_training_pass(self, name):
        model = network(norm=True)
        seen = []
        model[0].register_forward_hook(lambda _, __, out: seen.append(out.detach()))
        loss_of(build_objective(name, 0.3), model)
        norm = model[1]
        assert int(norm.num_batches_tracked) == 1
        expected = 0.1 * seen[-1].mean(dim=(0, 2, 3))
        assert torch.allclose(norm.running_mean, expected)
        assert norm.training


class TestWRM:
    def test_the_paper_s_steps_by_hand(self):
        model, gamma = network(), 0.6
        x = IMAGES + 0.5 / gamma * gradient(model, IMAGES)
        for t in range(15):
            x = x + (0.5 / gamma * gradient(model, x) - (x - IMAGES)) / math.sqrt(t + 2)
        found = loss_of(build_objective("wrm", gamma=gamma), model)
        assert float(found.total.detach()) == pytest.approx(float(cross_entropy(model(x), LABELS).detach()), rel=1e-9)
        assert float(found.parts["rho"]) == pytest.approx(float((x - IMAGES).flatten(1).square().sum(1).mean()))

    def test_on_a_linear_loss_the_end_is_known(self):
        """l = <w, x>: x' = x + w / (2 gamma), the top, after the first step."""
        w = torch.randn(9, generator=generator(), dtype=torch.float64)

        def linear(logits: Tensor, labels: Tensor) -> Tensor:
            return logits[..., 0].mean(dim=1)

        found = attack_images(Ascent(0.6, 16, linear, decay=True), lambda x: (x.flatten(1) @ w)[:, None], IMAGES,
                              LABELS, generator=generator(), bounds=None)
        expected = IMAGES.flatten(1) + w / 1.2
        assert np.abs((found.flatten(1) - expected).numpy()).max() < 1e-12


@pytest.mark.parametrize(("name", "options", "words"), [
    ("nal", {"K": 0}, "K must be at least 1"), ("nal", {"s": 0}, "s must be at least 1"), ("nal", {"K": 1.5}, "K must"),
    ("nal", {"gamma": 0}, "gamma"), ("nal", {"gamma": -1}, "gamma"), ("nal", {"eta1": 0}, "eta1"),
    ("nal", {"resample": 1}, "resample"), ("nal", {"noise_in_cost": None}, "noise_in_cost"),
    ("wrm", {"gamma": 0}, "gamma"), ("wrm", {"steps": 0}, "steps"), ("wrm", {"s": 2}, "no option 's'"),
])
def test_values_out_of_range(name, options, words):
    with pytest.raises(InputError, match=words):
        build_objective(name, 0.5, **options)


def resnet18_parameters(classes: int) -> int:
    """Written out: a 3x3 stem of 64, then four stages of two blocks, two numbers a BatchNorm channel."""
    total, inputs = 3 * 64 * 9 + 2 * 64, 64
    for width in (64, 128, 256, 512):
        shortcut = inputs * width + 2 * width if inputs != width else 0
        total += 9 * (inputs * width + 3 * width * width) + 4 * 2 * width + shortcut
        inputs = width
    return total + 512 * classes + classes


def vgg16_parameters(classes: int, positions: int) -> int:
    widths = [3, 64, 64, 128, 128, 256, 256, 256, *[512] * 6]
    return sum(9 * a * b + 2 * b for a, b in itertools.pairwise(widths)) + (512 * positions + 1) * classes


@pytest.mark.parametrize(("name", "size", "classes", "parameters"), [
    ("resnet18", 32, 10, resnet18_parameters(10)), ("resnet18", 64, 200, resnet18_parameters(200)),
    ("vgg16", 32, 10, vgg16_parameters(10, 1)), ("vgg16", 64, 200, vgg16_parameters(200, 4)),
])
def test_the_papers_networks(name, size, classes, parameters):
    model = build_model(name, (3, size, size), classes, activation="elu").eval()
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert any(isinstance(m, nn.ELU) for m in model.modules())
    assert not any(isinstance(m, nn.ReLU) for m in model.modules())
    with torch.no_grad():
        assert model(torch.rand(1, 3, size, size)).shape == (1, classes)
