"""Stores in an object storage: the same bytes as in a folder, whatever is interrupted."""

import itertools
import json
import logging
from pathlib import Path

import numpy as np
import pyarrow.fs
import pytest
from typer.testing import CliRunner

from smoothcert.cli.main import app
from smoothcert.errors import ConfigError, FileError, IdentityError, InputError, StoreError
from smoothcert.io.paths import RemotePath, place
from smoothcert.runs.options import CertifyConfig
from smoothcert.store import journal
from smoothcert.store import store as store_module
from smoothcert.store.adversaries import list_adversaries, read_adversaries, save_adversaries
from smoothcert.store.identity import Identity
from smoothcert.store.manifest import Manifest, Provenance, read_manifest
from smoothcert.store.records import Record
from smoothcert.store.store import open_store, read_store, write_store
from smoothcert.training.options import TrainConfig
from stores import made


@pytest.fixture(scope="module")
def bucket():
    """A bucket of a real S3 server on this machine; the URI of a fresh folder a call."""
    server = pytest.importorskip("moto.server", reason="needs moto").ThreadedMotoServer("127.0.0.1", port=0)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    query = f"scheme=http&endpoint_override=127.0.0.1:{server.get_host_and_port()[1]}&region=us-east-1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        files, _ = pyarrow.fs.FileSystem.from_uri(f"s3://bucket?{query}&allow_bucket_creation=true")
        files.create_dir("bucket")
        number = itertools.count()
        yield lambda name="run": f"s3://bucket/{next(number)}/{name}?{query}"
    server.stop()


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(store_module, "SHARD", 16)


@pytest.fixture
def local(tmp_path, small_shards) -> Path:
    return made(tmp_path / "run", count=40)


def content(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith((".", "times"))}


def parts(folder: Path) -> tuple[Identity, dict, list[Record]]:
    store = read_store(folder)
    return store.identity, store.provenance.raw, [Record.from_row(row) for row in store.records.to_pylist()]


def test_a_store_has_the_same_bytes_there(local, bucket):
    identity, provenance, records = parts(local)
    there = place(bucket())
    write_store(there, identity, provenance, records)
    write_store(there, identity, provenance, records)
    assert content(there) == content(local)
    assert set(content(there)) == {"manifest.json", *(f"shard-0000{k}.parquet" for k in range(3))}


def test_every_reader_takes_its_uri(local, bucket, tmp_path):
    uri = bucket()
    write_store(place(uri), *parts(local))
    run = CliRunner()
    for verb in (["table", "--radii", "0.1,0.3"], ["info", "--json"], ["recertify", "--alpha", "0.01"],
                 ["verify"], ["cost", "--images", "1000", "--rate", "5000", "--n", "100"]):
        here, there = (run.invoke(app, [verb[0], at, *verb[1:]]) for at in (str(local), uri))
        assert here.exit_code == there.exit_code == 0, there.output
        shown = str(place(uri))
        assert there.output.replace(shown, str(local)).splitlines()[1:] == here.output.splitlines()[1:]
        assert "region" not in there.output
    for verb, name in (["report"], "a.html"), (["plot", "curve"], "a.png"), (["export"], "a.npz"):
        done = run.invoke(app, [*verb, uri, "-o", str(tmp_path / name)])
        assert done.exit_code == 0, done.output
        assert (tmp_path / name).stat().st_size > 1000
    again = bucket("again")
    assert run.invoke(app, ["recertify", uri, "--alpha", "0.01", "-o", again]).exit_code == 0
    assert read_store(place(again)).identity.procedure.alpha == 0.01


def test_an_interrupted_run_goes_on_there(local, bucket):
    identity, provenance, records = parts(local)
    there = place(bucket())
    with pytest.raises(KeyboardInterrupt), open_store(there, identity, provenance) as store:
        for position in (0, 1, *range(20, 40)):
            store.add(position, records[position], seconds=1.0)
        raise KeyboardInterrupt
    assert not read_store(there).complete
    assert read_store(there).num_records == 22
    with open_store(there, identity, provenance) as store:
        assert store.pending() == list(range(2, 20))
        for position in store.pending():
            store.add(position, records[position], seconds=1.0)
        store.finish()
    assert content(there) == content(local)
    assert len((there / "times.jsonl").read_text().splitlines()) == 40


