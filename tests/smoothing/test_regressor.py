"""SmoothedRegressor: intervals in Python, for inputs of any shape."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression
from torch import nn

import smoothcert
from smoothcert import SmoothedRegressor
from smoothcert.errors import InputError, ModelError


def slope(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(1) @ torch.arange(4.0)


def test_the_interval_of_a_linear_function_holds_its_range_and_approaches_it():
    h = SmoothedRegressor(slope, sigma=0.5, seed=0, bounds=None, levels=None, input_shape=(4,))
    x, reach = np.full(4, 9.0), float(torch.arange(4.0).norm())
    found = h.certify(x, radii=(0.1, 1.0), n=20_000)
    for radius in found.radii:
        low, high = found.at(radius)
        assert low[0] <= 54 - reach * radius < 54 + reach * radius <= high[0]
        assert high[0] - low[0] < 2 * reach * (radius + 0.06)
    (answer,) = h.predict([x], n=2000)
    low, high = answer.at(0.0)
    assert low[0] <= 54 <= high[0]
    assert low[0] <= answer.estimate[0] <= high[0]
    assert "r 0=" not in repr(answer)
    assert "estimate" in repr(answer)


def test_answers_do_not_depend_on_company_or_on_what_torch_is_set_to():
    h = SmoothedRegressor(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), sigma=0.25, seed=1)
    x = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    together = h.certify(x, (0.1,), n=250, index=[4, 5, 6])
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        alone = h.certify(x[1], (0.1,), n=250, index=5)
    finally:
        torch.set_default_dtype(before)
    assert alone.lower.tolist() == together[1].lower.tolist()
    assert alone.lower.shape == (1, 3)
    assert together[0].lower.tolist() != h.certify(x[0], (0.1,), n=250, index=9).lower.tolist()


def test_estimators_and_denoisers_serve():
    rows = np.random.default_rng(0).random((20, 4), dtype=np.float32)
    fitted = LinearRegression().fit(rows, rows.sum(1))
    h = SmoothedRegressor(fitted, sigma=0.1, seed=0, input_shape=(4,), levels=None)
    low, high = h.predict(rows[0]).at(0.0)
    assert low[0] <= rows[0].sum() <= high[0]
    constant = SmoothedRegressor(slope, sigma=0.1, seed=0, denoiser=lambda y, sigma: 0 * y + 1, input_shape=(4,))
    found = constant.predict(rows[0])
    assert found.at(0.0) == (np.float32(6), np.float32(6))


@pytest.mark.parametrize(("call", "words"), [
    (lambda h, x: h.certify(x, (3.0,), n=100), "needs n"),
    (lambda h, x: h.certify(x, ()), "radii must be at least one"),
    (lambda h, x: h.certify(x, (0.1,), percentile=0.0), "percentile"),
    (lambda h, x: h.certify(x[None, None], (0.1,)), "shape"),
    (lambda h, x: h.certify(x, (0.1,), index=[1, 2]), "index must name each"),
    (lambda h, x: h.certify(x, (0.1,)).at(0.2), "none of those that were chosen"),
])
def test_what_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call(SmoothedRegressor(slope, sigma=0.5, seed=0, input_shape=(4,)), np.full(4, 0.5, dtype=np.float32))


def test_models_that_do_not_serve():
    with pytest.raises(ModelError, match="depends on the other rows"):
        SmoothedRegressor(lambda x: x.flatten(1)[:, 0] - x.mean(), sigma=0.5, input_shape=(4,)).predict(np.zeros(4))
    with pytest.raises(ModelError, match="SmoothedClassifier already"):
        SmoothedRegressor(smoothcert.SmoothedClassifier(lambda x: x.flatten(1)[:, :2], 0.5, 2), 0.5)
    with pytest.raises(ModelError, match="NaN"):
        SmoothedRegressor(lambda x: slope(x).log(), sigma=0.5, input_shape=(4,)).predict(np.zeros(4))
