"""The loop of every attack: bounds, gradients, passes, and the model left as it was."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from attack_problems import MIDDLE, ZERO, W, generator, linear, random
from smoothcert.attacks import (
    ATTACKS,
    DDN,
    PGD,
    SURROGATES,
    AdreSurrogate,
    Stein,
    attack_images,
    build_attack,
    l2_norms,
)
from smoothcert.attacks.loop import Problem
from smoothcert.errors import InputError, ModelError
from smoothcert.smoothing.soft import (
    draw_noise,
    freeze,
    noisy_logits,
    soft_cross_entropy,
)


def convolutional(seed: int = 0, classes: int = 3) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(),
                             nn.Linear(16, classes))


def smooth_network(seed: int = 0) -> nn.Module:
    """float64 and smooth, for finite differences."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 3)).double().requires_grad_(False)


def problem(model, images, labels, noise, **options) -> Problem:
    eps = torch.ones(len(images), dtype=torch.float64)
    return Problem(**{"model": model, "images": images, "labels": labels, "noise": noise, "eps": eps, "targeted": False,
                      "bounds": (0.0, 1.0), "rows": 1000, "generator": generator(), **options})


def central_difference(f, x: Tensor, h: float = 1e-5) -> Tensor:
    """d f / d x for f: tensor -> float, entry by entry."""
    result = torch.zeros_like(x)
    for i in range(x.numel()):
        step = torch.zeros_like(x).view(-1)
        step[i] = h
        step = step.view_as(x)
        result.view(-1)[i] = (float(f(x + step)) - float(f(x - step))) / (2 * h)
    return result


