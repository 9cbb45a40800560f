"""`smoothmix` against its formula, and where it becomes Gaussian augmentation."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax

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
)
from smoothcert.objectives import Step, build_objective
from smoothcert.smoothing.soft import draw_noise


class Recorder(nn.Module):
    """A network that keeps what it is given in train mode."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner, self.seen = inner, []

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.seen.append(images.detach())
        return self.inner(images)


def logits(seed: int, m: int = 3) -> Tensor:
    return 2 * torch.randn(4, m, 5, generator=generator(seed), dtype=torch.float64)


LABELS_4, SHARES = torch.tensor([0, 1, 2, 3]), torch.tensor([0.0, 0.1, 0.3, 0.5], dtype=torch.float64)


def test_eta_0_is_gaussian_augmentation_with_m_draws():
    """In eval mode, where the mixtures in the same pass do not matter."""
    found = loss_of(build_objective("smoothmix", 0.5, m=3, eta=0, steps=1), network().eval()).total
    expected = loss_of(build_objective("consistency", 0.5, m=3, lam=0, eta=0), network().eval()).total
    assert torch.allclose(found, expected, rtol=1e-6)


def test_the_loss_by_its_formula():
    clean, mixed = logits(1), logits(2)
    clean[0, :, 0], clean[1, :, 1], clean[2, :, 2] = 9.0, 9.0, -9.0  # right, right, wrong
    loss = build_objective("smoothmix", 0.5, m=3, eta=2.0, warmup=4).of_logits(clean, mixed, LABELS_4, SHARES, 1.5)
    answers, terms = clean.softmax(-1).mean(1), []
    for answer, copies, label, u in zip(answers, mixed, LABELS_4, SHARES, strict=True):
        target = (1 - u) * answer + u / 5
        divergences = [kl_div(log_softmax(row, 0), target, reduction="sum") for row in copies]
        terms.append(sum(divergences) / 3 * (answer.argmax() == label))
    plain = torch.stack([cross_entropy(clean[:, j], LABELS_4) for j in range(3)]).mean()
    mixture = torch.stack(terms).mean()
    assert float(loss.parts["mixture"]) == pytest.approx(float(mixture), rel=1e-9)
    assert float(loss.total) == pytest.approx(float(plain + 2.0 * 0.5 * mixture), rel=1e-9)


def test_u_lies_in_half_of_the_unit_interval_and_mixes():
    """x_mix is where u says, on the way to x_adv, whose steps on a linear model are known; the noise is that of x."""
    objective = build_objective("smoothmix", 0.5, m=2, steps=2, step_size=0.1, warmup=0)
    images, labels = PIXEL.repeat(40, 1, 1, 1), PIXEL_LABELS.repeat(40)
    model = Recorder(nn.Identity())
    model.inner.forward = logistic()
    loss_of(objective, model, images, labels)
    clean, mixed = (part.unflatten(0, (-1, 2)) for part in model.seen[0].chunk(2))
    noise = draw_noise(images, 2, 0.5, generator())
    assert torch.equal(clean, images.unsqueeze(1) + noise)
    moved = (mixed - clean).flatten(1)
    signs = torch.tensor(-SIGNS, dtype=torch.float32).repeat(40)
    assert torch.allclose(moved[:, 0], moved[:, 1], atol=1e-6)
    share = moved[:, 0] / (0.2 * signs)
    assert -1e-5 <= float(share.min()) < 0.05
    assert 0.45 < float(share.max()) <= 0.5 + 1e-5
    assert abs(float(share.mean()) - 0.25) < 0.05


def test_images_that_the_smoothed_network_gets_wrong_are_not_mixed():
    clean = torch.zeros(4, 3, 5, dtype=torch.float64)
    clean[:, :, 4] = 5.0
    loss = build_objective("smoothmix", 0.5, m=3).of_logits(clean, logits(2), LABELS_4, SHARES, 100.0)
    assert float(loss.parts["mixture"]) == 0
    assert float(loss.parts["correct"]) == 0


def test_no_gradient_flows_through_the_target():
    clean, mixed = logits(1).requires_grad_(), logits(2).requires_grad_()
    with torch.no_grad():
        clean[torch.arange(4), :, LABELS_4] += 9.0
    loss = build_objective("smoothmix", 0.5, m=3, warmup=0).of_logits(clean, mixed, LABELS_4, SHARES, 0.0)
    through_all, through_plain = (torch.autograd.grad(value, clean, retain_graph=True)[0]
                                  for value in (loss.total, loss.parts["cross_entropy"]))
    assert torch.equal(through_all, through_plain)
    assert float(torch.autograd.grad(loss.total, mixed)[0].abs().sum()) > 0


def test_the_order_of_the_batch_does_not_matter():
    order = torch.tensor([2, 0, 3, 1])
    objective = build_objective("smoothmix", 0.5, m=3)
    one = objective.of_logits(logits(1), logits(2), LABELS_4, SHARES, 100.0).total
    two = objective.of_logits(logits(1)[order], logits(2)[order], LABELS_4[order], SHARES[order], 100.0).total
    assert float(one) == pytest.approx(float(two), rel=1e-12)


def test_the_attack_is_not_projected_and_stays_among_the_pixels():
    """T steps of one length, in one direction on a linear model: the way is T lengths, or ends at the box."""
    for size, expected in ((0.1, 0.3), (0.9, 0.5)):
        objective = build_objective("smoothmix", 0.5, steps=3, step_size=size)
        moved = float(loss_of(objective, logistic(), PIXEL, PIXEL_LABELS).parts["perturbation"])
        assert moved == pytest.approx(expected, rel=1e-4)
    beyond = objective.loss(logistic(), PIXEL, PIXEL_LABELS, Step(generator(), 100.0, bounds=None)).parts
    assert float(beyond["perturbation"]) == pytest.approx(2.7, rel=1e-4)
    assert build_objective("smoothmix", 0.25) == build_objective("smoothmix", 0.25, m=2, eta=5, steps=4, warmup=10)
    by_default, given = (loss_of(build_objective("smoothmix", 0.25, **options), network()).total
                         for options in ({}, {"step_size": 0.5}))
    assert torch.equal(by_default, given)


def test_the_attack_leaves_batchnorm_alone():
    """Statistics change by the one training pass, whatever the attack did."""
    found = []
    for steps in (1, 4):
        model = network()
        objective = build_objective("smoothmix", 0.5, m=2, steps=steps, step_size=1e-6)
        objective.loss(model, IMAGES, LABELS, Step(generator(), 0.0))
        found.append(model[1].running_mean.clone())
        assert int(model[1].num_batches_tracked) == 1
    assert torch.allclose(*found, atol=1e-5)


def test_gradients_reach_every_weight():
    model = network()
    total = loss_of(build_objective("smoothmix", 0.5, steps=1), model).total
    assert all(g.isfinite().all() for g in gradients(total, model))
