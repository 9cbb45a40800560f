"""Sequential PREDICT: its looks, what they spend, when it gives up, and its exact level by two recursions."""

import importlib
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from smoothcert.stats import (
    ABSTAIN,
    Draw,
    FixedPredict,
    Sequential,
    plan_from,
    predict_counts,
    predict_plan,
    reread,
)
from votes import drive, looks

EVIDENCE = str(Path(__file__).parents[2] / "evidence")
sys.path.insert(0, EVIDENCE)
exact = importlib.import_module("lookwise")
sys.path.remove(EVIDENCE)


def samples(history):
    return int(history[-1].counts.sum())


def failure_by_single_votes(plan) -> Fraction:
    """P(any answer) at a tie of two classes, in whole numbers: sequences of votes are counted one vote at a time."""
    sequences, answered, looked = {0: 1}, Fraction(0), 0
    for n in range(1, plan.n_max + 1):
        grown: dict[int, int] = {}
        for count, ways in sequences.items():
            grown[count] = grown.get(count, 0) + ways
            grown[count + 1] = grown.get(count + 1, 0) + ways
        sequences = grown
        if n in plan.looks:
            at = sorted(sequences)
            padding = looks("predict", *([0, m] for m in plan.looks[:looked]))  # `next` reads the last look alone
            histories = [[*padding, *looks("predict", [count, n - count])] for count in at]
            answers = plan.judge([history[-1:] for history in histories]).prediction
            draws = plan.next(histories)
            for count, answer, draw in zip(at, answers, draws, strict=True):
                if answer != ABSTAIN:
                    answered += Fraction(sequences[count], 2**n)
                if answer != ABSTAIN or draw is None:
                    del sequences[count]
            looked += 1
    return answered


class TestDesign:
    @pytest.mark.parametrize("n_max", [1, 15, 16, 17, 99, 100, 1000, 10_000, 1_000_000])
    def test_looks_and_shares(self, n_max):
        plan = Sequential(n_max)
        assert plan.looks[-1] == n_max
        assert plan.looks[0] == min(16, n_max)
        assert all(b - a >= 1 for a, b in zip(plan.looks, plan.looks[1:], strict=False))
        assert sum(map(Fraction, plan.shares.tolist())) <= 1
        assert sum(plan.shares) == pytest.approx(1, abs=1e-12)

    def test_the_looks_of_a_thousand(self):
        found = Sequential(1000).looks
        assert found[:4] == (16, 32, 48, 64)
        assert found[-4:] == (792, 871, 958, 1000)

    def test_identity(self):
        told = Sequential(1000).identity()
        assert told["version"] == 2
        assert plan_from("predict", told) == Sequential(1000) == predict_plan(n_max=1000)


