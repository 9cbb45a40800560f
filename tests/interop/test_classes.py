"""Old interfaces over our sampler: the published signature, its procedure, and never a larger radius."""

import inspect

import numpy as np
import pytest
import torch
from scipy import special

from smoothcert.errors import InputError, MissingExtraError
from smoothcert.interop.art import SmoothedEstimator, _mean_and_std, _WithoutArt
from smoothcert.interop.smooth import Smooth
from smoothcert.smoothing import SmoothedClassifier

SIGMA = 0.25


def half_space(x):
    """Class 1 where the mean pixel is above 0: its certified radius at x is sqrt(d) mean(x), d = 12."""
    mean = x.flatten(1).mean(dim=1)
    return torch.stack([-mean, mean], dim=1)


def network() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3), torch.nn.BatchNorm1d(3),
                                   torch.nn.Dropout(0.5))


def test_the_published_call():
    net = network()  # in train mode, as a script may leave it
    x = torch.linspace(0, 1, 12).reshape(3, 2, 2)
    answer, radius = Smooth(net, 3, SIGMA).certify(x, 100, 10000, 0.001, 400)
    assert answer in (-1, 0, 1, 2)
    assert type(radius) is float
    assert (answer == Smooth.ABSTAIN) == (radius == 0)
    assert Smooth(net, 3, SIGMA).predict(x, 100, 0.001, 30) in (-1, 0, 1, 2)
    assert list(inspect.signature(Smooth.certify).parameters) == ["self", "x", "n0", "n", "alpha", "batch_size"]
    assert list(inspect.signature(Smooth.predict).parameters) == ["self", "x", "n", "alpha", "batch_size"]
    assert list(inspect.signature(Smooth).parameters)[:3] == ["base_classifier", "num_classes", "sigma"]
    assert not net.training, "the published class leaves the network in eval mode"


def test_it_is_certify_as_published_from_the_same_votes():
    x, net = torch.linspace(0, 1, 12).reshape(3, 2, 2), network().eval()
    mine = Smooth(net, 3, SIGMA, seed=5).certify(x, 100, 1000, 0.01, 64)
    told = SmoothedClassifier(net, SIGMA, 3, 5, "grid", bounds=None).certify(x, 100, 1000, 0.01, "cohen")
    p = special.betaincinv(n_a := int(np.asarray(told.estimation)[told.selection.top]), 1001 - n_a, 0.01)
    exact = SIGMA * special.ndtri(p)
    assert mine == ((told.selection.top, told.radius) if p > 0.5 else (-1, 0.0))
    if p > 0.5:
        assert exact - 1e-11 <= mine[1] <= exact + 1e-14


def test_a_radius_is_never_above_unanimous_votes_or_the_truth():
    x = torch.full((3, 2, 2), 0.5)
    _, radius = Smooth(half_space, 2, SIGMA, seed=0).certify(x, 100, 1000, 0.001, 100)
    assert 0 < radius <= SIGMA * special.ndtri(0.001 ** (1 / 1000)) * (1 + 1e-12)
    assert radius <= 0.5 * np.sqrt(12)


def test_it_abstains_on_the_boundary():
    g = Smooth(half_space, 2, SIGMA, seed=0)
    assert g.certify(torch.zeros(3, 2, 2), 100, 1000, 0.001, 100) == (Smooth.ABSTAIN, 0.0)
    assert g.predict(torch.zeros(3, 2, 2), 1000, 0.001, 100) == Smooth.ABSTAIN == -1


def test_noise_is_fresh_at_each_call_unless_seeded():
    x = torch.full((3, 2, 2), 0.05)

    def radii(g):
        return {g.certify(x, 100, 500, 0.001, 100)[1] for _ in range(6)}

    assert len(radii(Smooth(half_space, 2, SIGMA))) > 1
    assert len(radii(Smooth(half_space, 2, SIGMA, seed=3))) == 1
    assert radii(Smooth(half_space, 2, SIGMA, seed=3)) == radii(Smooth(half_space, 2, SIGMA, seed=3))


