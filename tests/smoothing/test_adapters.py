"""Models of other people made to fit: outputs, shapes, baked-in batches, and the words where they cannot be."""

import json
import warnings
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.svm import LinearSVC
from torch import nn
from typer.testing import CliRunner

from smoothcert import SmoothedClassifier
from smoothcert.cli.main import app
from smoothcert.errors import AdaptedWarning, InputError, ModelError
from smoothcert.models import load_model
from smoothcert.smoothing.adapters import AdaptedFunction, AdaptedNetwork, Fit, adapted, named_outputs
from smoothcert.smoothing.batching import BatchSizes, in_batches

SHAPE = (1, 4, 4)
IMAGES = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(0))
Answer = namedtuple("Answer", ["features", "scores"])


class Net(nn.Module):
    """A linear network behind any function of it and the images."""

    def __init__(self, answer=lambda dense, x: dense(x.flatten(1))):
        super().__init__()
        self.dense, self.answer = nn.Linear(16, 3, bias=False), answer
        with torch.no_grad():
            self.dense.weight.copy_(torch.linspace(-1, 1, 48).view(3, 16).sin())

    def forward(self, images):
        return self.answer(self.dense, images)


def smoothed(model, **options):
    return SmoothedClassifier(model, sigma=0.5, num_classes=3, seed=0, **options)


def radii(g, x=IMAGES[:2], n=1000):
    return [(c.prediction, c.radius) for c in g.certify(x, n=n)]


PLAIN = radii(smoothed(Net()))
FITTING = {
    "a mapping": lambda dense, x: {"logits": dense(x.flatten(1))},
    "a tuple": lambda dense, x: (dense(x.flatten(1)),),
    "a list with others": lambda dense, x: [None, x, dense(x.flatten(1))],
    "fields": lambda dense, x: Answer(x.flatten(1), dense(x.flatten(1))),
    "an object with logits": lambda dense, x: SimpleNamespace(logits=dense(x.flatten(1)), loss=None),
    "(N, K, 1, 1)": lambda dense, x: dense(x.flatten(1))[:, :, None, None],
    "(N, 1, K)": lambda dense, x: dense(x.flatten(1))[:, None],
    "(N, K, 1)": lambda dense, x: dense(x.flatten(1))[..., None],
    "squeezed": lambda dense, x: dense(x.flatten(1)).squeeze(),
    "an array": lambda dense, x: dense(x.flatten(1)).detach().numpy()[:, None],
}


@pytest.mark.parametrize("way", FITTING)
def test_answers_in_any_wrapping_give_the_plain_certificates(way):
    network = Net(FITTING[way])
    assert radii(smoothed(network)) == PLAIN
    assert radii(smoothed(network.forward)) == PLAIN
    assert adapted(network, SHAPE, 3)(IMAGES).shape == (5, 3)


@pytest.mark.parametrize("engine", ["eager", "plain"])
def test_engines_run_adapted_networks_without_a_word(engine):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for way in ("a mapping", "(N, K, 1, 1)"):
            assert radii(smoothed(Net(FITTING[way]), engine=engine)) == PLAIN


def test_a_model_that_fits_is_left_as_it_is():
    for model in (Net(), Net().forward, Net(lambda dense, x: dense(x.flatten(1)).detach().numpy())):
        assert adapted(model, SHAPE, 3) is model


def test_of_several_outputs_one_is_picked_by_name_or_position():
    network = Net(lambda dense, x: {"emb": -dense(x.flatten(1)), "y": dense(x.flatten(1))})
    with pytest.raises(ModelError, match=r"2 outputs .*: emb \(N, 3\), y \(N, 3\); .*--output NAME \(in Py"):
        smoothed(network).certify(IMAGES[0], n=100)
    for output in ("y", 1, "1"):
        assert radii(smoothed(network, output=output)) == PLAIN
    assert smoothed(network, output="y").soft(IMAGES[:2], 4).shape == (2, 3)
    with pytest.raises(ModelError, match="no output 'z'; it returns 'emb', 'y'"):
        smoothed(network, output="z").certify(IMAGES[0], n=100)
    with pytest.raises(ModelError, match="one tensor without a name"):
        smoothed(Net(), output="y").certify(IMAGES[0], n=100)


