"""The figures of each kind of result one by one: Python numbers, rounded to the side on which they say less."""

import math
from dataclasses import replace

import numpy as np
import pytest

from smoothcert.results.certified import Result
from smoothcert.results.gather import RESULTS, read_result
from smoothcert.results.metrics import list_metrics
from smoothcert.stats import acr_limit
from smoothcert.store.store import read_store
from stores import attacked, made


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> Result:
    store = read_store(made(tmp_path_factory.mktemp("metrics") / "s", method="two-sided", right=1.3, count=61))
    return Result.of(store)


def test_certified_accuracy_has_the_limit_of_the_table(result):
    *shares, acr = list_metrics(result, [0, 0.1], 0.05)
    at = result.at([0, 0.1], 0.05)
    for one, share, limit in zip(shares, at.accuracy, at.population, strict=True):
        assert share - 1e-4 < one.value <= share
        assert limit - 1e-4 < one.at_least <= limit
        assert one.is_share
        assert one.setting == {"alpha": 0.001, "n": 1000, "images": 61}
    assert result.acr - 1e-4 < acr.value <= result.acr
    limit = acr_limit(result.radius, result.correct, result.level, 0.05, result.ceiling)
    assert limit - 1e-4 < acr.at_least <= limit
    assert not acr.is_share


def test_what_is_not_known_has_no_limit_and_what_is_out_of_reach_no_figure(result):
    assert [one.kind for one in list_metrics(result, [9.0])] == ["average_certified_radius"]
    assert list_metrics(replace(result, n=None), [0.1])[-1].at_least is None
    assert len(list_metrics(result)) > 2


def test_a_figure_is_a_python_number(result, tmp_path):
    results = [result, read_result(read_store(attacked(tmp_path / "a")))]
    for one in (metric for found in results for metric in list_metrics(found, [0.1])):
        assert type(one.value) is float
        assert one.at_least is None or type(one.at_least) is float
        assert not any(isinstance(value, np.generic) for value in one.setting.values())


def test_a_loss_is_rounded_up_and_an_accuracy_down(tmp_path):
    attack = list_metrics(read_result(read_store(attacked(tmp_path / "a", count=3))))
    assert {one.name: one.value for one in attack}["accuracy under attack at eps 0.25 (m 4, T 8, n 100)"] == 0.6666
    loss = RESULTS["distributional"].result.of(read_store(made(tmp_path / "s", count=20)))
    for metric in (found := list_metrics(loss)):
        rho = float(metric.name.split("rho ")[1].split()[0])
        exact = loss.at(rho)["certificate"]
        assert exact <= metric.value < exact + 1e-4 or math.isclose(exact, metric.value)
    assert [one.kind for one in found] == ["distributional_bound"] * len(loss.rho)