class TestAnswers:
    def test_returns_at_the_first_rejection(self):
        plan = Sequential(100, 0.01)
        share = 0.4 * 0.16**0.4
        assert plan.next([[]]) == [Draw("predict", 16)]
        assert plan.next([looks("predict", [16, 0]), looks("predict", [11, 5])]) == [None, Draw("predict", 16)]
        answers = plan.judge([looks("predict", [0, 16]), looks("predict", [11, 5])])
        assert answers.prediction.tolist() == [1, ABSTAIN]
        assert answers.values["p_value"][0] == pytest.approx(2.0**-15 / share, rel=1e-9)

    def test_gives_up_where_the_last_look_would_hardly_reject(self):
        """At half of n_max a tie is hopeless; a lead that has to grow by a little is not."""
        plan = Sequential(1000, 0.001)
        half = next(k for k, n in enumerate(plan.looks) if n >= 500)
        tied, ahead = ([[n - n // 2, n // 2] for n in plan.looks[:half + 1]] for _ in range(2))
        lead = plan.looks[half] * 55 // 100
        ahead[-1] = [lead, plan.looks[half] - lead]  # 1,000 votes reject with 55.2 %
        assert plan.next([looks("predict", *tied), looks("predict", *ahead)])[0] is None
        assert plan.next([looks("predict", *tied), looks("predict", *ahead)])[1] is not None
        assert plan.judge([looks("predict", *tied)]).prediction.tolist() == [ABSTAIN]

    def test_giving_up_costs_few_answers(self):
        """Where the fixed test nearly always answers, so does this; at a tie half of the samples are saved."""
        n_max, p = 10_000, 0.525
        histories = drive(Sequential(n_max), np.repeat([[p, 1 - p]], 1000, axis=0))
        answered = np.mean(Sequential(n_max).judge(histories).prediction == 0)
        fixed = np.mean(predict_counts(np.random.default_rng(1).multinomial(n_max, [p, 1 - p], 1000)).prediction == 0)
        assert fixed > 0.9
        assert answered > fixed - 0.05
        tied = drive(Sequential(n_max), np.repeat([[0.5, 0.5]], 300, axis=0))
        assert np.mean([samples(history) for history in tied]) < 0.55 * n_max

    def test_the_p_value_says_at_which_alpha_there_is_an_answer(self):
        rng = np.random.default_rng(2)
        p_a = rng.uniform(0.35, 1, 80)
        p = np.column_stack([p_a, (1 - p_a)[:, None] * rng.dirichlet(np.ones(3), 80)])
        plan = Sequential(500, 0.01)
        histories = drive(plan, p)
        answers = plan.judge(histories)
        assert np.array_equal(answers.prediction == ABSTAIN, answers.values["p_value"] > 0.01)
        for alpha in (1e-6, 1e-3, 0.2):
            again = reread(plan, alpha=alpha).judge(histories)
            assert np.array_equal(again.values["p_value"], answers.values["p_value"])
            assert np.array_equal(again.prediction == ABSTAIN, again.values["p_value"] > alpha)
        assert len({samples(h) for h in histories}) > 4
        given_up = [samples(h) < 500 and p == ABSTAIN for h, p in zip(histories, answers.prediction, strict=True)]
        assert any(given_up)

    def test_one_look_is_the_fixed_test(self):
        counts = [np.array([12, 3]), np.array([14, 1])]
        answers = Sequential(15, 0.01).judge([looks("predict", c) for c in counts])
        assert answers.values["p_value"].tolist() == FixedPredict(15, 0.01).judge(
            [looks("predict", c) for c in counts]).values["p_value"].tolist()


class TestLevel:
    @pytest.mark.parametrize("alpha", [0.001, 0.05, 0.3])
    @pytest.mark.parametrize("n_max", [10, 16, 24, 100, 700])
    def test_dynamic_programming_over_looks(self, n_max, alpha):
        """With and without giving up, at a tie and beside it: never above alpha, and alpha is spent."""
        plan = Sequential(n_max, alpha)
        at_tie, most = exact.prediction_failure(plan, 0.5)
        own, fewer = exact.prediction_failure(plan, 0.5, gives_up=True)
        assert own <= at_tie <= alpha
        assert at_tie > 0.2 * alpha or 2.0 ** (1 - n_max) > alpha
        assert fewer <= most <= n_max
        for p in (0.5 + 1e-9, 0.51, 0.6):
            assert exact.prediction_failure(plan, p)[0] <= at_tie / 2 * (1 + 1e-10)

    @pytest.mark.parametrize(("n_max", "alpha"), [(16, 0.05), (60, 0.01), (200, 0.001), (200, 0.05)])
    def test_a_recursion_over_single_votes_agrees(self, n_max, alpha):
        plan = Sequential(n_max, alpha)
        found = failure_by_single_votes(plan)
        assert found <= Fraction(alpha)
        assert float(found) == pytest.approx(exact.prediction_failure(plan, 0.5, gives_up=True)[0], rel=1e-9)

    @pytest.mark.parametrize("p", [[0.5, 0.5], [0.5, 0.49, 0.01], [0.34, 0.33, 0.33]])
    def test_simulated_at_alpha_05(self, p):
        """False: another class than the most likely one; at a tie, either answer."""
        alpha, size = 0.05, 3000
        plan = Sequential(1000, alpha)
        prediction = plan.judge(drive(plan, np.repeat([p], size, axis=0), seed=3)).prediction
        false = int(np.sum((prediction > 0) | ((prediction == 0) & (p[0] == p[1]))))
        assert stats.binom.sf(false - 1, size, alpha) > 1e-4