def test_a_driver_that_is_killed_loses_what_was_not_yet_sent(local, bucket, monkeypatch):
    """Nothing is closed: the journal is behind by up to its interval, whole shards are there."""
    identity, provenance, records = parts(local)
    now = [0.0]
    monkeypatch.setattr(journal.time, "monotonic", lambda: now[0])
    there = place(bucket())
    manifest = Manifest(identity, Provenance.model_validate(provenance))
    manifest.write(there)
    killed = store_module.StoreWriter(there, manifest)
    for position in range(20):
        killed.add(position, records[position])
        now[0] += 2
    killed.add(20, records[20])
    with open_store(there, identity, provenance) as store:
        assert store.pending() == list(range(20, 40))
        for position in store.pending():
            store.add(position, records[position])
        store.finish()
    assert content(there) == content(local)


def test_two_drivers_of_one_run_are_harmless(local, bucket):
    identity, provenance, records = parts(local)
    there = place(bucket())
    with open_store(there, identity, provenance) as one, open_store(there, identity, provenance) as two:
        for position in range(40):
            one.add(position, records[position])
            two.add(39 - position, records[39 - position])
        one.finish()
        assert read_store(there).complete
        two.finish()
    assert content(there) == content(local)
    with (pytest.raises(IdentityError, match=r"alpha: stored 0\.001, asked 0\.5"),
          open_store(there, identity.replace(procedure={**identity.procedure.raw, "alpha": 0.5}), provenance)):
        pass


def test_damage_there_is_found(local, bucket):
    there = place(bucket())
    write_store(there, *parts(local))
    shard = there / "shard-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"shard-00001\.parquet has changed"):
        read_store(there)
    shard.unlink()
    with pytest.raises(StoreError, match=r"shard-00001\.parquet is missing"):
        read_store(there)


def test_attacked_images_there(local, bucket):
    there = place(bucket())
    with pytest.raises(StoreError, match="does not see"):
        save_adversaries(there, "000-00000", np.arange(2), np.zeros((2, 1, 8, 8)))
    write_store(there, *parts(local))
    save_adversaries(there, "000-00000", np.arange(2), np.full((2, 1, 8, 8), 0.5))
    list_adversaries(there, {"000-00000": {"eps": 1.0, "m": 1, "steps": 2}})
    index, images = read_adversaries(there, eps=1.0)
    assert index.tolist() == [0, 1]
    assert np.all(images == 0.5)


def test_what_is_refused(bucket, local, tmp_path):
    with pytest.raises(InputError, match="s3://BUCKET/FOLDER"):
        place("s3:///run")
    with pytest.raises(InputError, match="foo://x"):
        place("foo://x/y")
    nowhere = place(bucket().replace("//bucket", "//other"))
    with pytest.raises(FileError, match="other"), open_store(nowhere, parts(local)[0], {}):
        pass
    with pytest.raises(FileError, match="no store s3://bucket"):
        read_store(place(bucket()))
    there = place(bucket())
    (there / "other.txt").write_bytes(b"")
    with pytest.raises(StoreError, match=r"holds other\.txt"):
        write_store(there, *parts(local))
    with pytest.raises(ConfigError, match="out: give a folder or file of this machine, got s3"):
        TrainConfig.parse({"out": "s3://bucket/model", "data": "digits", "model": "mlp", "sigma": 0.5})
    with pytest.raises(ConfigError, match=r"(?s)2 mistakes.*out: cannot open foo"):
        CertifyConfig.parse({"model": "m", "out": "foo://a/b", "alpha": 3})


def test_places_are_paths(tmp_path):
    assert place(str(tmp_path)) == place(f"file://{tmp_path}") == tmp_path
    assert place("file:///a%20b") == Path("/a b")
    there = place("s3://bucket/a/b.npz?region=us-east-1")
    assert isinstance(there, RemotePath)
    assert (str(there), there.name, there.suffix) == ("s3://bucket/a/b.npz", "b.npz", ".npz")
    assert str(there.parent.parent) == "s3://bucket/"
    assert str(there.parent / "c") == "s3://bucket/a/c"
    assert there.parent.parent.name == "bucket"


def test_the_manifest_there_is_the_local_one(local, bucket):
    there = place(bucket())
    write_store(there, *parts(local))
    assert read_manifest(there) == read_manifest(local)
    assert json.loads((there / "manifest.json").read_text())["complete"]
