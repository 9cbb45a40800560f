"""SmoothedRouter on linear classifiers, whose true radii are known."""

import numpy as np
import pytest
import torch

from smoothcert import SmoothedClassifier, SmoothedRouter
from smoothcert.errors import InputError


def linear(slope: float, at: float, classes: tuple[int, int] = (0, 1), num_classes: int = 3):
    """The class classes[1] where the first pixel is above `at`."""
    def logits(x):
        score = slope * (x[:, 0, 0, 0] - at)
        out = torch.full((len(x), num_classes), -50.0)
        out[:, classes[0]], out[:, classes[1]] = -score, score
        return out
    return logits


@pytest.fixture
def router() -> SmoothedRouter:
    """Left of 0 the first classifier answers, right of it the second; they part their classes at -1 and at 2."""
    made = [SmoothedClassifier(model, sigma=sigma, num_classes=3, seed=0, bounds=None) for model, sigma in (
        (linear(1, 0.0), 0.5), (linear(1, -1.0, (0, 1)), 0.25), (linear(1, 2.0, (1, 2)), 0.5))]
    return SmoothedRouter(made[0], made[1:])


def at(*values: float) -> torch.Tensor:
    x = torch.zeros(len(values), 1, 1, 2)
    x[:, 0, 0, 0] = torch.tensor(values)
    return x


def test_radii_are_those_of_the_nearest_border(router):
    points = [-1.5, -0.75, -0.25, 0.25, 1.25, 1.9, 2.75]
    found = router.certify(at(*points), n0=2000, n=20_000, index=list(range(7)))
    truth = [0.5, 0.25, 0.25, 0.25, 0.75, 0.1, 0.75]
    assert [answer.prediction for answer in found] == [0, 1, 1, 1, 1, 1, 2]
    assert [answer.route for answer in found] == [0, 0, 0, 1, 1, 1, 1]
    for answer, border in zip(found, truth, strict=True):
        assert 0 < answer.radius <= border
        assert answer.radius == pytest.approx(border, abs=0.06)
        assert answer.alpha == pytest.approx(0.002)


def test_one_image_and_several_have_the_same_answers(router):
    x = at(-0.75, 1.25)
    several = router.certify(x, n=1000, index=[3, 4])
    for k in range(2):
        alone = router.certify(x[k], n=1000, index=3 + k)
        assert (alone.prediction, alone.radius, alone.route) == (
            several[k].prediction, several[k].radius, several[k].route)
    assert [a.radius for a in router.certify(list(x), n=1000, index=[3, 4])] == [a.radius for a in several]
    assert [a.radius for a in router.certify(x.numpy(), n=1000, index=[3, 4])] == [a.radius for a in several]


def test_predictions_are_composed_too(router):
    found = router.predict(at(-1.5, 2.75, 0.0), n=1000)
    assert [answer.prediction for answer in found] == [0, 2, None]
    assert found[0].radius is None
    assert found[2].route is None


def test_a_class_beyond_the_classifiers_abstains():
    made = [SmoothedClassifier(model, sigma=0.5, num_classes=3, seed=0, bounds=None)
            for model in (linear(1, -9.0, (0, 2)), linear(1, 0.0), linear(1, 0.0))]
    found = SmoothedRouter(made[0], made[1:]).certify(at(0.5)[0], n=1000)
    assert (found.prediction, found.radius, found.route) == (None, 0.0, None)
    assert found.router.prediction == 2


def test_moves_inside_the_radius_do_not_change_the_answer(router):
    rng = np.random.default_rng(0)
    for point in (-1.5, -0.75, 0.5, 1.5):
        answer = router.certify(at(point)[0], n=5000)
        for _ in range(5):
            step = rng.normal(size=(1, 1, 2)).astype(np.float32)
            moved = at(point)[0] + torch.from_numpy(step / np.linalg.norm(step) * answer.radius * 0.999)
            assert router.predict(moved, n=1000).prediction in (answer.prediction, None)


def test_what_makes_no_router_is_refused():
    g = [SmoothedClassifier(linear(1, 0.0), sigma=0.5, num_classes=3, seed=0, bounds=None) for _ in range(4)]
    for wrong in ([g[0]], g[:4]):
        with pytest.raises(InputError, match="2 to 3"):
            SmoothedRouter(g[0], wrong)
    two = SmoothedClassifier(linear(1, 0.0, num_classes=2), sigma=0.5, num_classes=2, seed=0, bounds=None)
    with pytest.raises(InputError, match="numbers of classes"):
        SmoothedRouter(g[0], [g[1], two])
    with pytest.raises(InputError, match="labels"):
        SmoothedRouter(g[0], g[1:3]).certify(at(0.5), radii=[0.1], n_max=100, labels=[0])
