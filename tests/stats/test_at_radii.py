"""The second version of the design "radii": exact cut-offs, the leading class, labels known, giving up."""

import math
from functools import partial
from itertools import pairwise, product

import numpy as np
import pytest
from scipy import special, stats

from smoothcert.errors import InputError
from smoothcert.stats import AtRadii, Draw, Look, gaussian_radius
from smoothcert.stats.cutoffs import CutOffs, crossing_probability
from smoothcert.stats.sequential import close_looks, early_spending
from votes import drive

RADIUS_OF = partial(gaussian_radius, sigma=1.0)


def plan_at(radii=(0.5,), n_max=1000, alpha=0.001, method="cohen", **more):
    return AtRadii(n_max=n_max, radii=radii, alpha=alpha, method=method, radius_of=RADIUS_OF, **more)


def crossing_by_votes(looks, cuts, p):
    """P(N_k >= cuts[k] for some k), vote by vote: another recursion than the library's, which goes look by look."""
    alive, crossed = {0: 1.0}, 0.0
    for n in range(1, looks[-1] + 1):
        following = {}
        for votes, mass in alive.items():
            following[votes] = following.get(votes, 0.0) + mass * (1 - p)
            following[votes + 1] = following.get(votes + 1, 0.0) + mass * p
        if n in looks:
            cut = cuts[looks.index(n)]
            crossed += math.fsum(mass for votes, mass in following.items() if votes >= cut)
            following = {votes: mass for votes, mass in following.items() if votes < cut}
        alive = following
    return crossed


class TestCutOffs:
    @pytest.mark.parametrize("alpha", [1e-6, 0.001, 0.05])
    @pytest.mark.parametrize("p", [0.5, 0.69, 0.977, 0.9987])
    @pytest.mark.parametrize("n_max", [90, 100, 430, 800])
    def test_they_spend_what_they_may_and_no_more(self, n_max, p, alpha):
        looks = close_looks(n_max)
        spending = tuple(alpha * share for share in early_spending(looks))
        test = CutOffs(looks, spending, p, 1 - p)
        cuts = test.complete().tolist()
        spent = crossing_by_votes(looks, cuts, p)
        assert spent <= alpha
        assert test.spent == pytest.approx(spent, rel=1e-8)
        assert crossing_probability(looks, cuts, p, 1 - p) == pytest.approx(spent, rel=1e-8)
        for k, cut in enumerate(cuts):  # one vote less at any look would spend too much by then
            assert crossing_by_votes(looks[: k + 1], [*cuts[:k], cut - 1], p) > spending[k] * (1 - 1e-8)

    def test_one_look_is_the_binomial_test(self):
        cuts = CutOffs((5000,), (0.001,), 0.9, 0.1).complete()
        assert cuts.tolist() == [int(stats.binom.isf(0.001, 5000, 0.9)) + 1]

    def test_the_law_of_many_votes_loses_nothing(self):
        """Without a cut-off that is ever crossed, what is bounded as lost is all that is missing."""
        looks = close_looks(100_000)
        for p in (0.5, 0.9999):
            assert crossing_probability(looks, [n + 1 for n in looks], p, 1 - p) < 1e-15


class TestDesign:
    @pytest.mark.parametrize("n_max", [1, 99, 100, 101, 1000, 1001, 99_950, 100_000, 10**7])
    def test_looks_are_close_and_end_at_n_max(self, n_max):
        looks = close_looks(n_max)
        assert looks[-1] == n_max
        assert all(a < b <= max(a + 100, 1.1 * a) or b == n_max for a, b in pairwise(looks))
        shares = early_spending(looks)
        assert shares[-1] == 1
        assert all(a < b for a, b in pairwise(shares))

    def test_the_selection_is_left_out_where_that_is_proved(self):
        assert plan_at((0.25, 0.5), 100_000).n0 == 0
        assert plan_at((0.0, 0.5)).n0 == plan_at((0.05,)).n0 == plan_at(method="two-sided").n0 == 100
        assert plan_at(n_max=2_000_000).n0 == 100
        assert plan_at(n0=50).n0 == 50
        assert plan_at((0.25,), n0=0).next([[]]) == [Draw("estimate", 100)]

    def test_what_cannot_be_followed_is_refused(self):
        with pytest.raises(InputError, match="follows the leading class"):
            plan_at(method="two-sided", n0=0)
        with pytest.raises(InputError, match="leave n0 out"):
            plan_at(labels_known=True, n0=10)

    def test_radii_are_claimed_in_order_and_by_the_leader(self):
        plan = plan_at((0.25, 1.5), 1000, n0=0)
        one = [Look("estimate", np.array([95, 5, 0]))]
        claimed, still_open = plan.decide([one])
        assert (claimed.tolist(), still_open.tolist()) == ([[True, False]], [[False, True]])
        answers = plan.judge([one])
        assert answers.prediction.tolist() == [0]
        assert 0.25 <= answers.values["radius"][0] < 1.5
        # Another class may lead later: the first that was claimed stays the answer.
        later = [*one, Look("estimate", np.array([95, 105, 0]))]
        assert plan.judge([later]).prediction.tolist() == [0]

    def test_labels_known_judges_the_label_alone(self):
        plan = plan_at((0.5,), 1000, labels_known=True)
        assert plan.next([[]]) == [Draw("label", 1)]
        right, wrong = ([Look("label", np.eye(3, dtype=int)[c]), Look("estimate", np.array([99, 1, 0]))]
                        for c in (0, 1))
        assert plan.judge([right, wrong]).prediction.tolist() == [0, -1]
        assert plan.next([right, wrong]) == [None, None]
        assert plan.most() == 1000

    def test_two_sided_gains_by_a_scattered_rest(self):
        histories = [[Look("select", np.array([60, 20, 20])), Look("estimate", np.array([600, 200, 200]))]]
        sided = {method: AtRadii(100, 1000, (0.1,), 0.001, method, None, RADIUS_OF).judge(histories)
                 for method in ("cohen", "two-sided")}
        assert sided["two-sided"].values["radius"][0] > sided["cohen"].values["radius"][0] > 0


