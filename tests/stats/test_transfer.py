"""Transferred certificates: the theorem by enumeration, whatever the copies share with the looks, and its looks."""

from collections.abc import Iterator
from functools import partial
from itertools import product
from math import factorial, prod

import numpy as np
import pytest
from scipy.stats import norm

from smoothcert.errors import InputError
from smoothcert.noise import GaussianNoise
from smoothcert.stats import AtRadii, Curve, FixedN, Look, plan_from, reread
from smoothcert.stats.transfer import PAIRED, Transfer, paired_looks, split, tally_pairs
from votes import drive

RADIUS = GaussianNoise(1.0).radius
LAWS = {
    "loses at the edge": [[0.5, 0.12, 0.0], [0.0, 0.3, 0.0], [0.0, 0.0, 0.08]],
    "every flip hurts": [[0.30, 0.25, 0.25], [0.0, 0.1, 0.0], [0.0, 0.0, 0.1]],
    "gains elsewhere": [[0.45, 0.10, 0.0], [0.10, 0.15, 0.0], [0.0, 0.15, 0.05]],
    "rivals swap": [[0.42, 0.0, 0.0], [0.0, 0.02, 0.27], [0.0, 0.25, 0.04]],
    "a sure class": [[0.9, 0.05, 0.03], [0.0, 0.01, 0.0], [0.01, 0.0, 0.0]],
    "one network": [[0.6, 0.0, 0.0], [0.0, 0.3, 0.0], [0.0, 0.0, 0.1]],
}
"""P(f = row, h = column) of three classes; class 0 is chosen."""


def outcomes(n: int, cells: int) -> Iterator[tuple[int, ...]]:
    """All ways to spread n samples over cells."""
    if cells == 1:
        yield (n,)
        return
    for first in range(n + 1):
        yield from ((first, *rest) for rest in outcomes(n - first, cells - 1))


def chance(counts: tuple[int, ...], p: np.ndarray) -> float:
    return factorial(sum(counts)) / prod(map(factorial, counts)) * float(np.prod(np.asarray(p) ** counts))


def plan_of(method: str, n: int, m: int, alpha: float, **changes) -> Transfer:
    return Transfer(FixedN(n0=1, n=n), n=m, alpha=alpha, method=method, radius_of=RADIUS, **changes)


def pairs(law: list[list[int]] | np.ndarray) -> np.ndarray:
    """The looks at copies of which law[f][h] got the classes f and h."""
    first, second = (np.repeat(column, np.ravel(law)) for column in np.indices((3, 3)).reshape(2, -1))
    return tally_pairs(first, second, 0, 3)


def failure(plan, law: np.ndarray, histories: list, chances: list[float]) -> float:
    """The probability of a radius above the true one of h."""
    p = law.sum(axis=0)
    true = max((norm.ppf(p[0]) - norm.ppf(p[1:].max())) / 2, 0.0)
    if plan.method == "cohen":
        true = max(norm.ppf(p[0]), 0.0)
    radius = plan.judge(histories).values["radius"]
    return float(np.sum(np.array(chances)[radius > true]))


@pytest.mark.parametrize("method", ["two-sided", "cohen"])
@pytest.mark.parametrize("name", LAWS)
def test_it_fails_with_probability_alpha_at_most(name, method):
    """Exactly, with copies that have nothing in common with the votes."""
    law = np.array(LAWS[name])
    votes = [(counts, chance(counts, law.sum(axis=1))) for counts in outcomes(8, 3)]
    cells = [(0, 1), (0, 2), (2, 1), (1, 2)]  # what harms class 0 and what helps its rivals
    rest = 1 - sum(law[cell] for cell in cells)
    flips = []
    for counts in outcomes(6, 5):
        table = np.zeros((3, 3), dtype=int)
        for cell, count in zip([*cells, (0, 0)], counts, strict=True):
            table[cell] = count
        flips.append((paired_looks(0, pairs(table)), chance(counts, np.array([*(law[c] for c in cells), rest]))))
    first = Look("select", np.array([1, 0, 0]))
    looks = [[first, Look("estimate", np.array(counts))] for counts, _ in votes]
    histories = [[*before, *after] for before, (after, _) in product(looks, flips)]
    chances = [p * q for (_, p), (_, q) in product(votes, flips)]
    assert sum(chances) == pytest.approx(1)
    for alpha, share in ((0.3, 0.5), (0.6, 0.2), (0.6, 0.8)):
        assert failure(plan_of(method, 8, 6, alpha, share=share), law, histories, chances) <= alpha


