"""The tools of others over ours, without glue: the examples of docs/clients.md, and what each relies on."""

import inspect
import math
import re
import sys
import types
import warnings
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from smoothcert import SmoothedClassifier
from smoothcert.interop.art import SmoothedEstimator

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"


def example(words: str) -> str:
    """The one block of the page with these words in it."""
    (code,) = [body for body in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S) if words in body]
    return code


@cache
def trained() -> dict:
    """The names of the page's first example: a network under noise, g, images and labels."""
    names: dict = {}
    with torch.random.fork_rng():
        exec(example("optimizer = "), names)
    return names


def run(words: str) -> dict:
    names = dict(trained())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        exec(example(words), names)
    return names


def fall(adversarial: torch.Tensor) -> float:
    """How far an attack has taken the labels' log-probabilities down, on average."""
    with torch.no_grad():
        before, after = (trained()["g"](x)[range(16), trained()["labels"]] for x in (trained()["images"], adversarial))
    return float((before - after).mean())


def test_foolbox():
    foolbox = pytest.importorskip("foolbox", reason="needs foolbox, of the dev extra")
    names = run("import foolbox")
    assert fall(names["clipped"]) > 0.1
    assert torch.equal(names["success"], trained()["g"](names["clipped"]).argmax(dim=1) != names["labels"])
    for attack in (foolbox.attacks.LinfPGD(steps=3), foolbox.attacks.L2DeepFoolAttack(steps=3),
                   foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=1, steps=3)):
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # such as that of a model in train mode
            model = foolbox.PyTorchModel(trained()["g"], bounds=(0, 1))
            _, clipped, _ = attack(model, names["images"], names["labels"], epsilons=0.1)
        assert clipped.shape == names["images"].shape


def test_torchattacks():
    torchattacks = pytest.importorskip("torchattacks", reason="torchattacks is not installed")
    names = run("import torchattacks")
    assert fall(names["adversarial"]) > 0.1
    g = trained()["g"]
    for attack in (torchattacks.FGSM(g, eps=0.1), torchattacks.CW(g, steps=2), torchattacks.DeepFool(g, steps=2)):
        assert attack(names["images"], names["labels"]).shape == names["images"].shape
    assert not g.training


def test_autoattack():
    pytest.importorskip("pyautoattack", reason="pyautoattack is not installed")
    names = run("from pyautoattack")
    assert fall(names["adversarial"]) > 0.1


def test_what_autoattack_asks_of_a_model():
    """The same scores at each call, which are no probabilities, from whatever batch; and a gradient at every image."""
    g, images = trained()["g"], trained()["images"]
    x = images.clone().requires_grad_()
    scores = g(x)
    assert torch.equal(scores, g(images))
    assert torch.allclose(scores[3:5], g(images[3:5]), atol=1e-5)
    assert float(scores.detach().max()) <= 0
    assert torch.autograd.grad(scores.sum(), x)[0].flatten(1).abs().sum(dim=1).min() > 0


class TestArt:
    """What ART's own tests of randomized smoothing ask for, on a small network."""

    @pytest.fixture(autouse=True)
    def _art(self):
        pytest.importorskip("art.estimators", reason="needs the Adversarial Robustness Toolbox, of the dev extra")

    def estimator(self, **options) -> SmoothedEstimator:
        net = trained()["net"]
        return SmoothedEstimator(
            model=net, loss=nn.CrossEntropyLoss(), optimizer=torch.optim.Adam(net.parameters(), lr=0.0),
            input_shape=(1, 8, 8), nb_classes=10, clip_values=(0, 1), sample_size=100, scale=0.05, device_type="cpu",
            **options)

    @property
    def data(self) -> tuple[np.ndarray, np.ndarray]:
        return trained()["images"].numpy(), np.eye(10, dtype=np.float32)[trained()["labels"]]

    def test_it_is_arts_own_estimator(self):
        from art.estimators import BaseEstimator, LossGradientsMixin, NeuralNetworkMixin
        from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing
        from art.estimators.classification import ClassifierMixin

        estimator = self.estimator(seed=3)
        for kind in (BaseEstimator, LossGradientsMixin, NeuralNetworkMixin, ClassifierMixin,
                     PyTorchRandomizedSmoothing):
            assert isinstance(estimator, kind)
        ours = list(inspect.signature(PyTorchRandomizedSmoothing).parameters.values())
        from smoothcert.interop.art import _WithoutArt

        assert [(p.name, p.default) for p in ours] == [
            (p.name, p.default) for p in inspect.signature(_WithoutArt).parameters.values()]
        assert estimator.get_params()["seed"] == 3
        estimator.set_params(scale=0.5, sample_size=32)
        assert (estimator.scale, estimator.sample_size) == (0.5, 32)

    def test_it_answers_as_the_network_under_little_noise(self):
        from art.estimators.classification import PyTorchClassifier

        x, y = self.data
        estimator = self.estimator(seed=0)
        base = PyTorchClassifier(trained()["net"], nn.CrossEntropyLoss(), (1, 8, 8), 10, device_type="cpu").predict(x)
        found = estimator.predict(x)
        told = found.sum(axis=1) == 1
        assert told.mean() > 0.8
        assert np.array_equal(found[told].argmax(axis=1), base[told].argmax(axis=1))
        classes, radii = estimator.certify(x, n=250)
        assert classes.shape == radii.shape == (16,)
        assert (radii < 1).all()
        assert (classes < 10).all()
        assert estimator.loss_gradient(x=x, y=y, sampling=True).shape == x.shape
        assert estimator.loss_gradient(x=x, y=y).shape == x.shape

    def test_its_attacks_and_fit_take_it(self):
        from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
        from art.estimators.classification import PyTorchClassifier

        x, y = self.data
        estimator = self.estimator(seed=0)
        targeted = FastGradientMethod(estimator=estimator, targeted=True).generate(x, y=np.roll(y, 1, axis=1))
        assert targeted.shape == x.shape
        assert (targeted >= 0).all()
        assert (targeted <= 1).all()
        attack = ProjectedGradientDescent(estimator, eps=0.3, eps_step=0.1, max_iter=5, verbose=False)
        assert (estimator.predict(attack.generate(x)).argmax(axis=1) != y.argmax(axis=1)).mean() > 0.3
        estimator.fit(x, y, nb_epochs=1)
        assert estimator.predict(x).shape == y.shape
        assert not trained()["net"].training
        g = PyTorchClassifier(trained()["g"], nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0, 1),
                              device_type="cpu")
        assert np.abs(FastGradientMethod(g, eps=0.1).generate(x) - x).max() == pytest.approx(0.1, abs=1e-6)
        assert g.class_gradient(x, label=2).shape == (16, 1, 1, 8, 8)


