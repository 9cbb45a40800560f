"""Requirements on a run: what parses, what is compared, what cannot be decided, and what a build server gets."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from typer.testing import CliRunner

import smoothcert
from smoothcert.cli.main import app
from smoothcert.errors import ConfigError, InputError, StoreError
from smoothcert.interop import open_records
from smoothcert.report.checked import to_junit
from smoothcert.results.certified import Result
from smoothcert.results.predictions import Predicted
from smoothcert.results.requirements import check_requirements, check_store, parse_requirements
from smoothcert.stats import acr_limit, clopper_pearson
from smoothcert.store.store import read_store
from stores import attacked, made


def run(*arguments, code: int = 0):
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made(tmp_path_factory.mktemp("checked") / "s", method="two-sided", right=1.3, count=120)


@pytest.fixture
def store(folder):
    return read_store(folder)


def outcome(result, text, **options):
    return check_requirements(result, parse_requirements([text]), **options).decisions[0]


@pytest.mark.parametrize(("text", "wanted"), [
    ("accuracy@0.5 >= 0.40", ("accuracy", 0.5, ">=", 0.4)),
    (" accuracy @ 128/255>40% ", ("accuracy", 128 / 255, ">", 0.4)),
    ("abstained <= 40 %", ("abstained", None, "<=", 0.4)),
    ("acr >= 0.5", ("acr", None, ">=", 0.5)), ("ABSTAINED <= 1/10", ("abstained", None, "<=", 0.1)),
    ("accuracy < 1", ("accuracy", None, "<", 1.0)), ("one-pass@.25 >= .3", ("one_pass", 0.25, ">=", 0.3)),
])
def test_requirements_are_read(text, wanted):
    one = parse_requirements([text])[0]
    assert (one.metric, one.radius, one.relation, one.number) == wanted


def test_what_does_not_parse_is_named_with_the_grammar():
    with pytest.raises(ConfigError) as error:
        parse_requirements(["accuracy@.5 = 0.4", "acuracy >= 1", "acr@1 > 2", "one_pass > .1", "acr > 3%",
                            "accuracy > 40", "accuracy@-1 > 0", "accuracy@x > 0", "abstained <= nan", "acr > 1"])
    said = str(error.value)
    assert said.startswith("9 mistakes")
    for words in ("is no requirement", 'did you mean "accuracy"?', "acr has no radius", "needs a radius", "not a share",
                  "at most 1", "no number of at least 0", "METRIC    accuracy@RADIUS"):
        assert words in said
    with pytest.raises(ConfigError, match="no requirement is given"):
        parse_requirements([])


@pytest.mark.parametrize("bound", ["population", "test_set", "bernstein", "all_radii", "observed"])
def test_limits_are_those_of_the_table(store, bound):
    result = Result.of(store)
    at = result.at([0.005], 0.05)
    limit = float(getattr(at, "accuracy" if bound == "observed" else bound)[0])
    assert 0 < limit < 1
    found = outcome(result, f"accuracy@0.005 >= {limit - 0.01:.6f}", bound=bound)
    assert (found.outcome, found.limit) == ("holds", limit)
    assert found.margin == pytest.approx(0.01, abs=1e-6)
    found = outcome(result, f"accuracy@0.005 >= {limit + 0.01:.6f}", bound=bound)
    assert found.outcome == "fails"
    assert found.margin == pytest.approx(-0.01, abs=1e-6)
    above = outcome(result, "accuracy@0.005 <= 1", bound=bound)
    assert above.outcome == ("holds" if bound == "observed" else "undecided")
    assert "from below alone" in above.why or bound == "observed"


def test_relations_are_strict_where_they_say_so(store):
    result = replace(Result.of(store), radius=np.ones(4), correct=np.array([True, True, False, False]),
                     abstained=np.array([False, False, False, True]))
    for relation, wanted in ((">=", "holds"), (">", "fails"), ("<=", "holds"), ("<", "fails")):
        assert outcome(result, f"accuracy@1 {relation} 0.5", bound="observed").outcome == wanted
        assert outcome(result, f"abstained {relation} 25%", bound="observed").outcome == wanted


def test_acr_has_a_limit_for_new_images_and_for_these(store):
    result = Result.of(store)
    new = outcome(result, "acr >= 0", bound="population").limit
    these = outcome(result, "acr >= 0", bound="test_set").limit
    assert 0 < new < these <= result.acr == outcome(result, "acr >= 0", bound="observed").limit
    assert new == acr_limit(result.radius, result.correct, 0.001, 0.05, result.ceiling)
    unknown = replace(result, n=None)
    assert "not known" in outcome(unknown, "acr >= 0").why


def test_the_limit_of_acr_fails_with_rho_at_most():
    """1,000 data sets of 100 images. True radii are 0 or 1 by chance, and certificates claim 2 with probability
    alpha = .1 in place of the truth."""
    rng, alpha, rho = np.random.default_rng(0), 0.1, 0.2
    truth = rng.integers(0, 2, (1000, 100)).astype(float)
    radius = np.where(rng.random(truth.shape) < alpha, 2.0, truth)
    right = np.ones(100, bool)
    new = np.array([acr_limit(one, right, alpha, rho, 2.0) for one in radius])
    these = np.array([acr_limit(one, right, alpha, rho) for one in radius])
    assert (new > 0.5).mean() <= rho
    assert (these > truth.mean(axis=1)).mean() <= rho
    assert new.mean() > 0.2
    assert these.mean() > 0.2
    assert radius.mean() > 0.55  # what no correction would claim


def test_abstentions_have_limits_on_both_sides(store):
    result = Result.of(store)
    count, m = int(result.abstained.sum()), result.images
    assert 0 < count < m
    assert outcome(result, "abstained <= 1").limit == clopper_pearson(count, m, 0.05, "upper")
    assert outcome(result, "abstained >= 0").limit == clopper_pearson(count, m, 0.05)


def test_a_run_that_stopped_early_decides_what_it_can(store):
    """Its claims are lower bounds: what they meet holds, and what they do not meet may hold with more samples."""
    result = replace(Result.of(store), decided=(0.005,))
    assert outcome(result, "accuracy@0.005 >= 0.99").outcome == "fails"
    assert outcome(result, "accuracy@0.002 >= 0.1").outcome == "holds"
    for text in ("accuracy@0.002 >= 0.999", "acr >= 5", "abstained <= 0", "abstained >= 0.01", "accuracy@0.002 <= 1"):
        for bound in ("population", "observed"):
            found = outcome(result, text, bound=bound)
            assert (found.outcome, "stopped" in found.why) == ("undecided", True), text
    assert outcome(result, "acr >= 0.001").outcome == "holds"
    assert outcome(result, "abstained <= 1").outcome == "holds"


def test_a_radius_that_no_votes_could_prove_is_undecided(store):
    found = outcome(Result.of(store), "accuracy@5 >= 0.1")
    assert found.outcome == "undecided"
    assert "no radius above" in found.why


def test_an_acr_that_no_votes_could_prove_is_undecided(store):
    result = Result.of(store)
    assert outcome(result, f"acr >= {result.ceiling * 1.01}").outcome == "undecided"
    nothing = replace(result, n=5, radius=np.zeros(result.images))
    assert nothing.ceiling == 0
    assert outcome(nothing, "acr >= 0.1").why.startswith("no radius above 0.000")
    assert outcome(nothing, "acr >= 0").outcome == "holds"


def test_logs_have_no_votes_for_one_pass(tmp_path):
    (tmp_path / "a.tsv").write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t1\t1\t0.5\t1\t0\n")
    log = open_records(tmp_path / "a.tsv")
    decisions = check_store(log, ["accuracy@0.1 >= 0", "one_pass@0.1 >= 0.1"]).decisions
    assert [one.outcome for one in decisions] == ["holds", "undecided"]
    assert "no votes" in decisions[1].why


def test_one_noisy_copy_is_read_from_the_votes(store):
    found = check_store(store, ["one_pass@0.1 >= 0.01", "one_pass@0.1 <= 1"])
    assert [one.outcome for one in found.decisions] == ["holds", "undecided"]
    assert found.decisions[0].limit == Result.of(store).with_label_limits(store).one_pass([0.1], 0.05).population[0]


def test_predictions_have_accuracy_and_abstentions(tmp_path):
    counts = np.zeros((50, 3), np.int64)
    counts[:45, 0] = 100
    counts[45:] = [34, 33, 33]
    np.savez(tmp_path / "p.npz", label=np.zeros(50, np.int64), predict=counts, sigma=0.5)
    store = open_records(tmp_path / "p.npz")
    found = check_store(store, ["accuracy >= .7", "accuracy >= .9", "accuracy@0.5 >= 0", "acr > 0", "one_pass@0 > 0",
                                "abstained <= 0.3"])
    assert [one.outcome for one in found.decisions] == ["holds", "fails", *["undecided"] * 3, "holds"]
    assert found.decisions[0].limit == Predicted.of(store).shares(0.05)["population"]


def test_other_stores_and_unfinished_runs_are_refused(tmp_path, store):
    with pytest.raises(StoreError, match="runs of certification, of labels or of PREDICT"):
        check_store(read_store(attacked(tmp_path / "a")), ["acr > 0"])
    with pytest.raises(StoreError, match="not finished"):
        check_requirements(replace(Result.of(store), complete=False), parse_requirements(["acr > 0"]))
    with pytest.raises(InputError, match="unknown bound"):
        check_requirements(Result.of(store), parse_requirements(["acr > 0"]), "median")


def test_the_command_has_an_exit_code_and_junit(tmp_path, folder):
    shown = run("check", folder, "--require", "accuracy@0.005 >= 0.2", "--require", "acr >= 0.01").stdout
    assert "all 2 hold" in shown
    assert "lower limits for new images; each holds with probability 0.95" in shown
    junit = tmp_path / "sub" / "check.xml"
    asked = ["--require", "accuracy@0.005 >= 0.2", "--require", "accuracy@0.005 >= 0.999", "--require", "acr <= 1"]
    shown = run("check", folder, *asked, "--junit", junit, code=1).stdout
    assert "1 of 3 hold, 1 fails, 1 undecided" in shown
    suite = ElementTree.parse(junit).getroot().find("testsuite")
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == asked[1::2]
    assert [case[0].tag for case in cases] == ["system-out", "failure", "error"]
    assert "margin -" in cases[1].find("failure").get("message")
    told = json.loads(run("check", folder, *asked, "--json", code=1).stdout)
    assert told["holds"] is False
    assert [one["outcome"] for one in told["decisions"]] == ["holds", "fails", "undecided"]


def test_printed_limits_and_margins_are_rounded_to_the_safe_side(store):
    result = Result.of(store)
    limit = float(result.at([0.005], 0.05).population[0])
    found = check_requirements(result, parse_requirements([f"accuracy@0.005 >= {limit + 1e-7:.9f}"]))
    assert found.decisions[0].outcome == "fails"
    assert "margin -0.0001" in to_junit(found)


def test_a_file_may_hold_the_requirements(tmp_path, folder):
    file = tmp_path / "check.yaml"
    file.write_text(f"store: {folder}\nrequire:\n- acr >= 0.01\n- abstained <= 0.9\n")
    assert "all 2 hold" in run("check", "--config", file).stdout


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (["--require", "acr = 1", "--rho", "2"], 2, ("2 mistakes", "METRIC", "rho")), ([], 2, ("require",)),
    (["--require", "acr >= 0", "--bound", "median"], 2, ("bound",)),
])
def test_mistakes_are_named_and_nothing_is_written(tmp_path, folder, arguments, code, words):
    said = run("check", folder, *arguments, "--junit", tmp_path / "x.xml", code=code).stderr
    assert all(word in said for word in words), said
    assert not (tmp_path / "x.xml").exists()


def test_an_empty_folder_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    said = run("check", tmp_path / "empty", "--require", "acr >= 0", "--junit", tmp_path / "x.xml", code=1).stderr
    assert "is not a store: it has no manifest.json" in said
    assert not (tmp_path / "x.xml").exists()


def test_python_asks_the_same(folder, store):
    for one in (folder, str(folder), store):
        found = smoothcert.check(one, "accuracy@0.005 >= 0.2")
        assert found.holds
    found = smoothcert.check(store, ["acr >= 0", "acr >= 0.5"], bound="observed")
    assert [one.outcome for one in found.decisions] == ["holds", "fails"]
