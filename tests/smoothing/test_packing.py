"""Packing: rounds that mix images are full to the end, and no answer depends on an image's company."""

import numpy as np
import pytest

from smoothcert.noise import NoiseCentre
from smoothcert.smoothing.rows import Segment, Subject
from smoothcert.smoothing.voters import batches, run_plan
from smoothcert.stats import certify_plan, gaussian_radius, predict_plan

K = 3


class ScriptedVoter:
    """Votes that are a fixed function of (image, stage, position), and a diary of the rounds."""

    format = "scripted"

    def __init__(self, capacity):
        self.capacity, self.rounds = capacity, []

    def subject(self, image, key):
        return Subject(key, NoiseCentre(np.ravel(image)))

    def count(self, segments):
        self.rounds.append([(s.subject.key, s.stage, s.start, s.n) for s in segments])
        return np.stack([np.bincount(votes(s.subject.key, s.stage)[s.start : s.start + s.n], minlength=K)
                         for s in segments])


def votes(key, stage):
    """10,000 votes; image `key` has class 0 with probability between .35 and 1."""
    p = np.linspace(0.35, 1.0, 12)[key % 12]
    generator = np.random.default_rng([key, len(stage)])
    return generator.choice(K, 10_000, p=[p, (1 - p) * 0.75, (1 - p) * 0.25])


PLANS = {
    "fixed": certify_plan(gaussian_radius_1 := lambda bounds, margin=None: gaussian_radius(bounds, 1.0), n0=40, n=1000),
    "radii": certify_plan(gaussian_radius_1, n0=40, n_max=5000, radii=[0.25, 0.5]),
    "curve": certify_plan(gaussian_radius_1, n0=200, n_max=5000, curve_loss=0.05),
    "predict": predict_plan(n=300),
    "sequential predict": predict_plan(n_max=4000),
}


def run(plan, capacity, keys=range(12)):
    voter = ScriptedVoter(capacity)
    images = ((f"tag {key}", np.zeros((1, 2, 2), np.float32), key) for key in keys)
    return list(run_plan(plan, voter, images, K)), voter.rounds


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("capacity", [1, 16, 127, 4096, None])
def test_an_image_is_answered_as_if_it_were_alone(name, capacity):
    plan, keys = PLANS[name], range(2 if capacity == 1 else 12)
    done, _ = run(plan, capacity, keys)
    assert sorted(finished.tag for finished in done) == sorted(f"tag {key}" for key in keys)
    for finished in done:
        key = int(finished.tag.split()[1])
        [alone], _ = run(plan, 10**9, keys=[key])
        assert [(look.stage, look.counts.tolist()) for look in finished.history] == [
            (look.stage, look.counts.tolist()) for look in alone.history]
        assert (finished.prediction, finished.values) == (alone.prediction, alone.values)


@pytest.mark.parametrize("name", PLANS)
def test_looks_hold_all_votes_of_their_stage_so_far(name):
    for finished in run(PLANS[name], 127)[0]:
        key = int(finished.tag.split()[1])
        for look in finished.history:
            expected = np.bincount(votes(key, look.stage)[: look.counts.sum()], minlength=K)
            assert look.counts.tolist() == expected.tolist()


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("capacity", [16, 127, 1000])
def test_rounds_are_full_while_there_are_images_to_fill_them(name, capacity):
    _, rounds = run(PLANS[name], capacity)
    last_entry = max(i for i, held in enumerate(rounds) if any(start == 0 and stage != "estimate"
                                                               for _, stage, start, _ in held))
    assert all(sum(n for *_, n in held) == capacity for held in rounds[:last_entry])
    assert all(sum(n for *_, n in held) <= capacity for held in rounds)


def test_no_sample_is_drawn_twice_or_left_out():
    _, rounds = run(PLANS["radii"], 127)
    position = {}
    for held in rounds:
        for key, stage, start, n in held:
            assert position.get((key, stage), 0) == start
            position[key, stage] = start + n


def test_images_are_taken_only_when_there_is_room():
    taken = []

    def images():
        for key in range(50):
            taken.append(key)
            yield key, np.zeros((1, 2, 2), np.float32), key

    running = run_plan(PLANS["fixed"], ScriptedVoter(100), images(), K)
    next(running)
    assert len(taken) <= 4


def test_sequential_plans_stop_early_and_fixed_ones_do_not():
    fixed, _ = run(PLANS["fixed"], 127)
    assert {finished.history[-1].counts.sum() for finished in fixed} == {1000}
    ends = {int(finished.history[-1].counts.sum()) for finished in run(PLANS["radii"], 127)[0]}
    assert min(ends) < 500 < max(ends)


def test_seconds_are_shared_out_by_samples():
    done, _ = run(PLANS["fixed"], 500)
    assert all(finished.seconds > 0 for finished in done)


def test_nothing_to_do():
    assert run(PLANS["fixed"], 100, keys=[])[0] == []


def test_batches_are_cut_to_size_and_lose_nothing():
    subjects = [Subject(k, NoiseCentre(np.zeros(1))) for k in range(4)]
    segments = [Segment(s, "estimate", 10 * k, n) for k, (s, n) in enumerate(zip(subjects, (3, 25, 1, 8), strict=True))]
    cut = batches(segments, 10)
    assert [sum(part.n for part in batch) for batch in cut] == [10, 10, 10, 7]
    flat = [(part.subject.key, position) for batch in cut for part in batch
            for position in range(part.start, part.start + part.n)]
    assert flat == [(s.subject.key, position) for s in segments for position in range(s.start, s.start + s.n)]
