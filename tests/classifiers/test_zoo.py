"""The zoo: names and what they lead to, weights in few bytes, and that each entry is what it says."""

import importlib.util
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner

from smoothcert.classifiers.card import ModelCard, write_card
from smoothcert.classifiers.classifier import open_classifier
from smoothcert.classifiers.folder import (
    build_network,
    compact,
    expand,
    read_card,
    read_network,
    write_compact_model,
    write_weights,
)
from smoothcert.cli.main import app
from smoothcert.config.sampling import RunConfig
from smoothcert.data import load_data
from smoothcert.errors import FileError, IdentityError, InputError, ModelError, UnknownNameError
from smoothcert.io import paths
from smoothcert.io.files import sha256
from smoothcert.io.paths import place
from smoothcert.runs.certify import certify
from smoothcert.runs.options import CertifyConfig
from smoothcert.runs.reopen import reopen_answers
from smoothcert.store.store import read_store
from smoothcert.training.options import TrainConfig
from smoothcert.training.train import train
from smoothcert.verify.options import VerifyConfig
from smoothcert.verify.verify import verify

ROOT = Path(__file__).parents[2]
NAMES = sorted(card.parent.name for card in (ROOT / "zoo").glob("*/model.json"))
ENTRIES = pytest.mark.parametrize("name", NAMES or [
    pytest.param("", marks=pytest.mark.skip(reason="the zoo is in a checkout of the repository only"))])
MAKE = ROOT / "zoo" / "make.py"


