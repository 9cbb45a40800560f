"""Multi-label runs: radii against known margins, resumed runs, files to tables, and what is refused."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from typer.testing import CliRunner

import smoothcert
from smoothcert.cli.main import app
from smoothcert.errors import ConfigError, InputError, StoreError
from smoothcert.results.compare import compare
from smoothcert.results.gather import read_result
from smoothcert.results.multi_label import CertifiedLabels
from smoothcert.results.requirements import check_requirements, parse_requirements
from smoothcert.runs.multi_label import prepare_multi_label
from smoothcert.runs.options import CertifyConfig
from smoothcert.store.multi_label import LabelVotes
from smoothcert.store.store import open_store, read_store, write_table

NET = """
import torch

class Three(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0.5, 0.5, 0, -0.5]]))

    def forward(self, x):
        return x.flatten(1) @ self.weight.T - 0.5

def build():
    return Three().eval()
"""
SIGMA, WEIGHT = 0.1, np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0.5, 0.5, 0, -0.5]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A network of three half-spaces, data that it labels, and a finished run of them."""
    folder = tmp_path_factory.mktemp("labels")
    (folder / "net.py").write_text(NET)
    x = np.random.default_rng(0).random((20, 1, 2, 2)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, y=(x.reshape(20, 4) @ WEIGHT.T > 0.5).astype(np.int64))
    certify(folder, out=folder / "store")
    return folder


def config(folder: Path, **changes) -> CertifyConfig:
    options = {"model": f"{folder / 'net.py'}:build", "data": f"npz:{folder / 'data.npz'}", "task": "multi-label",
               "sigma": SIGMA, "n": 1000, "seed": 3, "noise": "gaussian", **changes}
    return CertifyConfig.parse({name: value for name, value in options.items() if value is not None})


def certify(folder: Path, **changes):
    from smoothcert.runs.certify import certify as run

    return run(config(folder, **changes))


def shards(store: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted(store.glob("shard-*"))]


def test_radii_stay_below_the_distances_and_come_near(folder):
    votes = LabelVotes.of(read_store(folder / "store"))
    answers = votes.judge()
    x = np.load(folder / "data.npz")["x"].reshape(20, 4)
    distance = np.abs(x @ WEIGHT.T - 0.5) / np.linalg.norm(WEIGHT, axis=1)
    sure = distance < 2 * SIGMA  # further away, n = 1,000 proves no more
    assert (answers.radius <= distance).all()
    assert (distance - answers.radius)[sure].max() < 0.8 * SIGMA
    assert (answers.chosen == votes.present)[answers.radius > 0].all()


def test_a_run_that_stopped_within_an_input_ends_alike(folder, tmp_path):
    run = prepare_multi_label(config(folder, out=tmp_path / "store"))
    made = {position: record for position, record, _ in run.records(run.tasks(range(6)))}
    with open_store(tmp_path / "store", run.identity, run.provenance) as store:
        for position in (0, 1, 2, 4):
            store.add(position, made[position])
    certify(folder, out=tmp_path / "store")
    assert shards(tmp_path / "store") == shards(folder / "store")


def test_figures_at_a_radius_are_those_of_the_definition(folder):
    result = read_result(read_store(folder / "store"), "run")
    assert isinstance(result, CertifiedLabels)
    answers = result.answers
    kept = (answers.chosen == result.label) & (answers.holm >= 0.1)
    (found,) = result.at([0.1])
    assert found.exact == kept.all(axis=1).mean()
    assert found.labels == tuple(kept.mean(axis=0))
    assert found.present == kept[result.label].mean()
    assert found.population < found.exact < found.mean == kept.sum() / kept.size


def test_two_runs_are_compared_by_the_inputs_with_all_labels_right(folder, tmp_path):
    certify(folder, out=tmp_path / "other", sigma=0.02)
    stores = [read_store(folder / "store"), read_store(tmp_path / "other")]
    one, two = (CertifiedLabels.of(store) for store in stores)
    found = compare(one, two, [0.0, 0.1], 0.05)
    for difference, radius in zip(found.differences, (0.0, 0.1), strict=True):
        assert (difference.first, difference.second) == tuple(run.at([radius])[0].exact for run in (one, two))
    inside = [((run.answers.chosen == run.label) & (run.answers.holm >= 0.1)).all(axis=1) for run in (one, two)]
    assert found.differences[1].only_first == (inside[0] & ~inside[1]).sum() > 0
    run = CliRunner().invoke(app, ["compare", str(folder / "store"), str(tmp_path / "other")])
    assert run.exit_code == 0, run.output
    assert "right and certified at the radius" in run.output
    assert two.ceiling < 0.1 < one.ceiling, "beyond what unanimous votes prove a share of 0 says nothing"
    assert found.differences[1].out_of_reach == (False, True)
    table = CliRunner().invoke(app, ["table", str(tmp_path / "other"), "--radii", "0,0.1"]).output
    assert "0.1              -" in table
    assert f"no radius above {math.floor(1000 * two.ceiling) / 1000:.3f} can be proved with n = 1,000" in table
    other = replace(two, label=~two.label)
    with pytest.raises(InputError, match="are over different data sets: image 0 has label"):
        compare(one, other, [0.0], 0.05)


