"""What is sent to the hub, and what is refused before anything is."""

import json
import shutil

import pytest

from hub_server import TOKEN
from smoothcert.errors import ConfigError, FileError, HubError, InputError, MissingExtraError, StoreError
from smoothcert.hub.options import PushConfig
from smoothcert.hub.push import push
from smoothcert.io.files import read_json


def sent(folder, repo="me/net", **options):
    return push(PushConfig.parse({"folder": folder, "repo": repo, **options}))


def changed_requests(hub) -> list[str]:
    return [line for line in hub.requests if not line.startswith("GET")]


def test_a_model_goes_with_its_certificates_and_nothing_of_the_machine(hub, trained, tmp_path):
    folder = tmp_path / "m"
    shutil.copytree(trained / "m", folder)
    shutil.copytree(trained / "s", folder / "certificates")
    for name in (".source.json", ".lock", "notes.txt", "certificates/.source.json", ".hidden/best.safetensors"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(str(tmp_path))
    done = sent(folder, radii=(0.1,), license="mit", private=True)
    repository = hub.model("me/net")
    assert repository.private
    assert set(repository.files) == {
        ".gitattributes", "README.md", "model.json", "best.safetensors", "metrics.jsonl", "certificates/manifest.json",
        "certificates/shard-00000.parquet", "certificates/times.jsonl"}
    assert repository.files["best.safetensors"] == (folder / "best.safetensors").read_bytes()
    assert done.revision == repository.sha(1)
    assert done.url == f"{hub.url}/me/net"
    assert b"certified accuracy at 0.1 (l2, sigma 0.25)" in repository.files["README.md"]
    assert str(tmp_path).encode() not in b"".join(repository.files.values())
    assert TOKEN.encode() not in b"".join(repository.files.values())


def test_a_second_push_removes_what_is_no_longer_there(hub, trained):
    sent(trained / "m", certificates=trained / "s", checkpoints=True)
    hub.model("me/net").files["other.txt"] = b"someone's"
    assert "checkpoints/0002/weights.safetensors" in hub.model("me/net").files
    assert not any("state.pt" in name for name in hub.model("me/net").files)
    sent(trained / "m")
    assert set(hub.model("me/net").files) == {
        ".gitattributes", "other.txt", "README.md", "model.json", "best.safetensors", "metrics.jsonl"}


def test_a_store_is_a_dataset(hub, trained):
    assert sent(trained / "p", "me/runs").repo == "datasets/me/runs"
    assert {"manifest.json", "shard-00000.parquet"} < set(hub.repositories["dataset", "me/runs"].files)


def test_certificates_of_another_model_are_refused(hub, trained, tmp_path):
    folder = tmp_path / "m"
    shutil.copytree(trained / "m", folder)
    shutil.copy(trained / "m" / "checkpoints" / "0002" / "weights.safetensors", folder / "best.safetensors")
    if (folder / "best.safetensors").read_bytes() == (trained / "m" / "best.safetensors").read_bytes():
        from safetensors.numpy import load_file, save_file

        save_file({name: value * 2 for name, value in load_file(folder / "best.safetensors").items()},
                  folder / "best.safetensors")
    with pytest.raises(InputError, match="certificates of another model"):
        sent(folder, certificates=trained / "s")
    with pytest.raises(InputError, match="is a predict store"):
        sent(trained / "m", certificates=trained / "p")
    assert changed_requests(hub) == []


def test_what_cannot_be_sent_is_refused_before_the_hub_is_asked(hub, trained, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="neither a model directory"):
        sent(tmp_path / "empty")
    with pytest.raises(FileError, match="no folder"):
        sent(tmp_path / "none")
    shutil.copytree(trained / "s", tmp_path / "s")
    manifest = read_json(tmp_path / "s" / "manifest.json")
    (tmp_path / "s" / "manifest.json").write_text(json.dumps({**manifest, "complete": False}))
    with pytest.raises(StoreError):
        sent(tmp_path / "s")
    with pytest.raises(StoreError, match="go with a model directory"):
        sent(trained / "s", checkpoints=True)
    with pytest.raises(InputError, match="is a model directory"):
        sent(trained / "m", "datasets/me/net")
    for name in ("a/b/c", "me/-x", "me/x.git", "me/a--b", "http://x/y", ""):
        with pytest.raises(ConfigError, match="USER/NAME"):
            sent(trained / "m", name)
    assert hub.requests == []


def test_no_token_or_the_wrong_one(hub, trained, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="set HF_TOKEN"):
        sent(trained / "m")
    monkeypatch.setenv("HF_TOKEN", "hf_" + "y" * 34)
    with pytest.raises(HubError, match="HF_TOKEN") as refused:
        sent(trained / "m")
    assert "yyy" not in str(refused.value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(HubError, match="refuses this for theirs/net"):
        sent(trained / "m", "theirs/net")
    with pytest.raises(HubError, match="no branch dev"):
        sent(trained / "m", revision="dev")
    assert not hub.repositories


def test_folders_of_this_machine_in_a_model_s_identity_are_said(hub, trained, tmp_path):
    folder = tmp_path / "m"
    shutil.copytree(trained / "m", folder)
    card = read_json(folder / "model.json")
    card["data"]["data"] = "parquet:/home/someone/faces"
    (folder / "model.json").write_text(json.dumps(card))
    with pytest.warns(UserWarning, match="/home/someone/faces"):
        sent(folder)


def test_without_the_library(monkeypatch, trained):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"smoothcert\[hub\]"):
        sent(trained / "m")
