"""A base classifier is a function of one input: what the trial at opening finds, and what follows."""

import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from smoothcert import SmoothedClassifier
from smoothcert.errors import AdaptedWarning, EngineWarning, InputError, ModelError
from smoothcert.smoothing.contract import COARSE, Conduct, try_rows
from smoothcert.smoothing.protocols import base_classifier

SHAPE, K = (1, 8, 8), 10
CPU = torch.device("cpu")
IMAGE = torch.full(SHAPE, 133 / 255)


def seeded(build):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build()


def linear():
    return seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, K)))


def certified(model, **how):
    return SmoothedClassifier(model, sigma=0.25, num_classes=K, seed=0).certify(IMAGE, n=500, **how)


def tried(model, **how):
    return try_rows(model, SHAPE, K, CPU, model=model, **how)


class Forward(nn.Module):
    """A linear network with something done to its logits, or to its images."""

    def __init__(self, after=lambda logits: logits, before=lambda images: images):
        super().__init__()
        self.layers, self.after, self.before = linear(), after, before

    def forward(self, images):
        return self.after(self.layers(self.before(images)))


def batch_norm():
    return nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), *linear()).eval()


def shrunk(logits):
    return logits - 0.9 * (logits - logits.mean(dim=0))


def scaled_over_the_batch(images):
    scale = images.abs().max() / 127
    return (images / scale).round() * scale


@pytest.mark.parametrize(("model", "place"), [
    (lambda: Forward(lambda y: y.softmax(0)), "after the last one"),
    (batch_norm, r"layer to do so is 0 \(BatchNorm2d\)"),
    (lambda: Forward(shrunk), "after the last one"), (lambda: Forward(before=scaled_over_the_batch), "before layers.0"),
    (lambda: Forward(lambda y: y + torch.arange(len(y))[:, None] % 2), "after the last one"),
    (lambda: Forward(lambda y: y.flip(0)), "after the last one"),
    (lambda: lambda x: linear()(x) - x.amax() * torch.arange(K), "other rows of the batch"),
])
def test_what_mixes_rows_is_refused_whatever_the_batch(model, place):
    model = model()
    for batch_size in (1, 16):
        with pytest.raises(ModelError, match=f"no function of one input.*{place}"):
            certified(model, batch_size=batch_size)


def test_what_changes_from_call_to_call_is_refused():
    calls = [0]

    def counting(images):
        calls[0] += 1
        return linear()(images) + calls[0]

    for model, place in ((Forward(before=lambda x: functional.dropout(x, training=True)), r"before layers\.0"),
                         (Forward(after=lambda y: y + torch.rand_like(y)), "after the last one"), (counting, "")):
        with pytest.raises(ModelError, match=f"change from call to call.*{place}"):
            certified(model)


def test_the_trial_costs_26_rows_in_7_passes_and_is_made_once():
    sizes = []

    def model(images):
        sizes.append(len(images))
        return images.flatten(1)[:, :K]

    g = SmoothedClassifier(model, sigma=0.25, num_classes=K, seed=0)
    assert tried(model) == Conduct()
    assert sum(sizes) == 26
    assert len(sizes) == 7
    sizes.clear()
    g.certify(IMAGE, n0=1, n=1000, batch_size=1000)
    assert sum(sizes) <= 30 + 1001 + 20  # the opening, the samples, and close calls
    sizes.clear()
    g.certify(IMAGE, n0=1, n=1000, batch_size=1000)
    assert sum(size for size in sizes if size < 1000) <= 3 + 20  # two rows, the selection, and close calls


class Nearest(nn.Module):
    """A hard answer inside the network: torch.cdist changes its algorithm above 25 rows."""

    def __init__(self):
        super().__init__()
        self.centres = nn.Parameter(torch.rand(K, 64, generator=torch.Generator().manual_seed(0)))

    def forward(self, images):
        return functional.one_hot(torch.cdist(images.flatten(1), self.centres).argmin(1), K)


def test_a_hard_answer_that_batches_decide_is_judged_by_rows():
    conduct = tried(Nearest())
    assert "answers in steps" in str(conduct.alone)
    with pytest.warns(EngineWarning, match="one image at a time"):
        few = certified(Nearest(), batch_size=20)
    with pytest.warns(EngineWarning, match="one image at a time"):
        assert certified(Nearest(), batch_size=100).estimation == few.estimation


def test_steps_that_no_batch_moves_are_exact():
    """Comparisons of pixels have no rounding: no call of theirs is close, and batches are safe."""

    def stump(images):
        return functional.one_hot((images.flatten(1)[:, :K] > 0.5).sum(1) % K, K)

    assert tried(stump) == Conduct(steps=True, exact=True)


