"""Transfers: certificates of a network from the store of another one, whatever stops them, and what is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import smoothcert
from nets import write_nets
from smoothcert.cli.main import app
from smoothcert.data import load_data
from smoothcert.errors import ConfigError, InputError, SmoothcertError, StoreError
from smoothcert.noise import build_noise
from smoothcert.report.html.facts import settings
from smoothcert.results.gather import gather_page
from smoothcert.results.transfers import Transferred
from smoothcert.runs.certify import certify, predict
from smoothcert.runs.options import CertifyConfig, PredictConfig
from smoothcert.runs.transfer import STAGE, transfer
from smoothcert.runs.transfer_options import TransferConfig
from smoothcert.stats.transfer import PAIRED, tally_pairs
from smoothcert.store.recertify import errors_in, recertify, write_recertified
from smoothcert.store.store import read_store
from smoothcert.verify.options import VerifyConfig
from smoothcert.verify.verify import verify
from stores import change_manifest

CLI = Path(sys.executable).parent / "smoothcert"
MORE = """

class Coarse(Means):
    def __init__(self):
        super().__init__()
        self.last.weight.data = (self.last.weight.data * 6).round() / 6

class Slow(Coarse):
    def forward(self, x):
        import os, time
        time.sleep(float(os.environ.get("SLOW", 0)))
        return super().forward(x)

