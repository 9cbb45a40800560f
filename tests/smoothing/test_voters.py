"""Votes: the documented recipe in every space and format, whatever the batch, the engine's last bits, or the cuts."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from smoothcert import SmoothedClassifier
from smoothcert.errors import InputError, ModelError
from smoothcert.noise import Sfc64Stream, binomial, build_noise, open_stream
from smoothcert.smoothing import Sampling, Segment, open_voter
from smoothcert.smoothing.contract import Conduct
from smoothcert.smoothing.passes import Passes
from smoothcert.smoothing.rows import HostRows
from smoothcert.smoothing.voters import CLOSE_CALL, NetworkVoter

SHAPE, K = (1, 6, 6), 5
IMAGES = np.random.default_rng(0).integers(0, 256, (3, *SHAPE)).astype(np.float32) / np.float32(255)


def linear(classes: int = K, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(36, classes)).eval()


def mlp(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, K)).eval()


def opened(model, kind="gaussian", classes=K, **how):
    return open_voter(model, build_noise(kind, 0.5), classes, SHAPE, seed=3, how=Sampling(**how))


def counts(voter, cuts=(0, 600)):
    """Votes of each image's samples 0 ... 599, asked for in pieces, all images in one call a piece."""
    subjects = [voter.subject(image, key) for key, image in enumerate(IMAGES)]
    return sum(voter.count([Segment(s, "estimate", a, b - a) for s in subjects])
               for a, b in pairwise(cuts))


WAYS = {
    "pixels": (mlp, {"engine": "plain", "space": "pixels"}, "pixels", "sfc64-v1"),
    "eager": (mlp, {"engine": "eager", "space": "pixels"}, "pixels", "sfc64-v1"),
    "philox": (mlp, {"engine": "plain", "noise_format": "philox-v1"}, "pixels", "philox-v1"),
    "first layer": (mlp, {"engine": "plain"}, "linear", "sfc64-bm-v1"),
    "logits": (linear, {}, "logits", "sfc64-bm-v1"),
    "bf16": (mlp, {"engine": "plain", "precision": "bf16", "batch_size": 50}, "pixels", "sfc64-v1"),
}


@pytest.mark.parametrize("way", WAYS)
def test_counts_do_not_depend_on_how_samples_are_cut(way):
    model, how, space, stream_format = WAYS[way]
    found = opened(model(), **how)
    assert (found.space, found.voter.format) == (space, stream_format)
    whole = counts(found.voter)
    assert (whole.sum(axis=1) == 600).all()
    assert (whole != whole[0]).any(), "images share their noise"
    if way != "bf16":  # there the batch shapes the answers, and its fill may
        assert np.array_equal(counts(opened(model(), **how).voter, (0, 1, 17, 100, 434, 600)), whole)
        for batch in (1, 7, 133):
            assert np.array_equal(counts(opened(model(), **{**how, "batch_size": batch}).voter), whole)
    else:
        assert np.array_equal(counts(opened(model(), **how).voter), whole)


def test_logit_votes_are_those_of_the_documented_recipe():
    """Votes from W x + b + sigma L eta in float64, sample by sample, with eta from the format's own stream."""
    model = linear()
    found = opened(model)
    weight, bias = (p.detach().double().numpy() for p in model[1].parameters())
    for key, image in enumerate(IMAGES):
        eta = np.empty((2000, K - 1), np.float32)
        open_stream("sfc64-bm-v1", 3, key, "estimate", K - 1).fill(eta)
        centred = (weight - weight.mean(axis=0))
        factor = np.linalg.qr(centred.T, mode="r")[: K - 1]
        factor = (np.sign(np.diagonal(factor))[:, None] * factor).T.astype(np.float32).astype(float)
        logits = centred @ image.ravel().astype(float) + bias - bias.mean() + 0.5 * eta.astype(float) @ factor.T
        expected = np.bincount(logits.argmax(axis=1), minlength=K)
        assert np.array_equal(found.voter.count([Segment(found.voter.subject(image, key), "estimate", 0, 2000)])[0],
                              expected)


def test_logit_votes_go_to_their_own_segments():
    """More samples than are counted at once, in segments of all sizes, one image twice."""
    found = opened(linear()).voter
    subjects = [found.subject(image, key) for key, image in enumerate(IMAGES)]
    sizes = ((0, 0, 30_000), (1, 0, 7), (0, 30_000, 5), (2, 0, 20_000), (1, 7, 16_384), (2, 20_000, 1))
    segments = [Segment(subjects[k], "estimate", start, n) for k, start, n in sizes]
    together = found.count(segments)
    assert together.sum(axis=1).tolist() == [n for *_, n in sizes]
    alone = [found.count([Segment(found.subject(IMAGES[k], k), "estimate", start, n)])[0] for k, start, n in sizes]
    assert np.array_equal(together, alone)


