"""What is taken from the hub: whole, checked and at one commit, or nothing."""

import time

import pytest

import smoothcert
from smoothcert.errors import FileError, HubError, InputError, ModelError, StoreError
from smoothcert.hub.options import PullConfig, PushConfig
from smoothcert.hub.pull import pull
from smoothcert.hub.push import push
from smoothcert.limits import JSON_BYTES
from smoothcert.store.store import read_store


def got(out, repo="me/net", **options):
    return pull(PullConfig.parse({"repo": repo, "out": out, **options}))


@pytest.fixture
def pushed(hub, trained):
    """The stand-in with a model, its certificates, and the store of predictions."""
    push(PushConfig.parse({"folder": trained / "m", "repo": "me/net", "certificates": trained / "s"}))
    push(PushConfig.parse({"folder": trained / "p", "repo": "me/runs"}))
    return hub


def test_a_model_comes_back_as_it_was(pushed, trained, tmp_path):
    done = got(tmp_path / "new" / "m")
    assert done.revision == pushed.model("me/net").sha(1)
    assert (done.repo, done.kind) == ("me/net", "model")
    held = {str(path.relative_to(done.folder)) for path in done.folder.rglob("*") if path.is_file()}
    assert held == set(done.files) == {name for name in pushed.model("me/net").files if name != ".gitattributes"}
    for name in ("model.json", "best.safetensors"):
        assert (done.folder / name).read_bytes() == (trained / "m" / name).read_bytes()
    assert read_store(done.folder / "certificates").records.equals(read_store(trained / "s").records)
    again = smoothcert.certify(str(done.folder), out=done.folder / "certificates", n=1000, max_images=20, seed=0)
    assert again.complete  # the same model: its run is that of the store
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["m"]


def test_a_store_comes_back_by_either_name(pushed, tmp_path):
    assert got(tmp_path / "a", "me/runs").repo == got(tmp_path / "b", "datasets/me/runs").repo == "datasets/me/runs"
    assert read_store(tmp_path / "a").complete


def test_an_earlier_commit(pushed, trained, tmp_path):
    first = pushed.model("me/net").sha(1)
    push(PushConfig.parse({"folder": trained / "m", "repo": "me/net"}))
    assert not (got(tmp_path / "now").folder / "certificates").exists()
    assert (got(tmp_path / "then", revision=first).folder / "certificates").is_dir()
    with pytest.raises(HubError, match="no revision v9"):
        got(tmp_path / "never", revision="v9")


def test_an_integer_network_comes_back_as_it_was(hub, trained, tmp_path):
    smoothcert.quantise(str(trained / "m"), images=16, out=tmp_path / "int8")
    push(PushConfig.parse({"folder": tmp_path / "int8", "repo": "me/int8"}))
    readme = hub.model("me/int8").files["README.md"].decode()
    assert "`m` in int8, 650 parameters" in readme
    assert "calibrated at sigma 0.25" in readme
    done = got(tmp_path / "back", "me/int8")
    assert set(done.files) == {"README.md", "model.json", "model.onnx"}
    assert (done.folder / "model.onnx").read_bytes() == (tmp_path / "int8" / "model.onnx").read_bytes()
    assert smoothcert.predict(str(done.folder), n=100, max_images=2).complete
    hub.model("me/int8").files["model.onnx"] += b"x"
    with pytest.raises(FileError, match="their SHA-256 differ"):
        got(tmp_path / "damaged", "me/int8")
    assert not (tmp_path / "damaged").exists()


def test_other_files_stay_there(pushed, tmp_path):
    pushed.model("me/net").files["evil.py"] = b"print(1)"
    pushed.model("me/net").files["checkpoints/0002/state.pt"] = b"pickle"
    with pytest.warns(UserWarning, match=r"checkpoints/0002/state.pt, evil.py"):
        got(tmp_path / "m")
    assert not (tmp_path / "m" / "evil.py").exists()
    assert not (tmp_path / "m" / "checkpoints").exists()


@pytest.mark.parametrize(("name", "content", "error"), [
    ("model.json", b"{}", FileError),
    ("best.safetensors", b"no weights", FileError),
    ("certificates/shard-00000.parquet", b"PAR1", StoreError),
    ("certificates/manifest.json", b"[]", StoreError),
])
def test_damaged_files_leave_nothing(pushed, tmp_path, name, content, error):
    pushed.model("me/net").files[name] = content
    with pytest.raises(error):
        got(tmp_path / "m")
    assert list(tmp_path.glob("*m*")) == []


def test_weights_of_another_network_leave_nothing(pushed, tmp_path):
    files = pushed.model("me/net").files
    files["model.json"] = files["model.json"].replace(b'"linear"', b'"lenet"')
    with pytest.raises((ModelError, InputError)):
        got(tmp_path / "m")
    assert list(tmp_path.glob("*m*")) == []


def test_sizes_are_checked_before_anything_is_loaded(pushed, tmp_path, monkeypatch):
    monkeypatch.setitem(smoothcert.hub.contents._LARGEST, ".json", 10)
    assert smoothcert.hub.contents._LARGEST[".jsonl"] == JSON_BYTES
    pushed.requests.clear()
    with pytest.raises(FileError, match=r"model.json of me/net in bytes is .*; the limit is 10"):
        got(tmp_path / "m")
    assert not any("resolve" in line for line in pushed.requests)


def test_what_is_no_model_and_no_store(pushed, tmp_path):
    files = pushed.model("me/net").files
    del files["model.json"]
    with pytest.raises(HubError, match="neither a model directory"):
        got(tmp_path / "m")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(InputError, match="give a new folder"):
        got(tmp_path / "full")


def test_hubs_that_do_not_give_it(pushed, tmp_path, monkeypatch):
    with pytest.raises(HubError, match=r"no repository me/none .*HF_TOKEN"):
        got(tmp_path / "m", "me/none")
    pushed.model("me/net").private = True
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match=r"no repository me/net .*private"):
        got(tmp_path / "m")
    pushed.failing = 500
    with pytest.raises(HubError, match="answered 500"):
        got(tmp_path / "m")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(HubError, match=r"cannot reach the hub at http://127\.0\.0\.1:9"):
        got(tmp_path / "m")
    assert time.monotonic() - started < 10
    assert list(tmp_path.glob("*m*")) == []
