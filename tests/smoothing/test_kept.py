"""Voters kept from call to call: the answers are those of the model as it is, and a call does not read all weights."""

import numpy as np
import pytest
import torch
from torch import nn

from smoothcert import SmoothedClassifier
from smoothcert.errors import ModelError
from smoothcert.smoothing import kept

K = 6
IMAGE = np.full((1, 4, 4), 128 / 255, dtype=np.float32)


class Net(nn.Module):
    """A network with every place that its answers may hang on."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, K))
        self.register_buffer("saved", torch.zeros(K))
        self.register_buffer("bias", torch.zeros(K), persistent=False)
        self.shift, self.shifts, self.mixes = torch.zeros(K), [0.0], False

    def forward(self, images):
        scores = self.layers(images) + self.saved + self.bias + self.shift + self.shifts[0] * torch.arange(K)
        return scores.softmax(dim=0) if self.mixes else scores


def lift(tensor: torch.Tensor) -> None:
    """Add to the last class."""
    tensor[-1] += 50.0


def step(optimizer: torch.optim.Optimizer, net: Net) -> None:
    net.layers[3].bias.grad = torch.zeros(K).index_fill_(0, torch.tensor([K - 1]), -1.0)
    optimizer.step()


def replace_layer(net: Net) -> None:
    layer = nn.Linear(8, K)
    layer.load_state_dict(net.layers[3].state_dict())
    lift(layer.bias.data)
    net.layers[3] = layer


def share_with_numpy(net: Net) -> None:
    net.layers[3].bias.detach().numpy()[-1] += 50.0


def load(net: Net) -> None:
    state = {name: value.clone() for name, value in net.state_dict().items()}
    lift(state["layers.3.bias"])
    net.load_state_dict(state)


def hook(net: Net) -> None:
    net.layers[3].register_forward_hook(lambda module, given, output: output + 50 * (torch.arange(K) == K - 1))


CHANGES = {
    "data": lambda net: lift(net.layers[3].bias.data),
    "set data": lambda net: setattr(net.layers[3].bias, "data", net.layers[3].bias + 50.0 * (torch.arange(K) == K - 1)),
    "numpy": share_with_numpy,
    "no_grad": torch.no_grad()(lambda net: lift(net.layers[3].bias)),
    "inference": torch.inference_mode()(lambda net: lift(net.layers[3].bias)),
    "load": load,
    "sgd": lambda net: step(torch.optim.SGD([net.layers[3].bias], lr=50.0), net),
    "fused adam": lambda net: step(torch.optim.Adam([net.layers[3].bias], lr=50.0, fused=True), net),
    "layer": replace_layer,
    "buffer": lambda net: lift(net.saved),
    "other buffer": lambda net: lift(net.bias),
    "attribute": lambda net: setattr(net, "shift", 50.0 * (torch.arange(K) == K - 1)),
    "within an attribute": lambda net: net.shifts.__setitem__(0, 50.0),
    "hook": hook,
}


@pytest.mark.parametrize("options", [{}, {"engine": "eager"}, {"noise": "gaussian"}, {"precision": "bf16"}],
                         ids=["live", "eager", "gaussian", "bf16"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_model_answers_at_the_next_call(change, options):
    def smoothed(net):
        return SmoothedClassifier(net, 0.25, K, seed=0, **options)

    net = Net().eval()
    g = smoothed(net)
    before = g.predict(IMAGE, n=200)
    assert g.predict(IMAGE, n=200) == before
    CHANGES[change](net)
    after = g.predict(IMAGE, n=200)
    assert after == smoothed(net).predict(IMAGE, n=200)
    assert after.counts[K - 1] == 200 != before.counts[K - 1]


def test_long_calls_and_short_ones_see_the_same_model():
    net = Net().eval()
    g = SmoothedClassifier(net, 0.25, K, seed=0)
    long, short = g.certify(IMAGE, n=11_000), g.predict(IMAGE, n=300)
    lift(net.layers[3].bias.data)
    assert g.predict(IMAGE, n=300).counts[K - 1] == 300 != short.counts[K - 1]
    assert g.certify(IMAGE, n=11_000).estimation[K - 1] == 11_000 != long.estimation[K - 1]


def test_a_short_call_neither_reads_the_weights_nor_runs_the_model_besides(monkeypatch):
    rows = []
    net = Net().eval()
    net.register_forward_pre_hook(lambda module, given: rows.append(len(given[0])))
    g = SmoothedClassifier(net, 0.25, K, seed=0)
    expected = g.predict(IMAGE, n=100)
    monkeypatch.setattr(kept, "_content", lambda base: pytest.fail("all weights are read"))
    rows.clear()
    assert g.predict(IMAGE, n=100) == expected
    assert sum(rows) <= 100 + 5  # close calls


def test_two_rows_are_judged_again_after_10000_samples(monkeypatch):
    looks, few_answers = [], kept.few_answers
    monkeypatch.setattr(kept, "few_answers", lambda *given: looks.append(1) or few_answers(*given))
    g = SmoothedClassifier(Net().eval(), 0.25, K, seed=0)
    for _ in range(23):
        g.predict(IMAGE, n=1000)
    assert len(looks) == 2


@pytest.mark.parametrize("spoil", [lambda net: net.layers.append(nn.Softmax(dim=0)),
                                   lambda net: setattr(net, "mixes", True)])
def test_a_network_that_begins_to_mix_rows_is_refused(spoil):
    net = Net().eval()
    g = SmoothedClassifier(net, 0.25, K, seed=0)
    g.predict(IMAGE, n=1000)
    spoil(net)
    with pytest.raises(ModelError, match="other rows of the batch"):
        g.predict(IMAGE, n=1000)


def test_a_change_that_no_look_shows_is_found_within_10000_samples():
    mixes = [False]

    def model(images):
        scores = images.flatten(1)[:, :K]
        return scores.softmax(dim=0) if mixes[0] else scores

    g = SmoothedClassifier(model, 0.25, K, seed=0)
    g.predict(IMAGE, n=1000)
    mixes[0] = True
    with pytest.raises(ModelError, match="other rows of the batch"):
        for _ in range(11):
            g.predict(IMAGE, n=1000)
