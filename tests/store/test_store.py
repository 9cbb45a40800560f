"""Stores: whole or not at all, the same bytes after any kill, damage never silent."""

import hashlib
import json
import multiprocessing
import os
import resource
import signal
import warnings
from dataclasses import replace
from typing import get_args

import numpy as np
import pyarrow.parquet as pq
import pytest

from printed import gathered_table
from smoothcert.errors import CardWarning, FileError, IdentityError, StoreError
from smoothcert.io.files import write_text
from smoothcert.results.certified import Result
from smoothcert.results.gather import gather
from smoothcert.results.studies import votes_of
from smoothcert.stats import certify_counts
from smoothcert.store import store as store_module
from smoothcert.store.identity import Identity
from smoothcert.store.journal import read_journal
from smoothcert.store.manifest import Manifest
from smoothcert.store.recertify import recertify, write_recertified
from smoothcert.store.records import VALUES, Record, Tally, dense_counts, schema
from smoothcert.store.shards import Shard
from smoothcert.store.store import open_store, read_store, shard_name, write_store
from stores import change_manifest, made

K, N = 10, 1000
PROVENANCE = {"versions": {}}


def identity(count: int, **changes) -> dict:
    return {
        "kind": "certify", "num_classes": K, "images": {"count": count, "start": 0, "every": 1}, "seed": 0,
        "noise": {"kind": "grid", "sigma": 0.5, "levels": 255, "reach": 1.0},
        "procedure": {"method": "two-sided", "alpha": 0.001, "n0": 100, "n": N, "margin": None}, **changes,
    }


def records(count: int) -> list[Record]:
    rng = np.random.default_rng(0)
    selection = rng.multinomial(100, rng.dirichlet(np.ones(K) / 5, count))
    estimation = rng.multinomial(N, rng.dirichlet(np.ones(K) / 5, count))
    answers = certify_counts(selection, estimation, 0.5)
    return [
        Record(7 * i, int(rng.integers(K)), int(answers.prediction[i]), {"radius": float(answers.radius[i])},
               bool(i % 3 == 0), [Tally.of("select", selection[i]), Tally.of("estimate", estimation[i])])
        for i in range(count)
    ]