@pytest.mark.parametrize("method", ["two-sided", "cohen"])
@pytest.mark.parametrize("name", LAWS)
def test_it_fails_no_more_when_the_copies_are_the_votes_themselves(name, method):
    """The union bound asks for no independence: here the copies are the very samples that bounded f."""
    law = np.array(LAWS[name])
    tables = [np.reshape(counts, (3, 3)) for counts in outcomes(5, 9)]
    first = Look("select", np.array([1, 0, 0]))
    histories = [[first, Look("estimate", table.sum(axis=1)), *paired_looks(0, pairs(table))] for table in tables]
    chances = [chance(tuple(table.ravel().tolist()), law.ravel()) for table in tables]
    for alpha in (0.3, 0.7):
        assert failure(plan_of(method, 5, 5, alpha), law, histories, chances) <= alpha


@pytest.mark.parametrize("method", ["two-sided", "cohen"])
def test_the_flips_spend_their_share_and_no_more(method):
    """With a network f that is sure only flips can fail: over all rates of harm nearly as often as their share."""
    alpha, share, m, worst = 0.2, 0.8, 20, 0.0
    plan = plan_of(method, 10**8, m, alpha, share=share)
    looks = [Look("select", np.array([1, 0, 0])), Look("estimate", np.array([10**8, 0, 0]))]
    histories = [[*looks, *paired_looks(0, pairs(np.array([[m - k, k, 0], [0, 0, 0], [0, 0, 0]])))]
                 for k in range(m + 1)]
    for harm in np.linspace(0.01, 0.49, 193):
        law = np.array([[1 - harm, harm, 0], [0, 0, 0], [0, 0, 0]])
        chances = [chance((m - k, k), np.array([1 - harm, harm])) for k in range(m + 1)]
        worst = max(worst, failure(plan, law, histories, chances))
    part = 0.9 * share if method == "two-sided" else share
    assert 0.9 * part * alpha < worst <= part * alpha


def test_the_enumeration_would_see_flips_that_were_forgotten():
    """The certificates of f, claimed of h, fail far more often than alpha."""
    law, alpha = np.array(LAWS["every flip hurts"]), 0.3
    tables = [np.reshape(counts, (3, 3)) for counts in outcomes(5, 9)]
    chances = [chance(tuple(table.ravel().tolist()), law.ravel()) for table in tables]
    plan = FixedN(n0=1, n=5, alpha=alpha, method="cohen", radius_of=RADIUS)
    votes = [[Look("select", np.array([1, 0, 0])), Look("estimate", table.sum(axis=1))] for table in tables]
    assert failure(plan, law, votes, chances) > alpha


@pytest.mark.parametrize("source", [
    AtRadii(n0=20, n_max=400, radii=[0.1], radius_of=RADIUS, method="two-sided"),
    AtRadii(n0=20, n_max=400, radii=[0.1], radius_of=RADIUS, method="cohen"),
    Curve(n0=50, n_max=400, loss=0.2, radius_of=RADIUS),
], ids=lambda plan: f"{type(plan).__name__}-{plan.method}")
def test_looks_that_stopped_early_are_sound_too(source):
    """Simulated at alpha .05 with a network whose flips mostly hurt, at the edge of what is true."""
    random = np.random.default_rng(5)
    law = np.array([[0.70, 0.05, 0.02], [0.01, 0.12, 0.01], [0.01, 0.01, 0.07]])
    plan = Transfer(source, n=150, alpha=0.05, method=source.method, radius_of=RADIUS)
    histories = drive(source, np.tile(law.sum(axis=1), (1000, 1)), random)
    for history, chosen in zip(histories, plan.choose(histories), strict=True):
        if chosen == 0:
            history += paired_looks(0, pairs(random.multinomial(150, law.ravel()).reshape(3, 3)))
    radius = plan.judge(histories).values["radius"]
    p = law.sum(axis=0)
    true = (norm.ppf(p[0]) - norm.ppf(p[1:].max())) / 2 if plan.method == "two-sided" else norm.ppf(p[0])
    assert np.mean(radius > true) <= 0.05
    assert np.mean(radius > 0) > 0.5


def test_a_transfer_is_below_its_source_and_near_it_with_many_copies():
    law = np.array([[9900, 2, 1], [3, 60, 0], [0, 2, 32]])
    history = [Look("select", np.array([99, 1, 0])), Look("estimate", np.array([99_000, 700, 300]))]
    for method in ("two-sided", "cohen"):
        plan = Transfer(FixedN(n=100_000, radius_of=RADIUS), n=10_000, method=method, radius_of=RADIUS)
        full = [*history, *paired_looks(0, pairs(law))]
        (radius,), (source,) = (found.values["radius"] for found in (plan.judge([full]), plan.judge_source([full])))
        assert 0.9 * source < radius < source
        assert plan.judge_directly([full], 2).values["radius"] > plan.judge_directly([full]).values["radius"]
        flips = plan.flips([full])
        assert [int(column[0]) for column in (flips.copies, flips.harmful, flips.helpful, flips.rival)] == [
            10_000, 3, 3, 4]


