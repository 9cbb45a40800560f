"""The soft smoothed classifier: its losses, and answers by the mean softmax under PREDICT's noise."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch.nn.functional import cross_entropy

from printed import plain, store_text
from smoothcert.data import load_data
from smoothcert.errors import ConfigError, StoreError
from smoothcert.noise import build_noise, open_stream
from smoothcert.results.attacks import AttackResult, outcomes
from smoothcert.results.compare import violations
from smoothcert.runs.attack import attack
from smoothcert.runs.options import AttackConfig
from smoothcert.smoothing.soft import (
    ROWS,
    log_mean_softmax,
    mean_cross_entropy,
    normal_gap,
    predict_softly,
    soft_cross_entropy,
)
from smoothcert.store.store import Store

NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.last = torch.nn.Linear(64, 10)
        self.last.weight.data = torch.randn(10, 64, generator=torch.Generator().manual_seed(0))
        self.last.bias.data.zero_()

    def forward(self, x):
        return self.last(x.flatten(1))
"""
N = 300


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    (folder / "net.py").write_text(NET)
    return folder


def options(home: Path, name: str, **more) -> dict:
    return {"model": f"{home}/net.py:Net", "data": "digits", "sigma": 0.5, "seed": 1, "eps": "0.5", "m": 2, "steps": 2,
            "n": N, "max_images": 20, "engine": "plain", "space": "pixels", "answer": "softmax", "out": home / name,
            **more}


def attacked(given: dict) -> Store:
    return attack(AttackConfig.parse(given))


@pytest.fixture(scope="module")
def store(home) -> Store:
    return attacked(options(home, "soft", space="auto", save_adversaries=True))


def test_both_cross_entropies_agree_at_m_1_and_only_there():
    random, labels = torch.Generator().manual_seed(0), torch.arange(6) % 4
    logits = torch.randn(6, 1, 4, generator=random)
    assert torch.allclose(soft_cross_entropy(logits, labels), mean_cross_entropy(logits, labels))
    assert torch.allclose(soft_cross_entropy(logits, labels), cross_entropy(logits[:, 0], labels, reduction="none"))
    logits = torch.randn(6, 5, 4, generator=random.manual_seed(0))
    assert (soft_cross_entropy(logits, labels) < mean_cross_entropy(logits, labels) - 1e-3).all()  # Jensen
    probabilities = logits.softmax(-1)[torch.arange(6), :, labels]
    assert torch.allclose(soft_cross_entropy(logits, labels), -probabilities.mean(1).log(), atol=1e-6)
    assert torch.allclose(mean_cross_entropy(logits, labels), -probabilities.log().mean(1), atol=1e-6)


def test_the_gap_has_a_gradient_only_where_it_is_finite():
    first = torch.tensor([0.6, 1.0, 0.9999999, 0.9999999, 0.5], requires_grad=True)
    second = torch.tensor([0.3, 1e-9, 1e-40, 0.0, 0.5], requires_grad=True)
    gap, finite = normal_gap(first, second)
    assert finite.tolist() == [True, False, False, False, True]
    assert float(gap[0].detach()) == pytest.approx(norm.ppf(0.6) - norm.ppf(0.3), rel=1e-5)
    for slopes, sign in zip(torch.autograd.grad(gap.sum(), (first, second)), (1, -1), strict=True):
        assert slopes.isfinite().all()
        assert ((sign * slopes > 0) == finite).all()


def test_the_answer_is_the_largest_mean_probability():
    """Two classes: nine copies in ten are .6 for class 0, one is sure of class 1; votes and softmax disagree."""
    def model(noisy):
        sure = torch.arange(len(noisy)) % 10 == 0
        return torch.where(sure[:, None], torch.tensor([-20.0, 20.0]), torch.tensor([0.6, 0.4]).log())

    (found,) = predict_softly(model, np.zeros((1, 1, 2, 2), np.float32), [0], build_noise("gaussian", 0.5), "sfc64-v1",
                              100, 2, seed=0, device=torch.device("cpu"))
    assert found.history[0].counts.tolist() == [90, 10]
    assert found.prediction == 0  # .54 against .46

    def harder(noisy):
        return torch.where(model(noisy)[:, :1] < -1, torch.tensor([-20.0, 20.0]), torch.tensor([0.52, 0.48]).log())

    (found,) = predict_softly(harder, np.zeros((1, 1, 2, 2), np.float32), [0], build_noise("gaussian", 0.5), "sfc64-v1",
                              100, 2, seed=0, device=torch.device("cpu"))
    assert found.history[0].counts.tolist() == [90, 10]
    assert found.prediction == 1  # .468 against .532


def test_the_noise_is_that_of_predict_around_the_attacked_image(home, store):
    """The same votes as PREDICT's on the same attacked images; and the answer as told by one pass over all copies."""
    votes = attacked(options(home, "votes", answer="votes"))
    assert N > ROWS
    assert np.array_equal(store.counts("predict"), votes.counts("predict"))
    assert np.array_equal(store.column("l2"), votes.column("l2"))
    clean = np.flatnonzero(store.column("eps") == 0)
    data, noise = load_data("digits"), build_noise("grid", 0.5, 16)
    weight = torch.randn(10, 64, generator=torch.Generator().manual_seed(0))
    for row in clean.tolist():
        index = int(store.column("index")[row])
        noisy = np.empty((N, 64), dtype=np.float32)
        open_stream("sfc64-v1", 1, index, "predict", 64).fill(noisy)
        centre = noise.centre(data.image(index))
        noise.place(noisy, centre.values, centre.fraction)
        mean = log_mean_softmax((torch.from_numpy(noisy) @ weight.T)[None])
        assert store.column("prediction")[row] == int(mean.argmax())
    assert not np.any(store.column("prediction") < 0)


def test_a_stopped_run_ends_with_the_same_bytes(home, store):
    def stop(event):
        if event.phase == "sampling" and event.done == 17:
            raise KeyboardInterrupt

    again = options(home, "again", save_adversaries=True)
    with pytest.raises(KeyboardInterrupt):
        attack(AttackConfig.parse(again), stop)
    attacked({**again, "engine": "auto"})
    first, second = (sorted(folder.glob("*.parquet")) for folder in (home / "soft", home / "again"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_reports_name_the_answers_and_claim_no_level(store):
    for outcome in outcomes(store):
        rows = store.column("eps") == outcome.size
        assert outcome.accuracy == np.mean(store.column("prediction")[rows] == store.column("label")[rows])
        assert (outcome.n, outcome.abstained) == (N, 0)
    assert plain(AttackResult.of(store))["alpha"] is None
    assert "answers by mean softmax" in store_text(store)
    assert "abstention" not in store_text(store)
    assert store.records.column("p_value").null_count == store.records.num_rows
    with pytest.raises(StoreError, match="without a test"):
        violations(store, store)


def test_what_needs_a_test_is_refused_all_at_once(home):
    with pytest.raises(ConfigError) as caught:
        AttackConfig.parse(options(home, "x", n="10,100", certified=home, precision="bf16"))
    said = "\n".join(caught.value.problems)
    for words in ("no level to hold against certificates", "take one n", "in float32"):
        assert words in said
