"""The sampler and SmoothedClassifier: same key, same votes; the contract at the door; the theorem on linear models."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from smoothcert import SmoothedClassifier
from smoothcert.errors import InputError, ModelError
from smoothcert.noise import NOISES, Sfc64Stream, build_noise, image_key
from smoothcert.smoothing import Sampling, Segment, open_voter
from smoothcert.stats import (
    AtRadii,
    Certificate,
    ClassCounts,
    Curve,
    FixedN,
    FixedPredict,
    Prediction,
    Sequential,
    gaussian_radius,
)
from smoothcert.stats.sequential import close_looks


def on_grid(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape).astype(np.float32) / 255)


def network(classes: int = 10, inputs: int = 64, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, classes)).eval()


X = on_grid(4, 1, 8, 8)


def test_counts_are_those_of_the_documented_recipe():
    g = SmoothedClassifier(network(), sigma=0.5, num_classes=10, seed=7)
    found = g.certify(X[0], n0=20, n=250, index=3)
    for stage, n, counts in (("select", 20, found.selection), ("estimate", 250, found.estimation)):
        normals = np.empty((n, 64), dtype=np.float32)
        Sfc64Stream(7, 3, stage, 64).fill(normals)
        steps = np.rint(normals * np.float32(0.5 * 255 * 4096)) + np.rint(X[0].numpy().ravel() * 255) * 4096
        noisy = torch.from_numpy((steps * np.float32(1 / (255 * 4096))).astype(np.float32)).view(n, 1, 8, 8)
        votes = network()(noisy).argmax(dim=1)
        assert counts == ClassCounts(torch.bincount(votes, minlength=10).numpy())


@pytest.mark.parametrize("kind", NOISES)
def test_counts_do_not_depend_on_batches_order_or_company(kind):
    g = SmoothedClassifier(network(), sigma=0.5, num_classes=10, seed=1, noise=kind)
    reference = [c.estimation for c in g.certify(X, n0=10, n=1003)]
    for batch in (1, 7, 64, 1000):
        assert [c.estimation for c in g.certify(X, n0=10, n=1003, batch_size=batch)] == reference
    order = [2, 0, 3, 1]
    assert [c.estimation for c in g.certify(X[order], n0=10, n=1003)] == [reference[i] for i in order]
    assert g.certify(X[1], n0=10, n=1003).estimation == reference[1]


def test_a_close_call_gets_the_answer_of_a_batch_of_one():
    """A network that judges near-ties differently in company: only re-judging alone makes batch sizes agree."""

    def company_sensitive(images: torch.Tensor) -> torch.Tensor:
        gap = images.mean(dim=(1, 2, 3)) * 1e-7 + (5e-6 if len(images) > 1 else -5e-6)
        return torch.stack([1 + gap, torch.ones_like(gap)], dim=1)

    g = SmoothedClassifier(company_sensitive, sigma=0.5, num_classes=2, seed=0)
    answers = {g.certify(X[0], n0=10, n=200, batch_size=b).estimation for b in (1, 7, 200)}
    assert len(answers) == 1
    assert answers.pop()[0] < 200


def test_the_key_is_the_index_or_the_bytes():
    g = SmoothedClassifier(network(), sigma=0.5, num_classes=10, seed=1)
    assert g.predict(X[0], index=5).counts != g.predict(X[0], index=6).counts
    assert g.predict(X[:2], index=[5, 6])[1].counts == g.predict(X[1], index=6).counts
    assert g.predict(X[0]).counts == g.predict(X[0].clone()).counts
    assert image_key(X[0].numpy()) != image_key(X[1].numpy())
    other = SmoothedClassifier(network(), sigma=0.5, num_classes=10, seed=2)
    assert g.predict(X[0]).counts != other.predict(X[0]).counts


def test_stages_use_fresh_noise():
    g = SmoothedClassifier(network(), sigma=0.5, num_classes=10, seed=1)
    c = g.certify(X[0], n0=1000, n=1000)
    assert c.selection != c.estimation != g.predict(X[0], n=1000).counts


def test_the_seed_is_drawn_and_kept_where_none_is_given():
    a, b = (SmoothedClassifier(network(), sigma=0.5, num_classes=10) for _ in range(2))
    assert a.seed != b.seed
    again = SmoothedClassifier(network(), sigma=0.5, num_classes=10, seed=a.seed)
    assert a.predict(X[0]).counts == again.predict(X[0]).counts


def test_global_generators_are_left_alone():
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002 - the global state is what is tested
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    g = SmoothedClassifier(network(), sigma=0.5, num_classes=10)
    g.certify(X[0], n=100)
    g.soft(X, m=3)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


class TestLinear:
    """Base classifier sign(<w, x> + b): the smoothed one is equal to it, its exact radius is the margin."""

    SIGMA = 0.5

    def classifier(self, w: torch.Tensor, b: float) -> SmoothedClassifier:
        def logits(images: torch.Tensor) -> torch.Tensor:
            score = images.flatten(1).double() @ w + b
            return torch.stack([score, -score], dim=1)

        return SmoothedClassifier(logits, self.SIGMA, 2, seed=11, bounds=None)

    @pytest.mark.parametrize("method", ["cohen", "two-sided"])
    def test_exceedances_follow_their_binomial_law(self, method):
        alpha, cases, exceeded = 0.05, 300, 0
        rng = np.random.default_rng(5)
        for first in range(0, cases, 50):
            w, b = rng.standard_normal(12), rng.standard_normal()
            unit, x = w / np.linalg.norm(w), rng.random((50, 12))
            x += np.outer(self.SIGMA * rng.uniform(0.1, 2.0, 50) - x @ unit - b / np.linalg.norm(w), unit)
            x = x.astype(np.float32)
            g = self.classifier(torch.from_numpy(w), b)
            found = g.certify(torch.from_numpy(x).view(50, 3, 2, 2), n0=20, n=200, alpha=alpha, method=method,
                              index=list(range(first, first + 50)))
            margins = (x.astype(np.float64) @ w + b) / np.linalg.norm(w)
            exceeded += sum(c.prediction == 1 or c.radius > margin for c, margin in zip(found, margins, strict=True))
        assert stats.binom.sf(exceeded - 1, cases, alpha) > 1e-3
        assert exceeded > 0, "a bound that never fails at alpha = .05 is not tight"

    def test_the_radius_tends_to_the_margin(self):
        w = torch.ones(4, dtype=torch.float64)
        for pa in (0.7, 0.9, 0.99):
            margin = self.SIGMA * stats.norm.ppf(pa)
            b = margin * w.norm() - 2.0
            found = self.classifier(w, float(b)).certify(torch.full((1, 2, 2), 0.5), n=200_000, alpha=1e-3)
            assert 0.97 * margin < found.radius <= margin


def test_soft_is_the_mean_softmax_and_its_gradient_is_right():
    model = network().double()
    g = SmoothedClassifier(lambda x: model(x.double()), sigma=0.3, num_classes=10, seed=1)
    x = X.clone().requires_grad_()
    g.soft(x, m=5)[0, 2].backward()
    assert x.grad is not None
    assert not x.grad[1:].any()

    noise, noisy = build_noise("grid", 0.3), np.empty((5, 64), dtype=np.float32)
    noise.fill(noisy, noise.centre(X[0].numpy()), Sfc64Stream(1, image_key(X[0].numpy()), "attack", 64))
    shift = torch.from_numpy(noisy - X[0].numpy().ravel()).double().view(5, 1, 8, 8)

    def value(image: torch.Tensor) -> torch.Tensor:
        return model(image.double() + shift).softmax(dim=1).mean(dim=0)[2]

    assert torch.allclose(g.soft(X[:1], m=5)[0, 2], value(X[0]), atol=1e-6)
    direction = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    step = 1e-5
    slope = (value(X[0].double() + step * direction) - value(X[0].double() - step * direction)) / (2 * step)
    assert math.isclose(float((x.grad[0].double() * direction).sum()), float(slope.detach()), rel_tol=1e-3)


def test_a_denoiser_stands_between_noise_and_model():
    seen = []

    def blank(y: torch.Tensor, sigma: float) -> torch.Tensor:
        seen.append(sigma)
        return torch.zeros_like(y)

    g = SmoothedClassifier(network(), sigma=0.4, num_classes=10, seed=0, denoiser=blank)
    constant = int(network()(torch.zeros(1, 1, 8, 8)).argmax())
    assert g.predict(X[0], n=100).counts[constant] == 100
    assert set(seen) == {0.4}
    wrong = SmoothedClassifier(network(), sigma=0.4, num_classes=10, denoiser=lambda y, s: y[:, :, :4])
    with pytest.raises(ModelError, match="denoiser must return"):
        wrong.predict(X[0], n=10)


def test_memory_does_not_grow_with_n():
    class Largest(nn.Module):
        rows = 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.rows = max(self.rows, len(images))
            return torch.stack([images.mean((1, 2, 3)), -images.mean((1, 2, 3))], dim=1)

    model = Largest()
    how = Sampling(engine="plain", batch_size=32)
    voter = open_voter(model, build_noise("grid", 0.5), 2, (1, 8, 8), seed=0, how=how).voter
    assert voter.count([Segment(voter.subject(X[0].numpy(), 0), "estimate", 0, 5000)]).sum() == 5000
    assert model.rows == 32
    assert len(voter._rows._rows) <= 1000


def test_off_grid_images_are_flagged():
    g = SmoothedClassifier(network(), sigma=0.5, num_classes=10)
    assert g.certify(X[0] * 0.999, n=100).off_grid
    assert not g.certify(X[0], n=100).off_grid
    digits = SmoothedClassifier(network(), sigma=0.5, num_classes=10, levels=16)
    assert not digits.certify(torch.full((1, 8, 8), 3 / 16), n=100).off_grid


def test_modes_and_gradients_are_put_back():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).train()
    SmoothedClassifier(model, sigma=0.5, num_classes=10).predict(X[0], n=10)
    assert model.training
    assert model[1].training
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(1), nn.Dropout(0.1), nn.Dropout2d(0.5)])
def test_a_network_in_train_mode_is_refused(layer):
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(64, 10))
    g = SmoothedClassifier(model, sigma=0.5, num_classes=10)
    for call in (g.predict, g.certify, g.soft):
        with pytest.raises(ModelError, match=r"train mode.*eval\(\)"):
            call(X)
    model.eval()
    assert len(g.predict(X, n=10)) == 4


@pytest.mark.parametrize(("options", "words"), [
    ({"sigma": 0}, "sigma"), ({"sigma": -1.0}, "sigma"), ({"sigma": math.nan}, "sigma"), ({"sigma": math.inf}, "sigma"),
    ({"sigma": "big"}, "sigma"), ({"num_classes": 1}, "num_classes"), ({"num_classes": 2.5}, "num_classes"),
    ({"noise": "gausian"}, 'did you mean "gaussian"'), ({"seed": -1}, "seed"), ({"seed": 1 << 128}, "seed"),
    ({"bounds": (1, 0)}, "bounds"), ({"levels": 0}, "levels"), ({"sigma": 1e6}, "too large for grid"),
])
def test_bad_construction(options, words):
    with pytest.raises(InputError, match=words):
        SmoothedClassifier(network(), **{"sigma": 0.5, "num_classes": 10, **options})


@pytest.mark.parametrize(("x", "words"), [
    (X[0, 0], "shape"), (X[None], "shape"), ((X * 255).to(torch.uint8), "8-bit"), (X * 2, r"lie in \[0.0, 1.0\]"),
    (X - 0.5, "normalisation"), (X * math.nan, "finite"), (torch.zeros(0, 1, 8, 8), "no values"),
    (torch.zeros(1, 0, 8), "no values"),
    (torch.full((1, 8, 8), 1 + 1e-7), r"got values from 1\.0000001 to 1\.0000001: clip what rounding"),
    (torch.full((1, 8, 8), -1e-9), r"from -1e-09 to -1e-09: clip"), (255 * X, "divide 8-bit values by 255"),
    ([[[0.0]], [[0.0, 1.0]]], "cannot be read as an array"), (np.zeros((1, 8, 8), object), "dtype object$"),
    (X.to_sparse(), "cannot be read as an array"), (X.double() * 1e300, "finite"),
])
def test_bad_images(x, words):
    g = SmoothedClassifier(network(), sigma=0.5, num_classes=10)
    for call in (g.predict, g.certify, g.soft):
        with pytest.raises(InputError, match=words):
            call(x)


@pytest.mark.parametrize(("options", "words"), [
    ({"n": 0}, "n must"), ({"n0": 0}, "n0 must"), ({"n": 10.5}, "n must"), ({"alpha": 0}, "alpha"),
    ({"alpha": 1.0}, "alpha"), ({"alpha": math.nan}, "alpha"), ({"method": "two_sided"}, 'did you mean "two-sided"'),
    ({"margin": 0.5}, "margin"), ({"margin": -0.1}, "margin"), ({"batch_size": -3}, "batch_size"),
    ({"batch_size": 0}, "batch_size"),
    ({"index": [1, 2]}, "index"), ({"index": -1}, "index"),
])
def test_bad_arguments(options, words):
    g = SmoothedClassifier(network(), sigma=0.5, num_classes=10)
    with pytest.raises(InputError, match=words):
        g.certify(X[0], **options)


@pytest.mark.parametrize(("model", "words"), [
    (lambda x: x.flatten(1)[:, :7], r"\(\d+, 10\)"), (lambda x: x.flatten(1)[:1, :10], "shape"),
    (lambda x: x.mean((1, 2, 3)), "shape"), (lambda x: "a", "got str"),
    (lambda x: torch.full((len(x), 10), math.nan), "NaN"),
])
def test_bad_logits(model, words):
    with pytest.raises(ModelError, match=words):
        SmoothedClassifier(model, sigma=0.5, num_classes=10).predict(X[0], n=10)


def test_not_a_classifier():
    with pytest.raises(ModelError, match="callable"):
        SmoothedClassifier("resnet", sigma=0.5, num_classes=10)


def test_log_probabilities_of_zero_are_fine():
    def certain(images: torch.Tensor) -> torch.Tensor:
        logits = torch.full((len(images), 3), -math.inf)
        logits[:, 1] = 0.0
        return logits

    assert SmoothedClassifier(certain, sigma=0.5, num_classes=3).predict(X[0], n=50).counts == ClassCounts([0, 50, 0])


class Fixed:
    """A classifier that always answers alike, of given classes."""

    def __init__(self, classes):
        self.classes_ = np.array(classes)

    def predict_proba(self, rows):
        return np.tile(np.eye(len(self.classes_))[0], (len(rows), 1))


class TestPredictProba:
    def fitted(self, labels):
        from sklearn.linear_model import LogisticRegression

        rng = np.random.default_rng(0)
        return LogisticRegression().fit(rng.random((len(labels), 64)), labels)

    def test_estimator_and_its_method_agree_with_votes_by_hand(self):
        estimator = self.fitted(np.arange(60) % 10)
        whole = SmoothedClassifier(estimator, sigma=0.5, num_classes=10, seed=1).predict(X[0], n=200)
        method = SmoothedClassifier(estimator.predict_proba, sigma=0.5, num_classes=10, seed=1).predict(X[0], n=200)
        assert whole.counts == method.counts
        noise, noisy = build_noise("grid", 0.5), np.empty((200, 64), dtype=np.float32)
        noise.fill(noisy, noise.centre(X[0].numpy()), Sfc64Stream(1, image_key(X[0].numpy()), "predict", 64))
        assert whole.counts == ClassCounts(np.bincount(estimator.predict(noisy), minlength=10))

    def test_columns_follow_the_estimators_classes(self):
        estimator = self.fitted(np.where(np.arange(60) % 2, 7, 3))
        counts = SmoothedClassifier(estimator, sigma=0.5, num_classes=10, seed=1).predict(X[0], n=100).counts
        assert counts[3] + counts[7] == 100

    @pytest.mark.parametrize("labels", [np.array([3.0, 7.0]), np.array(["3", "7"])])
    def test_whole_floats_and_texts_are_numbers_too(self, labels):
        estimator = self.fitted(labels[np.arange(60) % 2])
        counts = SmoothedClassifier(estimator, sigma=0.5, num_classes=10, seed=1).predict(X[0], n=100).counts
        assert counts[3] + counts[7] == 100

    @pytest.mark.parametrize("labels", [np.array([False, True]), np.array(["bee", "ant"]), np.array([0, 1])])
    def test_booleans_and_names_are_taken_in_their_order(self, labels):
        estimator = self.fitted(labels[np.arange(60) % 2])
        votes = SmoothedClassifier(estimator, sigma=0.5, num_classes=2, seed=1).predict(X[0], n=100)
        assert sum(votes.counts[k] for k in range(2)) == 100

    @pytest.mark.parametrize("labels", [["ant", "bee", "cat"], [1, 2], [-1, 0], [0.5, 1.0]])
    def test_classes_that_are_neither_indices_nor_names_are_refused(self, labels):
        with pytest.raises(InputError, match="classes_"):
            SmoothedClassifier(Fixed(labels), sigma=0.5, num_classes=2)


class TestSequential:
    """`radii`, `curve_loss` and `n_max` of the API; the procedures themselves are tested in test_plans.py."""

    g = SmoothedClassifier(network(), sigma=0.5, num_classes=10, seed=3)

    def test_radii_are_decided_from_prefixes_of_the_same_samples(self):
        """What stops at n samples has the counts of the first n that a fixed run draws."""
        for image, found in zip(X, self.g.certify(X, radii=[0.05, 0.1], n_max=4000), strict=True):
            assert [look.n for look in found.looks] == [n for n in close_looks(4000)
                                                        if n <= found.estimation.n]
            for look in found.looks:
                assert look == self.g.certify(image, n=look.n).estimation
            fixed = self.g.certify(image, n=4000, method="two-sided")
            assert found.selection == fixed.selection
            assert (found.radius >= 0.05) == (fixed.radius >= 0.05) or abs(fixed.radius - 0.05) < 0.02

    def test_a_curve_takes_fresh_samples_after_its_pilot(self):
        for found in self.g.certify(X, curve_loss=0.05, n_max=4000):
            assert found.selection.n == 400
            assert len(found.looks) <= 1
            assert found.estimation.n <= 4000
            if found.looks:
                assert found.estimation != found.selection

    def test_a_prediction_stops_when_it_is_sure(self):
        sure = SmoothedClassifier(lambda x: torch.eye(10)[torch.full((len(x),), 3)], sigma=0.5, num_classes=10, seed=0)
        found = sure.predict(X, n_max=100_000)
        assert [(p.prediction, p.counts.n) for p in found] == [(3, found[0].counts.n)] * 4
        assert found[0].counts.n < 100

    @pytest.mark.parametrize(("options", "message"), [
        ({"n": 100, "n_max": 200, "radii": [0.1]}, "give one"),
        ({"radii": [0.1]}, "n_max"), ({"curve_loss": 0.1}, "n_max"), ({"n_max": 100}, "radii"),
        ({"n_max": 100, "radii": [0.1], "curve_loss": 0.1}, "one of them"),
        ({"n_max": 100, "radii": []}, "radii"), ({"n_max": 100, "radii": [-1.0]}, "radii"),
        ({"n_max": 100, "curve_loss": 1.5}, "loss"),
        ({"n_max": 100, "radii": [0.1], "method": "t-certify"}, "sequential"),
    ])
    def test_designs_exclude_one_another(self, options, message):
        with pytest.raises(InputError, match=message):
            self.g.certify(X[0], **options)

    def test_predict_takes_n_or_n_max(self):
        with pytest.raises(InputError, match="give one"):
            self.g.predict(X[0], n=100, n_max=100)


class TestPlanArguments:
    g = SmoothedClassifier(network(), sigma=0.5, num_classes=10, seed=1)

    @pytest.mark.parametrize(("plan", "options"), [
        (FixedN(n=300), {"n": 300}),
        (FixedN(n0=20, n=300, alpha=0.01, method="cohen", margin=0.1),
         {"n0": 20, "n": 300, "alpha": 0.01, "method": "cohen", "margin": 0.1}),
        (AtRadii(radii=[0.1, 0.05], n_max=800), {"radii": [0.05, 0.1], "n_max": 800}),
        (Curve(loss=0.05, n_max=800), {"curve_loss": 0.05, "n_max": 800}),
    ])
    def test_a_plan_is_what_its_parts_make(self, plan, options):
        found = self.g.certify(X, plan)
        assert found == self.g.certify(X, **options) == self.g.certify(X, plan=plan)
        assert {(c.alpha, c.method, c.margin) for c in found} == {(plan.alpha, plan.method, plan.margin)}

    def test_the_same_for_predictions(self):
        for plan, options in ((FixedPredict(60, 0.01), {"n": 60, "alpha": 0.01}), (Sequential(500), {"n_max": 500})):
            found = self.g.predict(X, plan)
            assert found == self.g.predict(X, **options) == self.g.predict(X, plan=plan)
            assert {p.alpha for p in found} == {plan.alpha}

    def test_positions_are_those_of_the_paper(self):
        assert self.g.certify(X[0], 20, 300, 0.01, "cohen", 0.1) == self.g.certify(
            X[0], FixedN(n0=20, n=300, alpha=0.01, method="cohen", margin=0.1))
        assert self.g.predict(X[0], 60, 0.01) == self.g.predict(X[0], FixedPredict(60, 0.01))

    def test_one_input_gives_one_answer_and_a_batch_a_list(self):
        for x in (X[0], X[0].numpy()):
            assert isinstance(self.g.certify(x, FixedN(n=50)), Certificate)
            assert isinstance(self.g.predict(x, FixedPredict(50)), Prediction)
        for x in (X[:1], X[:1].numpy(), [X[0]], (X[0],), [X[0].numpy()]):
            certificates, predictions = self.g.certify(x, FixedN(n=50)), self.g.predict(x, FixedPredict(50))
            assert certificates == [self.g.certify(X[0], FixedN(n=50))]
            assert predictions == [self.g.predict(X[0], FixedPredict(50))]

    def test_the_radius_is_that_of_the_classifiers_noise(self):
        plan = FixedN(n=300, radius_of=lambda bounds: gaussian_radius(bounds, 100.0))
        assert self.g.certify(X[0], plan).radius == self.g.certify(X[0], n=300).radius
        assert plan.radius_of is not self.g.noise.radius

    @pytest.mark.parametrize(("call", "words"), [
        (lambda g: g.certify(X[0], FixedN(n=10), n=10), "FixedN holds the whole procedure: give n to it"),
        (lambda g: g.certify(X[0], AtRadii(radii=[1]), alpha=0.1, radii=[1]), "AtRadii .* give alpha, radii to it"),
        (lambda g: g.predict(X[0], Sequential(10), n=5), "Sequential holds the whole procedure: give n to it"),
        (lambda g: g.certify(X[0], Sequential(10)), r"certify takes FixedN, AtRadii or Curve, got Sequential\("),
        (lambda g: g.certify(X[0], "cohen"), "certify takes FixedN, AtRadii or Curve, got 'cohen'"),
        (lambda g: g.predict(X[0], FixedN(n=10)), r"predict takes FixedPredict or Sequential, got FixedN\("),
        (lambda g: g.certify(X[0], 10, n0=20), "n0 is given twice, as 10 and as 20"),
        (lambda g: g.predict(X[0], 10, n=20), "n is given twice, as 10 and as 20"),
        (lambda g: g.certify(X[0], 1.5), "n0 must be a whole number"),
        (lambda g: g.certify([X[0], X[0, :, :4]], FixedN(n=10)), "inputs cannot be read as an array"),
    ])
    def test_plans_that_do_not_fit(self, call, words):
        with pytest.raises(InputError, match=words):
            call(self.g)