class TestBounds:
    @settings(max_examples=40, deadline=None)
    @given(
        rule=st.sampled_from(["pgd", "pgd linf", "pgd random start", "ddn", "ddn test", "stein", "stein hard linf"]),
        eps=st.floats(1e-5, 4), steps=st.integers(1, 6), m=st.integers(1, 3), seed=st.integers(0, 10**6),
        sparse=st.booleans(), targeted=st.booleans(),
    )
    def test_every_attack_stays_in_the_ball_and_the_box_exactly(self, rule, eps, steps, m, seed, sparse, targeted):
        made = {
            "pgd": lambda: PGD(eps, steps), "pgd linf": lambda: PGD(eps, steps, norm="linf"),
            "pgd random start": lambda: PGD(eps, steps, start_std=0.5), "ddn": lambda: DDN(eps, steps),
            "ddn test": lambda: DDN(eps, steps, gamma=None), "stein": lambda: Stein(eps, steps),
            "stein hard linf": lambda: Stein(eps, steps, norm="linf", hard=True, sigma=0.1),
        }[rule]()
        x = random(3, 1, 4, 4, seed=seed)
        x = x.round() if sparse else x
        noise = draw_noise(x, m, 0.5, generator(seed))
        found = attack_images(made, convolutional(seed % 7), x, torch.arange(3), noise, targeted=targeted,
                              generator=generator(seed))
        assert found.min() >= 0
        assert found.max() <= 1
        moved = (found.double() - x.double()).flatten(1)
        sizes = moved.abs().amax(dim=1) if "linf" in rule else moved.norm(dim=1)
        assert (sizes <= eps).all()

    @pytest.mark.parametrize("rule", [PGD(0.9, 5), PGD(0.9, 5, norm="linf"), DDN(0.9, 5), Stein(0.9, 5)])
    def test_the_network_is_asked_only_inside_the_box(self, rule):
        seen = []

        def model(images):
            seen.append(images.detach())
            return linear(W)(images)

        x = random(4, 1, 3, 3).round()
        attack_images(rule, model, x, torch.zeros(4, dtype=torch.long), generator=generator())
        asked = torch.cat(seen)
        assert asked.min() >= 0
        assert asked.max() <= 1
        assert len(asked) >= 20

    def test_other_bounds_hold_exactly_too(self):
        """x + (bound - x) need not round to the bound."""
        low, high = (float(np.float32(bound)) for bound in (-0.9, 0.1))
        x = (low + random(50, 1, 8, 8)).clamp(low, high)
        found = attack_images(PGD(9.0, 2, norm="linf"), linear(torch.ones(64)), x, torch.arange(50) % 2,
                              bounds=(low, high), generator=generator())
        assert found.min() == low
        assert found.max() == high

    def test_the_ball_is_used_up_to_a_hair(self):
        """Rounding costs at most what float32 pixels must."""
        x = 0.4 + 0.2 * random(2, 3, 32, 32)
        found = attack_images(PGD(0.25, 4), lambda y: torch.stack([y.sum((1, 2, 3)), y[:, 0, 0, 0]], 1), x,
                              torch.zeros(2, dtype=torch.long), generator=generator())
        norms = (found.double() - x.double()).flatten(1).norm(dim=1)
        assert (norms <= 0.25).all()
        assert (norms > 0.25 * (1 - 3e-5)).all()

    def test_a_bound_for_each_image(self):
        x = MIDDLE.expand(3, -1, -1, -1)
        eps = torch.tensor([0.0, 0.1, 0.3])
        found = attack_images(PGD(9.0, 3), linear(W), x, torch.zeros(3, dtype=torch.long), eps=eps,
                              generator=generator())
        assert torch.allclose((found - x).flatten(1).norm(dim=1), eps, atol=1e-5)

    @pytest.mark.parametrize("rule", [PGD(0.3, 3), Stein(0.3, 3, hard=True), PGD(0.3, 3, norm="linf")])
    def test_without_a_gradient_the_direction_is_the_generators(self, rule):
        def constant(images):
            return images.flatten(1)[:, :2] * 0 + torch.tensor([1.0, 0.0])

        x = MIDDLE.expand(2, -1, -1, -1)
        labels, noise = torch.zeros(2, dtype=torch.long), torch.zeros(2, 4, 1, 3, 3)
        one, again, other = (attack_images(rule, constant, x, labels, noise, generator=generator(s)) for s in (1, 1, 2))
        assert torch.equal(one, again)
        assert not torch.equal(one, other)
        assert (one - x).flatten(1).norm(dim=1).min() > 0.1
        assert not torch.equal(one[0], one[1])

    def test_tiny_gradients_are_followed_not_lost(self):
        """Squares of 1e-30 underflow in float32; the direction must not."""
        found = attack_images(PGD(0.3, 1), lambda y: linear(W)(y) * 1e-30, MIDDLE, ZERO, generator=generator())
        assert torch.allclose(found - MIDDLE, -0.3 * W / W.norm(), atol=1e-5)

    def test_a_class_surer_than_float32_can_say_still_has_a_gradient(self):
        """1 - F_y = 1e-11 rounds to 0 in float32, and -log F_y with it."""
        found = attack_images(PGD(0.3, 1), linear(W, 25.0 - float(W.sum()) / 2), MIDDLE, ZERO, generator=generator())
        assert torch.allclose(found - MIDDLE, -0.3 * W / W.norm(), atol=1e-5)

    def test_bounds_may_be_lifted(self):
        x = 5 * torch.ones(1, 1, 3, 3)
        found = attack_images(PGD(2.0, 4), linear(W), x, ZERO, bounds=None, generator=generator())
        assert torch.allclose(found - x, -2 * W / W.norm(), atol=1e-4)
        assert float(l2_norms(found.double() - x.double())) <= 2