def test_no_global_generator_is_read_or_set():
    state = torch.random.get_rng_state()
    Smooth(half_space, 2, SIGMA).certify(torch.full((3, 2, 2), 0.1), 10, 100, 0.01, 50)
    assert torch.equal(state, torch.random.get_rng_state())


def test_images_of_any_range_unless_bounds_are_given():
    Smooth(half_space, 2, SIGMA).predict(torch.full((3, 2, 2), -3.0), 100, 0.01, 50)
    with pytest.raises(InputError, match="values must lie"):
        Smooth(half_space, 2, SIGMA, bounds=(0, 1)).predict(torch.full((3, 2, 2), -3.0), 100, 0.01, 50)


@pytest.mark.parametrize("noise", ["gaussian", "grid"])
def test_either_noise(noise):
    assert Smooth(half_space, 2, SIGMA, seed=0, noise=noise).predict(torch.full((3, 2, 2), 0.5), 100, 0.001, 50) == 1


def reads_the_centre(x):
    """Class 1 where the trailing bits of noisy pixels near 0 tell that the clean ones were 1/255 (Mironov 2012)."""
    y = x.flatten(1).double()
    near = y.abs() < 2.0**-9
    told = (~near | (torch.remainder(y * 2.0**32, 1) == 0)).all(dim=1) & near.any(dim=1)
    return torch.stack([~told, told], dim=1).float()


def test_trailing_bits_deceive_the_published_noise_alone():
    """0 and 1/255 are .124 apart; on plain noise each is certified beyond that, with different classes."""
    images = [torch.full((1, 20, 50), k / 255) for k in (0, 1)]

    def told(**noise):
        return [Smooth(reads_the_centre, 2, 0.5, seed=k, **noise).certify(images[k], 100, 1000, 0.001, 500)
                for k in (0, 1)]

    (low, near), (high, far) = told(noise="gaussian")
    assert (low, high) == (0, 1)
    assert min(near, far) > np.sqrt(1000) / 255
    (low, near), (high, far) = told()
    assert low == high or min(near, far) < np.sqrt(1000) / 255


def test_attributes_are_read_at_each_call():
    x = torch.full((3, 2, 2), 0.5)
    g = Smooth(half_space, 2, 0.25, seed=0)
    first = g.certify(x, 100, 1000, 0.001, 100)
    g.sigma = 0.5
    assert g.certify(x, 100, 1000, 0.001, 100) == Smooth(half_space, 2, 0.5, seed=0).certify(x, 100, 1000, 0.001, 100)
    assert g.certify(x, 100, 1000, 0.001, 100) != first
    g.base_classifier = lambda y: half_space(-y)
    assert g.certify(x, 100, 1000, 0.001, 100)[0] == 0
    g.base_classifier, g.num_classes = network(), 3
    assert g.predict(x, 100, 0.001, 100) in (-1, 0, 1, 2)
    assert not g.base_classifier.training
    g.sigma = -1
    with pytest.raises(InputError, match="sigma"):
        g.predict(x, 100, 0.001, 100)


class Unanimous(Smooth):
    def _sample_noise(self, x, num, batch_size):
        return np.array([0, num])


class Cautious(Smooth):
    def _lower_confidence_bound(self, NA, N, alpha):
        return super()._lower_confidence_bound(NA, N, alpha) / 2


