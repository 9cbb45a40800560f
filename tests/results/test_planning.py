"""Claims from a pilot to their outcome: the plan's file is the run, pilot images are left out, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import smoothcert
from smoothcert.cli.main import app
from smoothcert.errors import ConfigError, InputError, StoreError
from smoothcert.results.planning import ClaimOutcome, ClaimRequest, plan_claim
from smoothcert.stats.intervals import population_bound
from smoothcert.store.recertify import recertify, write_recertified
from smoothcert.store.store import read_store
from stores import attacked, made

LOG = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"


def invoke(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code in (1, 2), done.output
    return done.output


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A pilot of 60 digits, its plan, and the run of it."""
    folder = tmp_path_factory.mktemp("plan")
    (folder / "net.py").write_text(
        "import torch\n"
        "from smoothcert.data import load_data\n\n\n"
        "class Nearest(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        data = load_data('digits', 'train')\n"
        "        x = torch.from_numpy(data.images(range(len(data)))) if hasattr(data, 'images') else torch.stack(\n"
        "            [torch.from_numpy(data.image(i)) for i in range(len(data))])\n"
        "        y = torch.as_tensor(data.labels)\n"
        "        means = torch.stack([x[y == k].mean(0).flatten() for k in range(10)])\n"
        "        self.layer = torch.nn.Linear(64, 10)\n"
        "        self.layer.weight.data, self.layer.bias.data = means, -means.square().sum(1) / 2\n\n"
        "    def forward(self, x):\n"
        "        return self.layer(x.flatten(1))\n\n\n"
        "def build():\n"
        "    return Nearest().eval()\n")
    model = f"{folder / 'net.py'}:build"
    invoke("certify", model, "--data", "digits", "--sigma", 0.25, "--n", 500, "--max-images", 60, "--seed", 0, "-q",
           "-o", folder / "pilot")
    told = invoke("plan", folder / "pilot", "--radius", 0.1, "--accuracy", 0.5, "-o", folder / "plan.yaml")
    invoke("certify", model, "--config", folder / "plan.yaml", "--seed", 1, "-q", "-o", folder / "run")
    return folder, told


def test_the_run_is_as_planned_and_leaves_the_pilot_out(world):
    folder, told = world
    run, pilot = read_store(folder / "run"), read_store(folder / "pilot")
    planned = yaml.safe_load((folder / "plan.yaml").read_text())
    assert run.identity.claim.raw == planned["claim"]
    assert run.identity.claim.pilot == pilot.identity.digest
    assert run.column("index").tolist() == [int(index) for index in planned["indices"].split(",")]
    assert not set(run.column("index")) & set(pilot.column("index"))
    assert run.identity.procedure.raw["labels_known"]
    assert f"certify net.py:build --config {folder / 'plan.yaml'}" in told or "--config" in told


def test_the_outcome_is_the_population_bound(world):
    folder, _ = world
    run = read_store(folder / "run")
    found = ClaimOutcome.of(run, read_store(folder / "pilot"))
    claims = int((run.correct & (run.column("radius") >= 0.1)).sum())
    assert (found.claims, found.images) == (claims, run.num_records)
    assert found.bound == population_bound(claims, run.num_records, run.identity.procedure.alpha, 0.05)
    assert ("proved" in invoke("plan", "--check", folder / "run")) == (found.bound >= 0.5)
    assert json.loads(invoke("plan", "--check", folder / "run", "--json"))["bound"] == found.bound


def test_a_run_without_a_claim_has_none_in_its_identity(world):
    folder, _ = world
    assert "claim" not in read_store(folder / "pilot").identity.raw


def test_a_resumed_run_needs_the_same_claim(world):
    folder, _ = world
    words = refused("certify", f"{folder / 'net.py'}:build", "--config", folder / "plan.yaml", "--seed", 1, "-o",
                    folder / "run", "--claim", "radius=0.1", "--claim", "accuracy=0.6", "--claim", "rho=0.05",
                    "--claim", "pilot=x")
    assert "claim.accuracy" in words


def test_another_pilot_and_other_stores_are_refused(world, tmp_path):
    folder, _ = world
    run = read_store(folder / "run")
    with pytest.raises(StoreError, match="not the pilot"):
        ClaimOutcome.of(run, read_store(made(tmp_path / "other")))
    with pytest.raises(StoreError, match="no claim"):
        ClaimOutcome.of(read_store(folder / "pilot"))
    answers, procedure = recertify(run, alpha=0.1)
    write_recertified(tmp_path / "again", run, answers, procedure)
    with pytest.raises(StoreError, match="certified again"):
        ClaimOutcome.of(read_store(tmp_path / "again"))