class TestGradients:
    NAMED = {**SURROGATES, "adre gap": AdreSurrogate(0.3, "gap"), "adre .3": AdreSurrogate(0.3)}  # noqa: RUF012

    @pytest.mark.parametrize("name", NAMED)
    def test_the_gradient_is_the_surrogates_in_any_chunks(self, name):
        surrogate, model = self.NAMED[name], smooth_network()
        x, labels = random(3, 1, 2, 2, dtype=torch.float64), torch.arange(3)
        noise = draw_noise(x, 5, 0.7, generator())
        exact = central_difference(lambda z: surrogate(noisy_logits(model, z, noise), labels).sum(), x)
        zero = torch.zeros_like(x)
        whole = problem(model, x, labels, noise).gradient(zero, surrogate)
        assert torch.allclose(whole.gradient, exact, rtol=1e-6, atol=1e-9)
        for rows in (1, 2, 3, 5, 7, 10, 100):
            probe = problem(model, x, labels, noise, rows=rows).gradient(zero, surrogate)
            assert torch.allclose(probe.gradient, whole.gradient, rtol=1e-12, atol=1e-14)
            assert torch.allclose(probe.logits, whole.logits, rtol=1e-12, atol=1e-14)
        wanted = problem(model, x, labels, noise, targeted=True).gradient(zero, surrogate)
        assert torch.equal(wanted.gradient, -whole.gradient)

    def test_passes_are_as_large_as_asked_and_as_few_as_needed(self):
        sizes = []

        def model(images):
            sizes.append(len(images))
            return linear(W)(images)

        x, labels = MIDDLE.expand(6, -1, -1, -1), torch.zeros(6, dtype=torch.long)
        noise = draw_noise(x, 4, 0.5, generator())
        for rows, expected in ((None, [24]), (24, [24]), (23, [20, 4]), (8, [8, 8, 8])):
            attack_images(PGD(0.1, 1), model, x, labels, noise, rows=rows, generator=generator())
            assert sizes == expected
            sizes.clear()
        attack_images(PGD(0.1, 1), model, x, labels, noise, rows=3, generator=generator())
        assert sizes == [3, 1, 3, 1] * 6  # once for the logits, once to pull back

    def test_adre_surrogate_by_hand(self):
        logits = torch.tensor([[[0.7, 0.2, 0.1], [0.3, 0.5, 0.2]]]).log()  # G = (.5, .35, .15)
        for label, loss in ((0, -math.log(0.5) + 0.3 * math.log(0.35)), (1, -math.log(0.35) + 0.3 * math.log(0.5))):
            assert float(AdreSurrogate(0.3)(logits, torch.tensor([label]))) == pytest.approx(loss, rel=1e-6)
        assert torch.equal(AdreSurrogate(0.0)(logits, ZERO), soft_cross_entropy(logits, ZERO))

    def test_through_a_denoiser_that_is_itself_a_gradient(self):
        """x_hat(y) = y - sigma^2 grad phi(y) in front of the classifier: double backward, as for an energy model."""
        classifier, energy = smooth_network(1), nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.SiLU(), nn.Linear(6, 1))
        energy = energy.double()

        class Denoised(nn.Module):
            def __init__(self):
                super().__init__()
                self.energy, self.classifier = energy, classifier

            def forward(self, y):
                with torch.enable_grad():
                    z = y if y.requires_grad else y.detach().requires_grad_()
                    (slope,) = torch.autograd.grad(self.energy(z).sum(), z, create_graph=y.requires_grad)
                return self.classifier(y - 0.25 * slope)

        model, x, labels = Denoised(), random(2, 1, 2, 2, dtype=torch.float64), torch.tensor([0, 2])
        noise = draw_noise(x, 3, 0.5, generator())
        exact = central_difference(
            lambda z: soft_cross_entropy(noisy_logits(model, z, noise).detach(), labels).sum(), x)
        for rows in (1000, 2):
            probe = problem(model, x, labels, noise, rows=rows).gradient(torch.zeros_like(x), soft_cross_entropy)
            assert torch.allclose(probe.gradient, exact, rtol=1e-6, atol=1e-9)
        attack_images(PGD(0.5, 3), model, x, labels, noise, generator=generator())
        assert all(p.grad is None and p.requires_grad for p in energy.parameters())


