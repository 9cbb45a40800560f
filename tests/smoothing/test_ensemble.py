"""Ensembles: the means, by their formulas, and what is refused."""

import pytest
import torch
from torch import nn

from smoothcert.errors import InputError, ModelError
from smoothcert.models import build_model
from smoothcert.smoothing.ensemble import Ensemble

SHAPE = (1, 4, 4)
IMAGES = torch.rand(7, *SHAPE, generator=torch.Generator().manual_seed(0))


def members(count: int = 3, classes: int = 5) -> list[nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return [build_model("mlp", SHAPE, classes, hidden=[8]).eval() for _ in range(count)]


@pytest.mark.parametrize("weights", [None, [2, 1, 1]])
def test_the_means(weights):
    networks, shares = members(), torch.tensor(weights or [1, 1, 1]) / sum(weights or [1, 1, 1])
    with torch.no_grad():
        answers = torch.stack([network(IMAGES) for network in networks])
        logits = Ensemble(networks, "logits", weights)(IMAGES)
        probabilities = Ensemble(networks, "probabilities", weights)(IMAGES).exp()
    assert torch.allclose(logits, torch.einsum("l,lnk->nk", shares, answers), atol=1e-6)
    assert torch.allclose(probabilities, torch.einsum("l,lnk->nk", shares, answers.softmax(2)), atol=1e-6)


def test_a_mean_of_logits_may_vote_otherwise_than_one_of_probabilities():
    """One network that is very sure outweighs two in the logits alone."""
    def answer(logits: list[float]) -> nn.Module:
        network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
        nn.init.zeros_(network[1].weight)
        network[1].bias.data = torch.tensor(logits)
        return network.eval()

    networks = [answer([30.0, 0.0, 0.0]), answer([0.0, 4.0, 0.0]), answer([0.0, 4.0, 0.0])]
    votes = [int(Ensemble(networks, mean)(IMAGES).argmax(1)[0]) for mean in ("logits", "probabilities")]
    assert votes == [0, 1]


def test_gradients_reach_every_member_and_the_image():
    networks = members()
    images = IMAGES.clone().requires_grad_()
    Ensemble(networks, "probabilities")(images)[:, 0].sum().backward()
    assert images.grad.abs().sum() > 0
    assert all(p.grad is not None for network in networks for p in network.parameters())


@pytest.mark.parametrize(("arguments", "words"), [
    (lambda: (members(1),), "at least two members"), (lambda: ([len, len],), "torch modules"),
    (lambda: (members(), "median"), "logits or probabilities"), (lambda: (members(), "logits", [1, 2]), "3 finite"),
    (lambda: (members(), "logits", [1, 0, 1]), "above 0"),
    (lambda: (members(), "logits", [1, "x", 1]), "finite numbers"),
    (lambda: (members(), "logits", [1e308, 1e308, 1e308]), "finite numbers"),
])
def test_what_is_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        Ensemble(*arguments())


def test_members_of_other_classes():
    with pytest.raises(ModelError, match=r"same classes, got logits of shapes \(7, 5\), \(7, 4\)"):
        Ensemble([*members(1, 5), *members(1, 4)])(IMAGES)
