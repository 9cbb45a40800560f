"""A store: a folder of records that grows whole shard by whole shard, survives any kill, and can be proved complete.

    manifest.json        identity (compared on resume), provenance (not compared), finished shards with their SHA-256
    shard-00000.parquet  records of images in the order of the run, `SHARD` of them a file
    journal.jsonl        finished images of the open shard, a checksum a line, appended
    times.jsonl          seconds an image; no part of the results
    .source.json         where the images lay; no part of the results (see `source`)

A shard is written, then named in the manifest, then its lines leave the journal: whatever is killed in between,
the next run finds a state it can go on from, and ends with the same bytes as a run that was never interrupted.
"""

import json
import warnings
from bisect import insort
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from smoothcert.display import Displayed
from smoothcert.errors import CardWarning, IdentityError, StoreError
from smoothcert.io.files import claim_folder, lock_folder, sha256, write_whole
from smoothcert.io.paths import Place, place
from smoothcert.stats import History
from smoothcert.stats.claims import is_right
from smoothcert.store.comparison import is_vouched_for
from smoothcert.store.frames import flat_table, to_pandas, to_polars
from smoothcert.store.identity import Identity
from smoothcert.store.journal import NAME as JOURNAL
from smoothcert.store.journal import Lines, journal_line, journal_lines, read_journal
from smoothcert.store.manifest import NAME as MANIFEST
from smoothcert.store.manifest import (
    Manifest,
    Provenance,
    ShardEntry,
    check_identity,
    describe_cards,
    is_store,
    read_manifest,
)
from smoothcert.store.records import Record, Tally, dense_counts, histories
from smoothcert.store.shards import SHARD, Shard, Shards, as_table, schema, write_shard

if TYPE_CHECKING:
    import pandas
    import polars

_JOURNAL_SECONDS, _TIMES_SECONDS = 5.0, 60.0  # how much an object storage may be behind