def run(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, f"{done.output}\n{done.exception!r}"
    return done.output


def model_dir(folder: Path, model: str = "cnn", **options) -> Path:
    """A network with random weights and batch statistics, as if it were trained on digits at sigma .25."""
    card = ModelCard(model, options, (1, 8, 8), 10, load_data("digits").class_names, 16,
                     {"data": "digits", "resize": None, "crop": None}, 0.25, {"kind": "train"}, complete=True,
                     parameters=1)
    folder.mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(card)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    write_card(folder, card)
    write_weights(folder / "best.safetensors", network)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A zoo of two, `digits-cnn` and `digits-mlp`, and the directory that the first was made from."""
    folder = tmp_path_factory.mktemp("home")
    source = model_dir(folder / "source", width=4)
    write_compact_model(source, folder / "zoo" / "digits-cnn")
    write_compact_model(model_dir(folder / "mlp", "mlp", hidden=[8]), folder / "zoo" / "digits-mlp", "bf16")
    (folder / "zoo" / "notes").mkdir()
    return folder


@pytest.fixture
def entry(home, monkeypatch) -> Path:
    monkeypatch.setenv(paths.ZOO_DIR_VARIABLE, str(home / "zoo"))
    return home / "zoo" / "digits-cnn"


def identity(folder: Path | str) -> dict:
    return open_classifier(str(folder), (1, 8, 8), 10).identity


# Names


def test_a_name_leads_to_its_folder(entry):
    assert paths.zoo_names() == ["digits-cnn", "digits-mlp"]
    assert paths.local_path("zoo:digits-cnn") == entry
    assert place("zoo:digits-cnn/certificates") == entry / "certificates"
    assert TrainConfig.gather({"init": "zoo:digits-cnn", "out": "x"}).init == entry
    assert RunConfig.gather({"model": "", "denoiser": Path("zoo:digits-cnn"), "out": "x"}).denoiser == entry
    assert paths.local_path("zoo") == Path("zoo")


@pytest.mark.parametrize(("text", "words"), [
    ("zoo:digits-cmn", ['did you mean "digits-cnn"', "known: digits-cnn, digits-mlp"]),
    ("zoo:", ["known: digits-cnn"]), ("zoo:notes", ["known: digits-cnn"]), ("zoo:..", ["known: digits-cnn"]),
    ("zoo:build", ["unknown entry of the zoo 'build'"]),
])
def test_an_unknown_name_is_refused_with_the_known_ones(entry, tmp_path, text, words):
    for asked in (paths.local_path, place, read_network, lambda name: open_classifier(name, (1, 8, 8), 10)):
        with pytest.raises(UnknownNameError) as caught:
            asked(text)
        assert all(word in str(caught.value) for word in words)
    told = run("certify", text, "-o", tmp_path / "s", code=2)
    assert all(word in " ".join(told.split()) for word in words)
    run("train", "--init", text, "--sigma", "0.25", "-o", tmp_path / "m", code=2)
    run("table", f"{text}/certificates", code=2)
    assert not list(tmp_path.iterdir())


def test_a_path_cannot_leave_its_entry(entry):
    with pytest.raises(FileError, match="leads out"):
        paths.local_path("zoo:digits-cnn/../digits-mlp")


def test_where_there_is_no_zoo_the_error_says_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.delenv(paths.ZOO_DIR_VARIABLE, raising=False)
    monkeypatch.setattr(paths, "_CHECKOUT_ZOO", tmp_path / "lib" / "zoo")
    told = run("certify", "zoo:mnist-lenet-0.5", "-o", tmp_path / "s", code=1)
    assert "repository" in told
    assert paths.ZOO_DIR_VARIABLE in told
    for folder, words in ((tmp_path / "nowhere", "no such folder"), (tmp_path, "has no entries")):
        monkeypatch.setenv(paths.ZOO_DIR_VARIABLE, str(folder))
        with pytest.raises(FileError, match=words):
            paths.local_path("zoo:mnist-lenet-0.5")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("verb", [
    ["certify", "--n", "50"], ["predict", "--n", "50"], ["distributional", "--n", "20"],
    ["attack", "--eps", "0.1", "--m", "2", "--steps", "1", "--n", "20"],
])
def test_every_verb_takes_a_model_of_the_zoo(entry, tmp_path, verb):
    command = [*verb[:1], "zoo:digits-cnn", *verb[1:], "--max-images", "2", "--seed", "0", "-q"]
    run(*command, "-o", tmp_path / "s")
    store = read_store(tmp_path / "s")
    assert store.identity.model.raw == identity(entry)
    assert (store.identity.noise.sigma, store.identity.data.name) == (0.25, "digits")
    assert store.provenance.model == "zoo:digits-cnn"
    run(*verb[:1], entry, *command[2:], "-o", tmp_path / "s")  # another way to name it is the same run
    run("verify", tmp_path / "s", "--resample", "1", "--model", "zoo:digits-cnn", "-q")
    if verb[0] != "certify":
        return
    images = load_data("digits").batch([0, 1])
    assert (reopen_answers(store, "zoo:digits-cnn")(images) == reopen_answers(store, str(entry))(images)).all()
    with pytest.raises(IdentityError):
        certify(CertifyConfig.gather({"model": "zoo:digits-mlp", "n": 50, "max_images": 2, "out": tmp_path / "s"}))


def test_training_starts_from_the_zoo_and_takes_labels_from_it(entry, tmp_path):
    card = train(TrainConfig.gather({
        "init": "zoo:digits-cnn", "sigma": 0.25, "epochs": 1, "max_images": 64, "unlabelled": "digits",
        "max_unlabelled": 64, "pseudo_labels": "zoo:digits-mlp", "out": tmp_path / "m"}))
    assert (card.model, card.options) == ("cnn", {"width": 4})
    assert card.init == {"from": "zoo:digits-cnn", "weights": "best", "fresh": []}
    with pytest.raises(UnknownNameError, match="digits-mlp"):
        train(TrainConfig.gather({"sigma": 0.25, "unlabelled": "digits", "pseudo_labels": "zoo:mlp",
                                  "max_images": 64, "out": tmp_path / "n"}))


def test_info_and_table_read_an_entry(entry, tmp_path, monkeypatch):
    shutil.copytree(entry, tmp_path / "zoo" / "copy")
    monkeypatch.setenv(paths.ZOO_DIR_VARIABLE, str(tmp_path / "zoo"))
    run("certify", "zoo:copy", "--n", "50", "--max-images", "2", "-q", "-o", "zoo:copy/certificates")
    told = json.loads(run("info", "zoo:copy", "--json"))
    assert told["identity"]["compact"]["dtype"] == "int8"
    assert "2 images" in run("table", "zoo:copy/certificates")


# Weights in few bytes


def test_int8_is_within_half_a_step_and_leaves_the_rest_alone(home):
    state = {"w": torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(0)), "bias": torch.randn(5),
             "zero": torch.zeros(2, 3), "tiny": torch.full((2, 3), 1e-45), "count": torch.tensor(7)}
    small = compact(state, "int8")
    full = expand(small, Path("x"))
    assert list(full) == list(state)
    assert small["w"].dtype == torch.int8
    assert small["w"].abs().flatten(1).amax(1).tolist() == [127] * 5
    step = small["w.scale"].view(-1, 1, 1, 1)
    assert torch.equal(small["w.scale"], state["w"].abs().flatten(1).amax(1) / 127)
    assert ((full["w"] - state["w"]).abs() <= step * (0.5 + 1e-5)).all()
    assert all(torch.equal(full[name], state[name]) for name in ("bias", "zero", "count"))
    assert full["tiny"].abs().max() < 1e-37


def test_the_network_is_an_ordinary_one_with_these_weights(home, tmp_path):
    """The entry is known by the weights that it has in float32, whatever file they come from."""
    source, made = home / "source", home / "zoo" / "digits-cnn"
    network, card = read_network(made)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    shutil.copytree(source, tmp_path / "plain")
    write_weights(tmp_path / "plain" / "best.safetensors", network)
    assert identity(made) == identity(made) == identity(tmp_path / "plain") != identity(source)
    origin = card.identity["compact"]
    assert origin == {"dtype": "int8", "sha256": sha256(source / "best.safetensors")}
    assert replace(card, identity={"kind": "train"}) == read_card(source)
    sizes = [(folder / "best.safetensors").stat().st_size for folder in (source, made)]
    assert sizes[1] < sizes[0]


def test_bfloat16_is_rounded_once(home):
    trained, stored = (read_network(folder)[0].state_dict() for folder in (home / "mlp", home / "zoo" / "digits-mlp"))
    for name, tensor in trained.items():
        assert torch.equal(stored[name], tensor.bfloat16().float() if tensor.dim() > 1 else tensor)
        assert stored[name].dtype == torch.float32


def test_what_cannot_be_made_compact_is_refused(home, tmp_path):
    with pytest.raises(InputError, match="compact already"):
        write_compact_model(home / "zoo" / "digits-cnn", tmp_path / "again")
    with pytest.raises(UnknownNameError, match="int8, bf16"):
        write_compact_model(home / "source", tmp_path / "x", "int4")
    with pytest.raises(FileError, match="no model folder"):
        write_compact_model(home / "nowhere", tmp_path / "x")
    with pytest.raises(ModelError, match="not all finite"):
        compact({"w": torch.tensor([[float("nan")]])}, "int8")
    assert not list(tmp_path.iterdir())
    with pytest.raises(IdentityError, match="compact"):
        train(TrainConfig.gather({"model": "cnn", "model_option": {"width": 4}, "sigma": 0.25, "max_images": 64,
                                  "out": home / "zoo" / "digits-cnn"}))


def first_scale(state: dict[str, torch.Tensor]) -> str:
    return next(name for name in state if name.endswith(".scale"))


@pytest.mark.parametrize(("damage", "words"), [
    (lambda state, name: state.pop(name), "they differ"),
    (lambda state, name: state.update({name: state[name].double()}), "one finite float32 number"),
    (lambda state, name: state.update({name: state[name][:1].clone()}), "one finite float32 number"),
    (lambda state, name: state.update({name: state[name] * float("inf")}), "one finite float32 number"),
    (lambda state, name: state.pop(name.removesuffix(".scale")), "they differ"),
    (None, "corrupt"),
])
def test_a_damaged_entry_is_refused_by_name(entry, tmp_path, monkeypatch, damage, words):
    shutil.copytree(entry, tmp_path / "zoo" / "hurt")
    monkeypatch.setenv(paths.ZOO_DIR_VARIABLE, str(tmp_path / "zoo"))
    path = tmp_path / "zoo" / "hurt" / "best.safetensors"
    if damage is None:
        path.write_bytes(path.read_bytes()[:-100])
    else:
        state = load_file(path)
        damage(state, first_scale(state))
        save_file(state, path)
    told = run("certify", "zoo:hurt", "--n", "50", "--max-images", "1", "-o", tmp_path / "s", code=1)
    assert words in told
    assert "best.safetensors" in told
    assert not (tmp_path / "s").exists()


# The entries


@pytest.fixture(scope="module")
def make():
    spec = importlib.util.spec_from_file_location("zoo_make", MAKE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not MAKE.is_file(), reason="the zoo is in a checkout of the repository only")
def test_an_entry_is_made_certified_and_told_of(home, make, tmp_path, monkeypatch, capsys):
    (tmp_path / "zoo").mkdir()
    monkeypatch.setenv(paths.ZOO_DIR_VARIABLE, str(tmp_path / "zoo"))
    make.main([str(home / "source"), "digits-cnn-0.25", "--every", "100", "--radii", "0,0.1", "--n-max", "200",
               "--note", "Only a test."])
    told = (tmp_path / "zoo" / "digits-cnn-0.25" / "README.md").read_text()
    same = re.search(r"answer to ([\d.]+) %", told)
    assert same
    assert 90 <= float(same[1]) <= 100
    assert "On 359 test images" in told
    assert same[0] in capsys.readouterr().out
    assert told.endswith("Only a test.\n")
    assert "| digits-cnn-0.25 | 4 | 0.25 |" in told
    assert (tmp_path / "docs" / "results" / "zoo.md").read_text().endswith(f"#{told}")
    monkeypatch.setattr(make, "MOST_BYTES", 1000)
    with pytest.raises(SystemExit, match="at most 1,000 bytes"):
        make.main([str(home / "source"), "digits-cnn-0.25", "--radii", "0.1"])


@ENTRIES
def test_an_entry_is_small_and_its_figures_are_its_stores(name, make, monkeypatch):
    monkeypatch.delenv(paths.ZOO_DIR_VARIABLE, raising=False)
    folder = ROOT / "zoo" / name
    assert make.weight_bytes(folder) <= 3_000_000
    store = read_store(folder / paths.CERTIFICATES)
    assert store.complete
    assert verify(VerifyConfig.gather({"store": folder / paths.CERTIFICATES})).problems == []
    told = (folder / "README.md").read_text(encoding="utf-8")
    assert make.table(name, store) in told
    card = read_card(folder)
    assert card.identity["compact"]["sha256"] in told
    assert store.identity.noise.sigma == card.sigma
    assert make.page() == (ROOT / "docs" / "results" / "zoo.md").read_text(encoding="utf-8")


@ENTRIES
def test_a_store_is_of_the_network_beside_it(name):
    """Of the same torch: the hash covers the source of the classes that a network is made of."""
    store = read_store(ROOT / "zoo" / name / paths.CERTIFICATES)
    made_by = store.provenance.versions["torch"].partition("+")[0]
    if made_by != torch.__version__.partition("+")[0]:
        pytest.skip(f"the store was made by torch {made_by}")
    card = read_card(ROOT / "zoo" / name)
    opened = open_classifier(str(ROOT / "zoo" / name), card.input_shape, card.num_classes)
    assert opened.identity == store.identity.model.raw


@pytest.mark.skipif("mnist-lenet-0.5" not in NAMES, reason="the zoo is in a checkout of the repository only")
def test_an_entry_certifies_images_of_its_shape_at_once(tmp_path, monkeypatch):
    monkeypatch.delenv(paths.ZOO_DIR_VARIABLE, raising=False)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    pq.write_table(pa.table({"image": pixels.tolist(), "label": [1, 2, 3]}), tmp_path / "test.parquet")
    run("certify", "zoo:mnist-lenet-0.5", "--data", f"parquet:{tmp_path}", "--n", "100", "-q", "-o", tmp_path / "s")
    store = read_store(tmp_path / "s")
    assert (len(store.records), store.num_classes, store.identity.noise.sigma) == (3, 10, 0.5)