class TestLevel:
    @pytest.mark.parametrize("alpha", [0.05, 0.3])
    @pytest.mark.parametrize("radii", [(0.3,), (0.25, 0.6)])
    @pytest.mark.parametrize("n0", [0, 10])
    def test_every_path_of_three_classes(self, n0, radii, alpha, monkeypatch):
        """All paths of counts over four looks of a small design. n0 = 0 at such an alpha spends a third of it."""
        looks = (5, 10, 15, 20)
        monkeypatch.setattr("smoothcert.stats.at_radii.close_looks", lambda n_max: looks)
        plan = plan_at(radii, 20, alpha, n0=n0)
        head = [Look("select", np.array([1, 0, 0]))] if n0 else []
        steps = [np.array(one) for one in product(range(6), repeat=3) if sum(one) == 5]
        order = {tuple(s): math.factorial(5) / math.prod(map(math.factorial, s)) for s in steps}
        paths = list(product(steps, repeat=4))
        rng = np.random.default_rng(0)
        chosen = [paths[i] for i in rng.choice(len(paths), 4000, replace=False)]
        histories = [[*head, *(Look("estimate", c) for c in np.cumsum(path, axis=0))] for path in chosen]
        answers = plan.judge(histories)
        for p in ([0.5, 0.5, 0.0], [0.61, 0.39, 0.0], [0.34, 0.33, 0.33], [0.59, 0.2, 0.21], [0.7, 0.3, 0.0]):
            top = int(np.argmax(p))
            truth = max(float(special.ndtri(p[top])), 0.0)
            false = (answers.values["radius"] > truth) | ((answers.prediction >= 0) & (answers.prediction != top))
            weights = np.array([math.prod(order[tuple(s)] * np.prod(np.power(p, s)) for s in path) for path in chosen])
            estimate = (weights * false).mean() * len(paths)
            spread = (weights * false).std() * len(paths) / math.sqrt(len(chosen))
            assert estimate <= alpha + 3 * spread

    @pytest.mark.parametrize(("p", "radii"), [
        ((0.5, 0.5), (0.25,)), ((0.59, 0.41), (0.25, 0.5)), ((0.69, 0.31), (0.5, 0.75)), ((0.4, 0.35, 0.25), (0.25,))])
    @pytest.mark.parametrize("how", [{}, {"n0": 100}, {"method": "two-sided"}, {"labels_known": True}])
    def test_false_certificates_are_rare_enough(self, p, radii, how):
        """Simulated at alpha .05 through the plan's own draws; a failure beyond alpha would show at four deviations."""
        plan, size, alpha = plan_at(radii, 2000, 0.05, **how), 1500, 0.05
        histories = drive(plan, np.tile(p, (size, 1)), 3, label=0)
        answers = plan.judge(histories)
        rival = max(p[1:]) if how.get("method") == "two-sided" else 1 - p[0]
        truth = max(0.0, float(special.ndtri(p[0]) - special.ndtri(rival)) / 2)
        tie = p[0] == p[1]
        false = (answers.values["radius"] > truth) | ((answers.prediction > 0) & (not tie))
        assert false.mean() <= alpha + 4 * math.sqrt(alpha / size)

    def test_another_alpha_reads_the_same_looks(self):
        plan = plan_at((0.25, 0.5), 2000, 0.001, n0=0)
        histories = drive(plan, np.tile([0.75, 0.25], (50, 1)), 1)
        strict, loose = (plan_at((0.25, 0.5), 2000, alpha, n0=0).judge(histories).values["radius"]
                         for alpha in (1e-6, 0.05))
        assert (strict <= loose).all()
        assert strict.sum() < loose.sum()