def shards(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(store_module, "SHARD", 16)


def test_what_is_written_is_read(tmp_path):
    written = records(50)
    write_store(tmp_path / "s", identity(50), PROVENANCE, written)
    store = read_store(tmp_path / "s")
    assert store.complete
    assert [Record.from_row(row) for row in store.records.to_pylist()] == written
    assert len(shards(tmp_path / "s")) == 4
    assert np.array_equal(store.correct, [r.prediction == r.label for r in written])
    for stage in (0, 1):
        dense = [np.bincount(r.tallies[stage].classes, weights=r.tallies[stage].counts, minlength=K) for r in written]
        assert np.array_equal(store.counts(("select", "estimate")[stage]), dense)


def test_records_may_come_in_any_order(tmp_path):
    written = records(50)
    write_store(tmp_path / "a", identity(50), PROVENANCE, written)
    with open_store(tmp_path / "b", identity(50), PROVENANCE) as store:
        for position in np.random.default_rng(1).permutation(50):
            store.add(int(position), written[position])
        store.finish()
    assert shards(tmp_path / "a") == shards(tmp_path / "b")


def _write_slowly(folder, written, ready):
    with open_store(folder, identity(len(written)), PROVENANCE) as store:
        ready.put(store.pending())
        for position in store.pending():
            store.add(position, written[position], seconds=0.1)
        store.finish()


def test_sigkill_at_random_moments_loses_nothing(tmp_path, monkeypatch):
    """Killed again and again while writing; what was added before a kill is never pending again."""
    count = 400
    written = records(count)
    context = multiprocessing.get_context("fork")
    rng = np.random.default_rng(2)
    kills, left = 0, count
    while True:
        ready = context.Queue()
        child = context.Process(target=_write_slowly, args=(tmp_path / "s", written, ready))
        child.start()
        pending = ready.get(timeout=60)
        assert len(pending) <= left
        left = len(pending)
        child.join(rng.uniform(0.001, 0.02))
        if child.is_alive():
            os.kill(child.pid, signal.SIGKILL)
            kills += 1
            child.join()
        if child.exitcode == 0:
            break
    assert kills >= 3
    write_store(tmp_path / "whole", identity(count), PROVENANCE, written)
    assert shards(tmp_path / "s") == shards(tmp_path / "whole")
    manifests = [json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("s", "whole")]
    assert manifests[0] == manifests[1]


@pytest.mark.parametrize("stop_after", ["journal", "shard", "manifest"])
def test_a_kill_between_the_steps_of_closing_a_shard(tmp_path, monkeypatch, stop_after):
    written = records(40)

    class Killed(BaseException):
        pass

    def die(*args, **kwargs):
        raise Killed

    with pytest.raises(Killed), open_store(tmp_path / "s", identity(40), PROVENANCE) as store:
        for position in range(15):
            store.add(position, written[position])
        if stop_after == "journal":
            monkeypatch.setattr(store_module, "write_whole", die)
        elif stop_after == "shard":
            monkeypatch.setattr(Manifest, "write", die)
        else:
            monkeypatch.setattr(store, "release", die)
        store.add(15, written[15])
    monkeypatch.undo()
    monkeypatch.setattr(store_module, "SHARD", 16)
    with open_store(tmp_path / "s", identity(40), PROVENANCE) as store:
        assert store.pending() == list(range(16, 40))
        for position in store.pending():
            store.add(position, written[position])
        store.finish()
    write_store(tmp_path / "whole", identity(40), PROVENANCE, written)
    assert shards(tmp_path / "s") == shards(tmp_path / "whole")


def test_damaged_journal_lines_are_done_again(tmp_path):
    written = records(10)
    with open_store(tmp_path / "s", identity(10), PROVENANCE) as store:
        for position in range(8):
            store.add(position, written[position])
    journal = tmp_path / "s" / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    lines[2] = lines[2].replace('"label"', '"lebal"')
    journal.write_text("".join(lines[:-1]) + lines[-1][: len(lines[-1]) // 2])
    assert sorted(read_journal(journal)) == [0, 1, 3, 4, 5, 6]
    with open_store(tmp_path / "s", identity(10), PROVENANCE) as store:
        assert store.pending() == [2, 7, 8, 9]
        for position in store.pending():
            store.add(position, written[position])
        store.finish()
    assert [Record.from_row(row) for row in read_store(tmp_path / "s").records.to_pylist()] == written


def test_an_unfinished_store_can_be_read(tmp_path):
    written = records(40)
    with open_store(tmp_path / "s", identity(40), PROVENANCE) as store:
        for position in range(20):
            store.add(position, written[position])
    store = read_store(tmp_path / "s")
    assert not store.complete
    assert store.records.num_rows == 20


def test_it_refuses_to_be_complete_while_a_record_misses(tmp_path):
    with open_store(tmp_path / "s", identity(3), PROVENANCE) as store:
        store.add(0, records(1)[0])
        with pytest.raises(StoreError, match="2 of 3 records"):
            store.finish()


def test_another_identity_is_refused_with_the_fields_named(tmp_path):
    write_store(tmp_path / "s", identity(3), PROVENANCE, records(3))
    other = identity(3, seed=1)
    other["noise"] = {**other["noise"], "sigma": 0.25}
    with pytest.raises(IdentityError) as caught, open_store(tmp_path / "s", other, PROVENANCE):
        pass
    assert "noise.sigma: stored 0.5, asked 0.25" in str(caught.value)
    assert "seed: stored 0, asked 1" in str(caught.value)
    assert "num_classes" not in str(caught.value)
    other = identity(3)
    other["procedure"] = {**other["procedure"], "alpha": 0.01}
    with pytest.raises(IdentityError, match="recertify"), open_store(tmp_path / "s", other, PROVENANCE):
        pass


def test_one_writer_at_a_time(tmp_path):
    with open_store(tmp_path / "s", identity(3), PROVENANCE):
        context = multiprocessing.get_context("fork")
        queue = context.Queue()

        def second():
            try:
                with open_store(tmp_path / "s", identity(3), PROVENANCE):
                    queue.put("opened")
            except StoreError as error:
                queue.put(str(error))

        child = context.Process(target=second)
        child.start()
        assert "another run is writing" in queue.get(timeout=30)
        child.join()


def test_other_peoples_folders_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(StoreError, match=r"thesis\.txt"), open_store(tmp_path, identity(3), PROVENANCE):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(StoreError, match="is a file"), open_store(tmp_path / "thesis.txt", identity(3), PROVENANCE):
        pass


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_shard_is_named(tmp_path, damage):
    write_store(tmp_path / "s", identity(20), PROVENANCE, records(20))
    shard = tmp_path / "s" / shard_name(1)
    content = bytearray(shard.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    elif damage == "truncate":
        shard.write_bytes(content[:-10])
    else:
        shard.unlink()
    for action in (lambda: read_store(tmp_path / "s"),
                   lambda: write_store(tmp_path / "s", identity(20), PROVENANCE, records(20))):
        with pytest.raises(StoreError, match=r"shard-00001\.parquet"):
            action()


@pytest.mark.parametrize(("content", "words"), [
    ("{", "corrupt"), ("[]", "not the manifest"),
    ('{"version": 2, "identity": {}, "provenance": {}, "shards": [], "complete": true}', "SHA-256"),
    ('{"version": 1}', "not the manifest"),
    ('{"version": 99, "identity": {}, "provenance": {}, "shards": [], "complete": true}', "version 99"),
    ('{"version": 1, "identity": {"kind": "certify"}, "provenance": {}, "shards": [{"name": "../x.parquet"}], '
     '"complete": true}', r"shards\.0\.name: .* got '\.\./x\.parquet'"),
    ('{"version": 1, "identity": {"kind": "new"}, "provenance": {}, "shards": [], "complete": true}', "kind 'new'"),
])
def test_a_broken_manifest_is_named(tmp_path, content, words):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises((FileError, StoreError), match=words):
        read_store(tmp_path)


@pytest.mark.parametrize(("before", "after"), [('"seed": 3', '"seed": 4'), ('"complete": true', '"complete": false'),
                                               ('"sha256": "', '"sha255": "'), ('"version": 2', '"version": 1')])
def test_a_changed_manifest_is_refused(tmp_path, before, after):
    path = made(tmp_path / "s", count=3) / "manifest.json"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    with pytest.raises(StoreError, match=r"manifest\.json (has changed|is not what)"):
        read_store(tmp_path / "s")


def test_a_store_of_version_1_is_read_and_gone_on_with(tmp_path):
    """It had no hash of its manifest, and gets none."""
    path = made(tmp_path / "s", count=3) / "manifest.json"
    old = {**json.loads(path.read_text()), "version": 1}
    old.pop("sha256")
    path.write_text(json.dumps(old))
    assert read_store(path.parent).num_records == 3
    with open_store(path.parent, old["identity"], {}) as store:
        store.finish()
    assert json.loads(path.read_text()) == old


def _parsed(monkeypatch) -> list[str]:
    """The columns that are parsed from now on, one name a parsing."""
    names, parse = [], Shard.columns

    def counted(shard, wanted):
        names.extend(wanted.names)
        return parse(shard, wanted)

    monkeypatch.setattr(Shard, "columns", counted)
    return names


def _with_shard(folder, table=None, content=None) -> None:
    """Put another content under the second shard's name, and its hash into the manifest, as if it had been written."""
    path = folder / shard_name(1)
    if table is not None:
        pq.write_table(table, path, compression="zstd")
    else:
        path.write_bytes(content)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    change_manifest(folder, lambda content: content["shards"][1].update(sha256=digest))


def test_tallies_are_parsed_when_they_are_asked_for_and_once(tmp_path, monkeypatch):
    """One finished shard, and records of the next in the journal: a table needs none of their votes."""
    written = records(20)
    with open_store(tmp_path / "s", identity(40, data={}), PROVENANCE) as store:
        for position in range(20):
            store.add(position, written[position])
    parsed = _parsed(monkeypatch)
    text = gathered_table(gather([str(tmp_path / "s")]), [0.5])
    assert sorted(parsed) == sorted(set(schema("certify").names) - {"tallies"})
    store = read_store(tmp_path / "s")
    told = Result.of(store)
    del parsed[:]
    votes = votes_of(store)
    assert store.counts("select").sum() == 20 * 100
    assert parsed == ["tallies"]
    assert np.array_equal(votes.n_a[told.radius > 0], store.counts("estimate").max(axis=1)[told.radius > 0])
    whole = replace(store, at_hand=store.records, waiting=None)
    again = Result.of(whole)
    assert all(np.array_equal(getattr(told, name), getattr(again, name))
               for name in ("index", "radius", "correct", "abstained", "label"))
    assert f"{100 * np.mean(again.abstained):.1f}%" in text
    assert store.records.schema.equals(schema("certify"))
    assert [Record.from_row(row) for row in store.records.to_pylist()] == written
    assert store.num_records == len(written)


def test_what_was_hashed_is_what_is_read_later(tmp_path):
    """The file may change or go between the two readings: the tallies are those of the bytes that were checked."""
    written = records(32)
    write_store(tmp_path / "s", identity(32), PROVENANCE, written)
    store = read_store(tmp_path / "s")
    (tmp_path / "s" / shard_name(0)).unlink()
    other = pq.read_table(tmp_path / "s" / shard_name(1)).slice(0, 3)
    pq.write_table(other, tmp_path / "s" / shard_name(1))
    assert [Record.from_row(row) for row in store.records.to_pylist()] == written
    with pytest.raises(StoreError, match=r"shard-00000\.parquet is missing"):
        read_store(tmp_path / "s")


def test_a_hash_is_checked_though_no_damaged_column_is_asked(tmp_path):
    """A flipped bit of a shard is seen wherever it is: in the tallies too, which nobody reads here."""
    write_store(tmp_path / "s", identity(20), PROVENANCE, records(20))
    shard = tmp_path / "s" / shard_name(0)
    content = shard.read_bytes()
    for place in range(0, len(content), 97):
        shard.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1:])
        with pytest.raises(StoreError, match=r"shard-00000\.parquet has changed"):
            read_store(tmp_path / "s")


def test_a_file_that_is_not_a_shard_is_named_despite_its_hash(tmp_path):
    write_store(tmp_path / "s", identity(20), PROVENANCE, records(20))
    table = pq.read_table(tmp_path / "s" / shard_name(1))
    for content in (b"PAR1 nothing", (tmp_path / "s" / shard_name(1)).read_bytes()[:-20]):
        _with_shard(tmp_path / "s", content=content)
        with pytest.raises(StoreError, match=r"shard-00001\.parquet is corrupt"):
            read_store(tmp_path / "s")
    _with_shard(tmp_path / "s", table.rename_columns([{"radius": "p_value"}.get(n, n) for n in table.column_names]))
    with pytest.raises(StoreError, match=r"shard-00001\.parquet has not the columns.*wanted.*radius"):
        read_store(tmp_path / "s")
    _with_shard(tmp_path / "s", table.set_column(5, "tallies", table.column("index")))
    store = read_store(tmp_path / "s")
    assert store.column("index")[-1] == 7 * 19
    with pytest.raises(StoreError, match=r"shard-00001\.parquet has not the columns.*tallies"):
        store.counts("select")


def test_counts_are_those_of_the_last_look_of_a_stage(tmp_path):
    """Of any stage in any order, however the column is cut; 0 where a record has none."""
    looks = [[Tally("estimate", 3, [1], [3])], [], [Tally("select", 2, [0, 2], [1, 1]), Tally("estimate", 1, [2], [1]),
                                                   Tally("estimate", 5, [1, 2], [1, 4])]]
    write_store(tmp_path / "s", identity(33), PROVENANCE,
                [replace(one, tallies=looks[k % 3]) for k, one in enumerate(records(33))])
    store = read_store(tmp_path / "s")
    expected = {"estimate": [[0, 3, 0], [0, 0, 0], [0, 1, 4]], "select": [[0, 0, 0], [0, 0, 0], [1, 0, 1]], "none": 0}
    for stage, counts in expected.items():
        assert np.array_equal(store.counts(stage)[:, :3], np.tile(counts, (11, 1)) if counts else np.zeros((33, 3)))
        cut = dense_counts(store.records.column("tallies").slice(14, 7), stage, K)
        assert np.array_equal(cut, store.counts(stage)[14:21])


def test_nothing_there(tmp_path):
    with pytest.raises(FileError, match="there is no store"):
        read_store(tmp_path / "absent")
    with pytest.raises(FileError, match="is not a store"):
        read_store(tmp_path)


def test_a_full_disk_keeps_what_was_finished(tmp_path):
    """A real limit on file size stands in for the disk: every write past it fails as ENOSPC or EFBIG does."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    written = records(200)

    def fill():
        with open_store(tmp_path / "s", identity(200), PROVENANCE) as store:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
            try:
                for position in range(200):
                    store.add(position, written[position])
            except FileError as error:
                queue.put((position, str(error)))

    child = context.Process(target=fill)
    child.start()
    stopped_at, message = queue.get(timeout=60)
    child.join()
    assert "journal.jsonl" in message or "parquet" in message
    assert 0 < stopped_at < 200
    with open_store(tmp_path / "s", identity(200), PROVENANCE) as store:
        assert store.pending()[0] in (stopped_at, stopped_at + 1)
        for position in store.pending():
            store.add(position, written[position])
        store.finish()
    write_store(tmp_path / "whole", identity(200), PROVENANCE, written)
    assert shards(tmp_path / "s") == shards(tmp_path / "whole")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    target = tmp_path / "file.txt"
    write_text(target, "old")
    with pytest.raises(FileError, match="cannot write"):
        write_text(tmp_path / "absent" / "file.txt", "new")
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


class TestRecertify:
    def store(self, tmp_path, count=60):
        write_store(tmp_path / "s", identity(count), PROVENANCE, records(count))
        return read_store(tmp_path / "s")

    @pytest.mark.parametrize("method", ["cohen", "two-sided", "t-certify"])
    @pytest.mark.parametrize("alpha", [0.001, 0.05])
    def test_it_equals_certifying_the_counts(self, tmp_path, method, alpha):
        store = self.store(tmp_path)
        answers, procedure = recertify(store, alpha, method, 0.1)
        direct = certify_counts(store.counts("select"), store.counts("estimate"), 0.5, alpha, method, 0.1)
        assert np.array_equal(answers.radius, direct.radius)
        assert np.array_equal(answers.prediction, direct.prediction)
        assert procedure == {"method": method, "alpha": alpha, "n0": 100, "n": N, "margin": 0.1}

    def test_as_stored_it_changes_nothing(self, tmp_path):
        store = self.store(tmp_path)
        answers, _ = recertify(store)
        assert np.array_equal(answers.radius, store.column("radius"))

    def test_the_result_is_a_store_again(self, tmp_path):
        store = self.store(tmp_path)
        answers, procedure = recertify(store, alpha=0.05, method="cohen")
        write_recertified(tmp_path / "again", store, answers, procedure)
        again = read_store(tmp_path / "again")
        assert np.array_equal(again.column("radius"), answers.radius)
        assert again.identity.procedure.alpha == 0.05
        assert np.array_equal(again.counts("estimate"), store.counts("estimate"))
        back, _ = recertify(again, alpha=0.001, method="two-sided")
        assert np.array_equal(back.radius, store.column("radius"))

    def test_a_predict_store_is_refused(self, tmp_path):
        told = identity(1, kind="predict")
        write_store(tmp_path / "p", told, PROVENANCE, [replace(records(1)[0], values={"p_value": 0.5})])
        with pytest.raises(StoreError, match="kind predict"):
            recertify(read_store(tmp_path / "p"))

    def test_counts_that_contradict_themselves_are_refused(self, tmp_path):
        wrong = replace(records(1)[0], tallies=[Tally("select", 100, [0], [99]), Tally("estimate", 5, [1], [5])])
        write_store(tmp_path / "s", identity(1), PROVENANCE, [wrong])
        with pytest.raises(StoreError, match="add up"):
            recertify(read_store(tmp_path / "s"))


def test_an_identity_knows_the_kinds_that_have_values():
    assert get_args(Identity.model_fields["kind"].annotation) == tuple(VALUES)


def test_another_card_goes_on_with_a_warning_and_is_kept(tmp_path):
    """Also in the provenance of the store; a store that was made on a CPU has no word of it."""
    told = {card: {**PROVENANCE, "cards": [card]} for card in ("A100", "H200")}
    with open_store(tmp_path / "s", identity(3), told["A100"]) as store:
        store.add(0, records(3)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with open_store(tmp_path / "s", identity(3), told["A100"]):
            pass
    with pytest.warns(CardWarning, match="made on A100 and on H200: .* close calls"):
        write_store(tmp_path / "s", identity(3), told["H200"], records(3))
    assert read_store(tmp_path / "s").provenance.cards == ["A100", "H200"]
    write_store(tmp_path / "cpu", identity(3), PROVENANCE, records(3))
    assert "cards" not in read_store(tmp_path / "cpu").provenance.raw
