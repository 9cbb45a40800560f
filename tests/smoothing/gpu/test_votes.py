"""Votes of a GPU: the kernel writes its twin's, in Triton's interpreter where there is no GPU."""

import pytest
import torch

from kernels import DEVICE, needs_triton
from ptx import compile_kernel
from smoothcert.smoothing.gpu import shortcuts
from smoothcert.smoothing.gpu import votes as gpu_votes
from smoothcert.smoothing.gpu.votes import CLOSE, LOST, choose_write, write_plainly
from smoothcert.smoothing.voters import is_close


def logits_of(n, classes, seed=0):
    """Far, close, equal, infinite and NaN ones."""
    logits = torch.randn(n, classes, generator=torch.Generator().manual_seed(seed))
    logits[::7, -1] = logits[::7].amax(dim=1) * (1 + 3e-5)
    logits[1::7] = (2 * logits[1::7]).round()
    logits[2::7] *= 1e-5  # near nothing beside the others' scale
    if n > 20:
        logits[3, 0], logits[4, -1], logits[5, 0], logits[6], logits[10, :2] = torch.inf, -torch.inf, torch.nan, 0, 1e30
        logits[12] = torch.inf
    return logits.to(DEVICE)


def written(write, logits, referee=True, first=3):
    votes = torch.full((len(logits) + 9,), 77, dtype=torch.int32, device=DEVICE)
    write(votes, logits, torch.tensor([first], device=DEVICE), referee)
    return votes


def test_the_twin_writes_votes_close_calls_and_lost_rows():
    logits = logits_of(100, 10)
    found = written(write_plainly, logits)
    assert found[:3].tolist() == [77] * 3
    assert found[103:].tolist() == [77] * 6
    lost = logits.isnan().any(dim=1)
    assert ((found[3:103] == LOST) == lost).all()
    finite = logits[20:]
    votes = written(write_plainly, finite)[3:-6]
    assert torch.equal(votes == CLOSE, is_close(finite))
    assert 5 < int((votes == CLOSE).sum()) < 60
    assert torch.equal(written(write_plainly, finite, referee=False)[3:-6].long(), finite.argmax(dim=1))


@needs_triton
@pytest.mark.parametrize("referee", [True, False])
@pytest.mark.parametrize(("n", "classes"), [(1, 2), (33, 2), (100, 3), (700, 10), (50, 100), (37, 1000), (3, 5000)])
def test_the_kernel_writes_its_twins_votes(n, classes, referee):
    from smoothcert.smoothing.gpu.vote_kernel import write_votes

    for seed in range(3):
        logits = logits_of(n, classes, seed)
        assert torch.equal(written(write_votes, logits, referee), written(write_plainly, logits, referee))


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["_sum_sizes", "_judge"])
def test_the_kernels_compile_for_a_gpu_that_is_not_there(tmp_path, kernel):
    """With nothing in them that could round otherwise than their twin: a product, and sums in float64."""
    types = {"votes": "*i32", "logits": "*fp32", "sums": "*fp64", "first": "*i64", "n": "i32", "classes": "i32",
             "programs": "i32"}
    if kernel == "_sum_sizes":
        types = {name: types[name] for name in ("sums", "logits", "n", "classes")}
    constants = {"ROWS": 256, "COLUMNS": 16, **({"SUMS": 16, "REFEREE": True} if kernel == "_judge" else {})}
    ptx = compile_kernel(tmp_path, "smoothcert.smoothing.gpu.vote_kernel", kernel, types, constants)
    assert "fma" not in ptx
    assert "add.rn.f64" in ptx or "add.f64" in ptx


@needs_triton
def test_other_logits_are_left_to_the_twin():
    write, logits = choose_write(10, DEVICE), logits_of(50, 10)
    assert write is not write_plainly
    for other in (logits.double(), logits.half(), logits.T.contiguous().T):
        assert torch.equal(written(write, other), written(write_plainly, other))


@pytest.mark.parametrize("problem", ["no triton", "other votes", "no compiler", "left out"])
def test_a_kernel_that_cannot_be_used_is_not(monkeypatch, problem):
    def agree(*_):
        if problem == "no compiler":
            raise RuntimeError("Failed to find C compiler")
        return problem != "other votes"

    monkeypatch.setattr(gpu_votes, "_agree", agree)
    monkeypatch.setattr(gpu_votes, "find_spec", lambda name: None if problem == "no triton" else object())
    with shortcuts(vote_kernel=problem != "left out"):
        assert choose_write(10, DEVICE) is write_plainly