class StoreWriter:
    """An open store, to which records are added by their position in the run's list. `open_store` makes it."""

    def __init__(self, folder: Place, manifest: Manifest) -> None:
        self._folder, self._manifest = folder, manifest
        self._total, self._kind = manifest.identity.record_count, manifest.identity.kind
        finished = {entry.name for entry in manifest.shards}
        self._finished = {k for k in range(self._shards) if shard_name(k) in finished}
        self._open = _read_open_records(folder, manifest)
        self._journal: Lines | None = None
        self._times: Lines | None = None

    @property
    def _shards(self) -> int:
        return -(-self._total // SHARD)

    def pending(self) -> list[int]:
        """Return the positions that have no record yet, in order."""
        return [p for p in range(self._total) if p // SHARD not in self._finished and p not in self._open]

    @property
    def needs_name(self) -> bool:
        """True where the run goes on only under a name for its model: known by its answers alone, the model may have
        changed since the records that are there."""
        identity = self._manifest.identity
        known = identity.model_or_none is None or identity.model.by != "probe"
        return not known and 0 < len(self.pending()) < self._total

    def add(self, position: int, record: Record, seconds: float | None = None) -> None:
        """Keep a finished record; on a disk it survives whatever happens after this returns (see `Lines`)."""
        if self._journal is None:  # begins without the damaged and finished lines of the one before
            self._journal = Lines(self._folder / JOURNAL, journal_lines(self._open), _JOURNAL_SECONDS)
        self._open[position] = record
        self._journal.add(journal_line(position, record))
        if seconds is not None:
            if self._times is None:
                self._times = Lines(self._folder / "times.jsonl", None, _TIMES_SECONDS)
            self._times.add(json.dumps({"index": record.index, "seconds": round(seconds, 6)}) + "\n")
        self._close_shard(position // SHARD)

    def finish(self) -> None:
        """Close shards that a killed run left full but unwritten, and refuse to be complete while a record misses."""
        for k in range(self._shards):
            self._close_shard(k)
        if missing := self.pending():
            raise StoreError(f"{len(missing)} of {self._total} records are missing in {self._folder}")
        self.release()
        (self._folder / JOURNAL).unlink(missing_ok=True)
        self._manifest.complete = True
        self._manifest.write(self._folder)

    def release(self) -> None:
        """Close the files; the next record opens them again."""
        with ExitStack() as both:
            for file in (self._journal, self._times):
                if file is not None:
                    both.callback(file.close)
        self._journal = self._times = None

    def _close_shard(self, k: int) -> None:
        positions = range(k * SHARD, min((k + 1) * SHARD, self._total))
        if k in self._finished or not all(p in self._open for p in positions):
            return
        self._write_shard(k, as_table(self._kind, [self._open[p] for p in positions]))
        self._manifest.write(self._folder)
        for p in positions:
            del self._open[p]
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _write_shard(self, k: int, records: pa.Table) -> None:
        """Write a shard, which is believed once the manifest that names it is written."""
        path = self._folder / shard_name(k)
        write_whole(path, lambda temporary: write_shard(temporary, records))
        entry = ShardEntry.model_validate({"name": path.name, "records": records.num_rows, "sha256": sha256(path)})
        insort(self._manifest.shards, entry, key=lambda entry: (len(entry.name), entry.name))
        self._finished.add(k)

    def add_all(self, records: pa.Table) -> None:
        """Keep all records at once, those of positions 0, 1, 2, ..., shard by shard and without the journal."""
        if records.num_rows != self._total:
            raise StoreError(f"{self._folder} is to hold {self._total} records, and {records.num_rows} were given")
        # Parquet's names of what is in a list, in tables that were read, are others than the schema's.
        records = records.cast(schema(self._kind))
        for k in sorted(set(range(self._shards)) - self._finished):
            self._write_shard(k, records.slice(k * SHARD, SHARD).combine_chunks())
        self._open.clear()
        self._manifest.write(self._folder)


@contextmanager
def open_store(
    folder: Place, identity: Identity | Mapping[str, Any], provenance: Mapping[str, Any]
) -> Iterator[StoreWriter]:
    """Create a store, or go on with one of the same identity; no other process of this machine may write meanwhile.

    In an object storage nothing can be locked: two runs of one identity write the same bytes, and both end complete.

    Raises:
        IdentityError: the folder holds another run, the differing fields named; or one whose model could have changed
            unnoticed.
        StoreError: the folder holds something else, or another run is writing to it.
    """
    identity = identity if isinstance(identity, Identity) else Identity.parse(identity)
    claim_folder(folder, MANIFEST)
    with lock_folder(folder):
        if is_store(folder):
            manifest = read_manifest(folder)
            if is_vouched_for(manifest.identity.raw, identity.raw):
                manifest.identity = manifest.identity.replace(model=identity.raw["model"])
            check_identity(folder, manifest.identity.raw, identity.raw)
            cards = list(dict.fromkeys([*manifest.provenance.cards, *provenance.get("cards", ())]))
            if manifest.provenance.cards and cards != manifest.provenance.cards:
                warnings.warn(f"{folder} {describe_cards(cards)}", CardWarning, stacklevel=3)
                manifest.provenance = Provenance.model_validate({**manifest.provenance.raw, "cards": cards})
            for entry in manifest.shards:
                Shard.read(folder, entry)
        else:
            manifest = Manifest(identity, Provenance.model_validate(json.loads(json.dumps(provenance))))
            manifest.write(folder)
        writer = StoreWriter(folder, manifest)
        if writer.needs_name:
            raise IdentityError(
                f"{folder} cannot be gone on with: its model is known by its answers to fixed inputs alone, and may "
                f"have changed since. If it has not, give it a name with --model-id (change the name whenever the "
                f"model changes); if it has, start again with another -o, and with --model-id from the start")
        try:
            yield writer
        finally:
            writer.release()


@dataclass(frozen=True, repr=False)
class Store(Displayed):
    """A store read from disk: what it is, where it came from, and its records in order.

    `at_hand` has the columns of `records.schema(kind)`, without the tallies where `waiting` has those still to be read;
    an unfinished store has the records finished so far.
    """

    folder: Place
    identity: Identity
    provenance: Provenance
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
        return self.identity.kind

    @property
    def num_classes(self) -> int:
        return self.identity.num_classes

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes, where the run left them."""
        names = self.provenance.classes
        return tuple(names) if names and len(names) == self.num_classes else None

    @cached_property
    def correct(self) -> np.ndarray:
        """(M,) bool: True where the answer is the label, or of its group; False where it abstained."""
        return is_right(self.identity.procedure.claim, self.column("prediction"), self.column("label"))

    def check_complete(self) -> None:
        """Raise StoreError unless the run is finished."""
        if not self.complete:
            raise StoreError(f"{self.folder} is not complete: finish its run first (the same command resumes it)")

    def column(self, name: str) -> np.ndarray:
        """Return (M,) values of one column of the records, any but the tallies."""
        chunks = self.at_hand.column(name)
        values = chunks.chunk(0) if chunks.num_chunks == 1 else chunks.combine_chunks()  # which would copy the one
        if not pa.types.is_primitive(values.type) or values.null_count:
            return values.to_numpy(zero_copy_only=False)
        # to_numpy imports pandas where it is installed: a third of a second.
        is_true = pa.types.is_boolean(values.type)
        return np.from_dlpack(values.cast(pa.uint8())).astype(bool) if is_true else np.from_dlpack(values)

    def lists(self, name: str, width: int) -> np.ndarray:
        """Return (M, width) values of a column of lists. Raises StoreError for lists of another length."""
        lists: Any = self.at_hand.column(name).combine_chunks()
        flat = lists.flatten()
        if lists.null_count or flat.null_count or not np.all(np.diff(lists.offsets.to_numpy()) == width):
            raise StoreError(f"{self.folder} is damaged: its column {name} must have {width} numbers in each record")
        return flat.to_numpy().reshape(-1, width)

    def rows_of(self, index: np.ndarray) -> np.ndarray:
        """Return the rows of the records of these images (M,), each of which has one record."""
        order = np.argsort(self.column("index"))
        return order[np.searchsorted(self.column("index"), index, sorter=order)]

    def counts(self, stage: str) -> np.ndarray:
        """Return (M, K) int64 votes of one stage, at its last look."""
        tallies = self.records.column("tallies")
        parts = [dense_counts(tallies.slice(start, SHARD), stage, self.num_classes)
                 for start in range(0, max(len(tallies), 1), SHARD)]
        return np.concatenate(parts)

    def histories(self, start: int = 0, length: int | None = None) -> list[History]:
        """Return the looks of each record, or of `length` of them from `start`."""
        return histories(self.records.column("tallies").slice(start, length), self.num_classes)

    def to_arrow(self) -> pa.Table:
        """Return a row for each record, without nested columns; see `smoothcert.store.frames.flat_table`."""
        return flat_table(self)

    def to_pandas(self) -> "pandas.DataFrame":
        """Return `to_arrow` as a pandas DataFrame. Raises MissingExtraError without pandas."""
        return to_pandas(self)

    def to_polars(self) -> "polars.DataFrame":
        """Return `to_arrow` as a polars DataFrame. Raises MissingExtraError without polars."""
        return to_polars(self)

    def save(self, folder: str | Place) -> "Store":
        """Write the records to a new folder, as the run would have written them there, and return that store.

        Raises:
            StoreError: the store is not finished, or the folder holds something else. IdentityError: another run.
        """
        if not self.complete:
            raise StoreError(f"{self.folder} is not finished: finish its run first")
        to = place(folder) if isinstance(folder, str) else folder
        write_table(to, self.identity, self.provenance.raw, self.records)
        return read_store(to)

    def display_facts(self) -> dict[str, Any]:
        identity = self.identity
        count = identity.record_count
        done = f"{self.num_records:,}" if self.complete else f"{self.num_records:,} of {count:,}"
        known = identity.data_or_none.raw
        data = {"data": f"{known['name']} ({known['split']})"} if known else {}
        return {"kind": self.kind, "records": done, **data, "model": self.provenance.model,
                "sigma": identity.noise.sigma, "folder": str(self.folder)}


def read_store(folder: str | Place) -> Store:
    """Read a store, checking every shard against the manifest.

    Raises:
        FileError: no such folder or manifest. StoreError: a missing, changed or corrupt shard, named.
    """
    folder = place(folder) if isinstance(folder, str) else folder
    manifest = read_manifest(folder)
    rest = list(_read_open_records(folder, manifest).values())
    shards = Shards(manifest.identity.kind, [Shard.read(folder, entry) for entry in manifest.shards], rest)
    return Store(folder, manifest.identity, manifest.provenance, manifest.complete, shards.plain(), shards)


def write_store(
    folder: Place, identity: Identity | Mapping[str, Any], provenance: Mapping[str, Any], records: list[Record]
) -> None:
    """Write a whole store at once; the same call again changes nothing."""
    with open_store(folder, identity, provenance) as store:
        for position in store.pending():
            store.add(position, records[position])
        store.finish()


def write_table(
    folder: Place, identity: Identity | Mapping[str, Any], provenance: Mapping[str, Any], records: pa.Table
) -> None:
    """Write a whole store at once, as `write_store` does, from a table of its records."""
    with open_store(folder, identity, provenance) as store:
        store.add_all(records)
        store.finish()


def _read_open_records(folder: Place, manifest: Manifest) -> dict[int, Record]:
    """Return the journal's records by position, in order, that are in no finished shard."""
    finished, total = {entry.name for entry in manifest.shards}, manifest.identity.record_count
    return {position: record for position, record in sorted(read_journal(folder / JOURNAL).items())
            if position < total and shard_name(position // SHARD) not in finished}


def shard_name(k: int) -> str:
    return f"shard-{k:05d}.parquet"


__all__ = [
    "SHARD", "Record", "Store", "StoreWriter", "Tally", "is_store", "open_store", "read_store", "write_store",
    "write_table",
]