def test_a_forest_on_all_cores_answers_like_one_on_one():
    """Threads add up probabilities in the order in which they finish, and exact ties then flip."""
    ensemble = pytest.importorskip("sklearn.ensemble")
    rng = np.random.default_rng(0)
    x, y = rng.random((300, 64)).astype(np.float32), rng.integers(0, K, 300)
    forest = ensemble.RandomForestClassifier(12, max_depth=3, random_state=0, n_jobs=-1).fit(x, y)
    rows = torch.from_numpy(x).view(-1, *SHAPE)
    judge = base_classifier(forest, K)
    answers = [judge(rows) for _ in range(5)]
    assert all(torch.equal(answers[0], other) for other in answers)
    assert torch.equal(answers[0], base_classifier(forest.set_params(n_jobs=None), K)(rows))
    assert try_rows(judge, SHAPE, K, CPU).exact
    assert forest.set_params(n_jobs=-1).n_jobs == -1


def test_a_model_that_takes_one_row_runs_on_one():
    class One(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = linear()[1]

        def forward(self, images):
            return self.layer(images.reshape(1, 64))

    with pytest.warns(AdaptedWarning, match="takes one row at a time"):
        found = certified(One())
    assert found.estimation == certified(linear()).estimation


def test_dynamic_quantisation_runs_by_rows_in_modules_alone():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.ao.quantization.quantize_dynamic(linear(), {nn.Linear}, dtype=torch.qint8)
    assert "its layer 1 (Linear) takes the scale" in str(tried(quantised).alone)
    with pytest.raises(ModelError, match="no function of one input"):
        try_rows(quantised, SHAPE, K, CPU)


def test_a_random_classifier_keeps_its_normals_in_any_company():
    class Walk:
        random = True

        def __call__(self, images, normals):
            return (images + normals(0, images)).flatten(1)[:, :K]

    assert try_rows(Walk(), SHAPE, K, CPU, random=True) == Conduct()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_network_of_another_type_gets_images_of_its_type(dtype):
    model = linear().to(dtype)
    g = SmoothedClassifier(model, sigma=0.25, num_classes=K, seed=0)
    assert g.certify(IMAGE, n=500).prediction == certified(linear()).prediction
    (opened,) = (kept.opened for kept in g._voters._kept.values())
    assert opened.identity("float32", CPU)["input_dtype"] == str(dtype).removeprefix("torch.")
    assert ("batch_size" in opened.identity("float32", CPU)) == (dtype in COARSE)


def test_a_network_of_another_type_goes_on_in_bfloat16():
    g = SmoothedClassifier(linear().half(), sigma=0.25, num_classes=K, seed=0, precision="bf16")
    assert g.certify(IMAGE, n=500).prediction == certified(linear()).prediction


@pytest.mark.parametrize("kind", [torch.int64, torch.uint8, torch.bool, np.int32, np.bool_])
def test_whole_answers_are_scores(kind):
    def answer(images):
        hard = functional.one_hot(images.flatten(1)[:, :K].argmax(1), K)
        return hard.to(kind) if isinstance(kind, torch.dtype) else hard.numpy().astype(kind)

    assert certified(answer).estimation == certified(lambda x: x.flatten(1)[:, :K]).estimation


@pytest.mark.parametrize("shape", [(K, 1, 1), (1, K), (K, 1)])
def test_axes_of_size_one_are_dropped(shape):
    model = linear()
    assert certified(lambda x: model(x).reshape(len(x), *shape)).estimation == certified(model).estimation


def test_one_logit_an_image_is_refused_with_the_way_out():
    with pytest.raises(ModelError, match=r"return two columns, torch\.cat\(\[-z, z\], 1\)"):
        SmoothedClassifier(lambda x: x.mean((1, 2, 3)).sigmoid()[:, None], 0.25, 2, seed=0).certify(IMAGE, n=100)


def test_the_live_model_answers():
    """Whatever changed between two calls, in the state dict, beside it or behind it, the copy is renewed."""
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers, self.shift = linear(), [0.0]
            self.register_buffer("bias", torch.zeros(K), persistent=False)

        def forward(self, images):
            return self.layers(images) + self.bias + self.shift[0] * torch.arange(K)

    model = Shifted()
    g = SmoothedClassifier(model, sigma=0.25, num_classes=K, seed=0, engine="eager")
    first = g.certify(IMAGE, n=500)
    model.shift[0] = 100.0
    assert g.certify(IMAGE, n=500).prediction == 9
    model.shift[0], model.bias[3] = 0.0, 100.0
    assert g.certify(IMAGE, n=500).prediction == 3
    model.bias[3] = 0.0
    assert g.certify(IMAGE, n=500).estimation == first.estimation


def test_models_that_fail_say_how_and_on_what():
    with pytest.raises(ModelError, match=r"cannot take float32 images of shape \(3, 1, 8, 8\): RuntimeError: mat1"):
        certified(nn.Linear(7, K))
    with pytest.raises(ModelError, match="got str"):
        certified(lambda images: "a")


def test_the_trial_sees_the_noise_and_range_of_the_run():
    """What mixes rows only where the noise is large, or above a floor, is found at that noise and in that range."""

    def far(images):
        shade, out = images.flatten(1).mean(1), images.flatten(1).abs().amax(1) > 2.6
        shade = torch.where(out, shade[out].mean() if out.any() else shade.mean(), shade)
        return torch.stack([shade - 0.5, 0.5 - shade], 1)

    def coarse(images):
        scale = images.abs().max().clamp(min=20) / 7
        return linear()((images / scale).round() * scale)

    with pytest.raises(ModelError, match="no function of one input"):
        SmoothedClassifier(far, sigma=1.5, num_classes=2, seed=0).certify(IMAGE, n=100)
    with pytest.raises(ModelError, match="no function of one input"):
        SmoothedClassifier(coarse, sigma=32, num_classes=K, seed=0, bounds=(0, 255), noise="gaussian").certify(
            133 * torch.ones(SHAPE), n=100)


def test_steps_not_found_leave_close_calls_to_the_plain_model():
    def constant(images):
        return functional.one_hot(torch.zeros(len(images), dtype=torch.int64), K)

    assert tried(constant) == Conduct(steps=True)


def test_an_attribute_that_few_rows_show_renews_a_copy():
    class Clamped(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers, self.high = linear(), 9.0

        def forward(self, images):
            return self.layers(images.clamp(max=self.high))

    model = Clamped()
    g = SmoothedClassifier(model, sigma=0.25, num_classes=K, seed=0, engine="eager")
    g.certify(IMAGE, n=500)
    (before,) = g._voters._kept.values()
    model.high = 8.0
    g.certify(IMAGE, n=500)
    (after,) = g._voters._kept.values()
    assert before is not after


def test_settings_that_the_noise_hangs_on_are_fixed():
    g = SmoothedClassifier(linear(), sigma=0.25, num_classes=K, seed=0)
    for name, value in (("sigma", 1.0), ("seed", 3), ("num_classes", 4), ("bounds", None)):
        with pytest.raises(InputError, match=f"{name} is fixed.*make another SmoothedClassifier"):
            setattr(g, name, value)


def test_a_forward_that_asks_for_gradients_is_traced_so():
    class Asking(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = linear()

        def forward(self, images):
            logits = self.layers(images)
            return logits if torch.is_grad_enabled() else logits.roll(1, 1)

    found = [SmoothedClassifier(Asking(), 0.25, K, seed=0, noise="gaussian", space=space).certify(IMAGE, n=500)
             for space in ("auto", "pixels")]
    assert found[0].prediction == found[1].prediction


@pytest.mark.parametrize("change", [
    lambda y: y.numpy().astype(np.longdouble), lambda y: y.numpy().astype(">f4"), lambda y: y.to_sparse(),
    lambda y: y.to_sparse_csr(),
])
def test_other_layouts_of_the_same_answers_are_taken(change):
    model = linear()
    assert certified(lambda x: change(model(x).detach())).estimation == certified(model).estimation


def test_whole_scores_beyond_what_floats_tell_apart():
    def answer(images):
        return functional.one_hot(images.flatten(1)[:, :K].argmax(1), K) + 2**60

    assert certified(answer).estimation == certified(lambda x: x.flatten(1)[:, :K]).estimation


def test_exits_and_class_indices_are_explained():
    with pytest.raises(ModelError, match="SystemExit"):
        certified(lambda images: sys.exit(3))
    with pytest.raises(ModelError, match="one_hot rows"):
        certified(lambda images: images.flatten(1)[:, :K].argmax(1))


def test_a_batch_of_three_that_is_baked_in_is_found():
    model = linear()
    with pytest.warns(AdaptedWarning, match="exactly 3 rows"):
        found = certified(lambda images: model(images.reshape(3, *SHAPE)))
    assert found.estimation == certified(model).estimation
