"""`verify`: a store that is right passes, and whoever changes a record of it, hashes and all, is found out."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from nets import write_nets
from smoothcert.cli.main import app
from smoothcert.errors import ConfigError, FileError, IdentityError, InputError
from smoothcert.runs.attack import attack
from smoothcert.runs.certify import certify, predict
from smoothcert.runs.distributional import distributional
from smoothcert.runs.options import AttackConfig, CertifyConfig, DistributionalConfig, PredictConfig
from smoothcert.stats import predict_counts
from smoothcert.store import store as stores_module
from smoothcert.store.recertify import recertify, write_recertified
from smoothcert.store.records import Record, Tally
from smoothcert.store.store import open_store, read_store, write_store
from smoothcert.verify.options import VerifyConfig
from smoothcert.verify.verify import verify
from stores import change_manifest, made

OTHER = """

class Other(Means):
    def __init__(self):
        super().__init__()
        self.last.bias.data += 1
"""
RUNS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "fixed": (certify, CertifyConfig, {"n": 60, "n0": 20, "noise": "sound", "indices": "5,8,11,14"}),
    "radii": (certify, CertifyConfig, {"n_max": 400, "radii": "0.05,0.1", "indices": "9,3,70"}),
    "curve": (certify, CertifyConfig, {"n_max": 500, "n0": 50, "curve_loss": 0.2, "margin": 0.1, "method": "cohen",
                                       "noise": "gaussian", "space": "pixels"}),
    "space": (certify, CertifyConfig, {"n": 60, "noise": "gaussian"}),
    "predict": (predict, PredictConfig, {"n_max": 100}),
    "bf16": (predict, PredictConfig, {"n": 30, "precision": "bf16", "batch_size": 7}),
    "attack": (attack, AttackConfig, {"eps": "0.1,0.4", "m": "0,2", "steps": 2, "n": "20,50",
                                      "save_adversaries": True}),
    "target": (attack, AttackConfig, {"eps": 0.4, "m": 2, "steps": 2, "n": 20, "target": 3, "attack": "stein"}),
    "times": (attack, AttackConfig, {"eps_from": "fixed", "m": 2, "steps": 2, "n": 20}),
    "softmax": (attack, AttackConfig, {"eps": 0.4, "m": 2, "steps": 2, "n": 20, "answer": "softmax"}),
    "bounds": (distributional, DistributionalConfig, {"gamma": "0.5,9", "gamma_adv": 2, "n": 20, "search_option": {
        "steps": 2, "draws": 2, "check": 20}}),
    "estimates": (distributional, DistributionalConfig, {"gamma": 2, "loss": "cross-entropy", "search_option": {
        "steps": 2, "draws": 2, "check": 20}}),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    write_nets(folder, 2, OTHER)
    for name, (run, kind, options) in RUNS.items():
        more = {**options, **({"eps_from": folder / "fixed"} if name == "times" else {})}
        images = {} if "indices" in options else {"max_images": 4}
        run(kind.parse({"model": f"{folder}/nets.py:Means", "data": "digits", "sigma": 0.25, "seed": 1,
                          "out": folder / name, **images, **more}))
    return folder


def checked(store: Path, **more: Any) -> dict[str, list[str]]:
    """The problems of each check that found some."""
    found = verify(VerifyConfig.parse({"store": store, **more}))
    return {check.name: list(check.problems) for check in found.checks if check.problems}


def forged(source: Path, folder: Path, change, **identity: Any) -> Path:
    """A store like `source`, whole and with right hashes, whose records went through `change`."""
    stored = read_store(source)
    records = [Record.from_row(row) for row in stored.records.to_pylist()]
    write_store(folder, {**stored.identity.raw, **identity}, stored.provenance.raw, change(records))
    return folder


def first(**changes: Any):
    """Other values for the first record; a function of it, or the value itself."""
    def change(records: list[Record]) -> list[Record]:
        given = {name: value(records[0]) if callable(value) else value for name, value in changes.items()}
        return [replace(records[0], **given), *records[1:]]
    return change


def tally(number: int, **changes: Any):
    """Other values for one tally of the first record."""
    def tallies(record: Record) -> list[Tally]:
        return [replace(one, **changes) if k == number else one for k, one in enumerate(record.tallies)]
    return first(tallies=tallies)


@pytest.mark.parametrize("name", RUNS)
def test_what_a_run_left_is_right_and_is_drawn_again(home, name):
    more = {"eps_from": home / "fixed"} if name == "times" else {}
    assert checked(home / name, resample=4, model=f"{home}/nets.py:Means", **more) == {}


def test_answers_computed_again_are_right_too(home, tmp_path):
    for name in ("fixed", "radii"):
        stored = read_store(home / name)
        write_recertified(tmp_path / name, stored, *recertify(stored, alpha=0.01))
        assert checked(tmp_path / name) == {}
    model = f"{home}/nets.py:Means"
    assert checked(tmp_path / "fixed", resample=2, model=model) == {}
    with pytest.raises(InputError, match="certified again from the counts of another store"):
        checked(tmp_path / "radii", resample=2, model=model)
    distributional(DistributionalConfig.parse({"model": str(home / "fixed"), "out": tmp_path / "counted"}))
    assert checked(tmp_path / "counted") == {}
    with pytest.raises(InputError, match="made from the counts"):
        checked(tmp_path / "counted", resample=2, model=model)


@pytest.mark.parametrize(("name", "change", "check", "words"), [
    ("fixed", first(values=lambda r: {"radius": r.values["radius"] * (1 + 1e-12)}), "answers", "radius is"),
    ("fixed", first(values=lambda r: {"radius": r.values["radius"] * (1 - 1e-12)}), "answers", "radius is"),
    ("fixed", first(values={"radius": float("nan")}), "answers", "radius is"),
    ("fixed", first(values={"radius": float("inf")}), "answers", "radius is"),
    ("predict", first(values=lambda r: {"p_value": r.values["p_value"] * (1 - 1e-9)}), "answers", "p_value is"),
    ("fixed", first(prediction=lambda r: (r.prediction + 1) % 10), "answers", "prediction is"),
    ("predict", first(values=lambda r: {"p_value": r.values["p_value"] / 2}), "answers", "p_value is"),
    ("fixed", first(prediction=10), "images", "prediction 10 is not a class"),
    ("fixed", first(label=-1), "images", "label -1 is not a class"),
    ("fixed", first(index=6), "images", "of image 6, and image 5 belongs"),
    ("fixed", lambda records: records[::-1], "images", "of image 14, and image 5 belongs"),
    ("fixed", lambda records: [records[0], *records[:-1]], "images", "of image 5, and image 8 belongs"),
    ("fixed", tally(1, n=61), "tallies", "do not add up"),
    ("fixed", tally(1, classes=[10], counts=[60]), "tallies", r"outside \[0, 10\)"),
    ("fixed", tally(1, classes=[4, 2], counts=[50, 10]), "tallies", "in order"),
    ("fixed", tally(1, classes=[2, 4], counts=[70, -10]), "tallies", "in order"),
    ("fixed", tally(1, n=50, classes=[3], counts=[50]), "tallies", "look of stage estimate at 50 .* estimate at 60"),
    ("fixed", tally(1, stage="select"), "tallies", "stage select at 60 .* has estimate at 60"),
    ("fixed", first(tallies=lambda r: [*r.tallies, r.tallies[1]]), "tallies", "where the procedure has stopped"),
    ("fixed", first(tallies=lambda r: r.tallies[:1]), "tallies", "stops where the procedure draws 60 more"),
    ("radii", first(tallies=lambda r: r.tallies[:1]), "tallies", "stops where the procedure draws 100 more"),
    ("attack", tally(1, classes=[8, 9], counts=[25, 25]), "tallies", "missing in the next"),
    ("attack", first(values=lambda r: {**r.values, "eps": 0.1}), "settings", r"eps is 0.1, and the run has 0.0"),
    ("attack", first(values=lambda r: {**r.values, "l2": 0.1}), "settings", "and yet the image was moved"),
    ("attack", first(values=lambda r: {**r.values, "attacked": 11}), "settings", "class 11 was attacked"),
    ("softmax", first(values=lambda r: {**r.values, "p_value": 0.1}), "settings", "no p-value"),
    ("bounds", first(values=lambda r: {**r.values, "loss": 1e-3}), "settings", "ceiling times mean"),
    ("bounds", first(values=lambda r: {**r.values, "gamma": 0.5}), "settings", "gamma is 0.5, and the run has None"),
    ("bounds", first(tallies=[Tally("predict", 1, [1], [1])]), "tallies", "has none"),
])
def test_a_changed_record_is_named_though_every_hash_is_right(home, tmp_path, name, change, check, words):
    problems = checked(forged(home / name, tmp_path / "s", change))[check]
    assert any(re.search(words, problem) for problem in problems), problems
    assert all(problem.startswith("record 0 (image") or check == "images" for problem in problems)


@pytest.mark.parametrize(("identity", "words"), [
    ({"procedure": {"method": "cohen", "margin": None, "alpha": 0.1, "n": 3}}, "needs n0"),
    ({"procedure": {"method": "best", "margin": None, "alpha": 0.1, "n0": 3, "n": 3}}, "unknown method"),
    ({"images": {}}, "images.count"), ({"images": {"count": 4}}, "does not say what run"),
    ({"images": {"count": 4, "indices": [5, 8]}}, "does not say what run"), ({"images": {"count": 0}}, "no images"),
    ({"noise": {"kind": "grit", "sigma": 0.25}}, "unknown noise"), ({"num_classes": None}, "num_classes"),
])
def test_an_identity_that_is_none_is_said(home, tmp_path, identity, words):
    shutil.copytree(home / "fixed", tmp_path / "s")
    change_manifest(tmp_path / "s", lambda manifest: manifest["identity"].update(identity))
    assert words in checked(tmp_path / "s")["manifest"][0]


def test_everything_that_is_wrong_is_told_at_once(tmp_path, monkeypatch):
    """Three shards: a wrong radius in the first, one damaged, one gone."""
    monkeypatch.setattr(stores_module, "SHARD", 128)
    store = made(tmp_path / "s", count=300)
    wrong = forged(store, tmp_path / "w", first(values={"radius": 9.0}))
    content = (wrong / "shard-00001.parquet").read_bytes()
    (wrong / "shard-00001.parquet").write_bytes(content[:-1] + b"x")
    (wrong / "shard-00002.parquet").unlink()
    found = checked(wrong)
    assert [Path(problem.split()[2]).name for problem in found["shards"]] == ["shard-00001.parquet",
                                                                             "shard-00002.parquet"]
    assert "172 of 300 records are missing" in found["records"][0]
    assert "the first at position 128" in found["records"][0]
    assert found["answers"][0].startswith("record 0 (image 0): radius is 9.0")
    assert set(found) == {"shards", "records", "answers"}


def test_a_shard_named_twice_or_of_another_place_is_seen(tmp_path):
    store = made(tmp_path / "s", count=300)

    def doubled(manifest):
        manifest["shards"] = [manifest["shards"][0]] * 2

    def misplaced(manifest):
        manifest["shards"][1]["name"] = "shard-00007.parquet"

    for change, words in ((doubled, "is in the manifest twice"), (misplaced, "is none of a store of 300 records")):
        shutil.copytree(store, tmp_path / change.__name__)
        change_manifest(tmp_path / change.__name__, change)
        found = checked(tmp_path / change.__name__)
        assert words in found["shards"][0]
        assert "44 of 300 records are missing" in found["records"][0]


def test_an_unfinished_store_is_checked_as_far_as_it_goes(home, tmp_path):
    stored = read_store(home / "fixed")
    records = [Record.from_row(row) for row in stored.records.to_pylist()]
    with open_store(tmp_path / "s", stored.identity, {}) as writer:
        for position in (0, 2):
            writer.add(position, replace(records[position], prediction=-1))
    found = checked(tmp_path / "s")
    assert "2 of 4 records are missing" in found["records"][0]
    assert "at position 1" in found["records"][0]
    assert "is not complete" in found["records"][1]
    assert [problem[:8] for problem in found["answers"]] == ["record 0", "record 2"]


def test_attacked_images_that_changed_are_named(home, tmp_path):
    shutil.copytree(home / "attack", tmp_path / "s")
    files = sorted((tmp_path / "s" / "adversaries").iterdir())
    files[0].write_bytes(files[0].read_bytes()[:-4] + b"abcd")
    files[1].unlink()
    (problems,) = checked(tmp_path / "s").values()
    assert [files[k].name in problem for k, problem in enumerate(problems)] == [True, True]
    (tmp_path / "s" / "adversaries.json").unlink()
    assert "adversaries.json is missing" in checked(tmp_path / "s")["adversaries"][0]


@pytest.mark.parametrize("name", ["fixed", "predict"])
def test_last_bits_of_another_processor_are_no_problem(home, tmp_path, name):
    """Records as a processor without AVX512 leaves them: equal votes, and values that differ in the last bit."""
    def rounded(records):
        return [replace(record, values={key: float(np.nextafter(value, value + (-1) ** i)) if value else value
                                        for key, value in record.values.items()})
                for i, record in enumerate(records)]

    forged(home / name, tmp_path / "s", rounded)
    assert read_store(tmp_path / "s").records != read_store(home / name).records
    assert checked(tmp_path / "s") == {}
    assert checked(tmp_path / "s", resample=3, model=f"{home}/nets.py:Means") == {}


def test_votes_that_were_never_drawn_are_found_by_resampling(home, tmp_path):
    """Consistent in itself: only the seed knows."""
    def unanimous(records):
        votes, p_value = Tally("predict", 30, [7], [30]), float(predict_counts([0, 30], 0.001).p_value)
        return [replace(record, prediction=7, values={"p_value": p_value}, tallies=[votes]) for record in records]

    forged(home / "bf16", tmp_path / "s", unanimous)
    assert checked(tmp_path / "s") == {}
    found = verify(VerifyConfig.parse({"store": tmp_path / "s", "resample": 3, "model": f"{home}/nets.py:Means"}))
    assert any("tallies is [{'stage': 'predict', 'n': 30, 'classes': [7]" in one for one in found.problems)
    assert found.checks[-1].told == "3 records drawn again"  # where the run was: on a CPU


def test_another_model_is_refused_with_both_hashes(home):
    hashes = read_store(home / "fixed").identity.model.sha256
    with pytest.raises(IdentityError, match=rf"model\.sha256: the store has '{hashes}', here it is '[0-9a-f]{{64}}'"):
        checked(home / "fixed", resample=1, model=f"{home}/nets.py:Other")


def test_which_records_are_drawn_again_hangs_on_all_of_them(tmp_path):
    from smoothcert.verify.files import read_all
    from smoothcert.verify.resampling import _choose

    store = made(tmp_path / "s", count=300)
    other = forged(store, tmp_path / "o", first(label=lambda record: 9 - record.label))
    again, changed = (_choose(read_all(folder)[0], 10) for folder in (store, other))
    assert again == _choose(read_all(store)[0], 10) == sorted(set(again))
    assert again != changed
    assert _choose(read_all(store)[0], 999) == list(range(300))


def test_what_it_is_asked_is_checked(home, tmp_path):
    with pytest.raises(ConfigError, match="needs the model"):
        VerifyConfig.parse({"store": home / "fixed", "resample": 3})
    with pytest.raises(ConfigError, match="data-dir, model: only of use with resample"):
        VerifyConfig.parse({"store": home / "fixed", "model": "m", "data_dir": "d"})
    with pytest.raises(InputError, match="eps-from"):
        checked(home / "times", resample=1, model=f"{home}/nets.py:Means")
    for folder, words in ((tmp_path, "is not a store"), (tmp_path / "none", "there is no store")):
        with pytest.raises(FileError, match=words):
            checked(folder)


def test_the_command_says_what_it_checked_and_fails_if_wrong(home, tmp_path):
    told = CliRunner().invoke(app, ["verify", str(home / "fixed")])
    assert told.exit_code == 0
    assert told.output.splitlines()[-1] == "nothing is wrong"
    assert "4 computed again from their votes, equal up to rounding" in told.output
    wrong = forged(home / "fixed", tmp_path / "s", lambda records: [replace(r, prediction=-1) for r in records])
    told = CliRunner().invoke(app, ["verify", str(wrong)])
    assert told.exit_code == 1
    assert told.output.splitlines()[-1] == "4 problems found"
    told = CliRunner().invoke(app, ["verify", str(wrong), "--json"])
    assert told.exit_code == 1
    content = json.loads(told.stdout)
    assert not content["ok"]
    assert [len(check["problems"]) for check in content["checks"] if check["name"] == "answers"] == [4]
    content = json.loads(CliRunner().invoke(app, ["verify", str(home / "attack"), "--json"]).stdout)
    assert content["ok"]
    assert [check["name"] for check in content["checks"]] == ["manifest", "shards", "records", "images", "tallies",
                                                              "answers", "settings", "adversaries"]


CLOSE = """
import os
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(2))

    def forward(self, x):
        gap = 1e-3 * torch.sin(50 * x.flatten(1).sum(dim=1)) + (2e-4 if os.environ.get("FLIP") else 0)
        return torch.stack([10 + gap, 10 - gap, *[torch.zeros_like(gap)] * 8], dim=1)