def test_the_bounds_are_rounded_to_the_safe_side():
    plan = Transfer(FixedN(n=1000), n=500, method="two-sided", radius_of=RADIUS)
    history = [Look("select", np.array([9, 1, 0])), Look("estimate", np.array([600, 300, 100])),
               *paired_looks(0, pairs(np.array([[300, 20, 5], [0, 120, 5], [0, 10, 40]])))]
    _, bounds = plan.prove([history])
    assert bounds.p_a + bounds.q_a <= 1 + 2.0**-40
    assert bounds.p_b + bounds.q_b >= 1 - 2.0**-40
    _, source = FixedN(n=1000, alpha=0.0005).prove([history[:2]])
    assert bounds.p_a < source.p_a
    assert bounds.p_b > source.p_b


def test_draws_follow_those_of_the_source_and_hopeless_images_have_no_copies():
    plan = Transfer(FixedN(n0=10, n=100, radius_of=RADIUS), n=50, radius_of=RADIUS)
    sure = [Look("select", np.array([10, 0])), Look("estimate", np.array([100, 0]))]
    torn = [Look("select", np.array([6, 4])), Look("estimate", np.array([50, 50]))]
    drawn = plan.next([[], sure[:1], sure, torn])
    assert [draw and (draw.stage, draw.n) for draw in drawn] == [
        ("select", 10), ("estimate", 100), ("chosen", 1), None]
    looks = paired_looks(0, np.array([[50, 0]] * 4))
    assert [draw and (draw.stage, draw.n) for draw in plan.next([[*sure, *looks[:k]] for k in (1, 4, 5)])] == [
        ("original", 50), ("harmed", 50), None]
    assert [look.stage for look in split([*sure, *looks])[1]] == list(PAIRED)
    assert plan.judge([torn]).prediction.tolist() == [-1]
    assert plan.judge([]).prediction.tolist() == []


def test_a_class_whose_flips_were_not_counted_is_not_certified():
    """Designs may choose another class at another alpha."""
    plan = Transfer(FixedN(n=100, radius_of=RADIUS), n=50, radius_of=RADIUS)
    looks = [Look("select", np.array([0, 10])), Look("estimate", np.array([0, 100]))]
    votes = np.array([[0, 50]] * 4)
    assert plan.judge([[*looks, *paired_looks(1, votes)]]).prediction.tolist() == [1]
    assert plan.judge([[*looks, *paired_looks(0, np.array([[0, 50], [0, 50], [50, 0], [50, 0]]))]]).prediction == [-1]


@pytest.mark.parametrize("votes", [
    [[40, 10], [50, 0], [50, 0], [40, 10]],  # more harmed than the other ever gained
    [[50, 0], [50, 0], [40, 10], [50, 0]],  # gained what the other never said
    [[10, 40], [10, 40], [30, 20], [30, 20]],  # harmed more than the original ever said
    [[50, 0], [49, 0], [50, 0], [50, 0]],  # copies are missing
])
def test_looks_that_contradict_themselves_are_refused(votes):
    plan = Transfer(FixedN(n=100, radius_of=RADIUS), n=50, radius_of=RADIUS)
    history = [Look("select", np.array([10, 0])), Look("estimate", np.array([100, 0]))]
    with pytest.raises(InputError, match="contradict one another"):
        plan.judge([[*history, *paired_looks(0, np.array(votes))]])


def test_its_identity_gives_it_back_and_it_can_be_read_again():
    source = AtRadii(n_max=800, radii=[0.2], margin=0.1, radius_of=partial(RADIUS, margin=0.1))
    plan = Transfer(source, n=50, share=0.25, alpha=0.01, method="cohen", radius_of=RADIUS)
    again = plan_from("certify", plan.identity(), RADIUS)
    assert again == plan
    assert reread(again, alpha=0.1).identity() == {**plan.identity(), "alpha": 0.1}
    with pytest.raises(InputError, match="from a run that sampled"):
        plan_from("certify", {**plan.identity(), "source": plan.identity()}, RADIUS)


@pytest.mark.parametrize(("options", "words"), [
    ({"share": 1.0}, "share must lie strictly between"), ({"method": "t-certify"}, "no form of t-certify"),
    ({"n": 0}, "n must be"), ({"source": 3}, "the design int bound no class probability"),
])
def test_values_that_it_does_not_take(options, words):
    with pytest.raises(InputError, match=words):
        Transfer(**{"source": FixedN(), **options})