class TestTheModelIsLeftAlone:
    @pytest.mark.parametrize("name", ATTACKS)
    def test_modes_statistics_flags_and_gradients(self, name):
        model = convolutional().train()
        model[1].eval()
        model[0].weight.requires_grad_(False)
        before = {k: v.clone() for k, v in model.state_dict().items()}
        modes = [m.training for m in model.modules()]
        flags = [p.requires_grad for p in model.parameters()]
        x = random(4, 1, 4, 4)
        noise = draw_noise(x, 3, 0.5, generator())
        state = torch.get_rng_state()
        one, two = (attack_images(build_attack(name, eps=0.5, steps=3), model, x, torch.arange(4) % 3, noise,
                                  generator=generator()) for _ in range(2))
        assert torch.equal(one, two)  # dropout was off
        assert torch.equal(state, torch.get_rng_state())
        assert modes == [m.training for m in model.modules()]
        assert flags == [p.requires_grad for p in model.parameters()]
        assert all(p.grad is None for p in model.parameters())
        assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
        assert not one.requires_grad

    def test_after_an_error_too(self):
        model = convolutional().train()
        with pytest.raises(RuntimeError), freeze(model):
            assert not model.training
            assert not any(p.requires_grad for p in model.parameters())
            raise RuntimeError
        assert all(m.training for m in model.modules())
        assert all(p.requires_grad for p in model.parameters())

    def test_an_attack_works_where_gradients_are_switched_off(self):
        with torch.no_grad():
            found = attack_images(PGD(0.3, 2), linear(W), MIDDLE, ZERO, generator=generator())
        assert torch.allclose(found - MIDDLE, -0.3 * W / W.norm(), atol=1e-5)


class TestTheLoop:
    def test_the_same_noise_at_every_step(self):
        seen = []

        def model(images):
            seen.append(images.unflatten(0, (2, 3)))
            return linear(W)(images)

        x = MIDDLE.expand(2, -1, -1, -1)
        noise = draw_noise(x, 3, 0.5, generator())
        attack_images(PGD(0.3, 4), model, x, torch.zeros(2, dtype=torch.long), noise, generator=generator())
        assert len(seen) == 4
        for inputs in seen:
            centres = inputs - noise
            assert torch.allclose(centres, centres[:, :1].expand_as(centres), atol=1e-6)
        assert not torch.allclose(seen[0], seen[1])

    def test_finished_examples_leave_the_batch_and_keep_their_delta(self):
        """Radii .0, .05 and .5 under steps of .04: they leave after 0 steps, after 2, and never."""
        rows = []
        model = linear(W)

        def counting(images):
            rows.append(len(images))
            return model(images)

        unit = W / W.norm()
        offset = -float((W * 0.5).sum())
        model = linear(W, offset)
        x = torch.cat([MIDDLE - 0.01 * unit, MIDDLE + 0.05 * unit, MIDDLE + 0.5 * unit]).clamp(0, 1)
        labels, rule = torch.zeros(3, dtype=torch.long), PGD(0.1, 5, stop=0.0)
        found = attack_images(rule, counting, x, labels, generator=generator())
        assert rows == [3, 2, 2, 1, 1]
        assert torch.equal(found[0], x[0])
        assert float((found[1] - x[1]).norm()) == pytest.approx(0.08, abs=1e-4)
        whole = attack_images(PGD(0.1, 5), model, x, labels, generator=generator())
        assert torch.equal(found[2], whole[2])

    def test_stop_is_a_share_of_the_noisy_copies(self):
        x = MIDDLE
        noise = torch.zeros(1, 4, 1, 3, 3)
        noise[0, 0] = 10 * W  # one copy of four that no small delta changes
        offset = -float((W * 0.5).sum()) - 0.01
        calls = []

        def counting(images):
            calls.append(len(images))
            return linear(W, offset)(images)

        for stop, steps in ((0.2, 5), (0.25, 1)):
            calls.clear()
            attack_images(PGD(0.1, 5, stop=stop), counting, x, ZERO, noise, generator=generator())
            assert len(calls) == steps
        calls.clear()  # targeted at class 1: three of four copies are there
        attack_images(PGD(0.1, 5, stop=0.25), counting, x, ZERO + 1, noise, targeted=True, generator=generator())
        assert len(calls) == 1

    def test_all_finished_ends_it(self):
        found = attack_images(PGD(0.1, 5, stop=0.5), linear(W, -100.0), MIDDLE, ZERO, generator=generator())
        assert torch.equal(found, MIDDLE)

    def test_an_empty_batch(self):
        found = attack_images(PGD(0.1, 5), linear(W), MIDDLE[:0], ZERO[:0], generator=generator())
        assert found.shape == (0, 1, 3, 3)

    def test_more_noise_and_the_right_surrogate_attack_better(self):
        """A ripple in u hides a slope in v from the base classifier's gradient; noise averages the ripple out."""

        def model(images):
            u, v = images.flatten(1).T
            return torch.stack([0.2 * torch.sin(60 * u) + 4 * (v - 0.5), torch.zeros_like(u)], dim=1)

        x, labels = 0.35 + 0.3 * random(40, 1, 1, 2), torch.zeros(40, dtype=torch.long)
        noise, test = (draw_noise(x, m, 0.5, generator(s)) for m, s in ((256, 1), (4000, 2)))

        def remaining(noise):
            found = attack_images(PGD(0.2, 2), model, x, labels, noise, generator=generator())
            return float(noisy_logits(model, found, test).softmax(-1)[..., 0].mean())

        assert remaining(noise) < remaining(None) - 0.02