def test_steps_that_a_subclass_overrides_are_taken():
    x = torch.full((3, 2, 2), -0.5)
    assert Smooth(half_space, 2, SIGMA).predict(x, 100, 0.001, 100) == 0
    assert Unanimous(half_space, 2, SIGMA).predict(x, 100, 0.001, 100) == 1
    answer, radius = Unanimous(half_space, 2, SIGMA).certify(x, 100, 1000, 0.001, 100)
    exact = SIGMA * special.ndtri(0.001 ** (1 / 1000))
    assert answer == 1
    assert exact - 1e-11 <= radius <= exact
    assert Cautious(half_space, 2, SIGMA).certify(x, 100, 1000, 0.001, 100) == (Smooth.ABSTAIN, 0.0)
    g = Smooth(half_space, 2, SIGMA)
    g._sample_noise = lambda x, num, batch_size: np.array([num // 2, num - num // 2])
    assert g.certify(x, 100, 1000, 0.001, 100) == (Smooth.ABSTAIN, 0.0)
    counts = Smooth(half_space, 2, SIGMA)._sample_noise(x, 100, 30)
    assert counts.shape == (2,)
    assert counts.sum() == 100


def test_one_image_as_the_published_class_takes_it():
    """It repeats x in a new first dimension of four, so that fewer dimensions, and a batch of one, are an image too."""
    image = torch.full((1, 3, 4), 0.5)
    expected = Smooth(half_space, 2, SIGMA, seed=0).certify(image, 100, 1000, 0.001, 100)
    for x in (image[None], image[0], image.numpy(), image.double(), image.requires_grad_()):
        assert Smooth(half_space, 2, SIGMA, seed=0).certify(x, 100, 1000, 0.001, 100) == expected
    with pytest.raises(InputError, match=r"one image, .*got shape \(2, 1, 3, 4\): call once for each"):
        Smooth(half_space, 2, SIGMA).predict(image.repeat(2, 1, 1, 1), 100, 0.001, 100)


def estimator(model=half_space, **options) -> SmoothedEstimator:
    given = {"loss": torch.nn.CrossEntropyLoss(), "input_shape": (3, 2, 2), "nb_classes": 2, "sample_size": 200,
             "scale": SIGMA, "seed": 0, "device_type": "cpu"}
    return SmoothedEstimator(model, **{**given, **options})


X = np.stack([np.full((3, 2, 2), value, np.float32) for value in (0.5, -0.5, 0.0)])


def test_the_estimator_has_arts_arguments_and_defaults():
    signature = inspect.signature(_WithoutArt)
    assert list(signature.parameters) == [
        "model", "loss", "input_shape", "nb_classes", "optimizer", "channels_first", "clip_values",
        "preprocessing_defences", "postprocessing_defences", "preprocessing", "device_type", "sample_size", "scale",
        "alpha"]
    plain = SmoothedEstimator(half_space, torch.nn.CrossEntropyLoss(), (3, 2, 2), 2)
    assert (plain.sample_size, plain.scale, plain.alpha, plain.clip_values) == (32, 0.1, 0.001, None)
    for wrong in ({"sigma": 1.0}, {"nb_classes": 2, "model": half_space}):
        with pytest.raises(InputError, match="arguments are those of ART's PyTorchRandomizedSmoothing"):
            SmoothedEstimator(half_space, **wrong)
    for name in ("preprocessing_defences", "postprocessing_defences"):
        with pytest.raises(InputError, match=f"{name} must be None"):
            estimator(**{name: [object()]})
    with pytest.raises(InputError, match="preprocessing must be"):
        _mean_and_std("standardise")


def test_the_estimator_predicts_and_certifies():
    e = estimator()
    assert e.predict(X).tolist() == [[0, 1], [1, 0], [0, 0]]
    assert e.predict(X, is_abstain=False).sum(axis=1).tolist() == [1, 1, 1]
    classes, radii = e.certify(X, n=1000)
    assert classes.tolist() == [1, 0, -1]
    assert (radii[:2] > 0).all()
    assert radii[2] == 0
    assert (radii[:2] <= 0.5 * np.sqrt(12)).all()
    told = SmoothedClassifier(half_space, SIGMA, 2, 0, bounds=None).certify(X, 200, 1000, 0.001, "cohen")
    assert radii.tolist() == [one.radius for one in told]
    with pytest.raises(InputError, match=r"\(N, 3, 2, 2\), got \(3, 2, 2\)"):
        e.predict(X[0])


def test_the_estimators_attributes_are_read_at_each_call():
    e = estimator()
    _, before = e.certify(X, n=1000)
    e.scale = 2 * SIGMA
    _, radii = e.certify(X, n=1000)
    assert (radii != before)[:2].all()
    e.preprocessing = (1.0, 0.5)  # the mean 0 becomes -2
    assert e.predict(X)[2].tolist() == [1, 0]


def test_clip_values_are_checked():
    with pytest.raises(InputError, match="values must lie"):
        estimator(clip_values=(0.0, 1.0)).predict(X)
    low, high = np.full((3, 2, 2), -0.5, np.float32), np.ones((3, 2, 2), np.float32)
    assert estimator(clip_values=(low, high)).predict(X).shape == (3, 2)
    low[0] = -0.4
    with pytest.raises(InputError, match="inputs must keep clip_values"):
        estimator(clip_values=(low, high)).predict(X)


def test_preprocessing_is_behind_the_noise():
    mean, std = np.array([0.1, 0.2, 0.3], np.float32), np.array([1.0, 2.0, 0.5], np.float32)
    net = network().eval()

    def model(x):
        return net((x - torch.from_numpy(mean)[:, None, None]) / torch.from_numpy(std)[:, None, None])

    x = np.random.default_rng(0).random((4, 3, 2, 2), dtype=np.float32)
    one, other = estimator(net, nb_classes=3, preprocessing=(mean, std)), estimator(model, nb_classes=3)
    assert one.certify(x, n=500)[1].tolist() == other.certify(x, n=500)[1].tolist()
    for sampling in (True, False):
        gradients = [e.loss_gradient(x, np.arange(4) % 3, sampling=sampling) for e in (one, other)]
        assert np.allclose(*gradients, atol=1e-6)


def test_vectors_are_inputs_too():
    x = np.random.default_rng(0).random((5, 4))
    e = estimator(torch.nn.Linear(4, 3), input_shape=(4,), nb_classes=3)
    assert e.predict(x).shape == (5, 3)
    assert e.certify(x, n=100)[1].shape == (5,)
    for sampling in (True, False):
        assert e.loss_gradient(x, np.eye(3)[[0, 1, 2, 0, 1]], sampling=sampling).shape == (5, 4)


def test_the_gradient_is_that_of_the_mean_softmax_or_of_the_model():
    net, x, y = network().eval(), X[:2] + 0.5, np.array([2, 0])
    e = estimator(net, nb_classes=3, sample_size=50)
    images = torch.from_numpy(x).requires_grad_()
    g = SmoothedClassifier(net, SIGMA, 3, 0, bounds=None, m=50)
    torch.nn.functional.nll_loss(g(images), torch.from_numpy(y)).backward()
    assert np.allclose(e.loss_gradient(x, y, sampling=True), images.grad, atol=1e-7)
    images = torch.from_numpy(x).requires_grad_()
    torch.nn.functional.cross_entropy(net(images), torch.from_numpy(y)).backward()
    for labels in (y, np.eye(3)[y]):
        assert np.allclose(e.loss_gradient(x, labels), images.grad, atol=1e-6)
    assert not net.training


def test_without_art_fit_says_what_is_missing():
    if not issubclass(SmoothedEstimator, _WithoutArt):
        pytest.skip("ART is installed, and has a fit")
    with pytest.raises(MissingExtraError, match=r"fit needs .*smoothcert\[art\]"):
        estimator().fit(X, np.zeros(3))


def test_small_images_share_passes():
    sizes = []

    def model(images):
        sizes.append(len(images))
        return half_space(images)

    g = Smooth(model, 2, SIGMA, seed=0)
    expected = g.certify(torch.full((3, 2, 2), 0.5), 100, 1000, 0.001, 400)
    sizes.clear()
    assert g.certify(torch.full((3, 2, 2), 0.5), 100, 1000, 0.001, 32) == expected
    assert max(sizes) == 1000
    with pytest.raises(InputError, match="batch_size"):
        g.certify(torch.full((3, 2, 2), 0.5), 100, 1000, 0.001, 0)