class Two(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.last = torch.nn.Linear(64, 2)
    def forward(self, x):
        return self.last(x.flatten(1))
"""
DESIGNS = {
    "fixed": {"n": 2000, "n0": 50},
    "radii": {"n_max": 800, "radii": "0.05,0.15", "method": "cohen"},
    "curve": {"n_max": 2000, "n0": 50, "curve_loss": 0.2, "noise": "gaussian", "space": "pixels"},
    "margin": {"n": 600, "n0": 50, "margin": 0.05, "noise": "sound"},
    "bf16": {"n": 600, "n0": 50, "precision": "bf16", "batch_size": 50},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    write_nets(folder, 2, MORE)
    for name, options in DESIGNS.items():
        certify(CertifyConfig.parse({"model": f"{folder}/nets.py:Means", "data": "digits", "sigma": 0.25, "seed": 1,
                                     "every": 40, "max_images": 6, "out": folder / name, **options}))
    return folder


def config(home: Path, out: Path, design: str = "fixed", model: str = "Coarse", **options) -> TransferConfig:
    return TransferConfig.parse({"store": home / design, "model": f"{home}/nets.py:{model}", "n": 700, "out": out,
                                 "original": f"{home}/nets.py:Means", **options})


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


def problems(store: Path, **more) -> list[str]:
    return verify(VerifyConfig.parse({"store": store, **more})).problems


@pytest.mark.parametrize("design", DESIGNS)
def test_what_it_leaves_is_right_and_is_drawn_again(home, tmp_path, design):
    store = transfer(config(home, tmp_path / "t", design))
    source = read_store(home / design)
    assert store.identity.procedure.design == "transfer"
    assert store.identity.transferred_from.digest == source.identity.digest
    assert store.identity.noise == source.identity.noise
    assert (store.column("radius") <= source.column("radius")).all()
    assert (store.column("radius") > 0).any()
    for ours, theirs in zip(store.histories(), source.histories(), strict=True):
        assert all(np.array_equal(a.counts, b.counts) for a, b in zip(ours, theirs, strict=False))
        assert [look.stage for look in ours[len(theirs):]] in ([], list(PAIRED))
    model = {"model": f"{home}/nets.py:Coarse", "original": f"{home}/nets.py:Means"}
    assert problems(tmp_path / "t", resample=3, original_store=home / design, **model) == []
    for alpha, larger in ((0.01, True), (0.0001, False)):
        answers, procedure = recertify(store, alpha=alpha)
        assert ((answers.radius >= store.column("radius")) == larger)[store.column("radius") > 0].all()
        write_recertified(tmp_path / f"{alpha}", store, answers, procedure)
        assert problems(tmp_path / f"{alpha}") == []


def test_its_counts_are_those_of_both_networks_on_the_same_copies(home, tmp_path):
    store = transfer(config(home, tmp_path / "t"))
    data, noise = load_data("digits"), build_noise("grid", 0.25, 16)
    nets = [smoothcert.load_model(f"{home}/nets.py:{name}").model.eval() for name in ("Means", "Coarse")]
    for index, history in zip(store.column("index").tolist(), store.histories(), strict=True):
        centre = noise.centre(data.image(index))
        rows = np.empty((700, 64), np.float32)
        noise.fill(rows, centre, noise.stream(1, index, STAGE, centre))
        votes = [net(torch.from_numpy(rows).view(-1, 1, 8, 8)).argmax(1).numpy() for net in nets]
        expected = tally_pairs(*votes, int(history[0].counts.argmax()), 10)
        assert np.array_equal([look.counts for look in history[3:]], expected)


@pytest.mark.slow
def test_stops_batches_and_processes_change_nothing(home, tmp_path):
    whole = transfer(config(home, tmp_path / "whole"))

    class Stop(Exception):
        pass

    def stop(event) -> None:
        if event.done >= 3 and event.phase == "sampling":
            raise Stop

    with pytest.raises(Stop):
        transfer(config(home, tmp_path / "parts"), stop)
    assert 0 < read_store(tmp_path / "parts").num_records < whole.num_records
    transfer(config(home, tmp_path / "parts"))
    transfer(config(home, tmp_path / "small", batch_size=7))
    transfer(config(home, tmp_path / "two", workers=2))
    for name in ("parts", "small", "two"):
        assert shards(tmp_path / name) == shards(tmp_path / "whole")


@pytest.mark.slow
def test_a_killed_transfer_goes_on(home, tmp_path):
    words = [CLI, "transfer", home / "fixed", f"{home}/nets.py:Slow", "--original", f"{home}/nets.py:Means",
             "--n", "700", "--quiet", "-o"]
    process = subprocess.Popen([*map(str, words), str(tmp_path / "killed")], env={**os.environ, "SLOW": "0.1"})
    while not (tmp_path / "killed" / "journal.jsonl").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not read_store(tmp_path / "killed").complete
    for name in ("killed", "whole"):
        transfer(config(home, tmp_path / name, model="Slow"))
    assert shards(tmp_path / "killed") == shards(tmp_path / "whole")


def test_another_precision_of_one_network_needs_no_original(home, tmp_path):
    plain = {"original": None, "model": "Means"}
    store = transfer(config(home, tmp_path / "t", **plain, precision="bf16", batch_size=50))
    assert (store.identity.precision, store.identity.transferred_from.precision) == ("bf16", "float32")
    back = transfer(config(home, tmp_path / "back", "bf16", **plain))
    assert (back.identity.precision, back.identity.transferred_from.precision) == ("float32", "bf16")
    for design, options in (("fixed", {}), ("bf16", {"precision": "bf16", "batch_size": 50})):
        with pytest.raises(InputError, match="itself, in the same precision"):
            transfer(config(home, tmp_path / "x", design, **plain, **options))
    assert not (tmp_path / "x").exists()


def test_images_may_be_chosen_among_those_of_the_store(home, tmp_path):
    store = transfer(config(home, tmp_path / "t", max_images=3))
    every = read_store(home / "fixed").column("index")
    assert store.column("index").tolist() == every[[0, 2, 5]].tolist()
    with pytest.raises(InputError, match="image 1 is not in"):
        transfer(config(home, tmp_path / "x", indices="0,1"))


def test_what_cannot_be_transferred_is_refused_before_any_work(home, tmp_path):
    model, stored = f"{home}/nets.py:Means", read_store(home / "radii")
    predict(PredictConfig.parse({"model": model, "data": "digits", "sigma": 0.25, "n": 50, "max_images": 2,
                                 "out": home / "predicted"}))
    write_recertified(home / "again", stored, *recertify(stored, alpha=0.01))
    transfer(config(home, home / "transferred", max_images=2))
    shutil.copytree(home / "fixed", home / "part", dirs_exist_ok=True)
    change_manifest(home / "part", lambda manifest: manifest.update(complete=False))
    for design, options, error, words in (
        ("predicted", {}, StoreError, "of kind predict"),
        ("again", {}, StoreError, "certified again from the counts of another store"),
        ("transferred", {}, StoreError, "was itself transferred"),
        ("part", {}, StoreError, "not complete"),
        ("fixed", {"sigma": 0.5}, InputError, "sigma is 0.5, but .* has 0.25"),
        ("fixed", {"num_classes": 9}, InputError, "num_classes is 9"),
        ("fixed", {"split": "train"}, InputError, "other images"),
        ("fixed", {"noise": "gaussian"}, InputError, "the noise is another one"),
        ("fixed", {"original": f"{home}/nets.py:Coarse"}, InputError, "is not the network of"),
        ("fixed", {"original": None}, InputError, "name the store's network by original"),
        ("fixed", {"model": "Two"}, SmoothcertError, "2 scores"),
    ):
        with pytest.raises(error, match=words):
            transfer(config(home, tmp_path / "x", design, **options))
    assert not (tmp_path / "x").exists()


def test_all_mistakes_in_the_options_are_told_at_once(home, tmp_path):
    with pytest.raises(ConfigError) as caught:
        config(home, tmp_path, share=1.5, n=0)
    assert len(caught.value.problems) == 2
    with pytest.raises(ConfigError, match=r"original-option takes weights.*got depth"):
        config(home, tmp_path, original_option={"depth": 3})
    with pytest.raises(ConfigError, match="leaves no part of it to the flips"):
        config(home, tmp_path, method="t-certify")


def test_a_changed_look_of_the_original_is_named(home, tmp_path):
    transfer(config(home, tmp_path / "t"))
    other = tmp_path / "other"
    certify(CertifyConfig.parse({"model": f"{home}/nets.py:Means", "data": "digits", "sigma": 0.25, "seed": 2,
                                 "every": 40, "max_images": 6, "out": other, **DESIGNS["fixed"]}))
    assert problems(tmp_path / "t", original_store=home / "fixed") == []
    assert "from another store" in problems(tmp_path / "t", original_store=other)[0]
    with pytest.raises(InputError, match="was not transferred from another store"):
        problems(other, original_store=home / "fixed")


def test_the_gain_is_shown_and_its_votes_serve_for_nothing_else(home, tmp_path):
    store = transfer(config(home, tmp_path / "t"))
    found = Transferred.of(store, [0.0, 0.1])
    original, transferred, direct, twice = found.lines
    right = store.column("prediction") == store.column("label")
    assert transferred.acr == pytest.approx(np.where(right, store.column("radius"), 0).mean())
    assert original.acr >= transferred.acr
    assert twice.acr >= direct.acr
    assert twice.is_estimate
    assert 0 < found.harmful < 0.2
    assert found.gain == transferred.acr / direct.acr
    with pytest.raises(StoreError, match="was not transferred"):
        Transferred.of(read_store(home / "fixed"))
    with pytest.raises(StoreError, match="was transferred"):
        errors_in(store)
    for words in (["cost", tmp_path / "t", "--images", "9"], ["export", tmp_path / "t", "-o", tmp_path / "x.npz"],
                  ["plot", "scatter", tmp_path / "t", "-o", tmp_path / "x.svg"]):
        assert CliRunner().invoke(app, [str(word) for word in words]).exit_code


def test_the_command_the_function_and_the_page_say_which_network_it_is(home, tmp_path):
    words = ["transfer", home / "fixed", f"{home}/nets.py:Coarse", "--original", f"{home}/nets.py:Means", "--n", 700,
             "--quiet", "-o", tmp_path / "t", "--radii", "0.1"]
    said = CliRunner().invoke(app, [str(word) for word in words])
    assert said.exit_code == 0
    assert "direct, the same 700 copies" in said.output
    assert "transferred from the certificates of" in said.output
    told = json.loads(CliRunner().invoke(app, [*map(str, words), "--json"]).stdout)
    assert [line["certifies"] for line in told["transfer"]["lines"]] == ["original", *["other"] * 3]
    store = smoothcert.transfer(home / "fixed", f"{home}/nets.py:Coarse", original=f"{home}/nets.py:Means", n=700)
    assert store.records.equals(read_store(tmp_path / "t").records)
    (run,) = gather_page([str(tmp_path / "t")], None).runs
    lines = dict(settings(run))
    assert lines["certified in"] == "float32"
    assert read_store(home / "fixed").identity.digest in lines["transferred from"]


def test_stores_in_memory_and_networks_as_objects_can_be_given():
    network, other = (torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2)).eval() for _ in range(2))
    other.load_state_dict({name: (64 * value).round() / 64 for name, value in network.state_dict().items()})
    data = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0)), [0, 1, 0, 1]
    store = smoothcert.certify(network, data, sigma=0.1, n=300, seed=0, noise="gaussian")  # in the space of its law
    found = smoothcert.transfer(store, other, data, original=network, n=200)
    assert (found.identity.space, found.num_records) == ("pixels", 4)