def test_logit_ties_go_to_the_lowest_class():
    """Two classes with the same row are equal in every sample: float32 may tell them apart, the referee does not."""
    model = linear()
    with torch.no_grad():
        model[1].weight[3] = model[1].weight[1]
        model[1].bias[3] = model[1].bias[1]
    found = counts(opened(model).voter)
    assert found[:, 1].sum() > 0
    assert not found[:, 3].any()


def test_spaces_agree_with_pixels():
    """Homogeneity of the counts at 20,000 samples, over models and spaces; a wrong sigma would fail it by far."""
    p_values = []
    for seed in range(4):
        for model in (linear(seed=seed), mlp(seed)):
            pair = [counts(opened(model, space=space).voter, (0, 20_000)) for space in ("auto", "pixels")]
            p_values += [stats.chi2_contingency(np.stack(two)[:, np.stack(two).sum(axis=0) > 20]).pvalue
                         for two in zip(*pair, strict=True)]
    assert min(p_values) > 1e-4
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3


def test_a_binary_linear_model_is_drawn_from_its_law():
    model = linear(classes=2)
    found = opened(model, classes=2)
    assert (found.space, found.engine, found.voter.format) == ("binary", "exact", "binomial-v1")
    weight, bias = (p.detach().double().numpy() for p in model[1].parameters())
    for key, image in enumerate(IMAGES):
        margin = (weight[0] - weight[1]) @ image.ravel() + bias[0] - bias[1]
        p = stats.norm.cdf(margin / (0.5 * np.linalg.norm(weight[0] - weight[1])))
        subject = found.voter.subject(image, key)
        votes = found.voter.count([Segment(subject, "estimate", 100 * k, 100) for k in range(2000)])
        assert (votes.sum(axis=1) == 100).all()
        assert abs(votes[:, 0].sum() - 200_000 * p) < 5 * np.sqrt(200_000 * p * (1 - p))
        assert votes[:, 0].var() == pytest.approx(100 * p * (1 - p), rel=0.2)


def test_binomials_keep_their_digits_near_one():
    draws = [binomial(0, key, "estimate", 0, 10**10, 1 - 1e-9, 1e-9) for key in range(200)]
    missed = 10**10 - np.array(draws)
    assert abs(missed.mean() - 10) < 5 * np.sqrt(10 / 200)


def test_an_engines_allowed_errors_change_no_count():
    """Every logit off by CLOSE_CALL / 4 of the largest: the plain model settles whatever that could have moved."""
    model = mlp()

    def sloppy(rows):
        logits = model(rows)
        sign = torch.where(torch.arange(logits.numel()).view_as(logits) % 2 == 0, 1.0, -1.0)
        return logits + sign * CLOSE_CALL / 4.001 * logits.abs().amax(dim=1, keepdim=True)

    def voter(run):
        rows = HostRows(build_noise("grid", 0.5), SHAPE, 3, "sfc64-v1", torch.device("cpu"))
        return NetworkVoter(rows, Passes(run, K, 64), model, K, referee=True)

    assert np.array_equal(counts(voter(sloppy), (0, 30_000)), counts(voter(model), (0, 30_000)))


def test_close_calls_are_drawn_again_from_their_keys():
    """A network that judges near-ties by its company, over several images and stages of one round."""
    judged = []

    def company(rows):
        gap = rows.mean(dim=(1, 2, 3)) * 1e-7 + (5e-6 if len(rows) > 1 else -5e-6)
        if len(rows) == 1:
            judged.append(rows.clone())
        return torch.stack([1 + gap, torch.ones_like(gap)], dim=1)

    found = open_voter(company, build_noise("gaussian", 0.5), 2, SHAPE, seed=3, how=Sampling(batch_size=8),
                       conduct=Conduct()).voter
    subjects = [found.subject(image, key) for key, image in enumerate(IMAGES)]
    votes = found.count([Segment(subjects[0], "select", 3, 5), Segment(subjects[2], "estimate", 120, 6)])
    assert len(judged) == 11
    normals = np.empty((126, 36), np.float32)
    Sfc64Stream(3, 2, "estimate", 36).fill(normals)
    expected = IMAGES[2].ravel() + np.float32(0.5) * normals[120:]
    assert np.array_equal(torch.cat(judged)[5:].flatten(1).numpy(), expected)
    assert votes[1, 0] == (expected.mean(axis=1) * 1e-7 - 5e-6 > 0).sum()


