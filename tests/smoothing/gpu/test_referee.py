"""The referee of a GPU: one size of batch, no choice by time, and company only where it changes no bit."""

import pytest
import torch

from smoothcert.errors import EngineWarning
from smoothcert.smoothing.gpu.referee import ROWS, Referee, open_referee, referee_rows

CPU = torch.device("cpu")
SHAPE = (1, 2, 2)


def sums(rows):
    return torch.stack([rows.flatten(1).sum(dim=1), rows.flatten(1).sum(dim=1).neg()], dim=1)


def by_place(rows):
    """A row's answer depends, in its last bits, on its place."""
    return sums(rows) * (1 + 2e-7 * torch.arange(len(rows))[:, None])


@pytest.fixture
def switches():
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = True, False
    yield cudnn
    cudnn.benchmark, cudnn.deterministic = before


@pytest.mark.filterwarnings("error")
def test_every_batch_has_one_size_and_steady_algorithms(switches):
    seen = []

    def run(rows):
        seen.append((len(rows), switches.benchmark, switches.deterministic))
        return sums(rows)

    found = open_referee(run, SHAPE, CPU, random=False)
    rows = torch.rand(70, *SHAPE)
    assert torch.equal(found.judge(rows), sums(rows))
    assert set(seen) == {(ROWS, False, True)}
    assert (switches.benchmark, switches.deterministic) == (True, False)
    assert found.size == ROWS


def test_rows_whose_place_counts_are_judged_beside_copies_of_themselves():
    with pytest.warns(EngineWarning, match="one by one.*its place in a batch"):
        found = open_referee(by_place, SHAPE, CPU, random=False)
    assert found.size == 1
    rows = torch.rand(40, *SHAPE)
    assert torch.equal(found.judge(rows), found.judge(rows.flip(0)).flip(0))
    assert open_referee(sums, SHAPE, CPU, random=True).size == 1


def test_answers_that_change_from_call_to_call_are_said():
    calls = []

    def run(rows):
        calls.append(1)
        return sums(rows) * (1 + 2e-7 * len(calls))

    with pytest.warns(EngineWarning, match="differ in their last bits from call to call"):
        open_referee(run, SHAPE, CPU, random=False)


def test_a_cpu_judges_alone_and_a_gpu_in_batches():
    assert (referee_rows(CPU), referee_rows(torch.device("cuda"))) == (1, ROWS)
    assert Referee(sums, 4).judge(torch.rand(9, *SHAPE)).shape == (9, 2)