def test_a_claim_that_no_budget_reaches_says_the_best_one(world):
    folder, _ = world
    words = refused("plan", folder / "pilot", "--radius", 0.1, "--accuracy", 0.999, "-o", folder / "not.yaml")
    best = float(words.split("the best is ")[1].split("%")[0]) / 100
    assert not (folder / "not.yaml").exists()
    planned = smoothcert.plan(str(folder / "pilot"), radius=0.1, accuracy=best)
    assert planned.chosen.chance >= 0.8


def test_the_data_set_has_all_images_of_the_pilot(world):
    """The pilot's images are spread over the data set, so it has more than as many images."""
    folder, _ = world
    said = refused("plan", folder / "pilot", "--radius", 0.1, "--accuracy", 0.5, "--images", 61)
    assert "more than 61 images" in said


def test_python_plans_from_a_store(world):
    folder, _ = world
    planned = smoothcert.plan(read_store(folder / "pilot"), radius=0.1, minutes=0.5, rate=1000, price=2.0)
    assert planned.chosen.all_samples <= 30_000
    assert planned.cost == pytest.approx(planned.chosen.all_samples / 1000 / 3600 * 2.0)
    run = smoothcert.certify(f"{folder / 'net.py'}:build", seed=3, **planned.options)
    assert ClaimOutcome.of(run).wanted == planned.chosen.bound


def test_a_log_gives_the_votes_behind_its_radii(tmp_path):
    path = tmp_path / "sigma_0.50.tsv"
    path.write_text(LOG + "".join(
        f"{i}\t1\t{1 if i % 4 else 2}\t{0.9 if i % 4 else 0.3}\t{int(i % 4 > 0)}\t0:00:01\n" for i in range(40)))
    words = invoke("plan", path, "--radius", 0.5, "--accuracy", 0.4, "--images", 5000)
    assert "are assumed" in words
    assert "give images" in refused("plan", path, "--radius", 0.5, "--accuracy", 0.4)


@pytest.mark.parametrize(("given", "words"), [
    ({}, "give one of accuracy"),
    ({"accuracy": 0.5, "samples": 10}, "got accuracy and samples"),
    ({"accuracy": 1.0}, "accuracy must lie strictly"),
    ({"money": 3.0}, "give price"),
    ({"minutes": -1.0}, "minutes must be"),
    ({"samples": 9, "seed": -1}, "seed must be"), ({"samples": 9, "seed": 1.5}, "seed must be"),
])
def test_a_request_is_checked(given, words):
    with pytest.raises(InputError, match=words):
        ClaimRequest(0.5, **given)


def test_pilots_that_tell_too_little_are_refused(tmp_path):
    asked = ClaimRequest(0.5, 0.4, images=1000)
    with pytest.raises(StoreError, match="kind attack"):
        plan_claim(read_store(attacked(tmp_path / "attacked")), asked, np.asarray)
    store = read_store(made(tmp_path / "pilot"))
    with pytest.raises(InputError, match="plan by fewer"):
        plan_claim(store, ClaimRequest(0.5, 0.4, images=60), np.asarray)


def test_an_unfinished_pilot_is_told_to_stay_so(tmp_path):
    """What it has left may be images of the plan, so it cannot go on."""
    asked = ClaimRequest(0.1, samples=20_000, images=1000)
    store = read_store(made(tmp_path / "pilot", right=1.3))
    assert not any("not finished" in note for note in plan_claim(store, asked, np.asarray).notes)
    part = replace(store, complete=False)
    assert any("not finished" in note for note in plan_claim(part, asked, np.asarray).notes)


@pytest.mark.parametrize(("claim", "words"), [
    ({"radius": 0.5}, r"(?s)3 mistakes.*claim\.accuracy: field required.*claim\.rho.*claim\.pilot"),
    ({"radius": 0.5, "accuracy": 0.5, "rho": 0.05, "pilot": "x", "sigma": 1}, "got sigma too"),
    ({"radius": 0.5, "accuracy": 0.5, "rho": 0.05, "pilot": 7}, "claim.pilot: input should be a valid string, got 7"),
    ({"radius": 0.3, "accuracy": 0.5, "rho": 0.05, "pilot": "x"}, "none of radii"),
    ({"radius": 0.5, "accuracy": 1.5, "rho": 0.05, "pilot": "x"}, "claim.accuracy: .*less than 1, got 1.5"),
])
def test_a_wrong_claim_is_told_with_the_other_mistakes(claim, words):
    from smoothcert.runs.options import CertifyConfig

    with pytest.raises(ConfigError, match=words):
        CertifyConfig.parse({"model": "m", "out": "o", "sigma": 0.5, "n_max": 100, "radii": (0.5,), "claim": claim})