def test_what_auto_means():
    for kind, denoiser, how in (("grid", None, {}), ("gaussian", lambda y, s: y, {}), ("gaussian", None,
                                {"space": "pixels"}), ("gaussian", None, {"noise_format": "sfc64-v1"}),
                                ("gaussian", None, {"precision": "bf16"})):
        found = open_voter(linear(), build_noise(kind, 0.5), K, SHAPE, 0, denoiser, Sampling(engine="plain", **how))
        assert found.space == "pixels"
    assert opened(linear()).space == "logits"


def test_reduced_precision_is_recorded_with_its_batch():
    device = torch.device("cpu")
    reduced = opened(mlp(), precision="fp16", batch_size=50).identity("fp16", device)
    assert (reduced["batch_size"], reduced["folded"]) == (50, "before rounding")
    assert "folded" not in opened(mlp()).identity("float32", device)
    assert "batch_size" not in opened(mlp(), batch_size=50).identity("float32", device)


@pytest.mark.parametrize(("how", "message"), [
    ({"engine": "onnxruntme"}, "onnxruntime"), ({"space": "pixel"}, "pixels"), ({"precision": "f16"}, "fp16"),
    ({"noise_format": "philox"}, "philox-v1"), ({"precision": "tf32"}, "CUDA"),
])
def test_bad_options_are_refused(how, message):
    with pytest.raises(InputError, match=message):
        opened(mlp(), **how)


def test_nan_logits_are_refused_wherever_they_come():
    def broken(rows):
        logits = torch.zeros(len(rows), K)
        logits[-1] = float("nan")
        return logits

    with pytest.raises(ModelError, match="NaN"):
        SmoothedClassifier(broken, sigma=0.5, num_classes=K).predict(IMAGES[0], n=100)


def test_a_classifier_in_training_is_opened_afresh():
    """Nothing that was folded or exported outlives a change of the weights."""
    model = mlp()
    g = SmoothedClassifier(model, sigma=0.5, num_classes=K, seed=0, engine="eager")
    before = g.predict(IMAGES[0], n=500).counts
    with torch.no_grad():
        model[3].bias[4] += 100.0
    assert g.predict(IMAGES[0], n=500).counts[4] == 500 != before[4]


def test_logits_that_cancel_are_close_by_the_size_of_the_others():
    """Two classes near zero in one row: an error of 1e-6 of the usual logit decides it, far above 1e-4 of the row's."""

    def cancelling(rows):
        logits = torch.tensor([[1.0, -1.0]]).repeat(len(rows), 1)
        logits[::7] = torch.tensor([6e-6, 5e-6]) if len(rows) > 1 else torch.tensor([5e-6, 6e-6])
        return logits

    found = open_voter(cancelling, build_noise("gaussian", 0.5), 2, SHAPE, seed=3, how=Sampling(batch_size=14),
                       conduct=Conduct()).voter
    assert found.count([Segment(found.subject(IMAGES[0], 0), "estimate", 0, 28)]).tolist() == [[24, 4]]


def test_a_model_that_overwrites_its_rows_gets_the_votes_of_one_that_does_not():
    """Many near-ties, so that close calls would be judged on rows that the first pass has changed."""
    model = linear(2)
    with torch.no_grad():
        model[1].weight[1] = model[1].weight[0] + 1e-5 * model[1].weight[1]
        model[1].bias.zero_()

    def overwriting(rows):
        return model(rows.sub_(0.5))

    found = [opened(judge, "grid", 2, batch_size=16) for judge in (overwriting, lambda rows: model(rows - 0.5))]
    one, other = (counts(each.voter) for each in found)
    assert np.array_equal(one, other)
    assert [each.voter._keeps for each in found] == [False, True]


def test_small_batches_are_drawn_and_counted_together():
    sizes = []

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = mlp()

        def forward(self, rows):
            sizes.append(len(rows))
            return self.inner(rows)

    model = Counting()
    voter = opened(model, "grid", engine="plain", batch_size=32).voter
    drawn, draw = [], voter._rows.draw
    voter._rows.draw = lambda segments: drawn.append(sum(s.n for s in segments)) or draw(segments)
    sizes.clear()
    whole = counts(voter)
    assert max(sizes) == 32
    assert max(drawn) == voter.capacity == 992
    assert np.array_equal(whole, counts(opened(model, "grid", engine="plain", batch_size=1000).voter))
    assert opened(model, "grid", engine="plain", precision="bf16", batch_size=32).voter.capacity == 32