"""
"""A third of its votes are close calls, of which FLIP turns some, as another device might."""


@pytest.fixture
def on_gpu(tmp_path, monkeypatch):
    """Makes stores that say they were made on a GPU, whose close calls went the other way."""
    (tmp_path / "close.py").write_text(CLOSE)

    def make(name: str, **more: Any) -> dict[str, Any]:
        run, kind, options = RUNS[name]
        monkeypatch.setenv("FLIP", "1")
        given = {**options, "max_images": 4, "noise_format": "philox-v1", "sigma": 0.25, "seed": 1, "data": "digits",
                 "model": f"{tmp_path}/close.py:Net", "model_id": "net", "out": tmp_path / name, **more}
        given.pop("max_images" if "indices" in given else "", None)
        run(kind.parse(given))
        monkeypatch.delenv("FLIP")
        change_manifest(tmp_path / name, lambda content: content["identity"].update(device="cuda", engine="compile"))
        return {"store": tmp_path / name, "resample": 4, "model": given["model"]}

    return make


@pytest.mark.parametrize("name", ["radii", "predict", "curve"])
def test_a_gpus_store_is_drawn_again_on_a_cpu(on_gpu, name):
    found = verify(VerifyConfig.parse(on_gpu(name)))
    assert found.problems == []
    told = found.checks[-1].told
    assert re.search(r"on a CPU, which the run was not on, equal but for [\d,]+ votes of close calls", told)


def test_other_votes_than_close_calls_are_wrong_there_too(on_gpu):
    """Another seed's votes, of a store that says it was drawn with this one's."""
    given = on_gpu("predict", seed=2)
    change_manifest(given["store"], lambda content: content["identity"].update(seed=1))
    assert any("tallies is" in problem for problem in checked(**given)["resampled"])


@pytest.mark.parametrize(("name", "more", "message"), [
    ("attack", {}, "on another GPU alone: a CPU rounds gradients"),
    ("bf16", {}, "on another GPU alone: in bf16 a CPU gives other votes"),
    ("predict", {"workers": 2}, "one process counts the close calls: leave workers out"),
])
def test_what_another_device_cannot_draw_again_is_said(on_gpu, name, more, message):
    given = on_gpu(name)
    with pytest.raises(InputError, match=message):
        verify(VerifyConfig.parse({**given, **more}))