def test_the_classes_tell_the_logits_from_features():
    network = Net(lambda dense, x: {"features": x.flatten(1), "y": dense(x.flatten(1))})
    assert radii(smoothed(network)) == PLAIN
    with pytest.raises(ModelError, match=r"features \(N, 16\), y \(N, 3\)"):
        adapted(network, SHAPE)


def test_named_outputs_go_into_what_holds_them():
    value = torch.zeros(1)
    assert list(named_outputs({"a": (value, None), "b": {"c": value}, "d": "text"})) == ["a.0", "b.c"]
    assert list(named_outputs(value)) == [""]
    assert named_outputs("text") == {}


@pytest.mark.parametrize(("rows", "words"), [(1, "one row at a time"), (4, "batches of exactly 4 rows")])
def test_a_batch_baked_into_a_model_is_found_and_kept(rows, words):
    network = Net(lambda dense, x: dense(x.reshape(rows, 16)))
    for model, kind in ((network, AdaptedNetwork), (network.forward, AdaptedFunction)):
        with pytest.warns(AdaptedWarning, match=words):
            fitting = adapted(model, SHAPE, 3)
        assert isinstance(fitting, kind)
        torch.testing.assert_close(fitting(IMAGES), Net()(IMAGES))
        with pytest.warns(AdaptedWarning, match=rf"{words}.*shape \(3, 1, 4, 4\): RuntimeError"):
            assert radii(smoothed(model)) == PLAIN


def test_gradients_pass_through_an_adapted_network():
    network = AdaptedNetwork(Net(FITTING["a mapping"]), Fit("logits", BatchSizes(1, 1)))
    x = IMAGES.clone().requires_grad_()
    expected, got = (torch.autograd.grad(f(x).square().sum(), x)[0] for f in (Net(), network))
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("sizes", [
    BatchSizes(), BatchSizes(4, 4), BatchSizes(1, 1), BatchSizes(3, 5), BatchSizes(8, None, 8), BatchSizes(5, 13, 4),
    BatchSizes(alone=True), BatchSizes(4, 4, alone=True),
])
@pytest.mark.parametrize("n", [0, 1, 3, 8, 19])
def test_every_batch_has_a_size_that_the_model_takes(sizes, n):
    seen = []

    def run(batch):
        seen.append(len(batch))
        assert not sizes.alone or not batch[1:].any()
        return batch + 1

    images = torch.arange(1.0, n + 1).view(n, 1)
    assert torch.equal(in_batches(run, images, sizes), images + 1)
    assert all(sizes.free or (k == sizes.up_from(k) and k <= (sizes.most or k)) for k in seen)


@pytest.mark.parametrize("answer", [
    lambda dense, x: dense(x.flatten(1))[:, :1].sigmoid(), lambda dense, x: dense(x.flatten(1))[:, 0]])
def test_one_logit_a_row_is_told_to_become_two(answer):
    with pytest.raises(ModelError, match=r"logits of shape \(N, 3\).*return two columns, torch\.cat\(\[-z, z\], 1\)"):
        smoothed(Net(answer)).certify(IMAGES[0], n=100)


@pytest.mark.parametrize(("fails", "words"), [
    (lambda x: 1 / 0, "ZeroDivisionError: division by zero"), (lambda x: x.nothing, "AttributeError: .*nothing"),
    (lambda x, y: x, "TypeError: .*positional"), (lambda x: torch.ones(2) @ torch.ones(3), "RuntimeError: .*size"),
])
def test_what_a_model_raises_is_a_model_error_with_the_shape(fails, words):
    for call in (lambda g: g.certify(IMAGES[:2], n=100), lambda g: g.soft(IMAGES[:2], 2)):
        with pytest.raises(ModelError, match=rf"cannot take float32 images of shape \(3, 1, 4, 4\): {words}") as caught:
            call(smoothed(fails))
        assert caught.value.__cause__ is not None


SERIES = nn.Sequential(nn.Conv1d(2, 4, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3))
PICTURES = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


