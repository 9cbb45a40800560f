"""Full curves and PREDICT of `sequential.py`: each design's last version beside its first, in one run."""

from fractions import Fraction
from functools import partial

import numpy as np
from lookwise import prediction_failure
from replay import ABSTAINED, ALPHA, N, curve_replay, predict_replay
from scipy import special, stats

from smoothcert.stats import ABSTAIN, Look, certify_plan, gaussian_radius, predict_plan

ALPHAS = (0.001, 0.05, 0.3)
SIMULATED = 20_000


def exact_predict() -> list[str]:
    lines = ["## PREDICT, two classes, exact\n",
             "Failure at a tie counts any answer; at .51, the answer that is not the top class. Going on: nothing is "
             "given up, which is the worst for failure. By single votes: the same for n_max up to 300, in whole "
             "numbers, by a recursion over votes that asks the plan itself what to do.\n",
             "| version | n_max | looks | alpha | tie, going on | tie | by single votes | p = .51 | samples, tie | "
             "samples, .51 |", "|---|---|---|---|---|---|---|---|---|---|"]
    for n_max in (24, 100, 300, 1000, 4000):
        for alpha in ALPHAS:
            for version in (1, 2):
                plan = predict_plan(alpha, n_max=n_max, version=version)
                worst, _ = prediction_failure(plan, 0.5)
                (tie, at_tie), (off, samples) = (prediction_failure(plan, p, gives_up=True) for p in (0.5, 0.51))
                single = up(float(failure_by_votes(plan)) / alpha) if n_max <= 300 else ""
                lines.append(f"| {version} | {n_max} | {len(plan.looks)} | {alpha} | {up(worst / alpha)} | "
                             f"{up(tie / alpha)} | {single} | {up(off / alpha)} | {at_tie:.0f} | {samples:.0f} |")
    return [*lines, ""]


def failure_by_votes(plan) -> Fraction:
    """P(an answer) at a tie of two classes: the ways to reach each count are counted vote by vote."""
    ways, answered, before = {0: 1}, Fraction(0), []
    for n in range(1, plan.n_max + 1):
        ways = {count: ways.get(count, 0) + ways.get(count - 1, 0) for count in range(n + 1)}
        ways = {count: number for count, number in ways.items() if number}
        if n in plan.looks:
            counts = sorted(ways)
            looks = [[Look("predict", np.array([count, n - count]))] for count in counts]
            answers = plan.judge(looks).prediction
            draws = plan.next([[*before, *look] for look in looks])
            for count, answer, draw in zip(counts, answers, draws, strict=True):
                if answer != ABSTAIN:
                    answered += Fraction(ways[count], 2**n)
                if answer != ABSTAIN or draw is None:
                    del ways[count]
            before.append(Look("predict", np.array([0, n])))  # `next` goes by the last look
    return answered


def simulated_curves(rng) -> list[str]:
    """Rows of coverage at alpha = .05 for both versions."""
    alpha, lines = 0.05, []
    for version in (1, 2):
        for method in ("cohen", "two-sided", "t-certify"):
            plan = certify_plan(partial(gaussian_radius, sigma=1.0), curve_loss=0.01, n_max=N, alpha=alpha,
                                method=method, version=version)
            for p_a in (0.501, float(special.ndtr(1.0)), 0.99):
                p = np.array([p_a, 0.9 * (1 - p_a), 0.1 * (1 - p_a)])
                size = SIMULATED // (10 if method == "t-certify" else 1)
                histories = [[Look("pilot", pilot)] for pilot in rng.multinomial(plan.n0, p, size=size)]
                for history, draw in zip(histories, plan.next(histories), strict=True):
                    if draw is not None:
                        history.append(Look(draw.stage, rng.multinomial(draw.n, p)))
                answers, rival = plan.judge(histories), 1 - p[0] if method == "cohen" else p[1]
                true = float(special.ndtri(p[0]) - special.ndtri(rival)) / 2
                false = (answers.values["radius"] > true) | (answers.prediction > 0)
                level = 2 * alpha if method == "t-certify" else alpha
                lines.append(f"| full curve, version {version} | {method} | {p_a:.4f} | "
                             f"{failures(false, alpha, level)} |")
    return lines


