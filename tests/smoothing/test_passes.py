"""Out of memory: the batch is halved, said once, and no result changes; a stand-in raises what torch does."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from smoothcert import SmoothedClassifier
from smoothcert.errors import EngineWarning, InputError, ModelError
from smoothcert.noise import build_noise
from smoothcert.smoothing import Sampling, Segment, open_voter
from smoothcert.smoothing.passes import Passes

SHAPE, K = (1, 6, 6), 5


class Hungry(nn.Module):
    """A network that has memory for so many rows at once."""

    def __init__(self, most):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, K))
        self.most = most

    def forward(self, rows):
        if len(rows) > self.most:
            raise torch.OutOfMemoryError(f"CUDA out of memory, with {len(rows)} rows")
        return self.layers(rows)


def voter(most, **how):
    how = {"engine": "plain", "space": "pixels", "batch_size": 100, **how}
    return open_voter(Hungry(most).eval(), build_noise("grid", 0.5), K, SHAPE, seed=3, how=Sampling(**how))


def counts(opened):
    image = np.full(SHAPE, 0.5, np.float32)
    return opened.voter.count([Segment(opened.voter.subject(image, 0), "estimate", 0, 700)])


@pytest.mark.parametrize("engine", ["plain", "eager"])
def test_the_batch_is_halved_and_said_once(engine):
    whole = counts(voter(1000, engine=engine))
    with pytest.warns(EngineWarning, match=r"out of memory.*100 rows.*batches of 50.*--batch-size 50 ") as caught:
        found = counts(voter(27, engine=engine))
    assert np.array_equal(found, whole)
    assert len(caught) == 1


def test_batches_stay_small_once_they_are():
    sizes, run = [], Hungry(30)

    def seen(rows):
        sizes.append(len(rows))
        return run(rows)

    passes = Passes(seen, K, 100)
    with pytest.warns(EngineWarning):
        passes.logits(torch.rand(200, *SHAPE))
    assert sizes == [100, 50, *[25] * 8]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert passes.logits(torch.rand(60, *SHAPE)).shape == (60, K)
    assert sizes[-3:] == [25, 25, 10]


def test_a_batch_that_must_stay_is_an_error_that_names_the_option():
    with pytest.raises(InputError, match=r"100 rows.*reduced precision: give --batch-size 50"):
        counts(voter(60, precision="bf16"))
    with pytest.raises(InputError, match=r"batch_size 100 is part of the classifier.*--batch-size 50"):
        voter(60, precision="bf16", engine="eager")
    with pytest.raises(InputError, match="one size: give --batch-size 5 "):
        Passes(Hungry(3), K, 10, "the engine computes batches of one size").logits(torch.rand(10, *SHAPE))


def test_no_room_for_a_single_row_is_an_error():
    with pytest.warns(EngineWarning), pytest.raises(ModelError, match="no room for a forward pass of a single row"):
        Passes(Hungry(0), K, 4).logits(torch.rand(4, *SHAPE))


def test_a_certificate_does_not_depend_on_it():
    x = torch.full(SHAPE, 0.5)
    whole = SmoothedClassifier(Hungry(10**6).eval(), 0.5, K, seed=0).certify(x, n=2000)
    with pytest.warns(EngineWarning, match="out of memory"):
        assert SmoothedClassifier(Hungry(40).eval(), 0.5, K, seed=0).certify(x, n=2000) == whole
