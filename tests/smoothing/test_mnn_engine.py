"""The engine mnn: tiles as large as the bound of every engine allows, and no word on standard output."""

import subprocess
import sys

import pytest
import torch

from smoothcert.errors import InputError
from smoothcert.models import build_model
from smoothcert.smoothing.contract import ROUNDING, largest_difference, row_scale
from smoothcert.smoothing.engines import mnn_engine
from smoothcert.smoothing.engines.protocol import Refused

pytest.importorskip("MNN")
CPU = torch.device("cpu")


@pytest.fixture
def tiles(monkeypatch):
    """The tiles of each network that was compiled, in order."""
    compiled, seen = mnn_engine._compile, []

    def spy(content, shape, rows, size):
        seen.append(size)
        return compiled(content, shape, rows, size)

    monkeypatch.setattr(mnn_engine, "_compile", spy)
    return seen


@pytest.mark.parametrize(("name", "tried"), [("cnn", [3]), ("lenet", [3, 1])])
def test_the_largest_tiles_that_round_little_are_taken(name, tried, tiles):
    torch.manual_seed(0)
    model = build_model(name, (1, 28, 28), 10).eval()
    run = mnn_engine.mnn(model, (1, 28, 28), 50, CPU, "float32")
    rows = 0.5 + 0.5 * torch.randn(100, 1, 28, 28)
    with torch.no_grad():
        expected = model(rows)
    assert tiles == tried
    assert largest_difference(expected, run(rows), row_scale(expected)) < ROUNDING
    assert not torch.equal(expected, run(rows)), "MNN must compute"


def test_what_it_cannot_do_is_refused():
    model = torch.nn.Linear(4, 2)
    with pytest.raises(InputError, match="'mnn' runs float32 only, got precision 'bf16'"):
        mnn_engine.mnn(model, (4,), 8, CPU, "bf16")
    with pytest.raises(Refused, match="runs on CPUs"):
        mnn_engine.mnn(model, (4,), 8, torch.device("meta"), "float32")


def test_results_have_standard_output_to_themselves():
    code = ("import torch; from smoothcert.smoothing.engines.mnn_engine import mnn; "
            "run = mnn(torch.nn.Linear(4, 2), (4,), 8, torch.device('cpu'), 'float32'); "
            "print(*run(torch.ones(3, 4)).shape)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "3 2\n"