@pytest.mark.parametrize(("model", "shape", "words"), [
    (SERIES, (10, 2, 30), r"takes it as a batch of 10: give the shape of one input, input_shape=\(C, T\) of series"),
    (Net(), (10, 4, 4), r"takes it as a batch of 10: .*grey images as x\[:, None\]"),
    (PICTURES, (10, 8, 8), r"was read as one image \(C, H, W\): several have shape \(N, C, H, W\)"),
])
def test_a_batch_without_an_axis_is_read_as_one_and_said_so(model, shape, words):
    with pytest.raises(ModelError, match=words):
        smoothed(model).certify(torch.rand(shape), n=100)


def test_series_are_certified_as_the_message_says():
    x = torch.rand(2, 2, 30)
    certificates = smoothed(lambda rows: SERIES(rows.squeeze(2))).certify(x[:, :, None, :], n=100)
    assert len(certificates) == 2


def test_an_image_of_another_size_is_not_called_a_batch():
    with pytest.raises(ModelError) as caught:
        smoothed(Net()).certify(torch.rand(1, 9, 9), n=100)
    assert "was read as" not in str(caught.value)


@pytest.mark.parametrize("kind", [LinearSVC, RidgeClassifier])
def test_classifiers_without_probabilities_are_told_what_to_do(kind):
    trained = kind().fit(np.random.default_rng(0).random((30, 16)), np.arange(30) % 3)
    for model in (trained, trained.decision_function, trained.predict):
        with pytest.raises(ModelError, match=rf"{kind.__name__}.*CalibratedClassifierCV.*one column z.*\[-z, z\]"):
            smoothed(model)
    g = smoothed(lambda x: trained.decision_function(x.flatten(1).numpy()))
    assert g.certify(IMAGES[0], n=100).prediction is None or g.certify(IMAGES[0], n=100).radius >= 0


FILE = """
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from torch import nn

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(64, 10, bias=False)
        with __import__("torch").no_grad():
            self.dense.weight.copy_(__import__("torch").linspace(-1, 1, 640).view(10, 64).sin())

    def forward(self, x):
        y = self.dense(x.flatten(1))
        return {"emb": -y, "y": y}

def trained(kind):
    return kind().fit(np.random.default_rng(0).random((40, 64)), np.arange(40) % 10)

def two(): return Two()
def svc(): return trained(LinearSVC)
def proba(): return trained(LogisticRegression)
"""


@pytest.fixture
def net(tmp_path):
    (tmp_path / "net.py").write_text(FILE)
    return tmp_path / "net.py"


def test_factories_of_estimators_are_told_the_same(net):
    with pytest.raises(ModelError, match=r"net\.py:svc returns a LinearSVC, which has no predict_proba.*Calibrated"):
        load_model(f"{net}:svc")
    with pytest.raises(InputError, match=r"output: .* has predict_proba"):
        load_model(f"{net}:proba", output="y")
    assert isinstance(load_model(f"{net}:proba").model, LogisticRegression)


def test_the_output_is_an_option_and_part_of_the_identity(net, tmp_path):
    def run(*words):
        return CliRunner().invoke(app, [*map(str, words)])

    common = ["--data", "digits", "--max-images", 2, "--sigma", 0.25, "--seed", 0, "--n", 200, "-q"]
    refused = run("certify", f"{net}:two", *common, "-o", tmp_path / "store")
    assert refused.exit_code == 1
    assert "emb (N, 10), y (N, 10); pick one with --output" in refused.output
    assert not (tmp_path / "store").exists()
    assert run("certify", f"{net}:two", *common, "--output", "y", "-o", tmp_path / "store").exit_code == 0
    identity = json.loads((tmp_path / "store" / "manifest.json").read_text())["identity"]["model"]
    assert identity["output"] == "y"
    again = run("verify", tmp_path / "store", "--resample", 2, "--model", f"{net}:two")
    assert again.exit_code == 0, again.output
    for verb, more in (("predict", []), ("attack", ["--eps", 0.1, "--steps", 1, "--m", 1])):
        (tmp_path / "c.yaml").write_text("output: y\n")
        done = run(verb, f"{net}:two", *common, *more, "--config", tmp_path / "c.yaml", "-o", tmp_path / verb)
        assert done.exit_code == 0, done.output
