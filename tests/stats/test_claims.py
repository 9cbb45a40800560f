"""Top-k radii, groups and harmful targets: exact coverage, brute force, and models of known margins."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy import special, stats

from smoothcert import SmoothedClassifier
from smoothcert.errors import InputError
from smoothcert.stats import (
    AtRadii,
    Costs,
    Curve,
    FixedN,
    Groups,
    TopK,
    certify_claim,
    certify_counts,
    gaussian_radius,
    plan_from,
    reread,
    top_k_radius,
)
from smoothcert.stats.claimed import Claimed
from smoothcert.stats.earlier import EarlierCurve, EarlierRadii
from smoothcert.stats.rivals import LargestRivals
from smoothcert.stats.sequential import RunningBounds, Seen
from smoothcert.stats.transfer import Transfer, paired_looks, tally_pairs
from votes import drive, looks

RADIUS = partial(gaussian_radius, sigma=1.0)
PLANS = {
    "fixed": FixedN(n=400, alpha=0.01, radius_of=RADIUS),
    "fixed, cohen": FixedN(n=400, alpha=0.01, method="cohen", radius_of=RADIUS),
    "curve": Curve(n_max=1000, alpha=0.01, radius_of=RADIUS),
    "first curve": EarlierCurve(n_max=1000, alpha=0.01, radius_of=RADIUS),
    "radii": AtRadii(n_max=1000, radii=(0.25, 0.5), alpha=0.01, radius_of=RADIUS),
    "radii, leader": AtRadii(n_max=1000, radii=(0.5,), alpha=0.01, method="cohen", radius_of=RADIUS),
    "radii, labels": AtRadii(n_max=1000, radii=(0.5,), alpha=0.01, labels_known=True, radius_of=RADIUS),
    "first radii": EarlierRadii(n_max=1000, radii=(0.5,), alpha=0.01, radius_of=RADIUS),
}


def true_radius(p: np.ndarray, k: int, most: float = 40.0) -> float:
    """The radius within which class 0 stays in the top k of every base classifier with these probabilities, sigma 1:
    by definition, for all sets of k others, and bisected."""
    def stays(rho: float) -> bool:
        kept = special.ndtr(special.ndtri(p[0]) - rho)
        return all(any(special.ndtr(special.ndtri(min(sum(part), 1.0)) + rho) / len(part) < kept
                       for t in range(1, k + 1) for part in itertools.combinations(others, t))
                   for others in itertools.combinations(p[1:], k))

    low, high = 0.0, most
    if not stays(0.0):
        return 0.0
    while high - low > 1e-11:
        middle = (low + high) / 2
        low, high = (middle, high) if stays(middle) else (low, middle)
    return low


def outcomes(n: int, classes: int) -> np.ndarray:
    return np.array([c for c in itertools.product(range(n + 1), repeat=classes) if sum(c) == n])


def laws(classes: int, steps: int = 10) -> np.ndarray:
    return np.maximum(outcomes(steps, classes) / steps, 1e-9)


@pytest.mark.parametrize("method", ["two-sided", "cohen"])
@pytest.mark.parametrize(("classes", "n", "claim"), [
    (3, 14, TopK(1)), (3, 14, TopK(2)), (4, 9, TopK(2)), (4, 9, TopK(3)),
    (4, 9, Costs({0: [2]})), (4, 9, Costs({0: [1, 3]})), (4, 9, Groups({"a": [0, 2], "b": [1, 3]})),
    (4, 9, Groups({"a": [0], "b": [1, 3], "c": [2]})),
], ids=str)
@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_claims_fail_with_at_most_alpha(method, classes, n, claim, alpha):
    """All outcomes at all laws of a grid: a radius beyond the true one has probability alpha at most."""
    counts = outcomes(n, classes)
    chosen = np.zeros_like(counts)
    chosen[:, 0] = 1
    found = certify_claim(claim, chosen, counts, 1.0, alpha, method).radius
    assert found.max() > 0
    worst = 0.0
    for p in laws(classes):
        p = p / p.sum()
        if isinstance(claim, TopK):
            truth = true_radius(p, claim.k)
        else:
            own, rest = p[0], p[list(claim.targets.get(0, ()))].max() if isinstance(claim, Costs) else 0.0
            if isinstance(claim, Groups):
                own, rest = p[list(claim.groups["a"])].sum(), max(
                    p[list(these)].sum() for name, these in claim.groups.items() if name != "a")
            truth = max((special.ndtri(own) - special.ndtri(rest)) / 2, 0.0)
        worst = max(worst, stats.multinomial.pmf(counts, n, p)[found > truth + 1e-9].sum())
    assert worst <= alpha * (1 + 1e-9)


@pytest.mark.parametrize("method", ["two-sided", "cohen"])
def test_running_bounds_of_several_rivals_hold_at_all_looks(method):
    """All pairs of looks at 3 and 7 samples of three classes: the bounds of both fail with at most alpha."""
    bounds, alpha = RunningBounds((3, 7), (0.1, 0.15), method), 0.25
    first, more = outcomes(3, 3), outcomes(4, 3)
    a, b = (np.repeat(first, len(more), axis=0), np.tile(more, (len(first), 1)))
    steps = np.stack([a, a + b], axis=1).reshape(-1, 3)
    pairs = len(a)
    rivals = LargestRivals(2).pick(np.zeros(2 * pairs, dtype=np.int64), steps)
    seen = Seen(pairs, np.repeat(np.arange(pairs), 2), np.tile([0, 1], pairs), steps[:, 0], rivals)
    found = bounds.prove(seen)
    for p in laws(3):
        p = p / p.sum()
        chance = stats.multinomial.pmf(a, 3, p) * stats.multinomial.pmf(b, 4, p)
        wrong = (found.p_a > p[0] + 1e-12) | (found.p_b < np.sort(p[1:])[::-1] - 1e-12).any(axis=1)
        assert chance[wrong].sum() <= alpha


@pytest.mark.parametrize("method", ["two-sided", "cohen"])
def test_top_1_is_the_plain_radius(method):
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(6, 0.3), 500)
    select, estimate = rng.multinomial(50, p), rng.multinomial(2000, p)
    plain = certify_counts(select, estimate, 0.5, 0.01, method)
    top = certify_claim(TopK(1), select, estimate, 0.5, 0.01, method)
    assert np.array_equal(top.radius, plain.radius)
    assert np.array_equal(top.prediction, plain.prediction)


def test_top_k_is_the_least_radius_over_all_laws_within_the_bounds():
    """1,000 random bounds: no law that they allow has a smaller true radius, and one has it within 1e-9.

    The laws are random ones, and all in which some rivals stand at their bound and the others are equal, which is
    where a least radius must lie: the radius of a law is the largest of functions of sums, each of which falls."""
    rng = np.random.default_rng(1)
    for _ in range(1000):
        rivals = int(rng.integers(2, 6))
        k = int(rng.integers(1, rivals + 1))
        p_a = rng.uniform(0.05, 0.95)
        rest = 1 - p_a
        u = np.minimum(rng.dirichlet(np.ones(rivals)) * rest * rng.uniform(1, 3), rest)
        if u.sum() < rest:
            u = np.minimum(u * rest / u.sum() * 1.01, rest)
        found = float(top_k_radius(p_a, np.sort(u)[::-1][:k]))
        worst = []
        for at_bound in itertools.product([False, True], repeat=rivals):
            kept = np.array(at_bound)
            left = rest - u[kept].sum()
            if left < -1e-15:
                continue
            equal = left / (~kept).sum() if (~kept).any() else 0.0
            worst.append(np.where(kept, u, np.minimum(equal, u)))
            top = np.argsort(u)[::-1][:k]  # and with all that is left at the k largest bounds
            among = np.isin(np.arange(rivals), top) & ~kept
            if among.any():
                worst.append(np.where(kept, u, np.where(among, np.minimum(left / among.sum(), u), 0.0)))
        drawn = rng.dirichlet(np.ones(rivals), 20) * rest
        worst += list(drawn[(drawn <= u).all(axis=1)])
        worst = np.array(worst)
        tops = np.sort(worst, axis=1)[:, ::-1][:, :k]
        radii = solve_all(p_a, tops)
        assert found <= radii.min() + 1e-12
        assert found >= radii.min() - 1e-9


def solve_all(p_a: float, tops: np.ndarray) -> np.ndarray:
    """The radii of laws with these largest rivals, (N, k) descending, by bisection of the condition for every t."""
    k = tops.shape[1]
    sums = np.minimum(np.cumsum(tops[:, ::-1], axis=1), 1 - p_a)
    z_a, z_s = special.ndtri(p_a), special.ndtri(np.maximum(sums, 1e-300))
    low, high = np.zeros(len(tops)), np.full(len(tops), 80.0)
    for _ in range(60):
        middle = (low + high) / 2
        others = special.ndtr(z_s + middle[:, None]) / np.arange(1, k + 1)
        stays = special.ndtr(z_a - middle) > others.min(axis=1)
        low, high = np.where(stays, middle, low), np.where(stays, high, middle)
    return low


def test_top_k_grows_with_k_and_scales_with_sigma():
    rng = np.random.default_rng(2)
    p = rng.dirichlet(np.full(8, 0.4), 200)
    select, estimate = rng.multinomial(50, p), rng.multinomial(5000, p)
    radii = [certify_claim(TopK(k), select, estimate, 1.0, method="cohen").radius for k in range(1, 8)]
    assert (np.diff(radii, axis=0) >= 0).all()
    assert np.allclose(certify_claim(TopK(3), select, estimate, 0.25, method="cohen").radius, radii[2] / 4)


def test_one_sided_top_k_needs_a_share_of_one_in_k_plus_1():
    """With L alone, k others of (1 - L) / k each are possible: c_A stays while it keeps more than 1 / (k + 1)."""
    for k, p_a in itertools.product((1, 2, 5), (0.3, 0.6, 0.99)):
        wanted = max(special.ndtri(p_a) - special.ndtri(1 / (k + 1)), 0.0)
        found = top_k_radius(p_a, np.full(k, 1 - p_a))
        assert wanted - 1e-9 <= found <= wanted + 1e-15


def test_no_harmful_target_can_only_help():
    rng = np.random.default_rng(3)
    p = rng.dirichlet(np.full(5, 0.5), 300)
    select, estimate = rng.multinomial(50, p), rng.multinomial(1000, p)
    plain = certify_counts(select, estimate, 1.0).radius
    all_harmful = Costs({one: [j for j in range(5) if j != one] for one in range(5)})
    assert np.array_equal(certify_claim(all_harmful, select, estimate, 1.0).radius, plain)
    some = certify_claim(Costs({0: [1], 3: [4, 2]}), select, estimate, 1.0).radius
    assert (some >= plain).all()
    assert (some > plain).any()


def test_groups_of_single_classes_are_classes():
    rng = np.random.default_rng(4)
    p = rng.dirichlet(np.full(4, 0.5), 200)
    select, estimate = rng.multinomial(50, p), rng.multinomial(1000, p)
    plain = certify_counts(select, estimate, 1.0)
    found = certify_claim(Groups({"w": [2], "x": [0], "y": [3], "z": [1]}), select, estimate, 1.0)
    untied = np.sort(select, axis=1)[:, -1] > np.sort(select, axis=1)[:, -2]
    assert np.array_equal(found.radius[untied], plain.radius[untied])
    assert np.array_equal(found.prediction[untied], plain.prediction[untied])


def test_the_group_with_most_votes_need_not_hold_the_top_class():
    groups = Groups({"many": [0, 1, 2], "one": [3]})
    found = certify_claim(groups, [25, 20, 15, 40], [2500, 2000, 1500, 4000], 1.0)
    assert found.prediction == 0  # the class of the group with the most votes, for the label of any of them
    assert groups.is_right(np.array([0, 0, -1, 3]), np.array([2, 3, 0, 3])).tolist() == [True, False, False, True]


@pytest.mark.parametrize("name", PLANS)
def test_every_design_bounds_several_rivals(name):
    """One rival has the plain bounds, bit for bit; the first of three is bounded no better; groups are plain radii of
    votes that are added up."""
    plan, rng = PLANS[name], np.random.default_rng(5)
    p = rng.dirichlet(np.full(5, 0.3), 40)
    histories = drive(plan, p, rng, label=1)
    chosen, plain = plan.prove(histories)
    again, one = plan.prove(histories, LargestRivals(1))
    _, three = plan.prove(histories, LargestRivals(3))
    assert np.array_equal(chosen, again)
    assert np.array_equal(plain.p_b, one.p_b[:, 0])
    assert np.array_equal(plain.p_a, three.p_a)
    assert (three.p_b[:, 0] >= plain.p_b).all()
    assert (np.diff(three.p_b, axis=1) <= 0).all()
    plain_radius = plan.judge(histories).values["radius"]
    assert np.array_equal(Claimed(plan, TopK(1)).judge(histories).values["radius"], plain_radius)
    wider = Claimed(plan, TopK(4)).judge(histories)
    assert (wider.values["radius"][plain_radius > 0] > 0).all()
    whole = Claimed(plan, Groups({"a": [0, 4], "b": [1], "c": [2, 3]})).judge(histories)
    merged = [[type(look)(look.stage, look.counts[[0, 1, 2]] + look.counts[[4, 4, 3]] * [1, 0, 1]) for look in history]
              for history in histories]
    assert np.array_equal(whole.values["radius"], plan.judge(merged).values["radius"])


@pytest.mark.parametrize("name", [name for name in PLANS if name != "radii, labels"])
def test_labels_take_the_place_of_the_chosen_class(name):
    """Where the label is the chosen class nothing changes but what the design paid for the choice; and a class that no
    vote fell upon is never certified to be first."""
    plan, rng = PLANS[name], np.random.default_rng(6)
    p = rng.dirichlet(np.full(5, 0.3), 40)
    histories = drive(plan, p, rng)
    chosen = plan.prove(histories)[0]

    def with_labels(labels):
        return [[*looks("label", np.eye(5, dtype=np.int64)[label]), *history]
                for label, history in zip(labels, histories, strict=True)]

    claimed = Claimed(plan, TopK(2), labels_known=True)
    found = claimed.judge(with_labels(chosen))
    assert (found.values["radius"] >= Claimed(plan, TopK(2)).judge(histories).values["radius"] - 1e-12).all()
    assert set(found.prediction.tolist()) <= {*chosen.tolist(), -1}
    last = np.array([history[-1].counts for history in histories])
    rare = last.argmin(axis=1)
    unseen = Claimed(plan, TopK(1), labels_known=True).judge(with_labels(rare))
    assert (unseen.prediction == -1).all()
    draws = claimed.next([[], with_labels(chosen)[0][:1]])
    assert draws[0].stage == "label"
    assert draws[1] == plan.next([[]])[0]


def test_a_transfer_bounds_several_rivals_and_refuses_groups():
    source = FixedN(n=400, alpha=0.01, radius_of=RADIUS)
    plan = Transfer(source=source, n=400, alpha=0.01, radius_of=RADIUS)
    rng = np.random.default_rng(7)
    first, second = rng.choice(4, 400, p=[0.6, 0.3, 0.06, 0.04]), rng.choice(4, 400, p=[0.6, 0.3, 0.06, 0.04])
    second = np.where(rng.random(400) < 0.9, first, second)
    history = [*looks("select", [60, 30, 6, 4]), *looks("estimate", [240, 120, 24, 16]),
               *paired_looks(0, tally_pairs(first, second, 0, 4))]
    _, plain = plan.prove([history])
    _, one = plan.prove([history], LargestRivals(1))
    _, two = plan.prove([history], LargestRivals(2))
    assert plain.p_b[0] == one.p_b[0, 0] < two.p_b[0, 0]
    assert two.p_b[0, 1] < two.p_b[0, 0]
    radii = [Claimed(plan, TopK(k)).judge([history]).values["radius"][0] for k in (1, 2, 3)]
    assert 0 <= radii[0] < radii[1] < radii[2]
    with pytest.raises(InputError, match="transferred"):
        Claimed(plan, Groups({"a": [0, 1], "b": [2, 3]}))
    with pytest.raises(InputError, match="flips were counted"):
        Claimed(plan, TopK(2), labels_known=True)


@pytest.mark.parametrize("claim", [TopK(3), Groups({"a": [0, 4], "b": [1], "c": [2, 3]}), Costs({0: [1, 2], 4: [3]})],
                         ids=str)
def test_an_identity_gives_the_claim_back(claim):
    plan = Claimed(PLANS["fixed"], claim, labels_known=True)
    told = plan.identity()
    assert told["claim"]["level"] == 0.01
    assert told["claim"]["limits"] == (4 if isinstance(claim, TopK) else 2)
    again = plan_from("certify", told, RADIUS)
    assert again.identity() == told
    assert again == plan
    assert reread(again, alpha=0.05, method="cohen").identity()["claim"]["limits"] == 1
    with pytest.raises(InputError, match="another version of the claim"):
        plan_from("certify", {**told, "claim": {**told["claim"], "limits": 9}}, RADIUS)
    with pytest.raises(InputError, match="is no claim"):
        plan_from("certify", {**told, "claim": {"kind": "top-k"}}, RADIUS)


@pytest.mark.parametrize(("claim", "words"), [
    (TopK(4), "below the number of classes, 4"),
    (Costs({0: [9], 7: [1]}), "class 7 is unknown.*\n.*class 9 is unknown"),
    (Costs({}), "no class has"), (Costs({1: [1, 2]}), "harmful target of itself"),
    (Groups({"a": [0, 1], "b": [1, 5]}), "class 5 is unknown.*\n.*class 1 is in a and in b\n.*classes 2, 3 are in no"),
    (Groups({"a": [0, 1, 2, 3]}), "at least two"), (Groups({"a": [0, 1, 2, 3], "b": []}), "group b is empty"),
])
def test_claims_that_the_classes_do_not_allow_are_refused(claim, words):
    with pytest.raises(InputError, match=words):
        certify_claim(claim, [1, 0, 0, 0], [9, 1, 0, 0], 1.0)


def test_plans_that_prove_no_such_claim_are_refused():
    for plan, words in ((FixedN(method="t-certify", radius_of=RADIUS), "splits alpha"),
                        (FixedN(margin=0.1, radius_of=RADIUS), "a margin")):
        with pytest.raises(InputError, match=words):
            Claimed(plan, TopK(2))


@pytest.mark.parametrize("classes", [3, 4])
def test_linear_models_keep_the_class_as_far_as_their_margin(classes):
    """Class 0 has the half-space u < t, the others share the rest evenly by sectors across it. Moved along u, class 0
    keeps Phi((t - r) / sigma) and leaves the top K - 1 exactly where that is 1 / K. Drawn by the real sampler."""
    sigma, t, tiny = 0.5, 0.4, 1e-6
    angles = 2 * math.pi * np.arange(classes - 1) / (classes - 1)
    weights = np.zeros((classes, 3), dtype=np.float32)
    weights[1:, 0] = 1.0
    weights[1:, 1], weights[1:, 2] = tiny * np.cos(angles), tiny * np.sin(angles)
    bias = np.array([0.0, *[-t] * (classes - 1)], dtype=np.float32)

    def model(x):
        return x.flatten(1) @ torch.tensor(weights.T) + torch.tensor(bias)

    g = SmoothedClassifier(model, sigma=sigma, num_classes=classes, noise="gaussian", seed=1)
    k = classes - 1
    margin = t - sigma * special.ndtri(1 / classes)
    x = torch.zeros(1, 1, 3)
    votes = g.certify(x, FixedN(n0=100, n=20_000))
    radii = [float(certify_claim(TopK(j), votes.selection, votes.estimation, sigma).radius) for j in range(1, classes)]
    assert radii == sorted(radii)
    assert 0.94 * margin <= radii[-1] <= margin
    for part, stays in ((0.999 * radii[-1], True), (1.1 * margin, False)):
        moved = g.certify(x + torch.tensor([part, 0, 0]).reshape(1, 1, 3), FixedN(n0=100, n=20_000)).estimation
        order = np.argsort(-np.array(moved.tolist()))
        assert (0 in order[:k]) == stays