class Result(StrEnum):
    UNSAT, SAT, TIMEOUT, ERROR = "UNSAT", "SAT", "TIMEOUT", "ERR"


@dataclass
class Verdict:
    result: str
    took: float
    counter_example: str | None = None
    obtained_labels: object = None
    err: str = ""
    stdout: str = ""


@dataclass
class Point:
    id: str
    label: int
    data: torch.Tensor


class Network:
    """VERONA's network: its wrapper gives whatever it is given the shape of one image."""

    def __init__(self, model: nn.Module, name: str):
        self.name = name
        self._wrapped = nn.Module()
        self._wrapped.torch_model = model

    def load_pytorch_model(self) -> nn.Module:
        return self._wrapped


@dataclass
class Context:
    network: Network
    data_point: Point


@pytest.fixture
def verona(monkeypatch) -> bool:
    """VERONA, or modules with the classes that a verification module meets; True where they are its own."""
    try:
        import ada_verona  # noqa: F401
    except ImportError:
        classes = {"database.verification_result": {"CompleteVerificationData": Verdict, "VerificationResult": Result},
                   "verification_module.verification_module": {"VerificationModule": object}}
        for name in ("ada_verona", "ada_verona.database", "ada_verona.verification_module"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        for name, found in classes.items():
            module = types.ModuleType(f"ada_verona.{name}")
            vars(module).update(found)
            monkeypatch.setitem(sys.modules, module.__name__, module)
        return False
    return True


def test_verona(verona):
    """UNSAT up to the certified radius over sqrt(d) and not beyond, from one certificate; SAT for another label."""
    names = run("class SmoothingModule")
    levels = {"levels": trained()["test"].levels}
    module = names["SmoothingModule"](0.25, (1, 8, 8), plan=names["FixedN"](n=1000), **levels)
    g = SmoothedClassifier(trained()["net"], 0.25, 10, seed=0, **levels)
    index, found = next((k, c) for k, c in enumerate(g.certify(trained()["images"], n=1000)) if c.radius > 0.1)
    image, reach = trained()["images"][index], found.radius / math.sqrt(64)
    network = Network(trained()["net"], "mlp")
    context = Context(network, Point("a", found.prediction, image))
    results = [module.verify(context, epsilon).result for epsilon in (0.5 * reach, reach * (1 - 1e-9), 1.01 * reach)]
    assert [result.value for result in results] == ["UNSAT", "UNSAT", "TIMEOUT"]
    assert len(module.certificates) == 1
    other = Context(network, Point("b", (found.prediction + 1) % 10, image))
    assert module.verify(other, 0.01).result.value == "SAT"
    if verona:
        real_estimator(module, image, found.prediction, reach)


def real_estimator(module, image, label: int, reach: float) -> None:
    from ada_verona import (
        BinarySearchEpsilonValueEstimator,
        DataPoint,
        One2AnyPropertyGenerator,
        PyTorchNetwork,
        VerificationContext,
    )

    context = VerificationContext(PyTorchNetwork(trained()["net"], (1, 1, 8, 8), "net"), DataPoint("c", label, image),
                                  Path("nowhere"), One2AnyPropertyGenerator(), save_epsilon_results=False)
    steps = [reach * share for share in (0.25, 0.5, 0.9, 1.1, 1.5)]
    found = BinarySearchEpsilonValueEstimator(steps, module).compute_epsilon_value(context)
    assert found.epsilon == steps[2]
