"""The trial of networks in files: float32 ones in every runtime, integer ones in their own, with the other's speed."""

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper

from model_files import floats, save_onnx
from smoothcert.errors import ModelError
from smoothcert.models import load_model
from smoothcert.selftest.integers import SHAPE, IntegerNetwork
from smoothcert.smoothing.engines import open_engine, trial

for package in ("onnxruntime", "openvino"):
    pytest.importorskip(package)
LONG = {"batch": 16, "device": torch.device("cpu"), "samples": 10**9}


@pytest.fixture
def times(monkeypatch):
    """Seconds a row by engine, in place of a clock."""
    given = {"plain": 1.0, "onnxruntime": 1.0, "openvino": 0.25}
    monkeypatch.setattr(trial, "time_rows", lambda runs, rows, rounds=5: {name: given[name] for name in runs})
    return given


@pytest.fixture
def float_file(tmp_path):
    weight = numpy_helper.from_array(np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32), "w")
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]
    path = save_onnx(tmp_path / "float.onnx", nodes, [floats("x", ["n", 3, 2, 2])], [floats("y", ["n", 3])], [weight])
    return load_model(str(path)).model


@pytest.fixture
def integer_file(tmp_path):
    IntegerNetwork.of_largest(64).write(tmp_path / "int8.onnx")
    return load_model(str(tmp_path / "int8.onnx")).model


@pytest.mark.parametrize("fastest", ["onnxruntime", "openvino"])
def test_float_files_run_in_the_fastest_runtime(float_file, times, fastest):
    times[fastest] = 0.125
    found = open_engine("auto", float_file, shape=(3, 2, 2), **LONG)
    assert found.name == fastest
    assert found.choice.rates[fastest] == 8.0
    assert list(found.choice.refused.values()) == ["slower"]
    rows = torch.rand(5, 3, 2, 2)
    torch.testing.assert_close(found.run(rows), float_file(rows), rtol=1e-5, atol=1e-5)


def test_integer_files_keep_their_runtime_and_name_a_faster_one(integer_file, times):
    found = open_engine("auto", integer_file, shape=SHAPE, **LONG)
    assert (found.name, found.choice.rates) == ("onnxruntime", {"onnxruntime": 1.0, "openvino": 4.0})
    assert "is another network, which --engine openvino certifies" in found.choice.refused["openvino"]
    assert "part of what is certified" in found.choice.reason
    short = open_engine("auto", integer_file, shape=SHAPE, **{**LONG, "samples": 100}).choice
    assert short.rates == {}
    assert "does not fit" in short.refused["openvino"]


def test_a_runtime_that_fails_is_named(integer_file, times, monkeypatch):
    def fail(*_):
        raise ModelError("it returned no rows")

    monkeypatch.setattr("smoothcert.models.network_file.depends_on_place", fail)
    found = open_engine("auto", integer_file, shape=SHAPE, **LONG)
    assert (found.name, found.choice.refused) == ("onnxruntime", {"openvino": "it returned no rows"})


def test_a_runtime_that_is_absent_is_named(float_file, integer_file, times, monkeypatch):
    monkeypatch.setitem(trial.PACKAGES, "openvino", ("no_such_package", "openvino"))
    for model, shape in ((float_file, (3, 2, 2)), (integer_file, SHAPE)):
        found = open_engine("auto", model, shape=shape, **LONG)
        assert found.name == "onnxruntime"
        assert found.choice.refused == {"openvino": "not installed (pip install 'smoothcert[openvino]')"}
