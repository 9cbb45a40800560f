"""Shards: the parquet files that hold a store's finished records, checked before they are believed.

Most questions need an answer or a radius an image, and no votes: the columns of plain values are parsed when a store
is opened, the nested tallies, which cost more than all others together, when they are first asked for. Both come from
the same bytes, those that were hashed, so that what becomes of the file meanwhile changes nothing.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from smoothcert.errors import StoreError
from smoothcert.io.paths import Place
from smoothcert.limits import within
from smoothcert.store.manifest import ShardEntry
from smoothcert.store.records import Record, schema

SHARD = 256
"""Records of a shard."""

_NESTED = "tallies"
_DAMAGED = "the store is damaged: restore it, or start the run again in another folder"


@dataclass(frozen=True)
class Shard:
    """A shard's bytes, whose hash is the one that it was written with."""

    path: Place
    content: bytes
    records: int

    @classmethod
    def read(cls, folder: Place, entry: ShardEntry) -> Self:
        """Read the shard that a manifest names. Raises StoreError where it is missing or has changed."""
        path = folder / entry.name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StoreError(f"the shard {path} is missing or cannot be read: {error.strerror or error}") from None
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise StoreError(f"the shard {path} has changed since it was written (its SHA-256 differs from the "
                             f"manifest's): restore it, or certify again into another folder")
        within(f"the number of records of {path}", entry.records, SHARD, _DAMAGED, StoreError)
        return cls(path, content, entry.records)

    def columns(self, wanted: pa.Schema) -> pa.Table:
        """Return some columns of its records. Raises StoreError where they are corrupt, or others than `wanted`."""
        try:
            file = pq.ParquetFile(pa.BufferReader(self.content))
            if file.metadata.num_rows != self.records:  # before memory is taken for what a file claims
                raise StoreError(f"the shard {self.path} holds {file.metadata.num_rows} records, and the manifest "
                                 f"tells of {self.records}: {_DAMAGED}")
            found = file.read(wanted.names, use_threads=False)
        except (OSError, ValueError, LookupError, TypeError, MemoryError, pa.ArrowException) as error:
            raise StoreError(f"the shard {self.path} is corrupt: {error}") from None
        if not found.schema.equals(wanted):
            raise StoreError(f"the shard {self.path} has not the columns of its kind of store: wanted "
                             f"{', '.join(wanted.names)}, found {', '.join(found.schema.names) or 'none of them'}")
        return found


@dataclass(frozen=True)
class Shards:
    """The records of finished shards, then those of `rest` (of the journal), in order."""

    kind: str
    shards: Sequence[Shard]
    rest: Sequence[Record]

    def plain(self) -> pa.Table:
        """Return all columns but the tallies. Raises what `Shard.columns` raises."""
        return self._columns(pa.schema([field for field in schema(self.kind) if field.name != _NESTED]))

    def whole(self, plain: pa.Table) -> pa.Table:
        """Return all columns: those that `plain()` gave, and the tallies. Raises what `Shard.columns` raises."""
        return plain.append_column(_NESTED, self._columns(pa.schema([schema(self.kind).field(_NESTED)])).column(0))

    def _columns(self, wanted: pa.Schema) -> pa.Table:
        parts = [shard.columns(wanted) for shard in self.shards]
        if self.rest or not parts:
            parts.append(as_table(self.kind, self.rest).select(wanted.names))
        return pa.concat_tables(parts)


def write_shard(path: Path, records: pa.Table) -> None:
    """Write one parquet file; the same records give the same bytes."""
    content = io.BytesIO()
    pq.write_table(records, content, compression="zstd", write_page_checksum=True)
    path.write_bytes(content.getvalue())


def as_table(kind: str, records: Sequence[Record]) -> pa.Table:
    try:
        return pa.Table.from_pylist([record.row() for record in records], schema=schema(kind))
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        raise StoreError(f"the journal holds records of another kind of store: {error}") from None
