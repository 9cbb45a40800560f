"""`cat-rs` against its formula, and where it becomes Gaussian augmentation."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from objective_batches import IMAGES, LABELS, generator, loss_of, network
from smoothcert.attacks import attack_images, l2_norms
from smoothcert.objectives import Step, build_objective
from smoothcert.objectives.cat_rs import NoiseAttack, match_moments
from smoothcert.objectives.trades import divergence
from smoothcert.smoothing.soft import draw_noise

JUDGE = network(seed=3)


def cat_rs(sigma: float = 0.5, **options):
    return build_objective("cat-rs", sigma, **{"classifier": JUDGE, **options})


def logits(seed: int, m: int = 4) -> Tensor:
    return 2 * torch.randn(3, m, 5, generator=generator(seed), dtype=torch.float64)


def target() -> Tensor:
    return torch.rand(3, 5, generator=generator(7), dtype=torch.float64).softmax(1)


LABELS_3 = torch.tensor([0, 1, 2])
NUMBERS = torch.tensor([[0.1, 0.3, 0.6, 0.9]] * 3, dtype=torch.float64)


def votes_for_label(share: list[int]) -> Tensor:
    """Logits of which, image by image, so many of the 4 copies vote for the label."""
    made = logits(1)
    for image, right in enumerate(share):
        made[image, :, image] = -9.0
        made[image, :right, image] = 9.0
    return made


def test_the_loss_by_its_formula():
    """p_hat of 1, .5 and 0 give K of 4, 2 and 1 under these numbers."""
    clean, attacked = votes_for_label([4, 2, 0]), logits(2)
    loss = cat_rs(m=4, lam=0.7).of_logits(clean, attacked, LABELS_3, target(), NUMBERS)
    terms = []
    for image, count in enumerate((4, 2, 1)):
        each = sorted(float(cross_entropy(row, LABELS_3[image])) for row in clean[image])
        terms.append(sum(each[:count]) / 4)
    worst = max(float(kl_div(log_softmax(row, 0), target()[0], reduction="sum")) for row in attacked[0])
    assert float(loss.parts["low"]) == pytest.approx(sum(terms) / 3, rel=1e-9)
    assert float(loss.parts["high"]) == pytest.approx(worst / 3, rel=1e-9)
    assert float(loss.total) == pytest.approx(sum(terms) / 3 + 0.7 * worst / 3, rel=1e-9)
    assert float(loss.parts["sure"]) == pytest.approx(1 / 3)
    assert float(loss.parts["kept"]) == pytest.approx(7 / 12)


def test_lambda_0_and_sure_votes_are_gaussian_augmentation():
    clean = votes_for_label([4, 4, 4])
    loss = cat_rs(m=4, lam=0).of_logits(clean, logits(2), LABELS_3, target(), NUMBERS)
    expected = torch.stack([cross_entropy(clean[:, j], LABELS_3) for j in range(4)]).mean()
    assert float(loss.total) == pytest.approx(float(expected), rel=1e-12)


def test_one_noise_and_lambda_0_is_gaussian_augmentation():
    """K is at least 1, so that one copy is always kept; in eval mode, where the attacked copies do not matter."""
    found = loss_of(cat_rs(m=1, lam=0, steps=1), network().eval()).total
    assert torch.allclose(found, loss_of(build_objective("gaussian", 0.5), network().eval()).total, rtol=1e-6)


def test_the_counts_kept_are_binomial():
    """K ~ max(1, Bin(4, 1/2)) over 30,000 draws: means and shares within five standard errors."""
    clean = votes_for_label([2, 2, 2]).repeat(10_000, 1, 1)
    numbers = torch.rand(30_000, 4, generator=generator(), dtype=torch.float64)
    labels = LABELS_3.repeat(10_000)
    parts = cat_rs(m=4).of_logits(clean, clean, labels, target().repeat(10_000, 1), numbers).parts
    assert float(parts["sure"]) == pytest.approx(1 / 16, abs=5 * (1 / 16 / 30_000) ** 0.5)
    assert float(parts["kept"]) == pytest.approx((2 + 1 / 16) / 4, abs=0.01)


def test_no_gradient_flows_through_targets_or_votes():
    """The votes of the classifier are counted without a graph, and the classifier keeps no gradient."""
    judge = network(seed=3).train()
    before = judge[1].running_mean.clone()
    loss_of(cat_rs(classifier=judge, steps=1), network()).total.backward()
    assert all(p.grad is None and p.requires_grad for p in judge.parameters())
    assert torch.equal(judge[1].running_mean, before)
    assert judge.training
    votes = cat_rs(votes=8).count_votes(IMAGES, Step(generator(), 0.0))
    assert not votes.requires_grad
    assert torch.allclose(votes.sum(1), torch.ones(len(IMAGES)))
    assert torch.equal(votes * 8, (votes * 8).round())


def test_the_order_of_the_batch_and_of_the_noises_does_not_matter():
    clean, attacked, numbers = votes_for_label([4, 2, 0]), logits(2), NUMBERS
    one = cat_rs(m=4).of_logits(clean, attacked, LABELS_3, target(), numbers).total
    images, noises = torch.tensor([2, 0, 1]), torch.tensor([3, 1, 0, 2])
    two = cat_rs(m=4).of_logits(clean[images][:, noises], attacked[images][:, noises], LABELS_3[images],
                                target()[images], numbers[images][:, noises]).total
    assert float(one) == pytest.approx(float(two), rel=1e-12)


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 8, 8)])
def test_moments_are_matched_to_rounding(shape):
    noise, wanted = (torch.randn(5, *shape, generator=generator(seed)) * (1 + seed) + seed for seed in (1, 2))
    found = match_moments(noise, wanted).double().flatten(1)
    wanted = wanted.double().flatten(1)
    assert torch.allclose(found.mean(1), wanted.mean(1), atol=1e-6)
    assert torch.allclose(found.square().mean(1), wanted.square().mean(1), rtol=1e-5)
    assert torch.allclose(match_moments(noise, noise), noise, atol=1e-6)


@pytest.mark.parametrize("m", [1, 3])
def test_attacked_noise_keeps_its_moments_and_raises_the_divergence(m):
    model, images = network().eval(), torch.rand(6 * m, 1, 4, 4, generator=generator(1))
    noise = draw_noise(images, 1, 0.5, generator(2))
    answers = torch.rand(6 * m, 3, generator=generator(3)).softmax(1)
    moved = attack_images(NoiseAttack(1.0, 4, surrogate=divergence), model, images, answers, noise,
                          generator=generator(), bounds=None)
    before, after = noise[:, 0].flatten(1), (noise[:, 0] + moved - images).flatten(1)
    assert torch.allclose(after.mean(1), before.mean(1), atol=1e-6)
    assert torch.allclose(after.square().mean(1), before.square().mean(1), rtol=1e-4)
    assert 0.2 < float(l2_norms(moved - images).mean()) < 1.5
    with torch.no_grad():
        one, two = (divergence(model(x + noise[:, 0]).unsqueeze(1), answers) for x in (images, moved))
    assert float((two > one).double().mean()) > 0.9


def test_a_gradient_of_zero_leaves_the_noise_where_it_is():
    """No random direction is drawn: processes that share a batch would draw different ones."""
    flat = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    torch.nn.init.zeros_(flat[1].weight)
    noise = draw_noise(IMAGES, 1, 0.5, generator(2))
    numbers = generator()
    state = numbers.get_state()
    moved = attack_images(NoiseAttack(1.0, 2, surrogate=divergence), flat, IMAGES, torch.full((6, 3), 1 / 3), noise,
                          generator=numbers, bounds=None)
    assert torch.allclose(moved, IMAGES, atol=1e-6)
    assert torch.equal(state, numbers.get_state())


def test_the_attack_leaves_batchnorm_alone():
    found = []
    for steps in (1, 3):
        model = network()
        cat_rs(m=2, steps=steps, eps=1e-6).loss(model, IMAGES, LABELS, Step(generator(), 0.0))
        assert int(model[1].num_batches_tracked) == 1
        found.append(model[1].running_mean.clone())
    assert torch.allclose(*found, atol=1e-5)


def test_lambda_is_twice_sigma_unless_given():
    for sigma, lam in ((0.25, 0.5), (0.5, 1.0), (1.0, 2.0)):
        loss = loss_of(cat_rs(sigma, steps=1), network())
        expected = loss.parts["low"] + lam * loss.parts["high"]
        assert float(loss.total.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