def test_requirements_are_held_against_the_inputs_with_all_labels_right(folder):
    result = CertifiedLabels.of(read_store(folder / "store"))
    (at,) = result.at([0.1])

    def decide(text, bound="population"):
        (decision,) = check_requirements(result, parse_requirements([text]), bound).decisions
        return decision

    assert decide("accuracy@0.1 > 0").limit == at.population
    assert decide("accuracy@0.1 >= 1").outcome == "fails"
    assert decide(f"accuracy@0.1 >= {at.exact:.9f}", "observed").outcome == "holds"
    right = (result.answers.chosen == result.label).all(axis=1)
    lower, larger = (radius.min(axis=1)[right] for radius in (result.answers.radius, result.answers.holm))
    between = float((lower + larger)[larger > lower][0] / 2)
    limit = decide(f"accuracy@{between!r} > 0", "all_radii").limit
    assert limit <= (lower >= between).sum() / 20 < result.at([between])[0].exact, "Holm's hold one by one alone"
    for text, why in (("acr > 0", "one class an image"), ("one_pass@0.1 > 0", "one class"),
                      ("abstained < 1", "by itself")):
        assert decide(text).outcome == "undecided"
        assert why in decide(text).why
    assert decide("accuracy@9 > 0").outcome == "undecided", "no n votes could have proved it"


def test_from_the_command_line_to_tables_and_checks(folder, tmp_path):
    def run(*arguments):
        done = CliRunner().invoke(app, [str(one) for one in arguments])
        assert done.exit_code == 0, done.output
        return done.output

    store, again = folder / "store", tmp_path / "again"
    assert "all labels  new inputs, at least" in run("table", store, "--radii", "0,0.1")
    run("recertify", store, "--alpha", "0.1", "-o", again)
    assert "answers     60 computed again" in run("verify", again)
    assert "3 records drawn again, equal" in run("verify", store, "--resample", 3, "--model",
                                                 f"{folder / 'net.py'}:build")
    run("plot", "labels", store, again, "-o", tmp_path / "labels.png")
    run("report", store, again, "-o", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "All certified labels of an input at one radius hold together" in page
    assert "new inputs, at least" in page
    rows = json.loads(run("table", store, again, "--radii", "0.1", "--json"))
    assert [row["alpha"] for row in rows] == [0.001, 0.1]
    assert rows[1]["figures"][0]["exact"] >= rows[0]["figures"][0]["exact"]
    assert {"output", "radius", "estimate_n"} <= set(read_store(store).to_arrow().column_names)


def test_a_wrong_radius_is_found(folder, tmp_path):
    store = read_store(folder / "store")
    place = store.records.schema.get_field_index("radius")
    wrong = store.records.set_column(place, "radius", pa.array(store.column("radius") + 0.01))
    write_table(tmp_path / "store", store.identity, store.provenance.raw, wrong)
    done = CliRunner().invoke(app, ["verify", str(tmp_path / "store")])
    assert done.exit_code == 1
    assert "radius is 0.0" in done.output


def test_what_shows_classes_says_that_there_are_none(folder):
    done = CliRunner().invoke(app, ["plot", "gallery", str(folder / "store"), "-o", str(folder / "gallery.png")])
    assert done.exit_code == 1
    assert "is a multi-label store, whose data have no classes" in done.output


def test_a_store_of_classes_has_no_labels():
    model = lambda x: x.flatten(1)[:, :2]  # noqa: E731
    store = smoothcert.certify(model, (torch.ones(2, 1, 1, 2), [0, 1]), sigma=0.5, n=10, n0=5)
    with pytest.raises(StoreError, match="labels are in the store of a multi-label run"):
        LabelVotes.of(store)


@pytest.mark.parametrize(("changes", "words"), [
    ({"method": "cohen"}, "the task multi-label does not take method: leave it out"),
    ({"n_max": 1000, "radii": "0.1"}, "does not take n-max"),
    ({"engine": "onnxruntime"}, "runs the network as it is"),
    ({"task": "classification", "threshold": 0.5}, "does not take threshold"),
])
def test_what_it_does_not_take(folder, tmp_path, changes, words):
    with pytest.raises(ConfigError, match=words):
        certify(folder, out=tmp_path / "store", **changes)
    assert not (tmp_path / "store").exists()


def test_labels_that_are_neither_present_nor_absent(folder, tmp_path):
    held = dict(np.load(folder / "data.npz"))
    np.savez(tmp_path / "two.npz", x=held["x"], y=held["y"] * 2)
    with pytest.raises(InputError, match="must be 1 where one is present and 0 where it is absent, 3 of them"):
        certify(folder, out=tmp_path / "store", data=f"npz:{tmp_path / 'two.npz'}")
    np.savez(tmp_path / "few.npz", x=held["x"], y=held["y"][:, :2])
    with pytest.raises(InputError, match=r"outputs of the model: 3, targets of an input of npz:few\.npz: 2"):
        certify(folder, out=tmp_path / "store", data=f"npz:{tmp_path / 'few.npz'}")
