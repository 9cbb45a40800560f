"""Other claims from stored votes: files of groups and costs, and the stores that `recertify` keeps."""

import json
from functools import partial

import numpy as np
import pytest
from typer.testing import CliRunner

from smoothcert.cli.main import app
from smoothcert.data import load_data
from smoothcert.errors import ConfigError, FileError, SmoothcertError, StoreError
from smoothcert.interop import open_votes
from smoothcert.results.certified import Result
from smoothcert.results.studies import votes_of
from smoothcert.stats import AtRadii, TopK, certify_claim, gaussian_radius
from smoothcert.stats.histories import LABEL
from smoothcert.store.claims import read_costs, read_groups
from smoothcert.store.recertify import check_certified, recertify, write_recertified
from smoothcert.store.records import Record, Tally
from smoothcert.store.store import read_store, write_store
from stores import change_manifest, identity_of, made
from votes import drive

NAMES = ("cat", "dog", "car", "2", "owl")
DIGITS = load_data("digits")


def run(*arguments, code: int = 0):
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def store(tmp_path):
    return made(tmp_path / "plain", method="two-sided", right=0.2)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "groups.yaml").write_text("even: [0, 2, 4, 6, 8]\nodd: [1, 3, 5, 7, 9]\n")
    (tmp_path / "costs.json").write_text('{"3": [8, 5], "1": 7}')
    return tmp_path


def test_classes_are_named_or_counted(tmp_path):
    """A text is a name first, and an index where no class is called so."""
    path = tmp_path / "g.yaml"
    path.write_text('animals: [cat, 1, "4"]\nothers: ["2", car]\n')
    assert read_groups(path, 5, NAMES).groups == {"animals": (0, 1, 4), "others": (2, 3)}
    path.write_text('{"cat": ["dog", 4], "2": "car"}')
    assert read_costs(path, 5, NAMES).targets == {0: (1, 4), 3: (2,)}
    path.write_text('{"2": "dog"}')
    assert read_costs(path, 5, ("cat", "dog", "car", "x", "y")).targets == {2: (1,)}


@pytest.mark.parametrize(("read", "text", "words"), [
    (read_groups, "a: [cat, dgo, 9]\nb: [cat, true]\n",
     ["class 'dgo' is unknown (did you mean \"dog\"?)", "class 9 is unknown: there are 0 to 4", "True is no class",
      "class 0 is in a and in b", "classes 1, 2, 3, 4 are in no group"]),
    (read_groups, "a: [cat, cat, dog, car]\nb: [3, 4]\n", ["class 0 is in a twice"]),
    (read_costs, "cat: [cat]\n0: [dog]\nfox: [car]\n", ["targets twice", "class 'fox' is unknown"]),
    (read_costs, "- cat\n", ["NAME: [CLASS"]),
    (read_groups, "", ["NAME: [CLASS"]),
])
def test_all_mistakes_of_a_file_are_named_at_once(tmp_path, read, text, words):
    path = tmp_path / "f.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read(path, 5, NAMES)
    assert all(word in str(error.value) for word in words), error.value


