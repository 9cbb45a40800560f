"""A store: a folder of records that grows whole shard by whole shard, survives any kill, and can be proved complete.

    manifest.json        identity (compared on resume), provenance (not compared), finished shards with their SHA-256
    shard-00000.parquet  records of images in the order of the run, `SHARD` of them a file
    journal.jsonl        finished images of the open shard, a checksum a line, appended
    times.jsonl          seconds an image; no part of the results

A shard is written, then named in the manifest, then its lines leave the journal: whatever is killed in between,
the next run finds a state it can go on from, and ends with the same bytes as a run that was never interrupted.
"""

import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa

from smoothcert.errors import FileError, IdentityError, StoreError
from smoothcert.runs.files import (
    claim_folder,
    explained,
    locked,
    read_json,
    sha256,
    write_json,
    write_text,
    write_whole,
)
from smoothcert.runs.records import VALUES, Record, Tally, dense_counts, histories
from smoothcert.runs.shards import Shard, Shards, write_shard
from smoothcert.stats import History

VERSION = 1
SHARD = 256


class StoreWriter:
    """Adds records to an open store, by position in the run's list of records. Made by `open_store`."""

    def __init__(self, folder: Path, manifest: dict[str, Any]):
        self._folder, self._manifest = folder, manifest
        self._total = record_count(manifest["identity"])
        self._kind: str = manifest["identity"]["kind"]
        finished = {shard["name"] for shard in manifest["shards"]}
        self._finished = {k for k in range(self._shards) if shard_name(k) in finished}
        journal = read_journal(folder / "journal.jsonl")
        self._open = {p: r for p, r in journal.items() if p // SHARD not in self._finished and p < self._total}
        self._journal: TextIO | None = None
        self._times: TextIO | None = None

    @property
    def _shards(self) -> int:
        return -(-self._total // SHARD)

    def pending(self) -> list[int]:
        """Positions that have no record yet, in order."""
        return [p for p in range(self._total) if p // SHARD not in self._finished and p not in self._open]

    def add(self, position: int, record: Record, seconds: float | None = None) -> None:
        """Keep a finished record; it survives whatever happens after this returns."""
        try:
            if self._journal is None:
                self._journal = self._clean_journal()
            self._journal.write(_line(position, record))
            self._journal.flush()
        except OSError as error:
            raise explained(error, self._folder / "journal.jsonl") from error
        self._open[position] = record
        if seconds is not None:
            self._note_time(record.index, seconds)
        self._close_shard(position // SHARD)

    def finish(self) -> None:
        """Close shards that a killed run left full but unwritten, and refuse to be complete while a record misses."""
        for k in range(self._shards):
            self._close_shard(k)
        if missing := self.pending():
            raise StoreError(f"{len(missing)} of {self._total} records are missing in {self._folder}")
        self.release()
        (self._folder / "journal.jsonl").unlink(missing_ok=True)
        self._manifest["complete"] = True
        write_json(self._folder / "manifest.json", self._manifest)

    def release(self) -> None:
        """Close the files; the next record opens them again."""
        for file in (self._journal, self._times):
            if file is not None:
                file.close()
        self._journal = self._times = None

    def _close_shard(self, k: int) -> None:
        positions = range(k * SHARD, min((k + 1) * SHARD, self._total))
        if k in self._finished or not all(p in self._open for p in positions):
            return
        path = self._folder / shard_name(k)
        write_whole(path, lambda temporary: write_shard(temporary, self._kind, [self._open[p] for p in positions]))
        self._manifest["shards"].append({"name": path.name, "records": len(positions), "sha256": sha256(path)})
        self._manifest["shards"].sort(key=lambda shard: shard["name"])
        write_json(self._folder / "manifest.json", self._manifest)
        self._finished.add(k)
        for p in positions:
            del self._open[p]
        self.release()

    def _clean_journal(self) -> TextIO:
        """Rewrite the journal without damaged or finished lines, and open it for appending."""
        path = self._folder / "journal.jsonl"
        write_text(path, "".join(_line(p, record) for p, record in sorted(self._open.items())))
        return _appending(path)

    def _note_time(self, index: int, seconds: float) -> None:
        try:
            if self._times is None:
                self._times = _appending(self._folder / "times.jsonl")
            self._times.write(json.dumps({"index": index, "seconds": round(seconds, 6)}) + "\n")
        except OSError as error:
            raise explained(error, self._folder / "times.jsonl") from error


@contextmanager
def open_store(folder: Path, identity: dict[str, Any], provenance: dict[str, Any]) -> Iterator[StoreWriter]:
    """Create a store, or go on with one of the same identity; no other process may write meanwhile.

    Raises:
        IdentityError: the folder holds another run; the differing fields are named.
        StoreError: the folder holds something else, or another run is writing to it.
    """
    claim_folder(folder, "manifest.json")
    with locked(folder):
        path = folder / "manifest.json"
        if path.exists():
            manifest = read_manifest(folder)
            check_identity(folder, manifest["identity"], identity)
            for told in manifest["shards"]:
                Shard.read(folder, told)
        else:
            manifest = {"version": VERSION, "identity": identity, "provenance": provenance, "shards": [],
                        "complete": False}
            write_json(path, manifest)
        writer = StoreWriter(folder, manifest)
        try:
            yield writer
        finally:
            writer.release()


@dataclass(frozen=True)
class Store:
    """A store read from disk: what it is, where it came from, and its records in order.

    `at_hand` has the columns of `records.schema(kind)`, without the tallies where `waiting` has those still to be read;
    an unfinished store has the records finished so far.
    """

    folder: Path
    identity: dict[str, Any]
    provenance: dict[str, Any]
    complete: bool
    at_hand: pa.Table
    waiting: Shards | None = None

    @cached_property
    def records(self) -> pa.Table:
        """All columns. The tallies of a store on disk are parsed here, or StoreError where they are corrupt."""
        return self.at_hand if self.waiting is None else self.waiting.whole(self.at_hand)

    @property
    def num_records(self) -> int:
        return self.at_hand.num_rows

    @property
    def kind(self) -> str:
        return self.identity["kind"]

    @property
    def num_classes(self) -> int:
        return self.identity["num_classes"]

    @cached_property
    def correct(self) -> np.ndarray:
        """(M,) bool: the answer is the label; False where abstained."""
        return self.column("prediction") == self.column("label")

    def column(self, name: str) -> np.ndarray:
        """(M,) the values of one column of the records, any but the tallies."""
        values = self.at_hand.column(name).combine_chunks()
        if pa.types.is_boolean(values.type) or not pa.types.is_primitive(values.type) or values.null_count:
            return values.to_numpy(zero_copy_only=False)
        return np.from_dlpack(values)  # to_numpy imports pandas where it is installed: a third of a second

    def counts(self, stage: str) -> np.ndarray:
        """(M, K) int64 votes of one stage, at its last look."""
        tallies = self.records.column("tallies")
        parts = [dense_counts(tallies.slice(start, SHARD), stage, self.num_classes)
                 for start in range(0, max(len(tallies), 1), SHARD)]
        return np.concatenate(parts)

    def histories(self, start: int = 0, length: int | None = None) -> list[History]:
        """The looks of each record, or of `length` of them from `start`."""
        return histories(self.records.column("tallies").slice(start, length), self.num_classes)


def read_store(folder: Path) -> Store:
    """Read a store, checking every shard against the manifest.

    Raises:
        FileError: no such folder or manifest. StoreError: a missing, changed or corrupt shard, named.
    """
    manifest = read_manifest(folder)
    finished = {shard["name"] for shard in manifest["shards"]}
    rest = [record for position, record in sorted(read_journal(folder / "journal.jsonl").items())
            if shard_name(position // SHARD) not in finished]
    identity = manifest["identity"]
    shards = Shards(identity["kind"], [Shard.read(folder, told) for told in manifest["shards"]], rest)
    return Store(folder, identity, manifest["provenance"], manifest["complete"], shards.plain(), shards)


def write_store(folder: Path, identity: dict[str, Any], provenance: dict[str, Any], records: list[Record]) -> None:
    """Write a whole store at once; the same call again changes nothing."""
    with open_store(folder, identity, provenance) as store:
        for position in store.pending():
            store.add(position, records[position])
        store.finish()


def record_count(identity: dict[str, Any]) -> int:
    """How many records a finished store of this identity has: one an image, or as many as it says."""
    return identity["images"]["count"] * identity.get("records_per_image", 1)


def is_store(folder: Path) -> bool:
    return (folder / "manifest.json").is_file()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a store, or FileError / StoreError for what is none."""
    if not folder.exists():
        raise FileError(f"there is no store {folder}")
    if not is_store(folder):
        raise FileError(f"{folder} is no store: it has no manifest.json")
    manifest = read_json(folder / "manifest.json")
    fields = {"version", "identity", "provenance", "shards", "complete"}
    if not isinstance(manifest, dict) or not fields <= set(manifest):
        raise StoreError(f"{folder / 'manifest.json'} is not the manifest of a store")
    if manifest["version"] != VERSION:
        raise StoreError(f"{folder} has store version {manifest['version']}; this smoothcert reads version {VERSION}")
    if [shard["name"] for shard in manifest["shards"] if not re.fullmatch(r"shard-\d{5,}\.parquet", shard["name"])]:
        raise StoreError(f"{folder / 'manifest.json'} names shards that are none of a store's")
    if (kind := manifest["identity"].get("kind")) not in VALUES:
        raise StoreError(f"{folder} is a store of kind {kind!r}; this smoothcert reads {', '.join(VALUES)}")
    return manifest


def check_identity(folder: Path, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise IdentityError, naming every differing field, unless the two are equal."""
    before, now = _flatten(stored), _flatten(wanted)
    fields = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if fields:
        lines = [f"  - {name}: stored {before.get(name)!r}, asked {now.get(name)!r}" for name in fields]
        hint = ("\n`smoothcert recertify` recomputes a finished store at another alpha, method or margin."
                if stored["kind"] == "certify"
                and set(fields) <= {f"procedure.{name}" for name in ("alpha", "method", "margin")} else "")
        raise IdentityError(f"{folder} holds another run, which differs in:\n" + "\n".join(lines)
                            + f"\nGive the same options to resume it, or another -o.{hint}")


def read_journal(path: Path) -> dict[int, Record]:
    """Records by position; lines that are torn or damaged are left out, to be done again."""
    records: dict[int, Record] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            checksum, _, body = line.partition(" ")
            if checksum == _checksum(body):
                entry = json.loads(body)
                records[entry["position"]] = Record.from_row(entry["record"])
    return records


def shard_name(k: int) -> str:
    return f"shard-{k:05d}.parquet"


def _appending(path: Path) -> TextIO:
    return open(path, "a", encoding="utf-8")


def _line(position: int, record: Record) -> str:
    body = json.dumps({"position": position, "record": record.row()})
    return f"{_checksum(body)} {body}\n"


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


__all__ = [
    "SHARD", "Record", "Store", "StoreWriter", "Tally", "is_store", "open_store", "read_store", "record_count",
    "write_store",
]