def simulated_predict(rng) -> list[str]:
    alpha = 0.05
    lines = [f"## PREDICT, n_max = 10,000, alpha = {alpha}, {SIMULATED:,} simulated images\n",
             "The plan draws as it likes. Failure: another class than the most likely; at a tie of the first two, "
             "either. P as above.\n", "| version | p | failures / alpha | P | mean samples |", "|---|---|---|---|---|"]
    for version in (1, 2):
        for p in ((0.5, 0.5), (0.505, 0.495), (0.5, 0.4999, 0.0001), (0.34, 0.33, 0.33), (0.1,) * 10):
            plan = predict_plan(alpha, n_max=10_000, version=version)
            looks = np.array(plan.looks)
            counts = rng.multinomial(np.diff(looks, prepend=0), p, size=(SIMULATED // 4, len(looks))).cumsum(axis=1)
            number = np.tile(np.arange(len(looks)), len(counts))
            flat = counts.reshape(-1, len(p))
            rejects = (plan.p_values(number, flat) <= alpha).reshape(counts.shape[:2])
            ends = rejects | plan.is_futile(number, flat).reshape(counts.shape[:2])
            stop = np.where(ends.any(axis=1), ends.argmax(axis=1), len(looks) - 1)
            at = np.arange(len(counts)), stop
            false = rejects[at] & ((counts[at].argmax(axis=1) > 0) | (p[0] == p[1]))
            lines.append(f"| {version} | {', '.join(map(str, p[:3]))}{', ...' if len(p) > 3 else ''} | "
                         f"{failures(false, alpha)} | {looks[stop].mean():,.0f} |")
    return [*lines, ""]


def replayed_curve(found, rng) -> list[str]:
    lines = ["Full curve, pilot 1,000, loss .01; the first version, the last, and the last up to 3 sigma:\n",
             "| population | samples, first | radius lost, % | samples, last | lost, % | more abstentions, points | "
             "samples, to 3 sigma | lost, % |", "|---|---|---|---|---|---|---|---|"]
    designs = ((None, 1), (None, 2), (3.0, 2))
    results = {name: [curve_replay(p, 0.01, 10, rng, *design) for design in designs] for name, p in found.items()}
    for (data, sigma), (first, last, capped) in results.items():
        lines.append(f"| {data}, sigma {sigma:g} | {first[0]:,.0f} | {100 * first[1]:.2f} | {last[0]:,.0f} | "
                     f"{100 * last[1]:.2f} | {100 * last[2]:.2f} | {capped[0]:,.0f} | {100 * capped[1]:.2f} |")
    mean = [float(np.mean([result[k][0] for result in results.values()])) for k in range(3)]
    worst = [100 * max(result[k][1] for result in results.values()) for k in range(3)]
    more = 100 * max(result[1][2] for result in results.values())
    lines += [f"| all, at most | {mean[0]:,.0f} | {worst[0]:.2f} | {mean[1]:,.0f} | {worst[1]:.2f} | {more:.2f} | "
              f"{mean[2]:,.0f} | {worst[2]:.2f} |", "",
              "Other losses: the largest share of the mean radius lost, over what was allowed.\n",
              "| loss | samples, first | last | largest loss / allowed, first | last |", "|---|---|---|---|---|"]
    for loss in (0.002, 0.05, 0.2):
        both = [[curve_replay(p, loss, 4, rng, None, version) for p in found.values()] for version in (1, 2)]
        samples = [float(np.mean([one[0] for one in each])) for each in both]
        lost = [max(one[1] for one in each) / loss for each in both]
        lines.append(f"| {loss} | {samples[0]:,.0f} | {samples[1]:,.0f} | {lost[0]:.2f} | {lost[1]:.2f} |")
    return [*lines, ""]


def replayed_predict(found, rng) -> list[str]:
    lines = ["PREDICT, all rivals taken for one class, alpha = .001. Images without a logged p_A at .45, or at .5. "
             "Abstention: how much above that with n_max samples, at most.\n",
             "| n_max | those at | samples, first | samples, last | fewer by | abstention, first | last |",
             "|---|---|---|---|---|---|---|"]
    for n_max in (1000, 10_000, 100_000):
        for at in (0.45, 0.5):
            placed = [np.where(p == ABSTAINED, at, p) for p in found.values()]
            both = [[predict_replay(p, n_max, 4, rng, version) for p in placed] for version in (1, 2)]
            samples = [float(np.mean([one[0] for one in each])) for each in both]
            more = [max(abstained - fixed for _, abstained, fixed in each) for each in both]
            lines.append(f"| {n_max:,} | {at} | {samples[0]:,.0f} | {samples[1]:,.0f} | "
                         f"{samples[0] / samples[1]:.2f} | {more[0]:+.4f} | {more[1]:+.4f} |")
    exactly = [prediction_failure(predict_plan(ALPHA, n_max=10_000, version=version), 0.5, gives_up=True)[1]
               for version in (1, 2)]
    return [*lines, "", f"An image at exactly .5, n_max 10,000: {exactly[0]:,.0f} samples with the first version, "
            f"{exactly[1]:,.0f} with the last.", ""]


def failures(false: np.ndarray, alpha: float, level: float | None = None) -> str:
    count, size = int(false.sum()), len(false)
    return f"{count / size / alpha:.3f} | {stats.binom.sf(count - 1, size, level or alpha):.2f}"


def up(ratio: float) -> str:
    return f"{np.ceil(ratio * 1e4 - 1e-5) / 1e4:.4f}"
