"""Ensembles by name: what they are the mean of, their identity, the runs they take, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from smoothcert import Ensemble, attack, build_model, certify, predict
from smoothcert.classifiers.card import ModelCard, write_card
from smoothcert.classifiers.classifier import open_classifier
from smoothcert.classifiers.ensembles import ensemble_card, read_ensemble
from smoothcert.classifiers.folder import read_network, write_weights
from smoothcert.errors import FileError, IdentityError, InputError, ModelError, SmoothcertError
from smoothcert.runs.inputs import model_title
from smoothcert.verify.options import VerifyConfig
from smoothcert.verify.verify import verify

SHAPE = (1, 8, 8)
NAMES = tuple("0123456789")


def write_member(folder: Path, seed: int, **changes) -> Path:
    card = ModelCard(model="mlp", options={"hidden": [8]}, input_shape=SHAPE, num_classes=10, class_names=NAMES,
                     levels=16, data={"data": "digits", "resize": None, "crop": None}, sigma=0.25, identity={},
                     epochs_done=1, complete=True)
    card = replace(card, **changes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_model(card.model, card.input_shape, card.num_classes, **card.options)
    folder.mkdir()
    write_weights(folder / "best.safetensors", network)
    write_card(folder, card)
    return folder


@pytest.fixture(scope="module")
def members(tmp_path_factory) -> list[Path]:
    place = tmp_path_factory.mktemp("members")
    return [write_member(place / name, seed) for seed, name in enumerate("abc")]


def spec(members: list[Path], kind: str = "soft-ensemble") -> str:
    return f"{kind}:{','.join(map(str, members))}"


def test_the_answers_are_the_means_and_a_folder_named_twice_counts_twice(members):
    images = torch.rand(5, *SHAPE)
    with torch.no_grad():
        answers = [open_classifier(str(member), SHAPE, 10).model(images) for member in members]
        hard = open_classifier(spec([*members, members[0]], "ensemble"), SHAPE, 10).model(images)
        soft = open_classifier(spec(members), SHAPE, 10).model(images)
    assert torch.allclose(hard, (2 * answers[0] + answers[1] + answers[2]) / 4, atol=1e-6)
    assert torch.allclose(soft.exp(), sum(answer.softmax(1) for answer in answers) / 3, atol=1e-6)


def test_identities_are_those_of_members_weights_and_kind(members, tmp_path):
    a, b, c = members
    moved = Path(shutil.copytree(a, tmp_path / "moved"))
    other = write_member(tmp_path / "other", 9)
    found = [open_classifier(one, SHAPE, 10).identity["sha256"] for one in (
        spec([a, b, c]), spec([moved, b, c]), spec([a, b, c], "ensemble"), spec([a, b]), spec([a, a, b, c]),
        spec([other, b, c]), spec([b, a, c]))]
    assert found[0] == found[1]
    assert len(set(found)) == 6


def test_what_members_share(members, tmp_path):
    card = ensemble_card(spec(members))
    assert (card.sigma, card.num_classes, card.data["data"]) == (0.25, 10, "digits")
    other = write_member(tmp_path / "other", 9, sigma=0.5)
    assert ensemble_card(spec([members[0], other])).sigma is None
    assert model_title(spec(members)) == "soft-ensemble:a,b,c"
    assert read_ensemble(spec(members))[0].training is False


@pytest.mark.parametrize(("changes", "words"), [
    ({"num_classes": 4, "class_names": NAMES[:4]}, r"other classes than .*4 classes \(0, 1, 2, 3\), and 10 classes"),
    ({"class_names": NAMES[::-1]}, "the same in another order"),
    ({"input_shape": (1, 6, 6)}, r"shape \(1, 6, 6\), but .* of \(1, 8, 8\)"),
    ({"denoiser": {"model": "direct"}}, "behind a denoiser.*--denoiser"),
])
def test_members_that_do_not_fit_are_refused_before_work_starts(members, tmp_path, changes, words):
    odd = write_member(tmp_path / "odd", 9, **changes)
    with pytest.raises(ModelError, match=words):
        certify(spec([*members, odd]), n=100, out=tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_all_that_does_not_fit_is_said_at_once(members, tmp_path):
    odd = write_member(tmp_path / "odd", 9, input_shape=(1, 6, 6), class_names=NAMES[::-1])
    with pytest.raises(ModelError, match=r"(?s)is no ensemble:.*takes inputs of shape.*other classes"):
        ensemble_card(spec([members[0], odd]))


@pytest.mark.parametrize(("model", "error", "words"), [
    (lambda a: f"ensemble:{a}", InputError, "names 1 model folder: .*at least two"),
    (lambda a: f"ensemble:{a},{a}", InputError, "at least two different"),
    (lambda a: "soft-ensemble:", InputError, "names no model folders"),
    (lambda a: f"ensemble:{a},,{a}2", InputError, "part 2 of the list .* is empty"),
    (lambda a: f"ensemble:{a},{a}2,", InputError, "part 3 of the list .* is empty"),
    (lambda a: f"ensemble:{a},/nowhere/at/all", FileError, "/nowhere/at/all"),
    (lambda a: f"ensemble:{a},zoo:no-such", SmoothcertError, "entry of the zoo"),
    (lambda a: f"ensemble:{','.join(f'{a}{k}' for k in range(99))}", FileError, "a0"),
])
def test_names_of_no_ensemble(members, tmp_path, model, error, words):
    with pytest.raises(error, match=words):
        certify(model(members[0]), n=100, out=tmp_path / "store")


def test_a_normalisation_is_refused(members, tmp_path):
    with pytest.raises(InputError, match="normalise inside"):
        certify(spec(members), mean=0.5, n=100, out=tmp_path / "store")


def test_it_certifies_predicts_is_attacked_and_verified(members, tmp_path):
    """By the same name in every verb; the store can be drawn anew, and is not one of another ensemble."""
    name, images = spec(members), {"max_images": 2, "seed": 1}
    store = certify(name, n=200, out=tmp_path / "store", **images)
    assert json.loads((tmp_path / "store" / "manifest.json").read_text())["provenance"]["model"] == model_title(name)
    assert certify(name, n=200, out=tmp_path / "store", **images).records.equals(store.records)
    checked = verify(VerifyConfig.parse({"store": tmp_path / "store", "model": name, "resample": 1}))
    assert not checked.problems
    with pytest.raises(IdentityError):
        certify(spec(members[:2]), n=200, out=tmp_path / "store", **images)
    assert len(predict(name, n=100, **images).records) == 2
    attacked = attack(name, eps=0.5, steps=2, m=2, n=100, **images)
    assert len(set(attacked.records["index"].to_pylist())) == 2
    assert attacked.folder.name == "soft-ensemble:a,b,c"


def test_one_that_is_given_in_python_has_the_counts_of_the_named_one(members):
    networks = [read_network(member)[0] for member in members]
    runs = [certify(model, "digits", sigma=0.25, n=300, max_images=2, seed=1) for model in (
        spec(members), Ensemble(networks, "probabilities"))]
    assert runs[0].records.equals(runs[1].records)
    assert runs[1].folder.name == "Ensemble"


@pytest.mark.parametrize("kind", ["ensemble", "soft-ensemble"])
def test_counts_are_equal_in_every_engine(members, tmp_path, kind):
    plain, eager = (certify(spec(members, kind), n=2000, max_images=2, seed=1, engine=engine).records
                    for engine in ("plain", "eager"))
    assert plain.equals(eager)