class TestRefusals:
    @pytest.mark.parametrize(("name", "options", "words"), [
        ("pdg", {"eps": 1.0}, 'did you mean "pgd"'), ("pgd", {}, "needs eps"), ("pgd", {"eps": 0}, "eps"),
        ("pgd", {"eps": -1.0}, "eps"), ("pgd", {"eps": math.inf}, "eps"), ("pgd", {"eps": "big"}, "eps"),
        ("pgd", {"eps": 1.0, "steps": 0}, "steps"), ("pgd", {"eps": 1.0, "norm": "l1"}, "norm"),
        ("pgd", {"eps": 1.0, "gamma": 0.05}, "no option 'gamma'"), ("pgd", {"eps": 1.0, "surrogate": "right"}, "wrong"),
        ("pgd", {"eps": 1.0, "step_size": 0.0}, "step_size"), ("pgd", {"eps": 1.0, "stop": 1.0}, "stop"),
        ("pgd", {"eps": 1.0, "start_std": -1.0}, "start_std"), ("ddn", {"eps": 1.0, "gamma": 1.0}, "gamma"),
        ("ddn", {"eps": math.inf}, "initial_norm"), ("ddn", {"eps": 0.0}, "eps"),
        ("ddn", {"eps": 1.0, "initial_norm": 0.0}, "initial_norm"), ("ddn", {"eps": 1.0, "steps": 0}, "steps"),
        ("ddn", {"eps": 1.0, "zero_on_failure": "no"}, "zero_on_failure"), ("stein", {"eps": 1.0, "hard": 1}, "hard"),
        ("stein", {"eps": 1.0, "sigma": 0.0}, "sigma"), ("ddn", {"eps": 1.0, "surrogate": "none"}, "surrogate"),
    ])
    def test_settings(self, name, options, words):
        with pytest.raises(InputError, match=words):
            build_attack(name, **options)

    def test_adre_surrogate(self):
        with pytest.raises(InputError, match="lam"):
            AdreSurrogate(-0.1)
        with pytest.raises(InputError, match="regulariser"):
            AdreSurrogate(0.1, "none")

    @pytest.mark.parametrize(("changed", "words"), [
        ({"images": torch.rand(2)}, "inputs must be floats"), ({"labels": torch.zeros(2)}, "labels"),
        ({"images": torch.zeros(1, 1, 3, 3, dtype=torch.uint8)}, "inputs must be floats"),
        ({"noise": torch.zeros(1, 1, 3, 3)}, "noise"), ({"noise": torch.zeros(1, 0, 1, 3, 3)}, "noise"),
        ({"noise": torch.zeros(1, 2, 1, 3, 4)}, "noise"), ({"images": MIDDLE + 1}, "must lie in"),
        ({"images": MIDDLE * torch.nan}, "must lie in"), ({"eps": torch.tensor([-1.0])}, "eps"),
        ({"eps": torch.tensor(1.0)}, "eps"), ({"rows": 0}, "rows"),
    ])
    def test_arguments(self, changed, words):
        arguments = {"images": MIDDLE, "labels": ZERO, "noise": None, "generator": generator(), **changed}
        with pytest.raises(InputError, match=words):
            attack_images(PGD(0.3, 2), linear(W), **arguments)

    def test_a_broken_network_is_named(self):
        with pytest.raises(ModelError, match="not finite"):
            attack_images(PGD(0.3, 2), linear(W * torch.nan), MIDDLE, ZERO, generator=generator())