def test_names_that_several_classes_have_are_refused(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("crane: [1]\n")
    with pytest.raises(ConfigError, match="2 classes are called crane: give the index"):
        read_costs(path, 3, ("crane", "dog", "crane"))


def test_files_that_are_no_yaml_are_refused(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("a: [1")
    with pytest.raises(FileError, match="neither YAML nor JSON"):
        read_groups(path, 5)
    with pytest.raises(FileError):
        read_groups(tmp_path / "none.yaml", 5)


CLAIMS = (("--top-k", "3"), ("--groups", "groups.yaml"), ("--costs", "costs.json"))


@pytest.mark.parametrize("labels", [(), ("--labels-known",)], ids=["chosen", "label"])
@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim[0][2:])
def test_what_recertify_keeps_is_a_run_like_any_other(store, files, monkeypatch, claim, labels):
    monkeypatch.chdir(files)
    text = run("recertify", store, *claim, *labels, "-o", "kept", "--radii", "0,.25").stdout
    assert "nothing is wrong" in run("verify", "kept").stdout
    assert run("table", "kept", "--radii", "0,.25").stdout == text
    told = json.loads(run("table", "kept", "--json").stdout)[0]
    assert told["claim"]
    procedure = read_store("kept").identity.procedure
    assert procedure.raw["claim"]["limits"] == (4 if claim[0] == "--top-k" else 2)
    assert procedure.raw["claim"]["level"] == procedure.alpha == 0.001
    assert "kept" in run("compare", store, "kept").stdout
    assert "claim different things" in run("table", store, "kept").stdout
    run("plot", "curve", store, "kept", "-o", "p.png")
    run("report", store, "kept", "--no-gallery", "-o", "r.html")
    again = json.loads(run("recertify", "kept", "--alpha", "0.01", "--json").stdout)
    direct = json.loads(run("recertify", store, *claim, *labels, "--alpha", "0.01", "--json").stdout)
    assert {**again, "name": ""} == {**direct, "name": ""}
    assert again["acr"] > told["acr"]


def test_radii_are_those_of_the_arrays(store):
    opened = read_store(store)
    answers, _ = recertify(opened, claim=TopK(2))
    direct = certify_claim(TopK(2), opened.counts("select"), opened.counts("estimate"), 0.25)
    assert np.array_equal(answers.radius, direct.radius)
    assert np.array_equal(answers.prediction, direct.prediction)
    labels = np.eye(10, dtype=np.int64)[opened.column("label")]
    answers, _ = recertify(opened, claim=TopK(2), labels_known=True)
    assert np.array_equal(answers.radius, certify_claim(TopK(2), labels, opened.counts("estimate"), 0.25).radius)


def test_groups_are_right_where_the_label_is_in_the_group(store, files, monkeypatch):
    monkeypatch.chdir(files)
    run("recertify", store, "--groups", "groups.yaml", "-o", "kept")
    kept = read_store("kept")
    prediction, label = kept.column("prediction"), kept.column("label")
    right = (prediction >= 0) & (prediction % 2 == label % 2)
    assert np.array_equal(kept.correct, right)
    assert np.array_equal(Result.of(kept).correct, right)
    assert (right != (prediction == label)).any()


def test_sequential_runs_are_read_by_their_running_bounds(tmp_path):
    """Looks that stopped for plain radii prove lower bounds of top-k radii; the labels are the first look."""
    rng = np.random.default_rng(0)
    labels = DIGITS.labels[:30]
    p = rng.dirichlet(np.ones(10) / 4, 30)
    p[np.arange(30), labels] += 0.5
    p /= p.sum(axis=1, keepdims=True)
    plan = AtRadii(n_max=2000, radii=(0.25,), radius_of=partial(gaussian_radius, sigma=0.25))
    histories = drive(plan, p, rng)
    answers = plan.judge(histories)
    records = [Record(i, int(labels[i]), int(answers.prediction[i]), {"radius": float(answers.values["radius"][i])},
                      False, [Tally.of(look.stage, look.counts) for look in histories[i]]) for i in range(30)]
    write_store(tmp_path / "s", identity_of("certify", 30, 0.25, plan.identity()), {}, records)
    store = read_store(tmp_path / "s")
    found, procedure = recertify(store, claim=TopK(2), labels_known=True)
    assert procedure["decided"] is False
    assert (found.prediction[found.radius > 0] == labels[found.radius > 0]).all()
    write_recertified(tmp_path / "top", store, found, procedure)
    top = read_store(tmp_path / "top")
    assert all(history[0].stage == LABEL for history in top.histories())
    assert "nothing is wrong" in run("verify", tmp_path / "top").stdout
    assert Result.of(top).is_lower_bound
    assert Result.of(top).acr >= Result.of(store).acr


@pytest.mark.parametrize(("options", "words"), [
    (("--top-k", "10"), "below the number of classes, 10"),
    (("--top-k", "2", "--costs", "costs.json"), "different claims"),
    (("--groups", "costs.json"), "are in no group"), (("--costs", "groups.yaml"), "class 'even' is unknown"),
    (("--top-k", "2", "--method", "t-certify"), "splits alpha"), (("--top-k", "2", "--margin", "0.1"), "--no-margin"),
    (("--labels-known",), "for a claim: give one"),
])
def test_what_cannot_be_claimed_writes_nothing(store, files, monkeypatch, options, words):
    monkeypatch.chdir(files)
    assert words in run("recertify", store, *options, "-o", "kept", code=2).stderr
    assert not (files / "kept").exists()


@pytest.mark.parametrize("claim", [
    {"kind": "top-k", "k": 10}, {"kind": "top-k", "k": "3"}, {"kind": "groups", "groups": {"a": [99]}},
    {"kind": "groups", "groups": [1]}, {"kind": "costs", "targets": {"x": [1]}}, {"kind": "costs"}, {"k": 3}, {},
])
def test_a_manifest_that_holds_no_claim_is_refused(store, tmp_path, claim):
    run("recertify", store, "--top-k", "2", "-o", tmp_path / "kept")
    change_manifest(tmp_path / "kept", lambda content: content["identity"]["procedure"].update(claim=claim))
    with pytest.raises(SmoothcertError):
        read_store(tmp_path / "kept")
    assert run("table", tmp_path / "kept", code=1).stderr.startswith("error: ")


def test_a_log_cannot_say_what_was_claimed(store, tmp_path):
    run("recertify", store, "--top-k", "2", "-o", tmp_path / "kept")
    assert "top-2" in run("export", tmp_path / "kept", "-o", tmp_path / "x.tsv", code=1).stderr
    run("export", tmp_path / "kept", "-o", tmp_path / "x.npz")
    assert open_votes(tmp_path / "x.npz").identity.procedure.claim is None


def test_radii_of_other_claims_are_no_plain_ones(store, tmp_path):
    """An attack within a top-2 radius may change the answer, and theorems of two classes are not about it."""
    run("recertify", store, "--top-k", "2", "-o", tmp_path / "kept")
    for refuse in (lambda one: check_certified(one, "an attack"), votes_of):
        with pytest.raises(StoreError, match="another claim"):
            refuse(read_store(tmp_path / "kept"))
