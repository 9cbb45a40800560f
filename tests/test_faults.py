"""Runs that are killed, run out of disk or are damaged: nothing is lost, nothing is silently wrong."""

from collections import Counter
from dataclasses import replace

import pytest

import faulting
from faulting import KINDS, injected, place, small_shards
from smoothcert.runs.executors import here
from smoothcert.store import journal
from smoothcert.store.records import Record
from smoothcert.store.store import StoreWriter
from steps import can_mount

SAMPLE = dict.fromkeys(KINDS, 4) | {"worker killed": 0, "disk full": 6, "crash at a step": 6, "byte changed": 6}
"""How many of each kind; tests/runs/test_workers.py kills workers."""


@pytest.fixture(autouse=True)
def shards_of_sixteen():
    with small_shards():
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with small_shards():
        return place(tmp_path_factory.mktemp("faults"), 40)


@pytest.mark.parametrize("kind", [kind for kind, times in SAMPLE.items() if times])
def test_what_a_fault_leaves_is_finished_or_named(home, kind):
    if kind == "small disk full" and not can_mount():
        pytest.skip("needs the right to mount a file system")
    outcomes = [injected(kind, home, seed) for seed in range(SAMPLE[kind])]
    bad = [outcome.words for outcome in outcomes if outcome.result not in ("recovered", "loud")]
    assert not bad
    found = Counter(outcome.result for outcome in outcomes)
    assert found["loud"] if kind == "disk full" else found["recovered"]


def test_a_changed_byte_of_a_manifest_or_shard_is_seen(home):
    """Every 16th byte, and each time another bit."""
    home.run(home.folder)
    for name in ("manifest.json", "shard-00001.parquet"):
        path = home.folder / name
        content = path.read_bytes()
        for at in range(0, len(content), 16):
            path.write_bytes(content[:at] + bytes([content[at] ^ 1 << at // 16 % 8]) + content[at + 1 :])
            assert faulting.lie(home) is None, at
        path.write_bytes(content)
    assert faulting.lie(home, finished=True) is None


def _forgetful(home, monkeypatch):
    pending = StoreWriter.pending
    monkeypatch.setattr(StoreWriter, "pending", lambda self: pending(self)[:-3])
    return home


def _inconstant(home, monkeypatch):
    """Other records the second time."""
    def run(out):
        again = replace(home.instant(), between=lambda position: None)
        records = [replace(record, label=(record.label + 1) % 10) for record in again._records]
        again.__dict__["_records"] = records
        return again.fill(here)
    return replace(home, run=run)


def _unbelieving(home, monkeypatch):
    """No line of the journal is checked, nor are its records."""
    from_row = Record.from_row
    monkeypatch.setattr(journal, "_checksum", lambda body: "0" * 8)
    monkeypatch.setattr(Record, "from_row", lambda row: from_row({**row, "label": 9 - row["label"]}))
    return home


def _abrupt(home, monkeypatch):
    def run(out):
        raise KeyError("images")
    return replace(home, run=run)


@pytest.mark.parametrize(("planted", "result"), [
    (_forgetful, "lost"), (_inconstant, "silently wrong"), (_unbelieving, "silently wrong"), (_abrupt, "crashed"),
])
def test_a_planted_defect_is_seen(home, monkeypatch, planted, result):
    broken = planted(home, monkeypatch)
    faulting.clear(home.folder)
    faulting.stopped(home, 20)
    assert faulting.judged(broken, faulting.Fault("stopped"))[0] == result
