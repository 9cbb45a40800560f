"""Functions with real values in the form of base classifiers, and the sampler of their outputs."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression, LogisticRegression
from torch import nn

from smoothcert.errors import ModelError
from smoothcert.noise import build_noise, open_stream
from smoothcert.smoothing.outputs import PASS, open_sampler, real_function
from smoothcert.smoothing.real import RealFunction, RealNetwork, add_zeros

CPU = torch.device("cpu")


@pytest.mark.parametrize(("answer", "shape"), [
    (torch.ones(3), (3, 2)), (torch.ones(3, 1), (3, 2)), (np.ones((3, 4)), (3, 5)), (torch.ones(3, 1, 1), (3, 2)),
    (torch.ones(3, 2, 1, 1), (3, 3)), (torch.ones(2), (2,)), (torch.ones(3, 2, 2), (3, 2, 2))])
def test_a_column_of_zeros_follows_the_outputs(answer, shape):
    found = add_zeros(answer, 3)
    assert tuple(found.shape) == shape
    if len(found) == 3 and found.ndim == 2:
        assert found[:, -1].tolist() == [0.0] * 3
        assert (found[:, :-1] == 1).all()


def test_named_outputs_keep_their_names():
    assert {name: tuple(value.shape) for name, value in add_zeros({"a": torch.ones(2), "b": [torch.ones(2, 3)]},
                                                                  2).items()} == {"a": (2, 2), "b.0": (2, 4)}


def test_networks_functions_and_estimators_are_taken_and_classifiers_are_not():
    rows = np.random.default_rng(0).random((20, 3))
    fitted = LinearRegression().fit(rows, rows.sum(1))
    assert isinstance(real_function(nn.Linear(3, 1)), RealNetwork)
    for estimator in (fitted, fitted.predict):
        found = real_function(estimator)
        assert isinstance(found, RealFunction)
        assert found(torch.ones(4, 3))[:, 0].tolist() == pytest.approx([3.0] * 4)
    with pytest.raises(ModelError, match="is a classifier"):
        real_function(LogisticRegression().fit(rows, rows[:, 0] > 0.5))
    with pytest.raises(ModelError, match="real values"):
        real_function(3)


def test_outputs_are_those_at_the_noise_of_each_position():
    noise, sizes = build_noise("gaussian", 0.5), []

    def record(x):
        sizes.append(len(x))
        return add_zeros(x.flatten(1)[:, :2], len(x))

    sampler = open_sampler(record, noise, 2, (4,), 7, CPU)
    x = np.arange(4, dtype=np.float32)
    found = sampler.draw(sampler.subject(x, 11), "estimate", 250)
    normals = np.empty((300, 4), dtype=np.float32)
    open_stream(sampler.format, 7, 11, "estimate", 4, 0).fill(normals)
    np.testing.assert_allclose(found, (x + 0.5 * normals)[:250, :2], rtol=1e-6)
    assert sizes == [PASS] * 3
    longer = sampler.draw(sampler.subject(x, 11), "estimate", 300)
    assert (longer[:250] == found).all()


def test_random_functions_get_normals_of_their_rows():
    def shaky(x, normals):
        return add_zeros((x + normals(0, x)).flatten(1)[:, 0], len(x))

    shaky.random = True
    noise = build_noise("gaussian", 0.5)
    first, again = (open_sampler(RealFunctionAsIs(shaky), noise, 1, (4,), 7, CPU) for _ in range(2))
    plain = open_sampler(lambda x: add_zeros(x[:, 0], len(x)), noise, 1, (4,), 7, CPU)
    x = np.zeros(4, dtype=np.float32)
    one, two, base = (s.draw(s.subject(x, 3), "estimate", 2000) for s in (first, again, plain))
    assert (one == two).all()
    assert float((one - base).std()) == pytest.approx(1.0, abs=0.1)


class RealFunctionAsIs:
    """A random base classifier that is called as it is."""

    random = True

    def __init__(self, function):
        self._function = function

    def __call__(self, x, normals):
        return self._function(x, normals)
