"""g(x): a smoothed classifier as a torch module, smooth in x, the same for the same image, in bounded memory."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from smoothcert import SmoothedClassifier
from smoothcert.denoise import GaussianDenoiser, WalkJump, build_denoiser
from smoothcert.errors import InputError, ModelError
from smoothcert.noise import NOISES
from smoothcert.smoothing import classifier as classifier_module

K, SIGMA = 5, 0.3
X = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))


def network(seed: int = 0, *layers: nn.Module) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(36, 16), nn.Tanh(), nn.Linear(16, K)).eval()


def smoothed(model=None, **options) -> SmoothedClassifier:
    return SmoothedClassifier(network() if model is None else model, SIGMA, K, **{"seed": 0, "m": 16, **options})


def test_scores_are_the_log_of_the_mean_softmax_over_copies():
    """Against the definition, with the noise vectors that a model of its own was seen to get."""
    seen, inner = [], network()

    def model(rows):
        seen.append(rows.detach().clone())
        return inner(rows)

    g = smoothed(model)
    scores = g(X)
    rows = torch.cat(seen[-1:]).view(4, 16, 1, 6, 6)
    assert torch.allclose(scores, inner(rows.flatten(0, 1)).softmax(1).view(4, 16, K).mean(1).log(), atol=1e-6)
    noise = rows - X[:, None]
    assert torch.allclose(noise, noise[:1].expand_as(noise), atol=1e-6), "images have noise of their own"
    assert 0.8 * SIGMA < float(noise[0].std()) < 1.2 * SIGMA


@pytest.mark.parametrize("kind", NOISES)
def test_one_function_of_one_image_whatever_its_company(kind):
    g, other = smoothed(noise=kind), smoothed(noise=kind, seed=1)
    whole = g(X)
    assert torch.allclose(torch.cat([g(image[None]) for image in X]), whole, atol=1e-6)
    assert torch.equal(g(X), whole)
    assert not torch.allclose(other(X), whole, atol=1e-4)


def test_it_is_smooth_in_the_image():
    """Central differences agree with the gradient, which noise keyed by the image's bytes would spoil."""
    g = smoothed()
    x = X.clone().requires_grad_()
    g(x)[:, 2].sum().backward()
    direction = torch.randn(X.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        slope = (g(X + 1e-2 * direction) - g(X - 1e-2 * direction))[:, 2].sum() / 2e-2
    assert float(slope) == pytest.approx(float((x.grad * direction).sum()), rel=1e-2)


@pytest.mark.parametrize("rows", [1, 7, 16, 33, 1000])
def test_passes_are_bounded_and_change_nothing(monkeypatch, rows):
    sizes, inner = [], network()

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def forward(self, images):
            sizes.append(len(images))
            return self.inner(images)

    def gradients(g):
        x = X.clone().requires_grad_()
        inner.zero_grad()
        g(x)[:, 1].sum().backward()
        return x.grad, inner[1].weight.grad.clone()

    expected = gradients(smoothed(Counting()))
    monkeypatch.setattr(classifier_module, "default_batch", lambda *args: rows)
    g = smoothed(Counting())
    sizes.clear()
    found = gradients(g)
    assert max(sizes) <= max(rows, 3)  # three rows are the first look at a model
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_it_is_a_module_with_its_models_state():
    net = network()
    g = smoothed(net)
    assert isinstance(g, nn.Module)
    assert set(g.state_dict()) == {f"model.{name}" for name in net.state_dict()}
    assert [*map(id, g.parameters())] == [*map(id, net.parameters())]
    other = smoothed(network(1))
    assert not torch.allclose(other(X), g(X))
    other.load_state_dict(g.state_dict())
    assert torch.equal(other(X), g(X))
    assert other.predict(X[0], n=200) == g.predict(X[0], n=200)
    for twin in (copy.deepcopy(g), pickle.loads(pickle.dumps(g))):
        assert torch.equal(twin(X), g(X))
        assert twin.certify(X[0], n=200) == g.certify(X[0], n=200)
    optimizer = torch.optim.SGD(g.parameters(), lr=1.0)
    before = g(X).detach()
    g(X)[:, 0].sum().backward()
    optimizer.step()
    assert not torch.allclose(g(X), before)


def test_a_denoiser_is_part_of_it():
    front = nn.Conv2d(1, 1, 1)

    class Denoiser(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = front

        def forward(self, y, sigma):
            return self.layer(y)

    g = smoothed(denoiser=Denoiser())
    assert "denoiser.layer.weight" in g.state_dict()
    g(X).sum().backward()
    assert front.weight.grad is not None


@pytest.mark.parametrize("kind", ["energy-residual", "walk"])
def test_passes_change_nothing_behind_a_denoiser_of_gradients_or_chance(monkeypatch, kind):
    """An energy is differentiated in its forward pass; a walk's normals belong to the copy, whatever pass it is in."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser = build_denoiser(kind, (1, 6, 6), SIGMA).eval() if kind != "walk" else WalkJump(
            GaussianDenoiser(0.5, SIGMA), GaussianDenoiser(0.5, 0.05), SIGMA, 0.05, step=0.03, steps=3,
            unroll=3)
    found = []
    for rows in (1000, 7):
        monkeypatch.setattr(classifier_module, "default_batch", lambda *args, rows=rows: rows)
        g, x = smoothed(denoiser=denoiser), X.clone().requires_grad_()
        g(x)[:, 1].sum().backward()
        assert torch.allclose(g(X[:1]), g(X)[:1], atol=1e-6)
        found.append(x.grad)
    assert torch.allclose(*found, atol=1e-6)
    assert found[0].abs().max() > 0


def test_types_and_devices_follow_the_module():
    g = smoothed()
    expected = g(X)
    for convert in (nn.Module.double, nn.Module.half, nn.Module.float):
        found = convert(g)(X)
        assert found.dtype == torch.float32
        assert torch.allclose(found, expected, atol=1e-2)
    assert g.to("cpu").device == torch.device("cpu")
    assert g.to("meta").device == torch.device("meta")
    outer = nn.Sequential(nn.Identity(), smoothed()).double()
    assert outer(X.double()).dtype == torch.float32
    assert smoothed()(X.double().requires_grad_()).requires_grad


def test_modes():
    net = network(0, nn.Dropout(0.5))
    g = smoothed(net)
    assert not g.training
    fixed = g(X)
    assert torch.equal(g(X), fixed)
    g.train()
    assert net.training
    assert not torch.allclose(g(X), g(X)), "dropout and noise are fresh in train mode"
    with pytest.raises(ModelError, match=r"train mode.*eval\(\)"):
        g.predict(X)
    g.eval()
    assert torch.equal(g(X), fixed)
    net.train()
    with pytest.raises(ModelError, match=r"train mode.*eval\(\)"):
        g(X)
    plain = smoothed().train()
    assert not torch.allclose(plain(X), plain(X)), "noise is fresh in train mode"


def test_train_mode_shows_all_copies_to_batchnorm():
    class Sizes(nn.BatchNorm2d):
        seen = ()

        def forward(self, input):
            self.seen += (len(input),)
            return super().forward(input)

    layer = Sizes(1)
    g = smoothed(network(0, layer), m=100).train()
    g(X)
    assert layer.seen[-1] == 400


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad,
                                     lambda: torch.autocast("cpu", torch.bfloat16)])
def test_what_the_caller_has_set_changes_nothing(context):
    g = smoothed()
    with context():
        inside = g(X).float()
    assert torch.equal(inside, g(X))
    x = X.clone().requires_grad_()
    g(x).sum().backward()
    assert x.grad is not None


def test_no_global_generator_is_read_or_set():
    state = torch.random.get_rng_state()
    g = smoothed()
    x = X.clone().requires_grad_()
    g(x).sum().backward()
    g.train()(X)
    assert torch.equal(state, torch.random.get_rng_state())


def test_functions_and_estimators_have_scores_too():
    g = smoothed(lambda rows: rows.flatten(1)[:, :K].numpy())
    assert g(X).shape == (4, K)
    assert list(g.parameters()) == []
    g.model = network()
    assert len(list(g.parameters())) == 4
    assert torch.equal(g(X), smoothed()(X))
    g.model = lambda rows: rows.flatten(1)[:, :K]
    assert list(g.parameters()) == []


@pytest.mark.parametrize("x", [X[0], X.numpy(), (X * 255).to(torch.uint8), X[:0], [X[0]], None])
def test_what_is_no_batch_of_images_is_refused(x):
    with pytest.raises(InputError, match=r"tensor of inputs \(N, C, H, W\), floating point, got"):
        smoothed()(x)


def test_a_smoothed_classifier_is_no_base_classifier():
    with pytest.raises(ModelError, match="SmoothedClassifier already"):
        SmoothedClassifier(smoothed(), SIGMA, K)
    with pytest.raises(InputError, match="m must"):
        smoothed(m=0)
    g = smoothed()
    g.m = 3
    assert g(X).shape == (4, K)
    with pytest.raises(InputError, match="m must"):
        g.m = 2.5


def test_the_nearest_class_is_the_one_that_predict_finds():
    g = smoothed(m=2000)
    sure = [p.prediction for p in g.predict(X, n=2000)]
    assert [top if p is not None else None for top, p in zip(g(X).argmax(1).tolist(), sure, strict=True)] == sure
    assert np.isfinite(g(X).detach().numpy()).all()


@pytest.mark.parametrize("device", ["tpu", "cuda:77"])
def test_a_device_that_does_not_exist_is_refused(device):
    with pytest.raises(InputError, match=f"device: {device} "):
        smoothed(device=device)


def test_a_network_on_another_device_is_refused():
    """Before anything runs, whether it was there at first or is moved by itself; the meta device stands for a GPU."""
    denoiser = build_denoiser("energy-residual", (1, 6, 6), SIGMA, network="mlp", width=8, depth=1)
    for far in ({"model": network().to("meta"), "device": "cpu"}, {"denoiser": denoiser.to("meta")}):
        with pytest.raises(InputError, match=r"are on meta, and it is to run on cpu: move it there, \.to\('cpu'\)"):
            smoothed(**far)
    g = smoothed()
    g.model.to("meta")
    for call in (lambda: g(X), lambda: g.soft(X), lambda: g.predict(X, n=10), lambda: g.certify(X, n=10)):
        with pytest.raises(InputError, match="Sequential are on meta"):
            call()
