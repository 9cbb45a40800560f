"""The images of a store are found wherever its run found them, and never others."""

import json
import shutil

import numpy as np
import pytest

from image_files import hub_table, pixels, write, write_images
from smoothcert.data import DATA_DIR_VARIABLE
from smoothcert.errors import InputError
from smoothcert.results.gather import gather_page
from smoothcert.runs.certify import certify
from smoothcert.runs.options import CertifyConfig
from smoothcert.runs.reopen import reopen_data
from smoothcert.store.recertify import recertify, write_recertified
from smoothcert.store.source import NAME
from smoothcert.store.store import read_store
from smoothcert.verify.options import VerifyConfig
from smoothcert.verify.verify import verify

MODEL = "import torch\n\ndef build():\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))\n"
OPTIONS = {"model": "net.py:build", "sigma": 0.25, "n": 10, "n0": 10, "seed": 0, "threads": 1, "engine": "eager"}


def make_run(project, monkeypatch, **options):
    """A run in a project's folder, over data that are named relative to it."""
    for k, name in enumerate(("cat", "dog")):
        write_images(project / "pets" / "test" / name, list(pixels(4, 8, 8, 3, seed=k)))
    (project / "net.py").write_text(MODEL)
    monkeypatch.chdir(project)
    return certify(CertifyConfig.parse({
        **OPTIONS, "data": "imagefolder:pets", "out": project / "runs" / "s", **options}))


@pytest.fixture
def project(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    make_run(folder, monkeypatch)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return folder


def images_of(folder):
    store = read_store(folder)
    found = reopen_data(store)
    assert found.fingerprint(np.arange(8)) == store.identity.data.sha256
    return found


def test_data_named_relative_to_the_run_are_found_from_elsewhere(project):
    images_of(project / "runs" / "s")
    (run,), *_ = gather_page([str(project / "runs" / "s")], reopen_data)
    assert len(run.gallery.clean) == 8
    assert "project" not in (project / "runs" / "s" / "manifest.json").read_text(), "the store itself names no folder"


def test_a_store_that_was_moved_alone_or_with_its_data_finds_them(project, tmp_path):
    shutil.copytree(project / "runs" / "s", tmp_path / "copied")
    images_of(tmp_path / "copied")
    project.rename(tmp_path / "renamed")
    images_of(tmp_path / "renamed" / "runs" / "s")


def test_without_the_note_they_are_found_beside_the_store_or_here(project, tmp_path, monkeypatch):
    (project / "runs" / "s" / NAME).unlink()
    images_of(project / "runs" / "s")
    shutil.move(project / "pets", tmp_path / "elsewhere" / "pets")
    images_of(project / "runs" / "s")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as told:
        images_of(project / "runs" / "s")
    for place in (tmp_path / "pets", project / "pets", project / "runs" / "pets"):
        assert str(place) in str(told.value)
    reopen_data(read_store(project / "runs" / "s"), data_dir=tmp_path / "elsewhere")


def test_resize_is_remembered(tmp_path, monkeypatch):
    store = make_run(tmp_path / "p", monkeypatch, resize=8, crop=8)
    monkeypatch.chdir(tmp_path)
    images_of(store.folder)
    (store.folder / NAME).unlink()
    with pytest.raises(InputError, match="not their SHA-256"):
        images_of(store.folder)


def test_other_images_are_never_shown(project, tmp_path):
    """Not those of another folder that a note names, nor others that lie where the run's did."""
    note = project / "runs" / "s" / NAME
    shutil.copytree(project / "pets", tmp_path / "private")
    shutil.move(project / "pets", tmp_path / "away")
    note.write_text(json.dumps({"data": "imagefolder", "place": str(tmp_path / "private")}))
    with pytest.raises(InputError, match="was not found"):
        images_of(project / "runs" / "s")
    for k, name in enumerate(("cat", "dog")):
        write_images(project / "pets" / "test" / name, list(pixels(4, 8, 8, 3, seed=9 + k)))
    with pytest.raises(InputError, match="not their SHA-256"):
        images_of(project / "runs" / "s")
    shutil.copytree(tmp_path / "away", tmp_path / "elsewhere" / "pets")
    images_of(project / "runs" / "s")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"data": 3}', '{"data": "imagefolder", "place": "\\u0000"}'])
def test_a_damaged_note_is_none(project, content):
    (project / "runs" / "s" / NAME).write_text(content)
    images_of(project / "runs" / "s")


def test_recomputed_certificates_find_the_images_too(project, tmp_path):
    store = read_store(project / "runs" / "s")
    write_recertified(tmp_path / "far" / "again", store, *recertify(store, 0.01))
    images_of(tmp_path / "far" / "again")


@pytest.mark.parametrize("variable", [True, False])
def test_the_folder_of_a_named_set_is_remembered(tmp_path, monkeypatch, variable):
    (tmp_path / "p").mkdir()
    write(tmp_path / "p" / "sets" / "mnist" / "test.parquet", hub_table(pixels(6, 28, 28), [0, 1, 2, 3, 4, 9]))
    monkeypatch.delenv(DATA_DIR_VARIABLE, raising=False)
    told = {"data": "mnist"} if variable else {"data": "mnist", "data_dir": "sets"}
    monkeypatch.chdir(tmp_path / "p")
    if variable:
        monkeypatch.setenv(DATA_DIR_VARIABLE, "sets")
    (tmp_path / "p" / "net.py").write_text(MODEL.replace("192, 2", "784, 10"))
    store = certify(CertifyConfig.parse({**OPTIONS, **told, "out": "s"}))
    monkeypatch.delenv(DATA_DIR_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    store = read_store(tmp_path / "p" / "s")
    assert reopen_data(store).fingerprint(np.arange(6)) == store.identity.data.sha256
    shutil.rmtree(tmp_path / "p" / "sets")
    with pytest.raises(InputError, match=f"there is no {tmp_path}/p/sets\\): give --data-dir"):
        reopen_data(store)


def test_a_check_draws_from_the_named_set_that_the_run_found(tmp_path, monkeypatch):
    """And not from another that the variable leads to."""
    for place, seed in (("p", 0), ("other", 1)):
        write(tmp_path / place / "mnist" / "test.parquet", hub_table(pixels(6, 28, 28, seed=seed), [0, 1, 2, 3, 4, 9]))
    seeded = MODEL.replace("192, 2", "784, 10").replace("return", "torch.manual_seed(0)\n    return")
    (tmp_path / "net.py").write_text(seeded)
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path / "other"))
    options = {**OPTIONS, "model": f"{tmp_path}/net.py:build"}
    certify(CertifyConfig.parse({**options, "data": "mnist", "data_dir": tmp_path / "p", "out": tmp_path / "s"}))
    asked = VerifyConfig.parse({"store": tmp_path / "s", "model": options["model"], "resample": 2})
    assert not verify(asked).problems


def test_images_that_lie_in_no_file_leave_no_note(tmp_path):
    (tmp_path / "net.py").write_text(MODEL.replace("192, 2", "64, 10"))
    store = certify(CertifyConfig.parse({
        **OPTIONS, "model": f"{tmp_path}/net.py:build", "data": "digits", "max_images": 2, "out": tmp_path / "s"}))
    assert not (store.folder / NAME).exists()
    assert len(reopen_data(store)) == 359
